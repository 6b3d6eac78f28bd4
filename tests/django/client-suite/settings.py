"""The example's settings for this suite's runs; without Rondel's app where asyncio is stock.

CLIENTS_DATABASE names a file for the test database; else it is in memory, Django's default.
"""

import os

from site_project.settings import *  # noqa: F403 - settings are made this way
from site_project.settings import DATABASES, INSTALLED_APPS

if os.environ["CLIENTS_ON"] == "stock" and "rondel.django" in INSTALLED_APPS:
    INSTALLED_APPS.remove("rondel.django")

if name := os.environ.get("CLIENTS_DATABASE"):
    DATABASES["default"]["TEST"] = {"NAME": name}

# Users are made for many classes, and Django's default takes its time on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
TEST_RUNNER = "clients.runner.Runner"
