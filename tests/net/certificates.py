"""Certificates made by `openssl` once per test session, and contexts over them."""

import atexit
import contextlib
import functools
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.net.peers import Recorder, until_closed
from tests.support import PATIENCE


@dataclass(frozen=True)
class Identity:
    certificate: str
    key: str


@functools.cache
def identity(name: str) -> Identity:
    """A self-signed certificate for the DNS name, whose authority is itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command")
    place = Path(_directory()) / name
    made = Identity(f"{place}.pem", f"{place}.key")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", made.key, "-out", made.certificate, "-days", "2"),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
        ],
        check=True,
        capture_output=True,
    )
    return made


@functools.cache
def _directory() -> str:
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory)
    return directory


def server_context(name: str = "localhost", *, trusts: str | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity(name).certificate, identity(name).key)
    if trusts is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(identity(trusts).certificate)
    return context


def client_context(*trusts: str, shows: str | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in trusts or ("localhost",):
        context.load_verify_locations(identity(name).certificate)
    if shows is not None:
        context.load_cert_chain(identity(shows).certificate, identity(shows).key)
    return context


@contextlib.asynccontextmanager
async def listening(
    aio: ModuleType, factory: Callable[[], Any], context: ssl.SSLContext | None, **options: Any
) -> AsyncIterator[tuple[str, int]]:
    """The address of a server, which ends with the block."""
    loop = aio.get_running_loop()
    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=context, **options)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        await aio.wait_for(server.wait_closed(), PATIENCE)


@contextlib.asynccontextmanager
async def secured(
    aio: ModuleType,
    *,
    server: ssl.SSLContext | None = None,
    client: ssl.SSLContext | None = None,
    server_type: type[Recorder] = Recorder,
    client_type: type[Recorder] = Recorder,
    server_options: dict[str, Any] | None = None,
    **client_options: Any,
) -> AsyncIterator[tuple[Any, Any]]:
    """A client and a server side connected over TLS, both aborted afterwards if still open."""
    loop = aio.get_running_loop()
    accepted: Any = loop.create_future()

    class Accepted(server_type):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            accepted.set_result(self)

    context = server or server_context()
    async with listening(aio, lambda: Accepted(loop), context, **(server_options or {})) as where:
        ours = client_type(loop)
        client_options.setdefault("server_hostname", "localhost")
        await loop.create_connection(
            lambda: ours, *where, ssl=client or client_context(), **client_options
        )
        theirs = await aio.wait_for(accepted, PATIENCE)
        try:
            yield ours, theirs
        finally:
            for side in (ours, theirs):
                if not side.closed.done():
                    side.transport.abort()
                    await until_closed(side)
