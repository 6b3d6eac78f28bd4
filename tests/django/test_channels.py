"""Channels over HTTP: consumers beside Django's views, messages of a layer between them.

One router, as Channels' documentation has it, under `serve` and under `runserver`, with the layer
in memory and in a Redis of the tests' own.
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import asgiref
import httpx
import pytest

from .project_copy import Project, Running, needs_rondel
from .site_server import until

pytestmark = [
    needs_rondel,
    pytest.mark.skipif(find_spec("channels") is None, reason="Channels is not installed"),
    pytest.mark.skipif(asgiref.__version__.startswith("3.8."), reason="Channels 4.3 needs 3.9"),
]

_ASGI = """
import os

from django.core.asgi import get_asgi_application

django = get_asgi_application()  # before anything that imports models

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path, re_path

from site_project.consumers import Feed, Threaded, Waiter

application = ProtocolTypeRouter({
    "http": URLRouter([
        path("wait/<str:room>/", Waiter.as_asgi()),
        path("feed/<str:room>/", Feed.as_asgi()),
        path("threaded/", Threaded.as_asgi()),
        re_path(r"", django),
    ])
})
"""
_CONSUMERS = """
import threading

from channels.consumer import SyncConsumer
from channels.exceptions import StopConsumer
from channels.db import database_sync_to_async
from channels.generic.http import AsyncHttpConsumer
from shelf.models import Book


class InRoom(AsyncHttpConsumer):
    async def join(self):
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        print("joined", self.room, flush=True)

    async def disconnect(self):
        await self.channel_layer.group_discard(self.room, self.channel_name)
        print("left", self.room, flush=True)


class Waiter(InRoom):
    # A long poll: the answer is the first message.
    async def handle(self, body):
        self.books = await database_sync_to_async(Book.objects.count)()
        await self.join()

    async def http_request(self, message):
        # `AsyncHttpConsumer` ends after `handle`; the message comes later.
        self.body.append(message.get("body", b""))
        if not message.get("more_body"):
            await self.handle(b"".join(self.body))

    async def said(self, message):
        text = f"{message['text']} of {self.books} books"
        await self.send_response(200, text.encode())
        await self.http_disconnect({})


class Feed(InRoom):
    # A stream: each message is a part, the word "end" its end.
    async def handle(self, body):
        await self.send_headers(headers=[(b"Content-Type", b"text/plain")])
        await self.send_body(b"begun\\n", more_body=True)
        await self.join()

    http_request = Waiter.http_request

    async def said(self, message):
        more = message["text"] != "end"
        await self.send_body(message["text"].encode() + b"\\n", more_body=more)
        if not more:
            await self.http_disconnect({})


class Threaded(SyncConsumer):
    def http_request(self, message):
        on = type(threading.current_thread()).__name__
        self.send({"type": "http.response.start", "status": 200, "headers": []})
        self.send({"type": "http.response.body", "body": f"{on} {Book.objects.count()}".encode()})

    def http_disconnect(self, message):
        raise StopConsumer
"""
_URLS = """
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.http import HttpResponse
from django.urls import include, path


def say(request, room, text):
    layer = get_channel_layer()
    async_to_sync(layer.group_send)(room, {"type": "said", "text": text})
    return HttpResponse("sync view")


async def asay(request, room, text):
    await get_channel_layer().group_send(room, {"type": "said", "text": text})
    return HttpResponse("async view")


