"""A process that serves one application: import, sockets, loop, and a bounded end.

Order, and why: sockets are bound first (a taken port is told at once), the application is imported
while no loop runs (Django refuses database access from ``AppConfig.ready`` under a running loop)
but with the loop already current (``asyncio.get_event_loop()`` at import time finds it).
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from rondel._runners import Runner
from rondel.server import logs, page, target
from rondel.server.config import ASGIApp, Config
from rondel.server.lifecycle import Server
from rondel.server.sockets import listeners_of
from rondel.server.threads import prepared

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = ["end_process", "leave_soon", "run_process"]

logger = logging.getLogger("rondel.server")

# Seconds that threads still running the application's code get after the server has stopped.
_THREADS_GRACE = 5.0


def run_process(
    app: "ASGIApp | WSGIApplication | str",
    config: Config,
    *,
    factory: bool = False,
    stopped: Callable[[int], None] | None = None,
) -> int:
    """Serve until stopped; returns the exit status, raises ``ServeError``.

    ``stopped`` is told the status when the server has stopped, before the loop is closed: tasks
    that do not end when they are cancelled could hold that up for ever (see ``leave_soon``).
    """
    logs.configure_as(config)
    if isinstance(app, str):
        target.parse(app)  # a malformed name is told before anything is opened
    listeners = listeners_of(config)
    try:
        with page.beside(config), Runner() as runner:
            runner.get_loop()
            if isinstance(app, str):
                app = target.load(app, factory=factory, interface=config.interface)
            else:
                app = target.adapt(app, config.name, config.interface)
            app = prepared(app, config)
            status = runner.run(Server(app, config, listeners=listeners, alone=True).run())
            if stopped is not None:
                stopped(status)
            return status
    finally:
        listeners.close()


def leave_soon(status: int) -> None:
    """From now on the process has some seconds to end by itself; then it is ended.

    asyncio waits for every cancelled task when a loop is closed, and the interpreter joins every
    thread on its way out: a view that hangs would hold the process, and with it a deployment, for
    ever.
    """

    def give_up() -> None:
        stuck = [
            thread.name
            for thread in threading.enumerate()
            if not thread.daemon and thread is not threading.main_thread()
        ]
        what = (
            f"threads still busy after the stop: {', '.join(stuck)}"
            if stuck
            else ("tasks did not end when they were cancelled")
        )
        logger.warning("%s; leaving them", what)
        logging.shutdown()
        os._exit(status)

    timer = threading.Timer(_THREADS_GRACE, give_up)
    timer.daemon = True
    timer.start()


def end_process(status: int) -> NoReturn:
    """Exit, even if a thread of the application's never returns."""
    leave_soon(status)
    sys.exit(status)
