"""Prints the Cookie header's value of an administrator who is signed in to the example project.

Usage: sign_in.py    (in the project's folder, with the settings' environment)

`seed` makes its own administrator only while DEBUG is on, and the measured site has it off.
"""

from __future__ import annotations

import os
import sys

import django

sys.path.insert(0, os.getcwd())
os.environ["DJANGO_SETTINGS_MODULE"] = "site_project.settings"
django.setup()

from django.conf import settings  # noqa: E402 - models and client need setup() first
from django.contrib.auth.models import User  # noqa: E402
from django.test import Client  # noqa: E402

client = Client()
client.force_login(User.objects.create_superuser("keeper"))
print(f"{settings.SESSION_COOKIE_NAME}={client.session.session_key}")
