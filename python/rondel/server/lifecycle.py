"""One server from start to stop on the running loop, and the signals that end it.

    start: lifespan startup ─► listen ─► native server ─► banner
    stop:  native shutdown (deadline) ─► lifespan shutdown ─► sockets closed

Signals (main thread only): the first SIGINT or SIGTERM stops gracefully; the second cuts off what
is left at once; a third kills the process, as the default handlers are back by then.

Invariants: what ``start`` began is undone if it fails half-way; ``stop`` is idempotent and bounded
by the graceful and the lifespan timeout.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from rondel import _stall_log
from rondel.server import logs
from rondel.server.beats import Beats
from rondel.server.config import ASGIApp, Config
from rondel.server.health import HealthPort
from rondel.server.heap import SetAside
from rondel.server.lifespan import Lifespan
from rondel.server.metrics import Metrics
from rondel.server.native import NativeServer, start_server
from rondel.server.sockets import Listeners, listeners_of
from rondel.server.threads import Threads
from rondel.server.tls import Certificates, Tickets
from rondel.server.watchdog import Late, Watchdog

__all__ = ["Server"]

logger = logging.getLogger("rondel.server")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server:
    """An ASGI application served on the running loop, which must be Rondel's.

        async with Server(app, Config(port=0)) as server:
            print(server.url)

    ``listeners`` may be bound beforehand, to learn early that a port is taken. ``on_ready`` is
    called by ``run`` in place of the banner. ``stuck`` is told why this process should be replaced,
    from any thread. ``alone``: this process does nothing but serve, so its garbage collector may be
    told what stays (``heap``).
    """

    def __init__(
        self,
        app: ASGIApp,
        config: Config | None = None,
        *,
        listeners: Listeners | None = None,
        on_ready: Callable[["Server"], None] | None = None,
        shared: tuple[int, int, int] | None = None,
        stuck: Callable[[str], object] | None = None,
        tickets: Tickets | None = None,
        alone: bool = False,
    ) -> None:
        self._alone = alone
        self._set_aside: SetAside | None = None
        self._tickets = tickets
        self._shared = shared
        self._stuck = stuck
        self._watchdog: Watchdog | None = None
        self._health: HealthPort | None = None
        self._beats: Beats | None = None
        self._on_ready = on_ready
        # Seconds that idle connections stay open once a stop was asked for.
        self._idle = 0.0
        self.config = config or Config()
        self._app = app
        self._listeners = listeners
        self._lifespan: Lifespan | None = None
        self._native: NativeServer | None = None
        self._threads: Threads | None = None
        self._certificates: Certificates | None = None
        self._metrics: Metrics | None = None
        # Signals seen so far; `_asked` wakes `run` for the first, `_forced` for the second.
        self._signals = 0
        self._asked = asyncio.Event()
        self._forced = asyncio.Event()

    @property
    def url(self) -> str:
        """Where the server is to be found; ``http://...`` or ``unix:/path``."""
        if self._listeners is None:
            raise RuntimeError("the server is not started: `async with Server(app) as server`")
        return self._listeners.url

    async def start(self) -> None:
        """Bind, run the application's startup, listen. Raises ``ServeError``."""
        config = self.config
        if self._listeners is None:
            self._listeners = listeners_of(config)
        self._lifespan = Lifespan(self._app, config.lifespan, config.lifespan_timeout)
        try:
            if config.ssl_certfile:
                self._certificates = Certificates(config, self._tickets)
            await self._lifespan.start()
            state = self._lifespan.state if self._lifespan.supported else None
            self._listeners.listen(config.backlog)
            loop = asyncio.get_running_loop()
            self._threads = Threads(config)
            self._threads.start(loop)
            app, blocking = self._threads.adopt(self._app, config, loop)
            if config.metrics is not None:
                self._metrics = Metrics(self._shared)
            self._beats = beats = Beats(self._shared)
            if self._alone and config.gc_freeze and not config.reload:
                self._set_aside = SetAside()
            if config.health_port is not None and self._shared is None:
                self._health = HealthPort(config, lambda: [(1, beats.read(0))])
            limits = config.limits
            self._native = start_server(
                loop,
                app,
                config,
                self._listeners.sockets,
                state,
                blocking,
                self._shared,
                self._metrics,
                Late(limits.request_timeout, self._stuck),
                self._certificates and self._certificates.context,
                self._listeners.redirects,
            )
            # A developer's breakpoint blocks the loop, too.
            stall = 0.0 if config.reload else limits.stall
            if stall and self._threads is not None and self._threads.inline:
                # The application blocks the loop as long as it takes: its deadline is the loop's.
                stall = min(stall, limits.request_timeout or stall)
            self._watchdog = Watchdog(stall, beats, self._stuck)
            self._watchdog.start(loop)
            # From here on: what an application does at its start blocks nobody.
            _stall_log.enable()
            if self._metrics is not None:
                self._metrics.start(loop, self.stats, self._threads.pool)
            if self._certificates is not None:
                self._certificates.watch(loop)
        except BaseException:
            await self._close()
            raise

    async def stop(self, deadline: float | None = None) -> None:
        """Stop gracefully within ``deadline`` seconds (default: the configured timeout)."""
        if self._metrics is not None:
            self._metrics.retire()
        native, self._native = self._native, None
        if native is not None:
            # The native server has duplicates and closes them: with ours gone as well, the kernel
            # refuses new connections instead of queueing them for nobody.
            if self._listeners is not None:
                self._listeners.close()
            limit = self.config.graceful_timeout if deadline is None else deadline
            cut_off = await self._shut_down(native, limit)
            if cut_off:
                noun = "request" if cut_off == 1 else "requests"
                logger.warning("cut off %d %s that did not end in time", cut_off, noun)
        await self._close()

    async def run(self) -> int:
        """Serve until a signal asks to stop; the exit status (0 after a graceful stop)."""
        with self._signal_handlers():
            starting = asyncio.ensure_future(self.start())
            asked = asyncio.ensure_future(self._asked.wait())
            both: set[asyncio.Future[Any]] = {starting, asked}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                logger.info("stopped while starting")
                starting.cancel()
                await asyncio.wait({starting})
                return 0
            if starting.exception() is not None:
                asked.cancel()
            await starting
            if self._on_ready is None:
                logger.info("%s", self._banner())
                if self._listeners is not None:
                    self._listeners.tell_redirect()
            else:
                self._on_ready(self)
            await asked
            # A supervisor tells this of all its workers at once.
            level = logging.INFO if self._on_ready is None else logging.DEBUG
            logger.log(level, "stopping: no new connections, requests in flight may end")
            await self.stop()
            logger.log(level, "stopped")
        return 1 if self._forced.is_set() else 0

    def ask_to_stop(self, idle: float = 0.0) -> None:
        """Have ``run`` stop gracefully; idle connections stay open for ``idle`` seconds, for one
        more request each. On the loop's thread.
        """
        self._idle = idle
        self._signals += 1
        self._asked.set()

    def cut_off(self) -> None:
        """Have ``run`` stop without waiting for requests in flight. On the loop's thread."""
        self._asked.set()
        self._forced.set()

    def stats(self) -> dict[str, int]:
        """``connections`` open, ``requests`` in flight, ``waiting`` for that, ``served`` since the
        start.
        """
        if self._native is None:
            return {"connections": 0, "requests": 0, "waiting": 0, "served": 0}
        return self._native.stats()

    async def __aenter__(self) -> "Server":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _shut_down(self, native: NativeServer, limit: float) -> int:
        ended = native.shutdown(limit, self._idle)
        forced = asyncio.ensure_future(self._forced.wait())
        both: set[asyncio.Future[Any]] = {ended, forced}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if not ended.done():
            native.shutdown(0)
        return await ended

    async def _close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._health is not None:
            self._health.close()
        if self._beats is not None:
            self._beats.retire()
        if self._certificates is not None:
            self._certificates.close()
        if self._threads is not None:
            self._threads.stop()
        if self._lifespan is not None:
            await self._lifespan.stop()
        if self._listeners is not None:
            self._listeners.close()
        if self._metrics is not None:
            self._metrics.close()
        if self._set_aside is not None:
            self._set_aside.take_back()
            self._set_aside = None
        logs.flush_access()

    def _banner(self) -> str:
        from rondel import __version__

        return (
            f"Rondel {__version__} serving {self.config.name} on {self.url} "
            f"(pid {os.getpid()}), Ctrl+C stops"
        )

    @contextlib.contextmanager
    def _signal_handlers(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before: dict[signal.Signals, Any] = {sig: signal.getsignal(sig) for sig in _SIGNALS}
        for sig in _SIGNALS:
            loop.add_signal_handler(sig, self._on_signal, loop)
        try:
            yield
        finally:
            for sig in _SIGNALS:
                loop.remove_signal_handler(sig)
                if before[sig] is not None:  # None: a handler that Python did not set
                    signal.signal(sig, before[sig])

    def _on_signal(self, loop: asyncio.AbstractEventLoop) -> None:
        self._signals += 1
        self._asked.set()
        if self._signals == 2:
            logger.warning("second signal: cutting off what is left")
            self.cut_off()
            for sig in _SIGNALS:
                loop.remove_signal_handler(sig)
                signal.signal(sig, signal.SIG_DFL)
