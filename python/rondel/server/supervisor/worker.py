"""What runs in a worker process: one server on one loop, and a channel to the supervisor.

    spec on stdin ─► import ─► Server.run ─► "ready" ─► ... ─► stop (message, SIGTERM, or the
    channel's
                                                               end: the supervisor is gone)

A worker that can't start says why in a ``failed`` message; the supervisor prints it once, not once
for each worker. Signals are those of a server that runs alone (``lifecycle``), and SIGUSR1.
"""

import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

from rondel.server import logs, target
from rondel.server.config import ASGIApp, Config, Limits
from rondel.server.errors import ServeError, TargetImportError
from rondel.server.lifecycle import Server
from rondel.server.process import leave_soon
from rondel.server.sockets import Listeners
from rondel.server.supervisor import recycling
from rondel.server.supervisor.channel import WORKERS, Channel
from rondel.server.target import Application
from rondel.server.threads import prepared
from rondel.server.tls import Tickets

__all__ = ["Spec", "end_fork", "main", "no_input", "run", "serve", "tell_failure"]


class Spec:
    """What the supervisor tells a process of its own."""

    def __init__(self, told: dict[str, Any], *, forked: bool = False) -> None:
        self.forked = forked
        limits = Limits(**told["config"].pop("limits"))
        self.config = Config(**told["config"], limits=limits)
        self.app = Application(**told["app"])
        self.url: str = told["url"]
        self.redirects: int = told["redirects"]
        self.tickets = Tickets.heard(told["tickets"])
        self.number: int = told["number"]
        # Where workers count the connections that they took.
        self.ledger: int = told["ledger"]
        self.channel = Channel(socket.socket(fileno=told["channel"]))
        self.sockets = [socket.socket(fileno=number) for number in told["listening"]]

    def load(self) -> ASGIApp:
        """Import the application."""
        app = self.app
        return target.load(app.target, factory=app.factory, interface=self.config.interface)

    @classmethod
    def read(cls) -> "Spec":
        """From the standard input, which is empty from then on."""
        told = json.load(sys.stdin.buffer)
        no_input()
        sys.path[:] = told["path"]
        spec = cls(told)
        for owned in (
            spec.channel.fileno(),
            spec.ledger,
            *(sock.fileno() for sock in spec.sockets),
        ):
            os.set_inheritable(owned, False)
        return spec


def no_input() -> None:
    """The standard input is empty from now on."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)


def main() -> NoReturn:
    """The process's program."""
    serve(Spec.read())


def run(told: dict[str, Any]) -> NoReturn:
    """A fork's program."""
    no_input()
    serve(Spec(told, forked=True))


def serve(spec: Spec, app: Any = None) -> NoReturn:
    """Serve until told to stop, then end the process. ``app`` is imported already, with a
    template.
    """
    status = 1
    try:
        status = _serve(spec, app)
    except BaseException as error:
        status = tell_failure(spec.channel, error)
    leave_soon(status)
    spec.channel.close()
    if not spec.forked:
        sys.exit(status)
    end_fork(status)


def end_fork(status: int) -> NoReturn:
    """What another process has to do at its exit is not ours."""
    import atexit
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    logging.shutdown()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _serve(spec: Spec, app: Any) -> int:
    import rondel
    from rondel._runners import Runner

    config = spec.config
    # SIGABRT is how the supervisor ends a worker that does not even run its watchdog.
    if not faulthandler.is_enabled():
        faulthandler.enable(file=2)  # whatever the application made of sys.stderr
    if app is None:
        logs.configure_as(config, f"worker {spec.number}")
    else:
        logs.speak_as(f"worker {spec.number}")  # the template has configured them
    # This process is ours: libraries of the application get the native names too.
    rondel.install(bridge=config.bridge)
    with Runner() as runner:
        loop = runner.get_loop()
        if app is None:
            app = prepared(spec.load(), config)
        worker = _Worker(spec, loop)
        listeners = Listeners(spec.sockets, spec.url, redirects=spec.redirects)
        shared = (spec.ledger, WORKERS, (spec.number - 1) % WORKERS)
        server = Server(
            app,
            config,
            listeners=listeners,
            on_ready=worker.ready,
            shared=shared,
            stuck=lambda why: spec.channel.send("stuck", why=why),
            tickets=spec.tickets,
            alone=True,
        )
        worker.watch(server)
        status = runner.run(server.run())
        leave_soon(status)
    return status


class _Worker:
    """The worker's side of the channel, on its loop."""

    def __init__(self, spec: Spec, loop: asyncio.AbstractEventLoop) -> None:
        self._spec = spec
        self._loop = loop
        self._watch: asyncio.Task[None] | None = None

    def watch(self, server: Server) -> None:
        """Hear what the supervisor says from now on."""
        self._loop.add_reader(self._spec.channel.fileno(), self._heard, server)

    def ready(self, server: Server) -> None:
        """Called when it accepts."""
        self._spec.channel.send("ready")
        self._loop.add_signal_handler(signal.SIGUSR1, logs.reopen)
        limits = recycling.Limits.draw(self._spec.config)
        watching = recycling.watch(
            limits,
            lambda: server.stats()["served"],
            lambda why: self._spec.channel.send("replace", why=why),
        )
        self._watch = self._loop.create_task(watching)

    def _heard(self, server: Server) -> None:
        channel = self._spec.channel
        for message, _ in channel.received():
            if message["is"] == "stop":
                self._end(server, message["idle"])
            elif message["is"] == "cut":
                self._end(server, 0.0)
                server.cut_off()
        if channel.ended:
            self._loop.remove_reader(channel.fileno())
            self._end(server, 0.0)

    def _end(self, server: Server, idle: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        server.ask_to_stop(idle)


def tell_failure(channel: Channel, error: BaseException) -> int:
    """Say why this process does not serve; its exit status."""
    status, text = 1, ""
    if isinstance(error, SystemExit):
        code = error.code
        status = code if isinstance(code, int) else 1
        text = f"rondel serve: the application exited while it was imported: {code}\n"
    elif isinstance(error, ServeError):
        status = error.exit_status
        if isinstance(error, TargetImportError) and error.__cause__ is not None:
            text = "".join(traceback.format_exception(error.__cause__))
        text += f"rondel serve: {error}\n"
    else:
        text = "".join(traceback.format_exception(error))
    channel.send("failed", text=text, status=status)
    return status
