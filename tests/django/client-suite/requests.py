"""`Client`, `AsyncClient` and the request factories, on sync and async views of the example."""

import asyncio
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from traceback import extract_tb
from typing import Any
from unittest import skipIf

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django import VERSION
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core import signals
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.test import (
    AsyncClient,
    AsyncRequestFactory,
    Client,
    RequestFactory,
    SimpleTestCase,
    TestCase,
    override_settings,
)
from django.test.signals import setting_changed
from django.urls import path
from shelf.models import Greeting, Note
from shelf.views import api, books, pages
from shelf.views.pages import DeliberateError
from site_project.urls import urlpatterns as site_urls


def sync_name(request: HttpRequest) -> HttpResponse:
    from django.conf import settings

    return HttpResponse(settings.LANGUAGE_CODE)


async def async_name(request: HttpRequest) -> HttpResponse:
    return await sync_to_async(sync_name)(request)


async def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse((await request.auser()).get_username())


async def visits(request: HttpRequest) -> HttpResponse:
    count = await request.session.aget("visits", 0) + 1
    await request.session.aset("visits", count)
    return HttpResponse(str(count))


urlpatterns = [
    path("name/sync/", sync_name),
    path("name/async/", async_name),
    path("who/", who),
    path("visits/", visits),
    *site_urls,
]
# And `asend`, `auser`: of 5.0.
with_async_sessions = skipIf(VERSION < (5, 1), "Django 5.1 brought asynchronous sessions")
URLS = override_settings(ROOT_URLCONF="clients.test_requests")


