"""What the worker processes of the tests run: importable there by this module's name."""

import asyncio
import contextvars
import os
import signal
import time
from pathlib import Path

VARIABLE = contextvars.ContextVar("VARIABLE", default="default")


class Inconvenient(Exception):
    """Pickles, but does not unpickle: it wants two arguments and keeps one."""

    def __init__(self, first: object, second: object) -> None:
        super().__init__(first)


def pid() -> int:
    return os.getpid()


def double(value: bytes, *, times: int = 2) -> bytes:
    return value * times


def fail(text: str) -> None:
    raise LookupError(text)


def fail_inconveniently() -> None:
    raise Inconvenient("one", "two")


def leave(code: int) -> None:
    os._exit(code)


def system_exit() -> None:
    raise SystemExit(4)


def signal_itself(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def unpicklable_result() -> object:
    return lambda: None


def variable() -> str:
    return VARIABLE.get()


def handles_sigint() -> bool:
    return signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def nested() -> int:
    async def main() -> int:
        import rondel

        return await rondel.to_process(pid)

    return asyncio.run(main())


def tell_and_wait(begun: str, go: str, ended: str) -> int:
    """Write one's pid to `begun`, wait for `go`, write `ended`."""
    part = Path(begun + ".part")
    part.write_text(str(os.getpid()))
    part.rename(begun)
    deadline = time.monotonic() + 30
    while not Path(go).exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    Path(ended).write_text("ended")
    return os.getpid()
