"""Mixed traffic on one loop for a long time: python -m tests.soak --seconds 3600.

TCP by protocols, buffered protocols, streams and sock_*, Unix sockets, TLS and start_tls, UDP,
threads and child processes, in 500 sessions at once, with resets, aborts, half-closed and stuck
peers, timeouts and cancels. What must hold: each answer is the right one; nothing reaches the
loop's exception handler, sys.unraisablehook or a warning; the process's size is flat after the
warm-up (of runs of a minute or more); at the end no task, no child, no descriptor is left. The last
line is "soak: 1 passed, 0 failed (...)".
"""

import argparse
import asyncio
import contextlib
import gc
import importlib
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from tests.safety import measures
from tests.soak.traffic import KINDS, Session, Wrong, seeds, servers

SAMPLES = 40
# How much the process may grow from the second quarter's size to the last one's, by `Watch.grown`.
ALLOWED = 4 << 20
SHORTEST = 60.0  # seconds, below which all is warm-up
SHOWN = 10
# asyncio's streams notice that they are over TLS a turn after the handshake's end: a peer that ends
# just then makes sslproto say this, on any loop.
EOF_DURING_START_TLS = "returning true from eof_received() has no effect when using ssl"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--seconds", type=float, default=300, metavar="S", help="how long (300)")
    add("--connections", type=int, default=500, metavar="N", help="sessions at once (500)")
    add("--think", type=float, default=0.5, metavar="S", help="mean pause of a session (0.5)")
    add("--seed", type=int, default=1, metavar="N", help="of all choices (1)")
    add("--kind", action="append", default=[], choices=list(KINDS), help="only this (all)")
    add("--aio", default="rondel", choices=["rondel", "asyncio"], help="whose loop (rondel)")
    add("--quiet", action="store_true", help="the last line only")
    return made


