"""The lifespan protocol on its own, without a server: what applications may do, and may not."""

import asyncio
import logging
from typing import Any

import pytest

from rondel.server.config import LifespanMode, Receive, Scope, Send
from rondel.server.lifespan import Lifespan, LifespanError
from tests.support import Runtime

TIMEOUT = 20.0


def lifespan(app: Any, mode: LifespanMode = "auto", timeout: float = TIMEOUT) -> Lifespan:
    return Lifespan(app, mode, timeout)


async def polite(scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"]["seen"] = [scope["type"], scope["asgi"]["version"]]
    for phase in ("startup", "shutdown"):
        message = await receive()
        scope["state"]["seen"].append(message["type"])
        await send({"type": f"lifespan.{phase}.complete"})


async def test_startup_then_shutdown(runtime: Runtime) -> None:
    span = lifespan(polite, "on")
    assert not span.supported
    await span.start()
    assert span.supported
    assert span.state["seen"] == ["lifespan", "3.0", "lifespan.startup"]
    assert await span.stop()
    assert span.state["seen"][-1] == "lifespan.shutdown"
    assert not span.supported


async def test_stopping_twice_is_stopping_once(runtime: Runtime) -> None:
    span = lifespan(polite)
    await span.start()
    assert await span.stop()
    assert await span.stop()
    assert span.state["seen"].count("lifespan.shutdown") == 1


async def test_stop_without_start(runtime: Runtime) -> None:
    assert await lifespan(polite).stop()


async def test_off_never_calls_the_application(runtime: Runtime) -> None:
    def never(*_: object) -> None:
        pytest.fail("called")

    span = lifespan(never, "off")
    await span.start()
    assert not span.supported
    assert await span.stop()


async def test_wrong_messages_are_refused(runtime: Runtime) -> None:
    refused: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for kind in ("http.response.start", "lifespan.shutdown.complete"):
            with pytest.raises(RuntimeError, match=kind):
                await send({"type": kind})
            refused.append(kind)
        await send({"type": "lifespan.startup.complete"})
        with pytest.raises(RuntimeError, match=r"lifespan\.startup\.complete"):
            await send({"type": "lifespan.startup.complete"})
        refused.append("again")
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    span = lifespan(app)
    await span.start()
    assert await span.stop()
    assert refused == ["http.response.start", "lifespan.shutdown.complete", "again"]


async def test_a_failed_startup_carries_its_message(runtime: Runtime) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no disk"})

    with pytest.raises(LifespanError, match="startup failed: no disk"):
        await lifespan(app).start()


async def test_a_failed_shutdown_is_logged(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "disk gone"})

    span = lifespan(app)
    await span.start()
    with caplog.at_level(logging.ERROR, "rondel.server"):
        assert not await span.stop()
    assert "shutdown failed: disk gone" in caplog.text


async def test_an_exception_in_the_shutdown_is_logged_with_its_traceback(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise LookupError("too late")

    span = lifespan(app)
    await span.start()
    with caplog.at_level(logging.ERROR, "rondel.server"):
        assert not await span.stop()
    assert "Traceback" in caplog.text
    assert "LookupError: too late" in caplog.text


async def test_an_application_that_died_in_between_has_a_failed_shutdown(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    died = runtime.aio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        died.set()
        raise LookupError("in between")

    span = lifespan(app)
    await span.start()
    await died.wait()
    with caplog.at_level(logging.ERROR, "rondel.server"):
        assert not await span.stop()
    assert "LookupError: in between" in caplog.text


async def test_a_shutdown_that_hangs_is_cancelled(runtime: Runtime) -> None:
    ended = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await runtime.aio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    span = lifespan(app, timeout=0.05)
    await span.start()
    assert not await span.stop()
    assert ended == ["cancelled"]


async def test_a_startup_that_hangs_is_cancelled(runtime: Runtime) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await runtime.aio.Event().wait()

    with pytest.raises(LifespanError, match=r"more than 0\.05 s"):
        await lifespan(app, timeout=0.05).start()