urlpatterns = [
    path("say/<str:room>/<str:text>/", say),
    path("asay/<str:room>/<str:text>/", asay),
    path("", include("site_project.urls")),
]
"""
_LAYERS = {
    "memory": '{"BACKEND": "channels.layers.InMemoryChannelLayer"}',
    "redis": '{{"BACKEND": "channels_redis.core.RedisChannelLayer", '
    '"CONFIG": {{"hosts": [{{"address": "unix://{socket}"}}], "prefix": "{prefix}"}}}}',
}


@pytest.fixture(scope="module", params=["serve-memory", "serve-redis", "runserver-memory"])
def server(
    request: pytest.FixtureRequest, database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    command, _, layer = request.param.partition("-")
    env = {"SITE_DEBUG": "0", "SITE_SECRET_KEY": "only-for-this-test" * 4}
    project = Project(
        tmp_path_factory.mktemp("channels") / "project",
        database,
        **(env if command == "serve" else {}),
    )
    text = _LAYERS[layer]
    if layer == "redis":
        socket = request.getfixturevalue("redis")
        text = text.format(socket=socket, prefix=f"rondel-{os.getpid()}")
    project.settings(
        'INSTALLED_APPS.append("channels")\n'
        'ROOT_URLCONF = "site_project.channels_urls"\n'
        f'CHANNEL_LAYERS = {{"default": {text}}}'
    )
    project.write("asgi.py", _ASGI)
    project.write("consumers.py", _CONSUMERS)
    project.write("channels_urls.py", _URLS)
    words = {
        "serve": ("serve", "--threads", "4", "--port", "{port}"),
        "runserver": ("runserver", "{port}", "--noreload"),
    }
    with project.running(*words[command]) as running:
        running.until_logged("serving site_project" if command == "serve" else "Quit the server")
        yield running
        running.check_log()


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.mark.parametrize(("say", "view"), [("say", "sync view"), ("asay", "async view")])
def test_a_long_poll_is_answered_by_a_views_message(
    server: Running, client: httpx.Client, say: str, view: str
) -> None:
    room = f"poll-{say}"
    with ThreadPoolExecutor(1) as others:
        waiting = others.submit(client.get, f"/wait/{room}/")
        server.until_logged(f"joined {room}\n")
        assert client.get(f"/{say}/{room}/hello/").text == view
        assert waiting.result().text == "hello of 14 books"
    server.until_logged(f"left {room}\n")


def test_a_group_reaches_all_who_wait(server: Running, client: httpx.Client) -> None:
    with ThreadPoolExecutor(20) as others:
        waiting = [others.submit(client.get, "/wait/many/") for _ in range(20)]
        server.until_logged("joined many\n", 20)
        client.get("/say/many/everybody/")
        assert {each.result().text for each in waiting} == {"everybody of 14 books"}


def test_a_consumer_streams_its_messages(server: Running, client: httpx.Client) -> None:
    with client.stream("GET", "/feed/stream/") as response:
        lines = response.iter_lines()
        assert next(lines) == "begun"
        server.until_logged("joined stream\n")
        for text in ("one", "two"):
            client.get(f"/say/stream/{text}/")
            assert next(lines) == text
        client.get("/asay/stream/end/")
        assert list(lines) == ["end"]
    server.until_logged("left stream\n")


def test_a_consumer_is_told_that_its_client_has_left(server: Running, client: httpx.Client) -> None:
    with client.stream("GET", "/feed/leaving/") as response:
        assert next(response.iter_lines()) == "begun"
        server.until_logged("joined leaving\n")
    server.until_logged("left leaving\n")
    assert client.get("/say/leaving/nobody/").status_code == 200


def test_a_sync_consumer_runs_on_a_thread(client: httpx.Client) -> None:
    kind, books = client.get("/threaded/").text.split()
    assert kind != "_MainThread"
    assert books == "14"


def test_djangos_views_are_behind_the_same_router(client: httpx.Client) -> None:
    assert client.get("/books/").status_code == 200
    assert client.get("/async/books/").status_code == 200
    assert client.get("/no/such/page/").status_code == 404


def test_static_files_are_in_front_of_the_router(server: Running, client: httpx.Client) -> None:
    debug = "Quit the server" in server.log
    assert client.get("/static/shelf/site.css").status_code == (200 if debug else 404)


def test_many_polls_and_views_at_once(server: Running, client: httpx.Client) -> None:
    rooms = [f"room-{number}" for number in range(8)]
    failed = threading.Event()

    def poll(room: str) -> list[str]:
        found = []
        for number in range(5):
            with ThreadPoolExecutor(1) as other:
                waiting = other.submit(client.get, f"/wait/{room}/")
                until(lambda n=number: server.log.count(f"joined {room}\n") > n, "it waits")
                verb = "say" if number % 2 else "asay"
                if client.get(f"/{verb}/{room}/{number}/").status_code != 200:
                    failed.set()
                found.append(waiting.result().text)
        return found

    with ThreadPoolExecutor(len(rooms)) as others:
        for found in others.map(poll, rooms):
            assert found == [f"{number} of 14 books" for number in range(5)]
    assert not failed.is_set()
