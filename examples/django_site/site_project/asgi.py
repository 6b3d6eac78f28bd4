"""ASGI entry point: `rondel serve site_project.asgi:application`.

Django leaves static files to `runserver` or to a web server in front. A demo has neither, so the
application serves them itself, with the admin's among them, whether DEBUG is on or off.
"""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_project.settings")

application = ASGIStaticFilesHandler(get_asgi_application())
