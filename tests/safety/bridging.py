"""Workloads of the bridge between async and sync code, and of requests that threads answer."""

import asyncio
import contextlib
import http.client
import socket
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async

from tests.safety.workloads import Boom, fail, give, workload


@contextlib.contextmanager
def bridged(aio: ModuleType) -> Iterator[None]:
    """asgiref's calls are native ones inside the block, where the loop is Rondel's."""
    if aio.get_running_loop().__class__.__module__.startswith("asyncio"):
        yield
        return
    from rondel import bridge

    bridge.install()
    try:
        yield
    finally:
        bridge.uninstall()


def sync_give(value: Any) -> Any:
    return value


def sync_fail(value: Any) -> Any:
    raise Boom(value)


@workload(20)
async def sync_to_async_calls(aio: ModuleType, count: int) -> None:
    with bridged(aio):
        async with ThreadSensitiveContext():
            for number in range(count):
                assert await sync_to_async(sync_give)([number]) == [number]
                with contextlib.suppress(Boom):
                    await sync_to_async(sync_fail)([number])
                call = aio.ensure_future(sync_to_async(sync_give)([number]))
                await aio.sleep(0)
                call.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await call
            # What was cancelled while its thread had begun ends before this does.
            await sync_to_async(sync_give)(None)


@workload(40)
async def bridges_both_ways(aio: ModuleType, count: int) -> None:
    def work() -> None:
        for number in range(count):
            assert async_to_sync(give)([number]) == [number]
            with contextlib.suppress(Boom):
                async_to_sync(fail)([number])
            assert async_to_sync(sync_to_async(sync_give))([number]) == [number]

    with bridged(aio):
        async with ThreadSensitiveContext():
            await sync_to_async(work)()


# Address, server and pool by loop.
_sites: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()


@workload(40)
async def requests_of_threads(aio: ModuleType, count: int) -> None:
    """A server's: answers in one piece and in parts."""
    loop = aio.get_running_loop()
    if loop.__class__.__module__.startswith("asyncio"):
        return
    from rondel import _rondel
    from rondel._pool import ThreadPool

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        if scope["method"] == "PUT":
            reply.start(200, [("X-One", "1")])
            reply.send(b"part")
            reply.finish()
        else:
            reply.respond(200, [("X-One", "1")], b"x" * 20_000 + bytes(body))

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    def ask() -> None:
        with contextlib.closing(http.client.HTTPConnection(*address, timeout=60)) as client:
            for _ in range(count):
                client.request("POST", "/", b"abc")
                assert len(client.getresponse().read()) == 20_003
                client.request("PUT", "/")
                assert client.getresponse().read() == b"part"

    site = _sites.get(loop)
    if site is None:
        # It ends with its loop: rounds are about requests.
        pool, routes = ThreadPool(2, "safety"), _rondel.routes()
        routes.learn("/", [], True)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = _rondel.serve_http(
                loop, app, [listener.fileno()], handler=handler, pool=pool.native, routes=routes
            )
            site = _sites[loop] = listener.getsockname(), server, pool
    address = site[0]
    await loop.run_in_executor(None, ask)
