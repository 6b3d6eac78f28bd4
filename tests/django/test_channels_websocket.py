"""Channels' WebSocket consumers: a chat over Redis between two workers, and what consumers may do.

The site is one module, served by `rondel serve --workers 2`; each consumer tells its process.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import asgiref
import pytest

from tests.cli.support import PATIENCE, running

from .project_copy import needs_rondel

if find_spec("websockets") is None:
    pytest.skip("websockets is not installed", allow_module_level=True)

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

pytestmark = [
    needs_rondel,
    pytest.mark.skipif(find_spec("channels") is None, reason="Channels is not installed"),
    pytest.mark.skipif(asgiref.__version__.startswith("3.8."), reason="Channels 4.3 needs 3.9"),
]

_SITE = """
import os

import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

settings.configure(
    SECRET_KEY="only-for-this-test" * 3,
    ALLOWED_HOSTS=["127.0.0.1"],
    INSTALLED_APPS=["channels"],
    ROOT_URLCONF=__name__,
    CHANNEL_LAYERS={{
        "default": {{
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {{"hosts": [{{"address": "unix://{socket}"}}], "prefix": "{prefix}"}},
        }}
    }},
)
django.setup()

from asgiref.sync import async_to_sync
from channels.exceptions import DenyConnection
from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.layers import get_channel_layer
from django.core.asgi import get_asgi_application


class Chat(AsyncJsonWebsocketConsumer):
    async def connect(self):
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept("chat" if "chat" in self.scope["subprotocols"] else None)
        await self.send_json({{"pid": os.getpid()}})

    async def receive_json(self, content):
        said = {{"type": "said", "text": content["text"], "by": os.getpid()}}
        await self.channel_layer.group_send(self.room, said)

    async def said(self, event):
        await self.send_json({{"text": event["text"], "by": event["by"]}})

    async def disconnect(self, code):
        left = {{"type": "said", "text": f"left with {{code}}", "by": os.getpid()}}
        await self.channel_layer.group_discard(self.room, self.channel_name)
        await self.channel_layer.group_send(self.room, left)


class Threaded(WebsocketConsumer):
    # A sync consumer: its handlers run on threads.
    def connect(self):
        self.accept()

    def receive(self, text_data=None, bytes_data=None):
        if text_data == "close":
            self.close(code=4005, reason="as you wish")
        elif bytes_data is not None:
            self.send(bytes_data=bytes_data[::-1])
        else:
            self.send(text_data=text_data[::-1])


class Private(AsyncJsonWebsocketConsumer):
    async def connect(self):
        raise DenyConnection


def say(request, room, text):
    event = {{"type": "said", "text": text, "by": os.getpid()}}
    async_to_sync(get_channel_layer().group_send)(room, event)
    return HttpResponse("said")


urlpatterns = [path("say/<str:room>/<str:text>/", say)]

application = ProtocolTypeRouter({{
    "http": get_asgi_application(),
    "websocket": AllowedHostsOriginValidator(URLRouter([
        path("chat/<str:room>/", Chat.as_asgi()),
        path("threaded/", Threaded.as_asgi()),
        path("private/", Private.as_asgi()),
    ])),
}})
"""


@pytest.fixture(scope="module")
def url(redis: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("channels-ws")
    text = _SITE.format(socket=redis, prefix=f"rondel-ws-{os.getpid()}")
    (folder / "chat_site.py").write_text(text)
    command = [sys.executable, "-m", "rondel", "serve", "chat_site:application", "--port", "0"]
    with running([*command, "--workers", "2"], folder) as process:
        port = process.wait_for(r"serving .*on http://127\.0\.0\.1:(\d+)")[1]
        yield f"127.0.0.1:{port}"


def client(url: str, path: str, **more: object) -> ClientConnection:
    origin = f"http://{url}"
    options = {"origin": origin, "open_timeout": PATIENCE, "close_timeout": PATIENCE, **more}
    return connect(f"ws://{url}{path}", **options)  # type: ignore[arg-type]


def heard(connection: ClientConnection) -> dict[str, object]:
    message: dict[str, object] = json.loads(connection.recv(timeout=PATIENCE))
    return message


def test_a_group_spans_the_workers(url: str) -> None:
    with contextlib.ExitStack() as stack:
        by_pid: dict[object, list[ClientConnection]] = {}
        for _ in range(100):
            one = stack.enter_context(client(url, "/chat/lobby/"))
            by_pid.setdefault(heard(one)["pid"], []).append(one)
            if len(by_pid) == 2:
                break
        assert len(by_pid) == 2, "one worker took all connections"
        everybody = [one for ones in by_pid.values() for one in ones]
        for pid, (speaker, *_) in by_pid.items():
            speaker.send(json.dumps({"text": f"from {pid}"}))
            for one in everybody:
                assert heard(one) == {"text": f"from {pid}", "by": pid}
        leaver = everybody.pop()
        leaver.close(4001)
        for one in everybody:
            assert heard(one)["text"] == "left with 4001"


def test_a_view_reaches_the_consumers(url: str) -> None:
    import httpx

    with client(url, "/chat/news/") as one, client(url, "/chat/news/") as two:
        assert heard(one)["pid"]
        assert heard(two)["pid"]
        answer = httpx.get(f"http://{url}/say/news/hello/", timeout=PATIENCE, trust_env=False)
        assert answer.text == "said"
        assert heard(one)["text"] == heard(two)["text"] == "hello"


def test_the_subprotocol_is_the_consumer_s_choice(url: str) -> None:
    with client(url, "/chat/sub/", subprotocols=["other", "chat"]) as one:
        assert one.subprotocol == "chat"


def test_a_sync_consumer_answers_and_closes(url: str) -> None:
    with client(url, "/threaded/") as one:
        one.send("stressed")
        assert one.recv(timeout=PATIENCE) == "desserts"
        one.send(b"\x01\x02" * 50_000)
        assert one.recv(timeout=PATIENCE) == b"\x02\x01" * 50_000
        one.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            one.recv(timeout=PATIENCE)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4005, "as you wish")


def test_a_consumer_that_denies_and_an_origin_that_is_not_allowed_are_403(url: str) -> None:
    for path, more in [("/private/", {}), ("/chat/x/", {"origin": "http://elsewhere.example"})]:
        with pytest.raises(InvalidStatus) as refused:
            client(url, path, **more)
        assert refused.value.response.status_code == 403
