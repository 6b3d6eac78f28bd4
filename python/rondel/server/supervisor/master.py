"""The supervisor: who is started, replaced and ended.

    slot (one per worker wanted):   current ◄──ready── coming
                                       └─ retired when the coming one serves

    start      all slots at once; if one fails before any ever served, nothing is served: exit
    crash      a worker that ends by itself is replaced, at once or, if it keeps dying, after a
               pause that doubles
    replace    a worker asks for it (``recycling``): the new one serves before the old one stops
    --reload   a watcher tells of changed files, which is a SIGHUP; what fails is told, and waits
               for the next change
    SIGHUP     options are read anew, a new template is made, slots are renewed one at a time; if
               one fails, the rest stays as it is
    SIGTTIN, SIGTTOU   one slot more, one less
    SIGUSR1    log files are opened anew, everywhere
    SIGTERM, SIGINT    graceful stop, one deadline for all; the second cuts requests off, the
               third kills
    SIGQUIT    requests are cut off at once

Single thread, no event loop: a selector over channels, pidfds and the pipe of signals. Every wait
has a bound: a start by ``start_timeout``, a stop by the graceful and the lifespan timeout; after
that SIGKILL.
"""

import dataclasses
import functools
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

from rondel.server import logs, page
from rondel.server.config import Config
from rondel.server.errors import ServeError
from rondel.server.health import HealthPort
from rondel.server.sockets import Listeners, listeners_of
from rondel.server.supervisor import child as children
from rondel.server.supervisor import signals, systemd
from rondel.server.supervisor.child import Child, State
from rondel.server.supervisor.pulse import LOOK, Pulse
from rondel.server.supervisor.sharing import settle
from rondel.server.supervisor.slots import Slot, lived, pause
from rondel.server.target import Application, parse
from rondel.server.tls import Tickets

__all__ = ["Supervisor", "supervise"]

logger = logging.getLogger("rondel.server")

# What a worker gets beyond its own deadlines before it is killed.
_GRACE = 10.0
# How long a retired worker's idle connections stay open for one more request, so that no client
# finds its connection closed at the moment at which it sends.
_IDLE = 2.0
# Options that are settled when the supervisor starts.
_SETTLED = (
    "host",
    "port",
    "uds",
    "uds_mode",
    "uds_owner",
    "fd",
    "http_redirect",
    "preload",
    "health_port",
    "inspect",
    "reload",
)

Reread = Callable[[], tuple[Application, Config]]


def supervise(
    app: Application, config: Config, reread: Reread | None = None, *, clean: bool = False
) -> int:
    """Serve with ``config.worker_count`` workers until stopped; the exit status. Raises ServeError.

    ``reread`` gives the options anew at a reload; it may raise ServeError. ``clean`` says that this
    process has imported nothing of the application's: its forks can be workers, to which a reload
    brings new code.
    """
    logs.configure_as(config)
    parse(app.target)  # a malformed name is told before anything is opened
    listeners = listeners_of(config)
    try:
        with page.beside(config):
            return Supervisor(app, config, listeners, reread, clean).run()
    finally:
        listeners.close()


