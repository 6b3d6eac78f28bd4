"""Settings of the measured project: what `django-admin startproject` writes, in production.

Invariants: DEBUG is off; nothing here depends on the server; what differs between measured sites
comes from the environment, so that every server gets the same project.

    BENCH_MIDDLEWARE    default (startproject's seven) or none
    BENCH_DATABASE      sqlite or postgres
    BENCH_DATABASE_AT   SQLite: the file; PostgreSQL: the folder of its socket
    BENCH_POOL          connections in psycopg's pool, for PostgreSQL; 0: no pool
    BENCH_CONN_MAX_AGE  seconds that a connection lives on after a request (Django's default: 0)
"""

from __future__ import annotations

import os

SECRET_KEY = "fixed, so that a session made by one process is valid in all others"
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "shop",
]

MIDDLEWARE = {
    "none": [],
    "default": [
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
}[os.environ["BENCH_MIDDLEWARE"]]

ROOT_URLCONF = "bench_site.urls"
WSGI_APPLICATION = "bench_site.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
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

POOL = int(os.environ["BENCH_POOL"])
DATABASES = {
    "default": {
        "sqlite": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["BENCH_DATABASE_AT"],
        },
        "postgres": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "bench",
            "HOST": os.environ["BENCH_DATABASE_AT"],
            "OPTIONS": {"pool": {"min_size": POOL, "max_size": POOL}} if POOL else {},
        },
    }[os.environ["BENCH_DATABASE"]]
    | {"CONN_MAX_AGE": int(os.environ["BENCH_CONN_MAX_AGE"])}
}

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
