"""grpcio's asyncio server and client: the four kinds of calls, errors, deadlines, cancellation.

grpcio polls in threads of its own, wakes the loop through a socket, and keeps both until the
process ends.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from .conftest import PATIENCE

pytestmark = pytest.mark.keeps_descriptors


async def unary(request: bytes, context: Any) -> bytes:
    if request == b"fail":
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    if request == b"slow":
        await asyncio.sleep(PATIENCE)
    return request.upper()


async def down(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


async def up(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([request async for request in requests])


async def both(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request[::-1]


@contextlib.asynccontextmanager
async def channel() -> AsyncIterator[Any]:
    server = grpc.aio.server()
    handlers = {
        "unary": grpc.unary_unary_rpc_method_handler(unary),
        "down": grpc.unary_stream_rpc_method_handler(down),
        "up": grpc.stream_unary_rpc_method_handler(up),
        "both": grpc.stream_stream_rpc_method_handler(both),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
            yield opened
    finally:
        await server.stop(0)


async def check_the_four_kinds_of_calls() -> None:
    async with channel() as opened:
        assert await opened.unary_unary("/echo/unary")(b"hello") == b"HELLO"
        call = opened.unary_stream("/echo/down")(b"200")
        assert [part async for part in call] == [b"%d" % n for n in range(200)]

        async def parts() -> AsyncIterator[bytes]:
            for number in range(100):
                yield b"%d," % number

        sent = b"".join([part async for part in parts()])
        assert await opened.stream_unary("/echo/up")(parts()) == sent
        call = opened.stream_stream("/echo/both")()
        for word in (b"abc", b"x" * 300_000):
            await call.write(word)
            assert await call.read() == word[::-1]
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        ask = opened.unary_unary("/echo/unary")
        got = await asyncio.gather(*(ask(b"n%d" % n) for n in range(60)))
        assert got == [b"N%d" % n for n in range(60)]


async def check_errors_deadlines_and_cancellation() -> None:
    async with channel() as opened:
        ask = opened.unary_unary("/echo/unary")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await ask(b"fail")
        assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await ask(b"slow", timeout=0.1)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        task = asyncio.ensure_future(ask(b"slow"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ask(b"after") == b"AFTER"
