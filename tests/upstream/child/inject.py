"""What conformance's `events` and `run_pytest` ask of a module of this name, for these suites.

There the loop is put in asyncio's place by hand; here `rondel.install()` has done all there is to
do (sitecustomize), and this module checks that and counts: `created` grows with each start of a
loop of this side's, `events` marks a test with it as one that ran on the loop under test.

On Rondel's side only Rondel's loops count. Whatever starts Rondel's loops must go through
`EventLoop.run_forever`, as `run_until_complete` and Runner do; otherwise the comparison says "no
loop of Rondel's ran" where one did.
"""

import asyncio
import functools
import os
from typing import Any

created = 0
# `events` sets it for each test; no test here steers the time.
virtual = False


def install() -> None:
    if os.environ["UPSTREAM_SIDE"] == "rondel":
        import rondel

        if not rondel.installed():
            raise SystemExit("rondel is not installed: sitecustomize was not imported, or failed")
        _count(rondel.EventLoop)
    else:
        _count(asyncio.SelectorEventLoop)


def _count(loop_type: Any) -> None:
    original = loop_type.run_forever

    @functools.wraps(original)
    def run_forever(self: Any) -> None:
        global created
        created += 1
        original(self)

    loop_type.run_forever = run_forever
