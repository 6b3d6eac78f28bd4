"""Channels' HTTP consumers: what their documentation promises, on either side.

Ours, because Channels' source distribution comes without its tests. No sleeps: each test waits for
a message or an event; HttpCommunicator's own timeout bounds it.
"""

import asyncio
import threading
from typing import Any

import channels.db
import project  # noqa: F401 (settings first)
import pytest
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from channels.generic.http import AsyncHttpConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.testing import ApplicationCommunicator, HttpCommunicator
from django.core.asgi import get_asgi_application
from django.db import connection
from django.urls import path

PATIENCE = 10
Message = dict[str, Any]


def scope(url: str = "/") -> Message:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": url,
        "query_string": b"",
        "headers": [],
    }


class Echo(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, body, headers=[(b"x-method", self.scope["method"].encode())])


async def test_a_request_is_answered() -> None:
    response = await HttpCommunicator(Echo.as_asgi(), "POST", "/x?y=1", body=b"whole").get_response(
        PATIENCE
    )
    assert response == {"status": 200, "body": b"whole", "headers": [(b"x-method", b"POST")]}


async def test_a_body_in_parts_reaches_the_handler_whole() -> None:
    client = ApplicationCommunicator(Echo.as_asgi(), scope())
    for number in range(100):
        part = {"type": "http.request", "body": b"%d," % number, "more_body": number < 99}
        await client.send_input(part)
    assert (await client.receive_output(PATIENCE))["status"] == 200
    body = (await client.receive_output(PATIENCE))["body"]
    assert body == b"".join(b"%d," % number for number in range(100))
    await client.wait(PATIENCE)


async def test_a_part_is_sent_before_the_next_one_is_made() -> None:
    seen: asyncio.Queue[None] = asyncio.Queue()

    class Events(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers(headers=[(b"content-type", b"text/event-stream")])
            for number in range(3):
                await self.send_body(b"data: %d\n\n" % number, more_body=True)
                await seen.get()
            await self.send_body(b"")

    client = ApplicationCommunicator(Events.as_asgi(), scope())
    await client.send_input({"type": "http.request", "body": b""})
    assert (await client.receive_output(PATIENCE))["type"] == "http.response.start"
    for number in range(3):
        part = await client.receive_output(PATIENCE)
        assert (part["body"], part["more_body"]) == (b"data: %d\n\n" % number, True)
        assert await client.receive_nothing(0.01)
        seen.put_nowait(None)
    assert (await client.receive_output(PATIENCE))["more_body"] is False
    await client.wait(PATIENCE)


async def test_a_long_poll_is_answered_by_a_message_of_the_layer() -> None:
    class Poll(AsyncConsumer):
        async def http_request(self, message: Message) -> None:
            await self.channel_layer.group_add("news", self.channel_name)
            await self.send({"type": "http.response.start", "status": 200, "headers": []})

        async def news_item(self, message: Message) -> None:
            await self.send({"type": "http.response.body", "body": message["text"].encode()})
            raise StopConsumer

    clients = [ApplicationCommunicator(Poll.as_asgi(), scope()) for _ in range(10)]
    for client in clients:
        await client.send_input({"type": "http.request", "body": b""})
        await client.receive_output(PATIENCE)
    await get_channel_layer().group_send("news", {"type": "news.item", "text": "now"})
    for client in clients:
        assert (await client.receive_output(PATIENCE))["body"] == b"now"
        await client.wait(PATIENCE)


async def test_a_disconnect_before_the_body_ends_lets_the_consumer_clean_up() -> None:
    cleaned = []

    class Upload(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            raise AssertionError("the body never ended")

        async def disconnect(self) -> None:
            cleaned.append(threading.current_thread())

    client = ApplicationCommunicator(Upload.as_asgi(), scope())
    await client.send_input({"type": "http.request", "body": b"part", "more_body": True})
    await client.send_input({"type": "http.disconnect"})
    await client.wait(PATIENCE)
    assert cleaned == [threading.current_thread()]


async def test_an_error_of_the_handler_reaches_the_server_after_the_clean_up() -> None:
    cleaned = []

    class Broken(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            raise LookupError("broken")

        async def disconnect(self) -> None:
            cleaned.append(True)

    client = ApplicationCommunicator(Broken.as_asgi(), scope())
    await client.send_input({"type": "http.request", "body": b""})
    with pytest.raises(LookupError, match="broken"):
        await client.wait(PATIENCE)
    assert cleaned == [True]


async def test_a_cancelled_application_cancels_its_handler() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    class Forever(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    async def receive() -> Message:
        if started.is_set():
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    task = asyncio.create_task(Forever.as_asgi()(scope(), receive, send))
    await asyncio.wait_for(started.wait(), PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(ended.wait(), PATIENCE)


async def test_a_sync_consumer_runs_off_the_loop_and_sends_in_order() -> None:
    threads = set()

    class Sync(SyncConsumer):
        def http_request(self, message: Message) -> None:
            threads.add(threading.current_thread())
            self.send({"type": "http.response.start", "status": 200, "headers": []})
            for number in range(20):
                part = {"type": "http.response.body", "body": b"%d" % number}
                self.send({**part, "more_body": number < 19})
            raise StopConsumer

    client = ApplicationCommunicator(Sync.as_asgi(), scope())
    await client.send_input({"type": "http.request", "body": b""})
    await client.receive_output(PATIENCE)
    parts = [(await client.receive_output(PATIENCE))["body"] for _ in range(20)]
    assert parts == [b"%d" % number for number in range(20)]
    await client.wait(PATIENCE)
    assert len(threads) == 1
    assert threading.current_thread() not in threads


async def test_old_connections_are_closed_around_each_call_on_its_own_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DatabaseSyncToAsync overrides SyncToAsync.thread_handler: a bridge must call it there."""
    calls = []
    monkeypatch.setattr(
        channels.db, "close_old_connections", lambda: calls.append(threading.current_thread())
    )

    def query() -> int:
        calls.append(threading.current_thread())
        with connection.cursor() as cursor:
            cursor.execute("SELECT 6 * 7")
            return int(cursor.fetchone()[0])

    class Query(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            del calls[:]
            found = await database_sync_to_async(query)()
            await self.send_response(200, str(found).encode())

    # Called as a server would: Channels' communicators disable the closing.
    sent: list[Message] = []
    requests: asyncio.Queue[Message] = asyncio.Queue()
    requests.put_nowait({"type": "http.request", "body": b""})

    async def send(message: Message) -> None:
        sent.append(message)

    await asyncio.wait_for(Query.as_asgi()(scope(), requests.get, send), PATIENCE)
    assert sent[1]["body"] == b"42"
    assert len(calls) == 3
    assert len(set(calls)) == 1
    assert threading.current_thread() not in calls


async def test_consumers_and_django_views_share_a_router() -> None:
    class Path(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            number = self.scope["url_route"]["kwargs"]["number"]
            await self.send_response(200, b"consumer %d" % number)

    django = get_asgi_application()
    routes = URLRouter([path("consumer/<int:number>", Path.as_asgi()), path("view", django)])
    application = ProtocolTypeRouter({"http": routes})

    async def ask(url: str) -> bytes:
        client = HttpCommunicator(application, "GET", url)
        body: bytes = (await client.get_response(PATIENCE))["body"]
        await client.wait(PATIENCE)
        return body

    assert await asyncio.gather(*(ask(f"/consumer/{n}") for n in range(20))) == [
        b"consumer %d" % number for number in range(20)
    ]
    assert await ask("/view") == b"view /view"
