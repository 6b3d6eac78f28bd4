"""The ASGI application, made as `startproject` makes it."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rules_site.settings")

application = get_asgi_application()