class Supervisor:
    """One run. ``run`` is all there is to call."""

    def __init__(
        self,
        app: Application,
        config: Config,
        listeners: Listeners,
        reread: Reread | None,
        clean: bool,
    ) -> None:
        self._clean = clean
        self._app = app
        self._config = config
        self._listeners = listeners
        self._reread = reread
        self._selector = selectors.DefaultSelector()
        # In a fork: no signal is ours any more.
        self._deafen: Callable[[], None] = lambda: None
        self._slots: dict[int, Slot] = {}
        self._pulse = Pulse(self._slots)
        self._look_at = 0.0
        self._health = None if config.health_port is None else HealthPort(config, self._pulse.told)
        self._tickets = Tickets()
        # Everything that has not ended.
        self._processes: set[Child] = set()
        self._template: Child | None = None
        self._watcher: Child | None = None
        # When the next template is due, and how many did not live.
        self._template_at: float | None = None
        self._template_failures = 0
        self._generation = 0
        self._ever_served = False
        self._announced = False
        self._renewing = False
        self._stops = 0
        self._status = 0
        self._shared = False

    def run(self) -> int:
        """Until nothing is left to watch over."""
        try:
            with signals.heard(self._selector, self._signalled) as self._deafen:
                if self._config.reload:
                    # First of all, so that no change goes unseen.
                    self._watcher = self._start("watcher", 0, "watcher")
                else:
                    self._begin()
                while not (self._stops and not self._processes):
                    self._due()
                    for key, _ in self._selector.select(self._patience()):
                        key.data()
        finally:
            for process in self._processes:
                process.signal(signal.SIGKILL)
            self._selector.close()
            if self._health is not None:
                self._health.close()
            self._pulse.close()
        if self._announced:
            logger.info("stopped")
        return self._status

    # -- starting

    def _begin(self) -> None:
        for number in range(1, self._config.worker_count + 1):
            self._slots[number] = Slot(number, start_at=time.monotonic())
        if self._config.preload:
            self._start_template()

    def _start_template(self) -> None:
        self._start("template", 0, "template")

    def _start_worker(self, slot: Slot) -> None:
        slot.start_at = None
        name = f"worker {slot.number}"
        template = self._template
        if self._config.preload:
            if template is None or template.state is not State.SERVING:
                return  # started when it is ready
            worker = self._fork(template, slot, name)
        else:
            worker = self._start(name, slot.number, "worker")
        slot.coming = worker

    def _start(self, name: str, number: int, role: str) -> Child:
        spec = {
            "app": dataclasses.asdict(self._app),
            "config": dataclasses.asdict(self._config),
            "url": self._listeners.url,
            "redirects": self._listeners.redirects,
            "tickets": self._tickets.told(),
        }
        begin = children.start
        if self._clean and role != "watcher" and threading.active_count() == 1:
            self._share()
            begin = functools.partial(children.fork, leave=self._leave)
        started = begin(
            name, number, self._generation, role, spec, self._listeners.sockets, self._pulse.file
        )
        self._watch(started)
        self._selector.register(started.pidfd, selectors.EVENT_READ, lambda: self._gone(started))
        return started

    def _share(self) -> None:
        """Have what every fork needs before the first one, and leave it alone from then on."""
        if not self._shared:
            self._shared = True
            from rondel.server.supervisor import template, worker  # noqa: F401 - for the forks

            settle()

    def _leave(self) -> None:
        """In a fork: nothing of the supervisor's stays open, so that its end is seen by all."""
        self._deafen()
        for process in self._processes:
            process.channel.close()
            if process.pidfd >= 0:
                os.close(process.pidfd)
                process.pidfd = -1
        for sock in self._listeners.sockets:
            sock.close()
        self._selector.close()

    def _fork(self, template: Child, slot: Slot, name: str) -> Child:
        channel, theirs = children.Channel.pair()
        with theirs:
            template.channel.send("fork", (theirs.fileno(),), number=slot.number)
        worker = Child(name, slot.number, template.generation, channel, parent=template)
        self._watch(worker)
        return worker

    def _watch(self, process: Child) -> None:
        process.deadline = process.since + self._config.start_timeout
        self._processes.add(process)
        self._selector.register(
            process.channel, selectors.EVENT_READ, lambda: self._messages(process)
        )

    # -- what processes say

    def _messages(self, process: Child) -> None:
        for message, descriptors in process.channel.received():
            for descriptor in descriptors:
                os.close(descriptor)
            match message["is"]:
                case "here":
                    self._here(process, message["pid"])
                case "ready":
                    self._ready(process)
                case "failed":
                    process.failure = message["text"]
                    process.failure_status = message["status"]
                case "changed" if not self._stops:
                    self._changed(message["paths"])
                case "replace":
                    self._replace(process, message["why"])
                case "stuck":
                    process.stuck = True
                    self._replace(process, message["why"])
                case "ended":
                    self._ended(process, message["pid"], message["status"])
        if process.channel.ended:
            self._selector.unregister(process.channel)
            if process.pidfd < 0 and process.state is not State.GONE:
                # Forked, or not even that, and gone before we were told its number.
                self._let_go(process)

    def _ready(self, process: Child) -> None:
        if process.state is not State.STARTING:
            return
        process.state, process.ready_at, process.deadline = State.SERVING, time.monotonic(), None
        if process.number == 0:
            if process is self._watcher:
                self._begin()
            else:
                self._template_ready(process)
            return
        logger.info("%s (pid %d) is ready", process.name, process.pid)
        self._ever_served = True
        slot = self._slots.get(process.number)
        if slot is None or slot.coming is not process:
            self._retire(process)
            return
        old, slot.current, slot.coming = slot.current, process, None
        if old is not None:
            self._retire(old)
        self._announce()
        if self._renewing:
            self._renew_next()

    def _template_ready(self, process: Child) -> None:
        old, self._template = self._template, process
        if old is not None:
            self._retire(old)
        for slot in self._slots.values():
            if slot.current is None and slot.coming is None and slot.start_at is None:
                self._start_worker(slot)
        if self._renewing:
            self._renew_next()

    def _replace(self, process: Child, why: str) -> None:
        slot = self._slots.get(process.number)
        if self._stops or slot is None or slot.current is not process or slot.coming is not None:
            return
        logger.info("replacing %s (pid %d): %s", process.name, process.pid, why)
        self._start_worker(slot)

    def _here(self, process: Child, pid: int) -> None:
        """A forked worker says its number: only now can it be signalled, and its end be seen."""
        try:
            process.watch(pid)
        except ProcessLookupError:
            return  # gone already; its channel tells
        self._selector.register(process.pidfd, selectors.EVENT_READ, lambda: self._gone(process))
        if process.state is State.LEAVING:
            process.signal(signal.SIGTERM)

    def _ended(self, template: Child, pid: int, status: int) -> None:
        for process in list(self._processes):
            if process.pid == pid and process.parent is template:
                process.status = status
                if process.vanished:
                    self._let_go(process)

    # -- ends

    def _gone(self, process: Child) -> None:
        self._selector.unregister(process.pidfd)
        # Its last words may still lie in the channel.
        if not process.channel.ended:
            self._messages(process)
        parent = process.parent
        if parent is not None and process.status is None and parent.state is not State.GONE:
            process.vanished = True  # until its parent tells how it ended
        elif process.state is not State.GONE:
            self._let_go(process)

    def _let_go(self, process: Child) -> None:
        for orphan in [one for one in self._processes if one.parent is process and one.vanished]:
            self._let_go(orphan)  # nobody is left to tell how it ended
        was = process.state
        if not process.channel.ended:
            self._selector.unregister(process.channel)
        if process.pidfd >= 0:
            process.gone()
        else:
            process.state = State.GONE
            process.channel.close()
        self._processes.discard(process)
        if was is State.LEAVING or self._stops:
            if process.failure is not None and self._ever_served:
                logger.error("%s failed:\n%s", process.name, process.failure.rstrip())
                self._status = self._status or 1
            elif process.status not in (0, None) and self._stops == 0 and process.number:
                logger.warning("%s (pid %d) %s", process.name, process.pid, process.how_it_ended())
            return
        if process is self._watcher:
            sys.stderr.write(process.failure or f"the watcher {process.how_it_ended()}\n")
            self._status = process.failure_status
            self._stop()
        elif process.number == 0:
            self._template_gone(process, was)
        else:
            self._worker_gone(process, was)

    def _worker_gone(self, worker: Child, was: State) -> None:
        slot = self._slots.get(worker.number)
        if was is State.STARTING:
            if not self._start_failed(worker):
                return
        else:
            logger.error("%s (pid %d) %s", worker.name, worker.pid, worker.how_it_ended())
        if slot is None:
            return
        if slot.coming is worker:
            slot.coming = None
        if slot.current is worker:
            slot.current = None
        if slot.coming is not None:
            return
        slot.failures = 0 if lived(worker) else slot.failures + 1
        seconds = pause(slot.failures)
        if seconds:
            logger.info("starting %s again in %g s", worker.name, seconds)
        slot.start_at = time.monotonic() + seconds

    def _template_gone(self, template: Child, was: State) -> None:
        if was is State.STARTING:
            if not self._start_failed(template) or self._template is not None:
                return
        else:
            logger.error("%s (pid %d) %s", template.name, template.pid, template.how_it_ended())
            self._template = None
        # There is none to fork from: try again, as for a worker.
        self._template_failures = 0 if lived(template) else self._template_failures + 1
        self._template_at = time.monotonic() + pause(self._template_failures)

    def _start_failed(self, process: Child) -> bool:
        """Tell of it; whether the supervisor goes on."""
        what = process.failure or f"{process.name} {process.how_it_ended()} before it was ready\n"
        sys.stderr.write(what)
        sys.stderr.flush()
        if self._config.reload:
            logger.error("waiting for a change")
            self._renewing = False
            self._given_up(process)
            return False
        if not self._ever_served:
            self._status = process.failure_status
            self._stop(cut=True)
            return False
        if self._renewing and process.generation == self._generation:
            logger.error("%s could not start: the reload is given up", process.name)
            self._renewing = False
            systemd.notify("READY=1")
        else:
            logger.error("%s could not start", process.name)
        return True

    def _given_up(self, process: Child) -> None:
        """There is nothing to be gained by trying that again before something has changed."""
        for slot in self._slots.values():
            if slot.coming is process:
                slot.coming = None
            if slot.current is None:
                slot.start_at = None

    def _changed(self, paths: str) -> None:
        logger.info("changed: %s", paths)
        self._reload()

    # -- time

    def _due(self) -> None:
        now = time.monotonic()
        if not self._stops:
            if self._template_at is not None and self._template_at <= now:
                self._template_at = None
                self._start_template()
            for slot in list(self._slots.values()):
                if slot.start_at is not None and slot.start_at <= now and slot.coming is None:
                    self._start_worker(slot)
        if not self._stops and now >= self._look_at:
            self._look_at = now + LOOK
            self._look()
        for process in list(self._processes):
            if process.deadline is not None and process.deadline <= now:
                process.deadline = None
                late = "start" if process.state is State.STARTING else "stop"
                logger.error(
                    "%s (pid %d) did not %s in time: killed", process.name, process.pid, late
                )
                process.signal(signal.SIGKILL)

    def _look(self) -> None:
        limit = self._config.limits.stall
        if limit and not self._config.reload:
            self._pulse.end_silent(self._processes, limit)

    def _patience(self) -> float | None:
        """Seconds until something is due."""
        times = [] if self._stops else [self._look_at]
        times += [process.deadline for process in self._processes if process.deadline is not None]
        if not self._stops:
            times += [] if self._template_at is None else [self._template_at]
            times += [slot.start_at for slot in self._slots.values() if slot.start_at is not None]
        return max(min(times) - time.monotonic(), 0) if times else None

    # -- ends that are asked for

    def _retire(self, process: Child) -> None:
        """Ask it to end once; it is killed if it does not."""
        if process.state in (State.LEAVING, State.GONE):
            return
        was, process.state = process.state, State.LEAVING
        config = self._config
        process.deadline = time.monotonic() + (
            config.graceful_timeout
            if process.stuck
            else config.graceful_timeout + config.lifespan_timeout + _GRACE
        )
        if was is State.SERVING and process.number and not self._stops:
            process.channel.send("stop", idle=_IDLE)
        else:
            process.signal(signal.SIGTERM)

    def _stop(self, *, cut: bool = False) -> None:
        self._stops += 1
        if self._stops == 1 and not cut:
            logger.info("stopping: no new connections, requests in flight may end")
            systemd.notify("STOPPING=1")
        # With ours and the workers' closed, the kernel refuses new connections.
        self._listeners.close()
        for process in list(self._processes):
            if process.pidfd < 0:
                self._let_go(process)
            elif self._stops > 2 or (cut and not self._ever_served):
                process.signal(signal.SIGKILL)
            elif self._stops == 2 or cut:
                self._retire(process)
                # Not a second signal: the kernel keeps one of those that were not yet seen.
                process.channel.send("cut")
            else:
                self._retire(process)
        if self._stops == 2 or (cut and self._ever_served):
            logger.warning("cutting off what is left")
            self._status = 1

    # -- signals

    def _signalled(self, ours: socket.socket) -> None:
        for number in ours.recv(4096):
            match number:
                case signal.SIGINT | signal.SIGTERM:
                    self._stop()
                case signal.SIGQUIT:
                    self._stop(cut=True)
                case signal.SIGHUP if not self._stops:
                    self._reload()
                case signal.SIGUSR1:
                    logs.reopen()
                    for process in self._processes:
                        if process.state is not State.STARTING:
                            process.signal(signal.SIGUSR1)
                case signal.SIGTTIN if not self._stops:
                    self._resize(len(self._slots) + 1)
                case signal.SIGTTOU if not self._stops:
                    if len(self._slots) <= 1:
                        logger.warning("the last worker stays; SIGTERM stops")
                    else:
                        self._resize(len(self._slots) - 1)

    def _resize(self, count: int) -> None:
        logger.info("%d workers from now on", count)
        for number in range(1, count + 1):
            if number not in self._slots:
                self._slots[number] = slot = Slot(number)
                self._start_worker(slot)
        for number in [number for number in self._slots if number > count]:
            slot = self._slots.pop(number)
            for worker in (slot.current, slot.coming):
                if worker is not None:
                    self._retire(worker)

    def _reload(self) -> None:
        if self._reread is not None:
            try:
                app, config = self._reread()
            except ServeError as error:
                logger.error("no reload: %s", error)
                return
            for name in _SETTLED:
                if getattr(config, name) != getattr(self._config, name):
                    logger.warning("%s was changed: that takes a restart", name)
                    config = dataclasses.replace(config, **{name: getattr(self._config, name)})
            self._app = app
            count, self._config = self._config.worker_count, config
            logs.configure_as(config)
            if config.worker_count != count:
                self._resize(config.worker_count)
        self._generation += 1
        logger.info("reloading: workers are replaced one at a time")
        systemd.reloading()
        self._renewing = True
        if self._config.preload:
            self._start_template()
        else:
            self._renew_next()

    def _renew_next(self) -> None:
        for slot in self._slots.values():
            current, coming = slot.current, slot.coming
            if coming is not None and coming.generation == self._generation:
                return  # its readiness leads on
            if coming is None and (
                slot.start_at is not None  # it will be of this generation
                if current is None
                else current.generation == self._generation
            ):
                continue
            if coming is not None:
                self._retire(coming)  # it may have read what was there before the change
                slot.coming = None
            self._start_worker(slot)
            return
        self._renewing = False
        logger.info("reloaded")
        systemd.notify("READY=1")

    def _announce(self) -> None:
        if self._announced or any(slot.current is None for slot in self._slots.values()):
            return
        from rondel import __version__

        self._announced = True
        count = len(self._slots)
        logger.info(
            "Rondel %s serving %s on %s (pid %d) with %d %s, Ctrl+C stops",
            __version__,
            self._config.name,
            self._listeners.url,
            os.getpid(),
            count,
            "worker" if count == 1 else "workers",
        )
        self._listeners.tell_redirect()
        systemd.notify("READY=1", f"MAINPID={os.getpid()}")
