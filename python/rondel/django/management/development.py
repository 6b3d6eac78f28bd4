"""The server under `manage.py runserver`: Rondel's, in the shape of Django's own.

Django's command makes a server (`server_cls`), says where it listens, gives it the application and
runs it; `DevelopmentServer` answers to these calls, so that checks, banner and error messages stay
Django's, of whichever version.

Threads. Under the autoreloader Django runs all of this on a thread of the child process, the main
thread watches files; without it, on the main thread. The server ends by the cancellation of its
main task:

    Ctrl+C, no reloader       the runner's SIGINT handler cancels it (as asyncio's does)
    SIGTERM, no reloader      our handler calls `Stop.ask`
    reloader: changed file,   the main thread leaves Django's reloader by an exception, and the
    SIGTERM, Ctrl+C           command calls `Stop.ask` on its way out

Invariants: a daemon thread must not be inside the loop when the interpreter goes away (it would
be torn out of native code), so the main thread waits for it; what does not end (a view that blocks
the loop, a thread that sleeps) is left behind by `leave_within`. A connection is never kept for
its request's sake: after a change of the code nobody wants the old one's answer.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from time import localtime, strftime
from types import FrameType
from typing import Any, NoReturn, cast

from django.conf import settings
from django.core.exceptions import RequestAborted

from rondel.server.config import ASGIApp, Config, Message, Receive, Scope, Send
from rondel.server.lifecycle import Server
from rondel.server.sends import EXTENSION, PassesFiles
from rondel.server.sockets import Listeners

__all__ = [
    "GRACE",
    "DevelopmentServer",
    "RequestLog",
    "Stop",
    "leave_now",
    "leave_within",
    "patience",
]

logger = logging.getLogger("django.server")

# Seconds that threads get to end before the process leaves them behind; at a reload the
# application's shutdown as well.
GRACE = 1.0
# Seconds that requests and the application's shutdown get on the main thread. A request that waits
# for a thread of asgiref's does not end when it is cancelled, and the server waits for it.
SHUTDOWN_GRACE = 3.0

# Django's own: http.server's names, not the locale's.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Stop:
    """Ends a server from any thread, also one that has not come up yet.

    `owns_process`: the process ends with the server, so it may leave behind what does not end.
    """

    def __init__(self, *, owns_process: bool) -> None:
        self.owns_process = owns_process
        # No lock: a signal handler may interrupt whoever holds it, on the same thread. `ask` writes
        # `_asked` and then reads `_task`, `enter_task` the other way round, so none is missed.
        self._asked = False
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None

    @property
    def asked(self) -> bool:
        """Whether the server is to end, or has been told to."""
        return self._asked

    def ask(self) -> None:
        """End the server soon. Idempotent; may be called in a signal handler of its thread."""
        self._asked = True
        task = self._task
        if task is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended
                task.get_loop().call_soon_threadsafe(task.cancel)

    def join(self) -> None:
        """Wait for the thread that runs the server, if there is one."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def enter_thread(self) -> None:
        """Called by the thread that will run the server, before it does anything else."""
        self._thread = threading.current_thread()

    def enter_task(self) -> None:
        """Called by the server's main task: from now on it is what `ask` cancels."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._task = task
        if self._asked:
            task.cancel()


class DevelopmentServer:
    """A `server_cls` for Django's `runserver`, bound to one runner and one `Stop`."""

    def __init__(
        self,
        address: tuple[str, int],
        _handler_class: object,
        *,
        ipv6: bool = False,
        runner: asyncio.Runner,
        stop: Stop,
        name: str,
    ) -> None:
        self._socket = _listen(address, socket.AF_INET6 if ipv6 else socket.AF_INET)
        self._runner = runner
        self._stop = stop
        self._name = name
        self._app: ASGIApp | None = None
        host, self.server_port = self._socket.getsockname()[:2]
        self._url = f"http://{f'[{host}]' if ipv6 else host}:{self.server_port}"

    def set_app(self, app: ASGIApp) -> None:
        """The application that `get_handler` made."""
        self._app = app

    def serve_forever(self) -> None:
        """Serve until stopped. Raises KeyboardInterrupt after Ctrl+C, ServeError from a start."""
        assert self._app is not None
        config = Config(
            access_log=False,
            graceful_timeout=0,
            lifespan_timeout=60,
            name=self._name,
            tax="ask" if settings.DEBUG else "off",
        )
        listeners = Listeners([self._socket], self._url)
        try:
            with _sigterm(self._stop), contextlib.suppress(asyncio.CancelledError):
                server = Server(RequestLog(self._app), config, listeners=listeners)
                self._runner.run(self._serve(server))
        finally:
            listeners.close()

    async def _serve(self, server: Server) -> None:
        self._stop.enter_task()
        loop = asyncio.get_running_loop()
        # Under the reloader its main thread bounds the end.
        on_main = threading.current_thread() is threading.main_thread()
        ends_process = on_main and self._stop.owns_process
        try:
            async with server:
                try:
                    await loop.create_future()
                finally:
                    if ends_process:
                        leave_within(SHUTDOWN_GRACE, 0)
                    if loop.get_exception_handler() is None:
                        loop.set_exception_handler(_ignore_aborted)
                    # That requests were cut off is what a reload does, and no news.
                    logging.getLogger("rondel.server").setLevel(logging.ERROR)
        except asyncio.CancelledError:
            if ends_process:
                leave_within(GRACE, 0)  # what is left is threads, which the runner waits for
            raise


