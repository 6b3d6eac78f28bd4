"""One unit of tests in a process of its own, watched and restarted.

    start ─► events ─► ended ─► done
      ▲        │
      │        ├─ a test over its time: SIGABRT (faulthandler writes the stack), SIGKILL
      │        └─ the process dies
      └─ again, without the finished tests; the one that was running is `timeout` or `crashed`

Each child runs in a session of its own, so that whatever it starts ends with it; Ctrl-C therefore
does not reach it, and whoever watches it ends it instead.

Threads: units run side by side, each watched by a thread of its own. A unit's results belong to its
thread until `run_unit` returns them; what threads share is the stop event and the log.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.suites import Unit

Results = dict[str, dict[str, Any]]
POLL = 0.05
# How much of a child's output is kept with a crash: some before the stack, and the stack.
BEFORE_STACK, STACK, WITHOUT_STACK = 700, 1400, 1500


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds, but for `restarts`."""

    test: float = 20
    startup: float = 60
    exit: float = 15
    unit: float = 900
    restarts: int = 60


class Interrupted(Exception):
    """The run was stopped from outside; its results are of no use."""


class Attempt:
    """One run of the child, from its start to its end, and the events it wrote."""

    def __init__(self, unit: Unit, environment: dict[str, str], results: Results, home: Path):
        self.unit = unit
        self.results = results
        self.fresh = 0  # results of this attempt
        self.ended = False  # the child said that it had run all
        self.running: str | None = None  # the test that has started and not finished
        self.since = time.time()  # when it started, or the last one finished
        self.planned: set[str] = set()
        self._events = home / "events"
        self._events.write_text("")
        self._read = 0
        self._output = home / "output"
        finished = home / "finished"
        finished.write_text(
            "\n".join(name for name, result in results.items() if result["unit"] == unit.name)
        )
        environment = {**environment, "CONF_EVENTS": str(self._events), "CONF_SKIP": str(finished)}
        with self._output.open("wb") as output:
            self.child = subprocess.Popen(
                unit.arguments,
                cwd=unit.directory or home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def watch(self, patience: Patience, give_up: float, stop: threading.Event) -> bool:
        """Until the child is gone; true if it was ended for taking too long.

        Raises:
            Interrupted: `stop` was set; the child is gone.
        """
        try:
            while True:
                if stop.is_set():
                    raise Interrupted
                code = self.child.poll()
                self._take_events()
                if code is not None:
                    return False
                limit = patience.test if self.running else patience.startup
                if self.ended:
                    limit = patience.exit
                now = time.time()
                if now - self.since > limit or now > give_up:
                    self._abort()
                    return True
                time.sleep(POLL)
        finally:
            self._kill()

    def tail(self) -> str:
        """The end of the output, or what surrounds the stack of a crash."""
        text = self._output.read_text(errors="replace")
        stack = text.rfind("Fatal Python error")
        if stack < 0:
            return text[-WITHOUT_STACK:]
        return text[max(0, stack - BEFORE_STACK) : stack + STACK]

    def _take_events(self) -> None:
        with self._events.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._read += len(complete)
        for line in complete.splitlines():
            self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        match event["ev"]:
            case "start":
                self.running, self.since = event["id"], time.time()
            case "res":
                self.results[event["id"]] = outcome(
                    self.unit, event["outcome"], event["msg"], self.since, event["touched"]
                )
                self.running, self.since = None, time.time()
                self.fresh += 1
            case "plan":
                self.planned.update(event["ids"])
            case "excluded":
                self.results[event["id"]] = outcome(self.unit, "excluded", touched=False)
            case "end":
                self.ended, self.running, self.since = True, None, time.time()

    def _abort(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
            self.child.send_signal(signal.SIGABRT)
            self.child.wait(3)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


def outcome(
    unit: Unit, kind: str, message: str = "", since: float | None = None, touched: bool = True
) -> dict[str, Any]:
    seconds = round(time.time() - since, 2) if since is not None else 0
    return {
        "unit": unit.name,
        "outcome": kind,
        "touched": touched,
        "msg": message,
        "secs": seconds,
    }


def run_unit(
    unit: Unit,
    environment: dict[str, str],
    patience: Patience,
    log: Callable[[str], None],
    stop: threading.Event,
) -> tuple[Results, float]:
    """Run a unit to its end: its outcomes and the seconds it took.

    Raises:
        Interrupted: `stop` was set.
    """
    results: Results = {}
    begin = time.time()
    planned: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True) as made:
        for number in range(patience.restarts + 1):
            attempt = Attempt(unit, {**environment, **unit.environment}, results, Path(made))
            late = attempt.watch(patience, begin + patience.unit, stop)
            planned |= attempt.planned
            code = attempt.child.returncode
            if attempt.ended and code >= 0 and not late:
                if not attempt.fresh and number == 0:
                    log(f"  {unit.name}: no tests collected\n{attempt.tail()[-600:]}")
                break
            kind = "timeout" if late else "crashed"
            where = "exit" if attempt.ended else "outside any test"
            name = attempt.running or f"{unit.name}::<{where}>"
            message = f"rc={code} {attempt.tail()}"
            results[name] = outcome(unit, kind, message, attempt.since)
            log(f"  {unit.name}: {kind} rc={code} in {name}")
            stuck = not attempt.running and not attempt.fresh
            if attempt.ended or stuck or time.time() - begin > patience.unit:
                break
    for name in planned - set(results):  # given up, or died outside a test
        results[name] = outcome(unit, "notrun")
    return results, round(time.time() - begin, 1)
