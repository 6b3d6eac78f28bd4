"""The same project, served by its ASGI application."""

from django.core.asgi import get_asgi_application

from tests.server import django_site

urlpatterns = django_site.urlpatterns
application = get_asgi_application()
