"""pytest-django's fixtures, and a loop of the test's own on the main thread.

There sync code has no thread of the test's to go to, as `async_to_sync` gives it one: it goes to
the thread that all such code shares. So these tests commit what both threads have to see.
"""

import asyncio
import threading
import urllib.request
from collections.abc import Coroutine
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from shelf.models import Greeting

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """As pytest-asyncio does it; the shared thread's connection ends with the test."""

    async def whole() -> Any:
        try:
            return await main
        finally:
            await sync_to_async(connections.close_all)()

    return asyncio.run(whole())


@pytest.fixture
def greeting(transactional_db: None) -> Greeting:
    return Greeting.objects.create(name="Lin", text="你好")


def test_client_and_async_client_see_the_tests_rows(
    greeting: Greeting, client: Any, async_client: Any
) -> None:
    async def ask() -> str:
        return (await async_client.get("/guestbook/")).content.decode()

    assert greeting.text in client.get("/guestbook/").content.decode()
    assert greeting.text in run(ask())


def test_the_async_client_asks_views_at_once(greeting: Greeting, async_client: Any) -> None:
    async def ask() -> list[int]:
        urls = ["/books/", "/async/books/", "/guestbook/", "/where/"] * 3
        found = await asyncio.gather(*(async_client.get(url) for url in urls))
        return [each.status_code for each in found]

    assert run(ask()) == [200] * 12


def test_sync_code_of_a_loop_on_the_main_thread_shares_one_other_thread(greeting: Greeting) -> None:
    async def threads() -> list[int]:
        return await asyncio.gather(*(sync_to_async(threading.get_ident)() for _ in range(5)))

    found = set(run(threads()))
    assert len(found) == 1
    assert threading.get_ident() not in found


def test_what_async_code_commits_the_test_reads(greeting: Greeting) -> None:
    async def write() -> int:
        await Greeting.objects.acreate(name="Async", text="Hello")
        return await Greeting.objects.acount()

    assert run(write()) == 2
    assert Greeting.objects.filter(name="Async").exists()


@pytest.mark.django_db
def test_a_marked_test_is_rolled_back(
    client: Any, django_assert_num_queries: Any, django_user_model: Any
) -> None:
    client.force_login(django_user_model.objects.create_superuser("keeper"))
    assert "keeper" in client.get("/admin/").content.decode()
    with django_assert_num_queries(1):
        assert not Greeting.objects.exists()


def test_the_database_is_refused_without_a_mark() -> None:
    async def read() -> int:
        return await Greeting.objects.acount()

    with pytest.raises(RuntimeError, match="Database access not allowed"):
        Greeting.objects.count()
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        asyncio.run(read())


def test_a_live_server_shows_the_tests_rows(greeting: Greeting, live_server: Any) -> None:
    def fetch() -> str:
        with direct.open(f"{live_server.url}/guestbook/", timeout=20) as response:
            return response.read().decode()

    async def ask() -> list[str]:
        return await asyncio.gather(*(asyncio.to_thread(fetch) for _ in range(3)))

    assert greeting.text in fetch()
    assert [greeting.text in page for page in asyncio.run(ask())] == [True] * 3


def test_settings_are_changed_for_one_test(settings: Any, client: Any) -> None:
    settings.ALLOWED_HOSTS = ["elsewhere"]
    assert client.get("/upload/").status_code == 400
