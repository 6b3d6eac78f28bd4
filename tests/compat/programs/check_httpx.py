"""httpx's AsyncClient (over anyio) against a plain asyncio server, and against an ASGI app."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from .conftest import PATIENCE


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Keeps connections alive, echoes bodies; /slow never answers, /reset resets."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode("latin-1").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            target = lines[0].split()[1]
            if target == "/slow":
                await reader.read()
                return
            if target == "/reset":
                writer.transport.abort()
                return
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for start in range(0, len(body), 10_000):
                part = body[start : start + 10_000]
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[str]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, **options)
    async with server:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"


async def exchange(client: httpx.AsyncClient, base: str) -> None:
    got = await client.post(f"{base}/", content=b"x" * 1_000_000)
    assert got.content == b"x" * 1_000_000
    async with client.stream("POST", f"{base}/", content=b"y" * 100_000) as streamed:
        assert b"".join([part async for part in streamed.aiter_bytes()]) == b"y" * 100_000
    many = await asyncio.gather(*(client.post(f"{base}/", content=b"%d" % n) for n in range(60)))
    assert [each.content for each in many] == [b"%d" % n for n in range(60)]


async def check_an_exchange_over_tcp() -> None:
    async with serving() as address, httpx.AsyncClient() as client:
        await exchange(client, f"http://{address}")


async def check_an_exchange_over_tls(tls: Any) -> None:
    async with serving(ssl=tls.server) as address, httpx.AsyncClient(verify=tls.client) as client:
        await exchange(client, f"https://{address}")


async def check_timeouts_and_resets() -> None:
    async with serving() as address, httpx.AsyncClient() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(f"http://{address}/slow", timeout=0.1)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.get(f"http://{address}/reset")
        assert (await client.get(f"http://{address}/")).status_code == 200


async def check_a_request_can_be_cancelled() -> None:
    async with serving() as address, httpx.AsyncClient() as client:
        task = asyncio.create_task(client.get(f"http://{address}/slow", timeout=PATIENCE))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await client.get(f"http://{address}/")).status_code == 200


async def check_an_asgi_app_without_a_socket() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        event = await receive()
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": event["body"].upper()})

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        got = await client.post("http://app/", content=b"body")
        assert (got.status_code, got.content) == (201, b"BODY")
