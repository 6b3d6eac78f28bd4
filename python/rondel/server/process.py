"""A process that serves one application: import, sockets, loop, and a bounded end.

Order, and why: sockets are bound first (a taken port is told at once), the application is imported
while no loop runs (Django refuses database access from ``AppConfig.ready`` under a running loop)
but with the loop already current (``asyncio.get_event_loop()`` at import time finds it).
"""

import logging
import os
import sys
import threading
from typing import NoReturn

from rondel._runners import Runner
from rondel.server import logs, target
from rondel.server.config import ASGIApp, Config
from rondel.server.lifecycle import Server
from rondel.server.sockets import bind

__all__ = ["end_process", "run_process"]

logger = logging.getLogger("rondel.server")

# Seconds that threads still running the application's code get after the server has stopped.
_THREADS_GRACE = 5.0


def run_process(app: ASGIApp | str, config: Config, *, factory: bool = False) -> int:
    """Serve until stopped; returns the exit status, raises ``ServeError``."""
    logs.configure(config.log_level, access=config.access_log)
    if isinstance(app, str):
        target.parse(app)  # a malformed name is told before anything is opened
    listeners = bind(config.host, config.port, config.uds)
    try:
        with Runner() as runner:
            runner.get_loop()
            if isinstance(app, str):
                app = target.load(app, factory=factory)
            else:
                target.check_asgi(app, config.name)
            return runner.run(Server(app, config, listeners=listeners).run())
    finally:
        listeners.close()


def end_process(status: int) -> NoReturn:
    """Exit, even if a thread of the application's never returns.

    The interpreter joins every thread pool on its way out; a view that hangs would hold the
    process, and with it a deployment, for ever.
    """

    def give_up() -> None:
        stuck = [
            thread.name
            for thread in threading.enumerate()
            if not thread.daemon and thread is not threading.main_thread()
        ]
        logger.warning("threads still busy after the stop: %s; leaving them", ", ".join(stuck))
        logging.shutdown()
        os._exit(status)

    timer = threading.Timer(_THREADS_GRACE, give_up)
    timer.daemon = True
    timer.start()
    sys.exit(status)
