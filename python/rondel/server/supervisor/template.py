"""What runs in a template process (``--preload``): the application is imported once, workers are
forks.

A fork shares the template's memory until one of them writes (copy on write): ``sharing``.

What is imported here lives in every worker, so it must not hold what can't be shared: a thread (it
is not in the forks; a warning says so), a database connection (Django's are closed), an event loop
(none is current while the application is imported).

One thread, no event loop. Workers are this process's children, so their ends are told to the
supervisor.
"""

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

from rondel.server import logs
from rondel.server.supervisor.channel import Channel
from rondel.server.supervisor.sharing import settle
from rondel.server.supervisor.worker import Spec, end_fork, no_input, serve, tell_failure
from rondel.server.threads import prepared

__all__ = ["main", "run"]

logger = logging.getLogger("rondel.server")


def main() -> NoReturn:
    """The process's program."""
    sys.exit(_main(Spec.read()))


def run(told: dict[str, Any]) -> NoReturn:
    """A fork's program."""
    no_input()
    end_fork(_main(Spec(told, forked=True)))


def _main(spec: Spec) -> int:
    """Until the supervisor is gone; does not return in a worker."""
    try:
        app = _load(spec)
    except BaseException as error:
        return tell_failure(spec.channel, error)
    with contextlib.suppress(KeyboardInterrupt):
        forked = _supply(spec)
        if forked is not None:
            serve(forked, app)
    return 0


def _load(spec: Spec) -> Any:
    import rondel

    logs.configure_as(spec.config, "template")
    rondel.install(bridge=spec.config.bridge)
    app = prepared(spec.load(), spec.config)
    others = [thread.name for thread in threading.enumerate()][1:]
    if others:
        logger.warning(
            "--preload: the application has started threads while it was imported, which workers "
            "will not have: %s",
            ", ".join(others),
        )
    django = sys.modules.get("django.db")
    if django is not None:
        django.connections.close_all()
    settle(freeze=spec.config.gc_freeze)
    return app


def _supply(spec: Spec) -> Spec | None:
    """Fork when asked to, until the supervisor is gone: None. In a fork: its spec."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    channel = spec.channel
    with selectors.DefaultSelector() as selector, ours, theirs:
        selector.register(channel, selectors.EVENT_READ)
        selector.register(ours, selectors.EVENT_READ)
        channel.send("ready")
        while not channel.ended:
            selector.select()
            with contextlib.suppress(BlockingIOError):
                ours.recv(4096)
            _reap(channel)
            for message, descriptors in channel.received():
                if message["is"] != "fork":
                    continue
                number, (theirs_of_worker,) = message["number"], descriptors
                if os.fork() == 0:
                    signal.set_wakeup_fd(before)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.setpgid(0, 0)
                    channel.close()
                    spec.channel = Channel(socket.socket(fileno=theirs_of_worker))
                    spec.number, spec.forked = number, True
                    spec.channel.send("here", pid=os.getpid())
                    return spec
                os.close(theirs_of_worker)
    return None


def _reap(channel: Channel) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            channel.send("ended", pid=pid, status=os.waitstatus_to_exitcode(status))
