"""`LiveServerTestCase`: a WSGI server in threads of the test's process, asked over HTTP.

Where SQLite's test database is in memory, the server's threads and the test share one connection.
Then two threads may not query at once: rows of one come to the other, on stock asyncio, too.
"""

import asyncio
import json
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from io import StringIO

from asgiref.sync import async_to_sync
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.core.management import call_command
from django.db import connection
from django.test import LiveServerTestCase
from shelf.models import Greeting

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, data: dict[str, str] | None = None, cookie: str = "") -> str:
    body = None if data is None else urllib.parse.urlencode(data).encode()
    request = urllib.request.Request(url, body, {"Cookie": cookie} if cookie else {})
    with direct.open(request, timeout=20) as response:
        return response.read().decode()


class LiveTests(LiveServerTestCase):
    def setUp(self) -> None:
        call_command("seed", stdout=StringIO())

    def needs_a_connection_per_thread(self) -> None:
        if connection.is_in_memory_db():
            self.skipTest("the database is in memory: its threads share a connection")

    def test_sync_and_async_views_show_the_tests_rows(self) -> None:
        for path in ("/books/", "/async/books/", "/api/books/"):
            self.assertIn("Moby-Dick", fetch(self.live_server_url + path))

    def test_an_async_view_of_the_server_writes_what_the_test_reads(self) -> None:
        token = "t" * 32
        data = {"csrfmiddlewaretoken": token, "name": "Lin", "text": "live"}
        page = fetch(f"{self.live_server_url}/guestbook/", data, f"csrftoken={token}")
        self.assertIn("live", page)
        self.assertEqual(Greeting.objects.filter(name="Lin").count(), 1)

    def test_ways_of_concurrency_run_in_a_servers_thread(self) -> None:
        for way, says in (("gather", "weather, news, prices"), ("timeout", "timed out after")):
            found = json.loads(fetch(f"{self.live_server_url}/ways/{way}/?format=json"))
            self.assertIn(says, " ".join(found["said"]))
            self.assertLess(found["elapsed"], found["one_after_another"] + 0.5)

    def test_many_at_once(self) -> None:
        self.needs_a_connection_per_thread()
        urls = [self.live_server_url + path for path in ("/books/", "/async/books/")] * 6
        with ThreadPoolExecutor(6) as threads:
            for page in threads.map(fetch, urls):
                self.assertIn("Moby-Dick", page)

    def test_views_that_fail_are_answered_with_500(self) -> None:
        for path in ("/errors/sync/", "/errors/async/"):
            with self.assertRaises(urllib.error.HTTPError) as caught:
                fetch(self.live_server_url + path)
            self.assertEqual(caught.exception.code, 500)
            caught.exception.close()

    async def test_an_async_test_asks_from_a_thread(self) -> None:
        await Greeting.objects.acreate(name="Async", text="from an async test")
        page = await asyncio.to_thread(fetch, f"{self.live_server_url}/guestbook/")
        self.assertIn("from an async test", page)

    def test_async_to_sync_beside_the_server(self) -> None:
        self.needs_a_connection_per_thread()

        async def both() -> list[str]:
            urls = (f"{self.live_server_url}/async/books/", f"{self.live_server_url}/books/")
            return list(await asyncio.gather(*(asyncio.to_thread(fetch, url) for url in urls)))

        for page in async_to_sync(both)():
            self.assertIn("Moby-Dick", page)


class StaticLiveTests(StaticLiveServerTestCase):
    def test_static_files_are_served(self) -> None:
        self.assertIn("--ink", fetch(f"{self.live_server_url}/static/shelf/site.css"))
