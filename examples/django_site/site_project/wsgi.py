"""WSGI entry point, for comparing with the classic way of serving Django."""

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_project.settings")

application = StaticFilesHandler(get_wsgi_application())
