"""Settings of the rules' project: a base that the tests' profiles change.

RULES_SETTINGS is a JSON object of settings that replace those below; RULES_DATABASE is a JSON
object that is merged into the default database's entry.
"""

import json
import os
from typing import Any

SECRET_KEY = "only for tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "rules_site.urls"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "rules_site",
]
# The tables come from `migrate --run-syncdb`: no history is under test.
MIGRATION_MODULES = dict.fromkeys(("auth", "contenttypes", "sessions", "rules_site"))
MIDDLEWARE: list[str] = []
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": False,
        "OPTIONS": {
            "loaders": [
                (
                    "django.template.loaders.locmem.Loader",
                    {"hello.html": "{{ greeting }}, {{ name }}"},
                )
            ]
        },
    }
]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "rules_site.engines.sqlite",
        "NAME": "rules.sqlite3",
        **json.loads(os.environ.get("RULES_DATABASE", "{}")),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Without DEBUG Django mails its errors; these go to the server's log, where the tests look.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django": {"handlers": ["console"], "level": "WARNING", "propagate": False}},
}

globals().update(json.loads(os.environ.get("RULES_SETTINGS", "{}")))