class RequestLog:
    """An ASGI application that logs the requests of another as Django's development server does:

        [31/Jan/2026 12:00:00] "GET / HTTP/1.1" 200 1234

    The number is the size of the body, which the server's own access log does not know.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, and log its end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = _Sent(send)
        try:
            await self._app(scope, receive, sent.send)
        except asyncio.CancelledError:
            raise  # cut off by the server's end
        except BaseException:
            # The server answers for an application that failed before it did.
            _log_request(scope, 500 if sent.status is None else sent.status, "-")
            raise
        if sent.complete and sent.status is not None:
            bodiless = scope["method"] == "HEAD" or sent.status in (204, 304)
            _log_request(scope, sent.status, "0" if bodiless else str(sent.size))
        else:
            logger.info("- Broken pipe from %s", tuple(scope.get("client") or ()), extra=_extra())


class _Sent(PassesFiles):
    """What went to the client so far; a file counts when the server has it."""

    def __init__(self, inner: Send) -> None:
        super().__init__(inner)
        self.status: int | None = None
        self.size = 0
        self.complete = False

    async def send(self, message: Message) -> None:
        await self.inner(message)
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
        elif kind in ("http.response.body", EXTENSION):
            self.size += message["count"] if kind == EXTENSION else len(message.get("body", b""))
            self.complete = not message.get("more_body", False)


def leave_within(seconds: float, status: int) -> None:
    """End the process with `status` if it has not ended by itself in that time.

    The interpreter joins the threads of every pool on its way out: a sync view that sleeps would
    hold a reload. Django's own server leaves such threads behind, too.
    """

    timer = threading.Timer(seconds, leave_now, (status,))
    timer.daemon = True
    timer.start()


def leave_now(status: int) -> NoReturn:
    """End the process, whatever its threads are doing; what was printed is not lost."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


def _ignore_aborted(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Once the server ends: Django's handler leaves the task that told it of the cut behind."""
    if not isinstance(context.get("exception"), RequestAborted):
        loop.default_exception_handler(context)


def _log_request(scope: Scope, status: int, size: str) -> None:
    raw = scope.get("raw_path") or scope["path"].encode()
    target = raw + b"?" + scope["query_string"] if scope.get("query_string") else raw
    path = target.decode("ascii", "backslashreplace")
    line = f"{scope['method']} {path} HTTP/{scope['http_version']}"
    level = logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR
    logger.log(level, '"%s" %s %s', line, str(int(status)), size, extra=_extra(status))


def _extra(status: int | None = None) -> dict[str, Any]:
    """What `django.utils.log.ServerFormatter` reads: the time, and the status for the colour."""
    now = localtime()
    month = _MONTHS[now.tm_mon - 1]
    day, clock = f"{now.tm_mday:02}/{month}/{now.tm_year}", strftime("%H:%M:%S", now)
    extra: dict[str, Any] = {"request": None, "server_time": f"{day} {clock}"}
    if status is not None:
        extra["status_code"] = int(status)
    return extra


def _listen(address: tuple[str, int], family: socket.AddressFamily) -> socket.socket:
    """Bind as `socketserver` does, whose errors Django's command knows.

    It listens at once: who follows the banner's address waits for the start, and is not refused.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """In the reloader's parent: let its child end by itself on Ctrl+C, which reaches both.

    `subprocess.run`, by which Django waits for the child, kills it a quarter of a second after the
    parent's KeyboardInterrupt: less than an application's shutdown may take. A second Ctrl+C, or
    the child's delay, gives that exception after all.
    """
    main = threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not main or before is not signal.default_int_handler:
        yield
        return
    number = main.ident
    assert number is not None
    # A signal, as nothing else ends the parent's wait for its child.
    timer = threading.Timer(SHUTDOWN_GRACE, signal.pthread_kill, (number, signal.SIGINT))
    timer.daemon = True

    def handler(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        timer.start()

    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _sigterm(stop: Stop) -> Iterator[None]:
    """On the main thread SIGTERM ends the server; under the reloader the signal is Django's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(_number: int, _frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt  # it did not listen the first time
        stop.ask()

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
