"""`manage.py seed`: fill the shelf. Running it again changes nothing.

Invariant: what a person added or edited stays; only what is missing is written.
"""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import transaction

from shelf.models import Author, Book, Greeting, Note
from shelf.seed_data import BOOKS, GREETINGS, NOTES

DEMO_USER = "admin"
DEMO_PASSWORD = "admin"


class Command(BaseCommand):
    """Write the demo data, and the demo administrator when DEBUG is on."""

    help = "Fill the shelf with the demo's books, and create admin/admin when DEBUG is on."

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        """Write what is missing and say how much that was."""
        new_books = self._books()
        new_lines = self._notes_and_greetings()
        new_admin = self._administrator()
        self.stdout.write(
            f"seed: {new_books} books and {new_lines} notes and greetings added, "
            f"{Book.objects.count()} books on the shelf."
        )
        if new_admin:
            self.stdout.write(
                f"seed: administrator {DEMO_USER!r} created with the password {DEMO_PASSWORD!r}: "
                "for the demo only."
            )

    def _books(self) -> int:
        """Add the books that are not there; return how many those were."""
        added = 0
        for seed in BOOKS:
            author, _ = Author.objects.get_or_create(
                name=seed.author, defaults={"name_zh": seed.author_zh}
            )
            _, created = Book.objects.get_or_create(
                slug=seed.slug,
                defaults={
                    "title": seed.title,
                    "title_zh": seed.title_zh,
                    "author": author,
                    "year": seed.year,
                    "hue": seed.hue,
                    "summary": seed.summary,
                },
            )
            added += created
        return added

    def _notes_and_greetings(self) -> int:
        """Add what the first visitor sees; return how many lines those were."""
        added = 0
        for slug, reader, text in NOTES:
            book = Book.objects.get(slug=slug)
            # filter().exists(), as a person may well write the same note twice.
            if not book.notes.filter(reader=reader, text=text).exists():
                Note.objects.create(book=book, reader=reader, text=text)
                added += 1
        for name, text in GREETINGS:
            if not Greeting.objects.filter(name=name, text=text).exists():
                Greeting.objects.create(name=name, text=text)
                added += 1
        return added

    def _administrator(self) -> bool:
        """Create the demo administrator once; a site without DEBUG gets no such password."""
        users = get_user_model().objects
        if not settings.DEBUG or users.filter(username=DEMO_USER).exists():
            return False
        users.create_superuser(DEMO_USER, "admin@example.com", DEMO_PASSWORD)
        return True
