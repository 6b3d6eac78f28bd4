"""The ASGI lifespan protocol: one task of the application's that lives as long as the server.

    IDLE ──start──► STARTING ──startup.complete──► UP ──shutdown event──► STOPPING ──► DONE
                       │ startup.failed, or (mode "on") raised or returned ──► LifespanError
                       │ mode "auto": raised or returned ──► ABSENT (served without lifespan)
                       └ timeout ──► LifespanError

Invariants: in mode "auto" an application without lifespan is served quietly, as the ASGI
specification asks; only one that had begun to (it took the startup event, then raised) is reported
by a warning. ``start`` and ``stop`` are bounded by the timeout. The application's task is
awaited or cancelled before ``stop`` returns, whatever happened.
"""

import asyncio
import enum
import logging
from typing import Any

from rondel.server.config import ASGIApp, LifespanMode, Message
from rondel.server.errors import ServeError

__all__ = ["Lifespan", "LifespanError"]

logger = logging.getLogger("rondel.server")


class LifespanError(ServeError):
    """The application said, or showed, that it cannot start."""


class _State(enum.Enum):
    IDLE = "idle"
    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"
    ABSENT = "absent"
    DONE = "done"


class Lifespan:
    """Starts and stops one application on the running loop."""

    def __init__(self, app: ASGIApp, mode: LifespanMode, timeout: float) -> None:
        self._app = app
        self._mode = mode
        self._timeout = timeout
        self._state = _State.IDLE
        # Whether the application took the startup event: it then knows the protocol.
        self._took_startup = False
        # Set by receive() calls beyond the one that delivered the startup event.
        self._shutdown_wanted = asyncio.Event()
        # Resolves with None (complete) or the text of a failure, per phase.
        self._answer: asyncio.Future[str | None] | None = None
        self._task: asyncio.Task[None] | None = None
        # Shared with every request's scope (a shallow copy each), per the specification.
        self.state: dict[str, Any] = {}

    @property
    def supported(self) -> bool:
        """Whether the application took part: only then do requests get a ``state``."""
        return self._state is _State.UP

    async def start(self) -> None:
        """Run the application's startup; LifespanError if it must not be served."""
        if self._mode == "off":
            self._state = _State.ABSENT
            return
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._state = _State.STARTING
        self._task = loop.create_task(self._run(), name="rondel-lifespan")
        await asyncio.wait(
            _either(self._answer, self._task),
            timeout=self._timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._answer.done():
            failure = self._answer.result()
            if failure is None:
                self._state = _State.UP
                return
            await self._end()
            raise LifespanError(f"the application's startup failed{_colon(failure)}")
        if not self._task.done():
            await self._end()
            raise LifespanError(
                f"the application's startup took more than {self._timeout:g} s; "
                "give it more with --lifespan-timeout, or skip it with --lifespan off"
            )
        self._absent_or_broken(self._task)

    async def stop(self) -> bool:
        """Run the application's shutdown; False if it failed (which is logged, not raised)."""
        if self._state is not _State.UP or self._task is None:
            await self._end()
            return True
        self._answer = asyncio.get_running_loop().create_future()
        self._state = _State.STOPPING
        self._shutdown_wanted.set()
        await asyncio.wait(
            _either(self._answer, self._task),
            timeout=self._timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )
        failure = self._shutdown_failure(self._answer, self._task)
        await self._end()
        if failure is not None:
            logger.error("the application's shutdown failed%s", _colon(failure))
        return failure is None

    def _shutdown_failure(
        self, answer: "asyncio.Future[str | None]", task: "asyncio.Task[None]"
    ) -> str | None:
        if answer.done():
            return answer.result()
        if not task.done():
            return f"no answer within {self._timeout:g} s"
        error = None if task.cancelled() else task.exception()
        if error is None:
            return None  # it returned on the event, without a word: done all the same
        logger.error("exception in the application's shutdown", exc_info=error)
        return f"{type(error).__name__}: {error}"

    def _absent_or_broken(self, task: "asyncio.Task[None]") -> None:
        """The application left the lifespan scope without an answer to the startup event."""
        self._state = _State.ABSENT
        error = None if task.cancelled() else task.exception()
        if self._mode == "on":
            if error is not None:
                logger.error("exception in the application's startup", exc_info=error)
            how = "returned" if error is None else f"raised {type(error).__name__}: {error}"
            raise LifespanError(
                f"the application has no lifespan: it {how}; --lifespan auto serves it all the same"
            )
        if error is not None and self._took_startup:
            logger.warning(
                "the application took the lifespan's startup event and then raised; "
                "serving without lifespan",
                exc_info=error,
            )
        else:
            logger.debug("the application has no lifespan", exc_info=error)

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if not self._took_startup:
            self._took_startup = True
            return {"type": "lifespan.startup"}
        await self._shutdown_wanted.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        phase = {_State.STARTING: "startup", _State.STOPPING: "shutdown"}.get(self._state)
        if phase is None or kind not in (f"lifespan.{phase}.complete", f"lifespan.{phase}.failed"):
            raise RuntimeError(
                f"unexpected ASGI message {kind!r} during lifespan ({self._state.value})"
            )
        if self._answer is None or self._answer.done():
            raise RuntimeError(f"the lifespan's {phase} was already answered ({kind!r})")
        failed = kind.endswith(".failed")
        self._answer.set_result(str(message.get("message", "")) if failed else None)

    async def _end(self) -> None:
        """Nothing of the application's lifespan runs on after this."""
        self._state = _State.DONE
        task = self._task
        if task is None:
            return
        if not task.done():
            # A moment to return after its last answer, then no more.
            await asyncio.wait({task}, timeout=1.0 if self._answer_given() else 0)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("the application's lifespan ended with an exception", exc_info=error)

    def _answer_given(self) -> bool:
        return self._answer is not None and self._answer.done()


def _either(*futures: "asyncio.Future[Any]") -> "set[asyncio.Future[Any]]":
    """A set for ``asyncio.wait``, of one type for the checker."""
    return set(futures)


def _colon(text: str) -> str:
    return f": {text}" if text else ""
