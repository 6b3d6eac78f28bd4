"""`manage.py test`: the app through Django's own test clients, without any server."""

import asyncio
from io import StringIO

from django.core.management import call_command
from django.test import TestCase
from django.urls import reverse

from .models import Book, Greeting, Note
from .seed_data import BOOKS
from .ways import WAYS


class ShelfTests(TestCase):
    """The shelf, seeded once for all tests."""

    @classmethod
    def setUpTestData(cls) -> None:
        """Fill the test database as the demo does."""
        call_command("seed", stdout=StringIO())

    def test_seeding_again_adds_nothing(self) -> None:
        """The seed command is idempotent."""
        before = (Book.objects.count(), Note.objects.count(), Greeting.objects.count())
        call_command("seed", stdout=StringIO())
        after = (Book.objects.count(), Note.objects.count(), Greeting.objects.count())
        self.assertEqual(before, after)

    def test_list_shows_every_book(self) -> None:
        """All titles are on the page."""
        response = self.client.get(reverse("shelf:books"))
        for book in BOOKS:
            self.assertContains(response, book.title_zh)

    def test_a_note_is_saved_and_its_reader_remembered(self) -> None:
        """POST writes the note; the session fills the name in on the next book."""
        alice, moby = (
            reverse("shelf:book", args=["alice"]),
            reverse("shelf:book", args=["moby-dick"]),
        )
        response = self.client.post(alice, {"reader": "Lin", "text": "读完了"}, follow=True)
        self.assertRedirects(response, alice)
        self.assertContains(response, "读完了")
        self.assertContains(self.client.get(moby), 'value="Lin"')

    async def test_async_pages_show_the_same_rows_as_sync_ones(self) -> None:
        """The async list holds what the sync list holds."""
        response = await self.async_client.get(reverse("shelf:books-async"), {"q": "西游"})
        self.assertContains(response, "Journey to the West")
        self.assertNotContains(response, "Moby-Dick")

    async def test_unknown_book_is_a_404_in_the_async_view(self) -> None:
        """aget() raising DoesNotExist becomes a 404."""
        response = await self.async_client.get(reverse("shelf:book-async", args=["no-such"]))
        self.assertEqual(response.status_code, 404)

    async def test_gather_overlaps_its_awaits(self) -> None:
        """Elapsed time is well below the sum of the sleeps, 0.3 + 0.4 + 0.5 s."""
        url = reverse("shelf:way", args=["gather"])
        report = (await self.async_client.get(url, {"format": "json"})).json()
        self.assertGreaterEqual(report["one_after_another"], 1.19)
        self.assertLess(report["elapsed"], 1.1)

    async def test_every_way_has_a_page_with_its_source(self) -> None:
        """Each way runs and shows the function that ran.

        In a task per request, as a server has it: before CPython 3.13 a TaskGroup that failed
        leaves a cancel request on its task, and before 3.11.3 `asyncio.timeout` takes that for
        somebody else's and lets its CancelledError through.
        """
        for slug, way in WAYS.items():
            request = self.async_client.get(reverse("shelf:way", args=[slug]))
            response = await asyncio.create_task(request)
            self.assertContains(response, f"async def {way.run.__name__}")
