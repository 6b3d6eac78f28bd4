"""Settings of the demo site: Django's own defaults, SQLite, and no service to install.

Everything that a deployment changes comes from the environment:

    SITE_DEBUG          "1" (default) or "0"
    SITE_SECRET_KEY     needed when SITE_DEBUG is "0"
    SITE_ALLOWED_HOSTS  comma-separated; default: this machine's own names
    SITE_DATABASE       path of the SQLite file; default: db.sqlite3 beside manage.py
    SITE_LOG_LEVEL      default INFO

The middleware is the full list that `django-admin startproject` writes, on purpose: the demo
shows what an ordinary project does on an asynchronous server, not a pared-down one.
"""

import os
from importlib.util import find_spec
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


def _flag(name: str, default: bool) -> bool:
    """Read a yes/no setting; a typing error must not switch DEBUG on unnoticed."""
    text = os.environ.get(name, "").strip().lower()
    if not text:
        return default
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name}={text!r} is neither yes nor no: set it to 1 or 0.")


DEBUG = _flag("SITE_DEBUG", default=True)

SECRET_KEY = os.environ.get("SITE_SECRET_KEY", "")
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured(
            "SITE_SECRET_KEY is empty: with SITE_DEBUG=0 set it to a long random string."
        )
    SECRET_KEY = "for-the-demo-only-anyone-can-read-this-key-in-the-repository"

ALLOWED_HOSTS = [
    host.strip()
    for host in os.environ.get("SITE_ALLOWED_HOSTS", "localhost,.localhost,127.0.0.1,[::1]").split(
        ","
    )
    if host.strip()
]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "shelf",
]
if find_spec("rondel") is not None:
    # `manage.py runserver` and `serve` on Rondel. A project that is always served by it has this in
    # the list above, first; here the same settings serve to compare with other servers.
    INSTALLED_APPS.insert(0, "rondel.django")

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "site_project.urls"
WSGI_APPLICATION = "site_project.wsgi.application"
ASGI_APPLICATION = "site_project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SITE_DATABASE") or BASE_DIR / "db.sqlite3",
        # Seconds a writer waits for another writer: SQLite has one write lock for the file.
        "OPTIONS": {"timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# In cookies only: the default store also looks into the session, and a template rendered in an
# async view may not touch the database.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "format": "{asctime} {levelname} {name}: {message}",
            "datefmt": "%Y-%m-%d %H:%M:%S",
            "style": "{",
        },
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "line"},
    },
    "loggers": {
        # Django mails errors and is silent on the console when DEBUG is off; a demo has no
        # mail server, and a traceback that nobody sees helps nobody.
        "django": {
            "handlers": ["console"],
            "level": os.environ.get("SITE_LOG_LEVEL", "INFO").upper(),
            "propagate": False,
        },
        "shelf": {
            "handlers": ["console"],
            "level": os.environ.get("SITE_LOG_LEVEL", "INFO").upper(),
            "propagate": False,
        },
    },
}
