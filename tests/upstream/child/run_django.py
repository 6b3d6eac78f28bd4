"""Django's tests/runtests.py (the working directory's) with the arguments, streaming results.

runtests.py itself decides about settings, installed apps and warnings; only the runner's result
class is ours, and the tests of an earlier attempt are left out.
"""

import os
import runpy
import sys
import unittest
from typing import Any

import events
import inject
from run_unittest import Result, flatten


class StreamingResult(Result):
    """Takes what TextTestRunner gives its result class, and prints nothing."""

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        super().__init__()


def _stream() -> None:
    from django.test.runner import DiscoverRunner

    build = DiscoverRunner.build_suite

    def build_suite(self: Any, *arguments: Any, **options: Any) -> Any:
        tests = list(flatten(build(self, *arguments, **options)))
        kept = events.filtered(test.id() for test in tests)
        return unittest.TestSuite(test for test in tests if test.id() in kept)

    DiscoverRunner.build_suite = build_suite
    DiscoverRunner.get_resultclass = lambda self: StreamingResult


def main() -> None:
    inject.install()
    # As if runtests.py had been the program.
    sys.path.insert(0, os.getcwd())
    _stream()
    try:
        runpy.run_path("runtests.py", run_name="__main__")
    except SystemExit as status:
        if status.code not in (None, 0, 1, True, False):
            raise
    events.end()
    sys.stdout.flush()
    sys.stderr.flush()


if __name__ == "__main__":
    main()
