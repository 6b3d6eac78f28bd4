"""`websockets`, its asyncio client: many connections at once, with and without TLS."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("websockets")

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.clients.support import PATIENCE
from tests.net.certificates import client_context
from tests.server.wire import Served

pytestmark = pytest.mark.rondel_server

Opener = Callable[..., Any]


@pytest.fixture(params=["plain", "secure"])
def served(request: pytest.FixtureRequest) -> Served:
    found: Served = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def opened(served: Served) -> Opener:
    def opened(path: str, **options: Any) -> Any:
        if served.context is not None:
            options["ssl"] = client_context()
            options["host"] = "127.0.0.1"  # without IPv6's attempt
        limits = {"open_timeout": PATIENCE, "close_timeout": PATIENCE, "max_size": None}
        url = served.url.replace("http", "ws") + path
        return connect(url, proxy=None, **limits, **options)

    return opened


def test_many_connections_at_once(opened: Opener) -> None:
    async def talk(number: int) -> int:
        options = {} if number % 2 else {"compression": None}
        async with opened("/echo", **options) as one:
            for message in (f"{number}", b"%d" % number, "é" * 1000, os.urandom(100_000)):
                await one.send(message)
                assert await one.recv() == message
            await (await one.ping())
        return int(one.close_code)

    async def main() -> list[int]:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*(talk(number) for number in range(50)))

    assert asyncio.run(main()) == [1000] * 50


def test_messages_go_both_ways_at_once(opened: Opener) -> None:
    """What is sent is not waited for: as much is under way as both sides hold."""

    async def main() -> int:
        async with asyncio.timeout(PATIENCE), opened("/echo") as one:

            async def send() -> None:
                for number in range(2000):
                    await one.send(f"{number} " * 100)

            sender = asyncio.create_task(send())
            for number in range(2000):
                assert await one.recv() == f"{number} " * 100
            await sender
        return int(one.close_code)

    assert asyncio.run(main()) == 1000


def test_a_large_message_in_fragments(opened: Opener) -> None:
    parts = [os.urandom(100_000) for _ in range(50)]

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), opened("/echo") as one:
            await one.send(parts)
            assert await one.recv() == b"".join(parts)

    asyncio.run(main())


def test_a_client_that_iterates_hears_the_end(opened: Opener, key: str) -> None:
    async def main() -> tuple[list[str], int, str]:
        async with asyncio.timeout(PATIENCE), opened(f"/close?key={key}&code=1000") as one:
            seen = [message async for message in one]
        return seen, one.close_code, one.close_reason

    assert asyncio.run(main()) == (["last"], 1000, "")


def test_a_client_that_connects_again(opened: Opener, key: str) -> None:
    async def main() -> list[str]:
        seen = []
        async with asyncio.timeout(PATIENCE):
            async for one in opened(f"/close?key={key}&code=1012"):
                try:
                    while True:
                        seen.append(await one.recv())
                except ConnectionClosed as closed:
                    assert closed.rcvd is not None
                    assert closed.rcvd.code == 1012
                if len(seen) == 3:
                    break
        return seen

    assert asyncio.run(main()) == ["last"] * 3


def test_a_denial_is_an_answer(opened: Opener, key: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(InvalidStatus) as refused:
                await opened(f"/deny?key={key}")
        answer = refused.value.response
        assert (answer.status_code, answer.body) == (401, b"no ticket")

    asyncio.run(main())


def test_a_client_that_breaks_off(served: Served, opened: Opener, key: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            one = await opened(f"/echo?key={key}")
            await one.send("x")
            assert await one.recv() == "x"
            one.transport.abort()
            await one.wait_closed()

    asyncio.run(main())
    assert served.events(key)[0].startswith("disconnect 1006")