class Watch:
    """What went wrong, and the sizes."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.sizes: list[int] = []
        self.lag = 0.0

    def problem(self, text: str) -> None:
        self.problems.append(text)
        if len(self.problems) <= SHOWN:
            print(f"PROBLEM  {text[:2000]}", flush=True)

    def on_loop_error(self, _loop: Any, context: dict[str, Any]) -> None:
        self.problem(f"to the loop's exception handler: {context}")

    def on_unraisable(self, args: Any) -> None:
        self.problem(f"unraisable: {args.exc_value!r} in {args.object!r}")

    def on_warning(self, message: Any, category: Any, *where: Any) -> None:
        self.problem(f"warning: {message}")

    def grown(self) -> float:
        """From the second quarter to the last, in bytes; the first is the warm-up.

        The size swings by several MiB with what is in flight; what is never given back raises the
        least of it as well as the median.
        """
        quarter = len(self.sizes) // 4
        if not quarter:
            return 0
        early, late = self.sizes[quarter : 2 * quarter], self.sizes[-quarter:]
        return min(statistics.median(late) - statistics.median(early), min(late) - min(early))


async def soak(options: argparse.Namespace, watch: Watch, counts: Counter[str]) -> None:
    kinds = options.kind or list(KINDS)
    stop, children = asyncio.Event(), asyncio.Semaphore(8)

    async def live(session: Session) -> None:
        try:
            await session.live(stop)
        except Wrong as error:
            watch.problem(str(error))
        except Exception as error:
            watch.problem(f"a session ended: {error!r}")

    async def heartbeat() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.1)
            watch.lag = max(watch.lag, time.monotonic() - before - 0.1)

    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        async with servers(Path(folder)) as places:
            if places.client_context is None:
                print("no openssl: TLS is left out", flush=True)
            beating = asyncio.create_task(heartbeat())
            sessions = [
                asyncio.create_task(
                    live(Session(places, rng, counts, children, options.think, kinds))
                )
                for rng in seeds(options.seed, options.connections)
            ]
            for number in range(SAMPLES):
                await asyncio.sleep(options.seconds / SAMPLES)
                gc.collect()
                watch.sizes.append(measures.resident())
                if not options.quiet and number % (SAMPLES // 10) == 0:
                    alive = sum(not task.done() for task in sessions)
                    print(
                        f"{(number + 1) * options.seconds / SAMPLES:7.0f} s "
                        f"{watch.sizes[-1] / 2**20:6.1f} MiB {counts['exchanges']:9} exchanges, "
                        f"{measures.descriptors()} descriptors, {alive} sessions, "
                        f"{len(watch.problems)} problems",
                        flush=True,
                    )
            stop.set()
            done, late = await asyncio.wait(sessions, timeout=70)
            for task in late:
                watch.problem(f"does not end: {task!r}")
                task.cancel()
            beating.cancel()
            await asyncio.gather(*late, beating, return_exceptions=True)
    # Server sides see the ends of their peers in the turns that follow.
    own = asyncio.current_task()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while asyncio.all_tasks() - {own}:
                await asyncio.sleep(0.05)
    for task in asyncio.all_tasks() - {own}:
        watch.problem(f"pending: {task!r}")
    if len(done) != options.connections:
        watch.problem(f"{options.connections - len(done)} sessions hung")


def run(options: argparse.Namespace) -> bool:
    watch, counts = Watch(), Counter[str]()
    aio = importlib.import_module(options.aio)
    warnings.simplefilter("always")
    warnings.showwarning = watch.on_warning
    sys.unraisablehook = watch.on_unraisable

    class OnLog(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            # The stock loop's own race: a transport that is closed polls its child, which may be
            # before the watcher has waited for it.
            raced = options.aio == "asyncio" and "exit status already read" in text
            if text != EOF_DURING_START_TLS and not raced:
                watch.problem(f"logged: {text}")

    on_log = OnLog(logging.WARNING)
    logging.getLogger("asyncio").addHandler(on_log)
    # The first loop, and what is made once for the process.
    with aio.Runner(loop_factory=aio.new_event_loop) as runner:
        runner.run(asyncio.to_thread(int))
    others = measures.children()
    before, start, used = measures.descriptors(), time.monotonic(), time.process_time()
    with aio.Runner(loop_factory=aio.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(watch.on_loop_error)
        runner.run(soak(options, watch, counts))
    del runner
    gc.collect()
    logging.getLogger("asyncio").removeHandler(on_log)
    after = measures.descriptors()
    if after != before:
        watch.problem(f"{before} descriptors before, {after} after")
    for child in sorted(measures.children() - others):
        watch.problem(f"process {child} is left")
    if options.seconds >= SHORTEST and watch.grown() > ALLOWED:
        sizes = " ".join(f"{size / 2**20:.1f}" for size in watch.sizes)
        watch.problem(f"grown by {watch.grown() / 2**20:.1f} MiB; MiB over time: {sizes}")
    # A busy machine drops many; a reader that is not called any more loses all.
    if counts["datagrams given up"] * 2 > counts["datagrams"]:
        watch.problem(f"{counts['datagrams given up']} of {counts['datagrams']} datagrams lost")
    if not counts["exchanges"]:
        watch.problem("nothing was exchanged")
    if len(watch.problems) > SHOWN:
        print(f"... and {len(watch.problems) - SHOWN} more")
    if not options.quiet:
        print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
        print(
            f"size {watch.sizes[0] / 2**20:.1f} to {max(watch.sizes) / 2**20:.1f} MiB, grown "
            f"{watch.grown() / 1024:+.0f} KiB after the first quarter; worst lag of the loop "
            f"{watch.lag * 1000:.0f} ms; CPU {time.process_time() - used:.0f} s; "
            f"descriptors {before} before and {after} after"
        )
    failed = bool(watch.problems)
    print(
        f"soak: {1 - failed} passed, {int(failed)} failed (CPython {sys.version.split()[0]}, "
        f"{options.aio}, {options.connections} connections, seed {options.seed}, "
        f"{counts['exchanges']} exchanges, {time.monotonic() - start:.0f} s)"
    )
    return not failed


def main(arguments: list[str] | None = None) -> int:
    return 0 if run(parser().parse_args(arguments)) else 1


if __name__ == "__main__":
    sys.exit(main())
