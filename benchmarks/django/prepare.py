"""Makes the measured site's tables, rows, user and session, and tells what it answers.

Usage: prepare.py PATH...    (with the settings' environment; run once per database)

Prints one JSON object: `cookie`, the header value of a signed-in browser, and `answers`, for each
PATH the body that Django's own test client got with that cookie.  Every server must then give these
very bytes.  Anything but status 200 ends it with an error: no figure is taken of an error page.
"""

from __future__ import annotations

import json
import os
import sys

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "bench_site.settings"
django.setup()

from django.conf import settings  # noqa: E402 - models and client need setup() first
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402
from shop.models import Book  # noqa: E402

BOOKS = 20


def main() -> None:
    call_command("migrate", verbosity=0, interactive=False)
    if not Book.objects.exists():
        Book.objects.bulk_create(
            Book(pk=n, title=f"Volume {n:02}", author=f"Author & Sons {n:02}", year=1990 + n)
            for n in range(1, BOOKS + 1)
        )
    reader, made = User.objects.get_or_create(username="reader")
    if made:
        reader.set_unusable_password()
        reader.save()
    client = Client(HTTP_HOST="localhost")
    client.force_login(reader)
    session = client.session
    session["theme"] = "paper"
    session.save()
    answers: dict[str, str] = {}
    for path in sys.argv[1:]:
        response = client.get(f"/{path}")
        if response.status_code != 200:
            raise SystemExit(f"/{path} answers {response.status_code}")
        answers[path] = response.content.decode()
    name = settings.SESSION_COOKIE_NAME
    print(json.dumps({"cookie": f"{name}={session.session_key}", "answers": answers}))


main()
