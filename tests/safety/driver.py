"""A little of everything, in one process that then ends: what valgrind watches.

Each workload runs in a loop of its own, with frequent collections; tasks are left pending at the
end, on a loop that is never closed, so that the interpreter's shutdown meets them.
"""

import asyncio
import gc
import importlib
import sys
from typing import Any

from tests.safety.catalogue import WORKLOADS
from tests.safety.workloads import forever

COUNT = 100


def main(names: list[str]) -> None:
    aio = importlib.import_module("rondel")
    gc.set_threshold(50, 5, 5)
    for name in names or list(WORKLOADS):
        loop: asyncio.AbstractEventLoop = aio.new_event_loop()
        with aio.Runner(loop_factory=lambda loop=loop: loop) as runner:
            runner.run(WORKLOADS[name].body(aio, COUNT))
        print(name, flush=True)
    left: Any = aio.new_event_loop()
    left.set_exception_handler(lambda *_: None)
    tasks = [left.create_task(forever()) for _ in range(3)]
    left.call_soon(left.stop)
    left.run_forever()
    left.tasks = tasks
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