class Seeded(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        call_command("seed", stdout=StringIO())
        cls.keeper = get_user_model().objects.create_superuser("keeper", "k@example.com", "secret")


@URLS
class ClientTests(Seeded):
    """A sync test: it asks sync and async views, and the session lasts."""

    def test_sync_and_async_views_answer_alike(self) -> None:
        for url in ("/books/", "/async/books/"):
            response = self.client.get(url, {"q": "west"})
            self.assertContains(response, "Journey to the West")
            self.assertTemplateUsed(response, "shelf/book_list.html")
            self.assertEqual(response.context["books"][0].slug, "journey-to-the-west")

    def test_an_async_view_writes_in_the_tests_transaction(self) -> None:
        data = {"name": "Lin", "text": "你好"}
        response = self.client.post("/guestbook/", data, follow=True)
        self.assertRedirects(response, "/guestbook/")
        self.assertContains(response, "你好")
        self.assertEqual(Greeting.objects.filter(name="Lin").count(), 1)

    def test_an_upload_arrives_whole(self) -> None:
        file = BytesIO(b"x" * 100_000)
        file.name = "x.bin"
        response = self.client.post("/upload/?format=json", {"file": file})
        self.assertEqual(response.json()["size"], 100_000)

    @with_async_sessions
    def test_sessions_and_logins_last_from_view_to_view(self) -> None:
        self.assertTrue(self.client.login(username="keeper", password="secret"))
        self.assertEqual(self.client.get("/who/").content, b"keeper")
        self.assertContains(self.client.get("/admin/"), "keeper")
        self.assertEqual([self.client.get("/visits/").content for _ in "abc"], [b"1", b"2", b"3"])
        self.client.logout()
        self.assertEqual(self.client.get("/who/").content, b"")

    def test_what_a_view_raises_reaches_the_test(self) -> None:
        for url in ("/errors/sync/", "/errors/async/"):
            with self.assertRaises(DeliberateError):
                self.client.get(url)
            tolerant = Client(raise_request_exception=False)
            response = tolerant.get(url)
            self.assertEqual(response.status_code, 500)
            self.assertIs(response.exc_info[0], DeliberateError)

    def test_a_stream_of_an_async_view_is_read_to_its_end(self) -> None:
        response = self.client.get("/stream/", {"lines": "3", "delay": "0"})
        with warnings.catch_warnings():
            # Django says that a sync reader collects it all.
            warnings.simplefilter("ignore")
            lines = b"".join(response).decode().splitlines()
        self.assertEqual(len(lines), 3)

    def test_settings_that_a_test_overrides_hold_in_views(self) -> None:
        with self.settings(LANGUAGE_CODE="zh-hans"):
            for url in ("/name/sync/", "/name/async/"):
                self.assertEqual(self.client.get(url).content, b"zh-hans")


@URLS
class AsyncClientTests(Seeded):
    """An async test, likewise."""

    async def test_sync_and_async_views_answer_alike(self) -> None:
        for url in ("/books/", "/async/books/"):
            response = await self.async_client.get(url, {"q": "west"})
            self.assertContains(response, "Journey to the West")
            self.assertTemplateUsed(response, "shelf/book_list.html")

    async def test_views_write_in_the_tests_transaction(self) -> None:
        response = await self.async_client.post("/guestbook/", {"name": "Lin", "text": "你好"})
        self.assertEqual(response.status_code, 302)
        self.assertEqual(await Greeting.objects.filter(name="Lin").acount(), 1)
        data = {"reader": "Lin", "text": "读完了"}
        response = await self.async_client.post("/books/alice/", data)
        self.assertEqual(response.status_code, 302)
        self.assertEqual(await Note.objects.filter(reader="Lin").acount(), 1)
        # The session that the sync view wrote.
        self.assertContains(await self.async_client.get("/books/moby-dick/"), 'value="Lin"')

    @with_async_sessions
    async def test_sessions_and_logins_last_from_view_to_view(self) -> None:
        client = self.async_client
        self.assertTrue(await client.alogin(username="keeper", password="secret"))
        self.assertEqual((await client.get("/who/")).content, b"keeper")
        self.assertContains(await client.get("/admin/"), "keeper")
        found = [(await client.get("/visits/")).content for _ in "abc"]
        self.assertEqual(found, [b"1", b"2", b"3"])

    async def test_what_a_view_raises_reaches_the_test(self) -> None:
        for url in ("/errors/sync/", "/errors/async/"):
            with self.assertRaises(DeliberateError):
                await self.async_client.get(url)
            response = await AsyncClient(raise_request_exception=False).get(url)
            self.assertEqual(response.status_code, 500)

    async def test_streams_are_read_piece_by_piece(self) -> None:
        response = await self.async_client.get("/stream/", {"lines": "3", "delay": "0"})
        pieces = [piece async for piece in response.streaming_content]
        self.assertEqual(len(pieces), 3)
        feed = await self.async_client.get("/events/feed/", {"count": "2", "delay": "0"})
        text = b"".join([piece async for piece in feed.streaming_content])
        self.assertEqual(text.count(b"event: tick"), 2)

    async def test_requests_can_be_made_at_once(self) -> None:
        urls = ["/books/", "/async/books/", "/api/books/", "/where/", "/upload/"] * 3
        responses = await asyncio.gather(*(AsyncClient().get(url) for url in urls))
        self.assertEqual([each.status_code for each in responses], [200] * len(urls))

    async def test_a_timeout_of_the_test_cancels_the_view(self) -> None:
        with self.assertRaises(TimeoutError):
            async with asyncio.timeout(0.05):
                await self.async_client.get("/ways/gather/")
        self.assertEqual((await self.async_client.get("/api/books/")).json()["count"], 14)

    async def test_settings_that_a_test_overrides_hold_in_views(self) -> None:
        with self.settings(LANGUAGE_CODE="zh-hans"):
            for url in ("/name/sync/", "/name/async/"):
                self.assertEqual((await self.async_client.get(url)).content, b"zh-hans")


class FactoryTests(Seeded):
    """Views called with requests that a factory made."""

    async def test_an_async_request_for_an_async_view(self) -> None:
        request = AsyncRequestFactory().get("/async/books/alice/", headers={"X-Mark": "1"})
        self.assertEqual(request.headers["X-Mark"], "1")
        self.assertEqual(request.scope["type"], "http")
        response = await books.book_detail_async(request, "alice")
        self.assertContains(response, "Lewis Carroll")

    async def test_an_async_request_for_a_sync_view(self) -> None:
        request = AsyncRequestFactory().post("/x/", {"reader": "Lin", "text": "读完了"})
        request.session, request._messages = {}, FakeMessages()
        response = await sync_to_async(books.book_detail)(request, "alice")
        self.assertEqual(response.status_code, 302)
        self.assertEqual(request.session["reader"], "Lin")

    def test_a_sync_test_calls_an_async_view(self) -> None:
        request = RequestFactory().get("/api/books/")
        request.user = AnonymousUser()
        self.assertEqual(async_to_sync(api.books)(request).status_code, 200)
        with self.assertRaises(DeliberateError):
            async_to_sync(pages.boom_async)(request)

    async def test_a_body_is_read_in_an_async_view(self) -> None:
        body = b'{"a": 1}'
        request = AsyncRequestFactory().post("/", body, content_type="application/json")
        self.assertEqual(request.body, body)
        self.assertEqual(request.headers["Content-Length"], str(len(body)))


class FakeMessages:
    """Takes what `messages.success` adds."""

    def add(self, *args: Any) -> None:
        pass


@URLS
class SignalTests(Seeded):
    """Each signal once for each request, whichever client and view."""

    @contextmanager
    def noted(self) -> Iterator[list[str]]:
        names = ("request_started", "request_finished", "got_request_exception")
        seen: list[str] = []
        receivers = {name: lambda name=name, **_: seen.append(name) for name in names}
        for name, receiver in receivers.items():
            getattr(signals, name).connect(receiver, weak=False)
        try:
            yield seen
        finally:
            for name, receiver in receivers.items():
                getattr(signals, name).disconnect(receiver)

    def test_a_request_of_the_client(self) -> None:
        for url in ("/books/", "/async/books/"):
            with self.noted() as seen:
                self.client.get(url)
            self.assertEqual(seen, ["request_started", "request_finished"])

    async def test_a_request_of_the_async_client(self) -> None:
        for url in ("/books/", "/async/books/"):
            with self.noted() as seen:
                await self.async_client.get(url)
            self.assertEqual(seen, ["request_started", "request_finished"])

    async def test_a_view_that_fails(self) -> None:
        client = AsyncClient(raise_request_exception=False)
        for url in ("/errors/sync/", "/errors/async/"):
            with self.noted() as seen:
                await client.get(url)
            self.assertEqual(seen.count("got_request_exception"), 1)
            self.assertEqual(seen.count("request_started"), 1)

    @with_async_sessions
    async def test_sync_and_async_receivers_of_one_signal(self) -> None:
        seen: list[tuple[str, bool]] = []

        def sync_receiver(**kwargs: Any) -> str:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                seen.append(("sync", False))
            else:
                seen.append(("sync", True))
            return "sync"

        async def async_receiver(**kwargs: Any) -> str:
            await asyncio.sleep(0)
            seen.append(("async", asyncio.current_task() is not None))
            return "async"

        from django.dispatch import Signal

        signal = Signal()
        signal.connect(sync_receiver)
        signal.connect(async_receiver)
        answers = {answer for _, answer in await signal.asend(sender=None)}
        self.assertEqual(answers, {"sync", "async"})
        self.assertEqual(sorted(seen), [("async", True), ("sync", False)])
        answers = {answer for _, answer in await sync_to_async(signal.send)(sender=None)}
        self.assertEqual(answers, {"sync", "async"})

    def test_saving_a_model_from_async_code_calls_its_receivers(self) -> None:
        from django.db.models.signals import post_save

        seen: list[str] = []

        def saved(instance: Any, **kwargs: Any) -> None:
            seen.append(instance.name)

        post_save.connect(saved, sender=Greeting)
        try:
            async_to_sync(Greeting(name="Lin", text="Hello").asave)()
        finally:
            post_save.disconnect(saved, sender=Greeting)
        self.assertEqual(seen, ["Lin"])


class PlainTests(SimpleTestCase):
    """Without a database."""

    async def test_an_async_test_has_a_task_and_its_method_stays_a_coroutine_function(self) -> None:
        self.assertIsNotNone(asyncio.current_task())
        self.assertTrue(iscoroutinefunction(async_name))

    async def test_overriding_a_setting_is_signalled(self) -> None:
        seen: list[str] = []

        def changed(setting: str, **kwargs: Any) -> None:
            seen.append(setting)

        setting_changed.connect(changed)
        try:
            with self.settings(LANGUAGE_CODE="de"):
                pass
        finally:
            setting_changed.disconnect(changed)
        self.assertEqual(seen, ["LANGUAGE_CODE"] * 2)

    async def test_an_exception_of_a_thread_comes_with_its_traceback(self) -> None:
        def fail() -> None:
            raise DeliberateError("from a thread")

        # Not by assertRaises, which clears the traceback.
        try:
            await sync_to_async(fail)()
        except DeliberateError as error:
            names = [frame.name for frame in extract_tb(error.__traceback__)]
        self.assertEqual(names[-1], "fail")
