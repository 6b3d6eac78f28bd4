"""Run unittest modules (the arguments) under injection, streaming results."""

import os
import sys
import unittest
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import events
import inject


class Result(unittest.TestResult):
    """One event per test; the first bad outcome of a test and its subtests counts."""

    def __init__(self) -> None:
        super().__init__()
        self._outcome = ("passed", "")

    def startTest(self, test: Any) -> None:  # noqa: N802 (unittest's names)
        super().startTest(test)
        self._outcome = ("passed", "")
        events.start(test.id())

    def stopTest(self, test: Any) -> None:  # noqa: N802
        super().stopTest(test)
        events.result(test.id(), *self._outcome)

    def _bad(self, kind: str, test: Any, error: Any) -> None:
        text = self._exc_info_to_string(error, test)  # type: ignore[attr-defined]
        if not isinstance(test, unittest.TestCase):  # setUpModule, setUpClass
            events.start(str(test))
            events.result(str(test), kind, text, outside=True)
        elif self._outcome[0] in ("passed", "skipped"):
            self._outcome = (kind, text)

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._bad("error", test, err)

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._bad("failed", test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            kind = "failed" if issubclass(err[0], test.failureException) else "error"
            self._bad(kind, test, err)

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        if not isinstance(test, unittest.TestCase):
            events.start(str(test))
            events.result(str(test), "skipped", reason)
        elif self._outcome[0] == "passed":
            self._outcome = ("skipped", reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addExpectedFailure(test, err)
        self._outcome = ("skipped", "expected failure")

    def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802
        super().addUnexpectedSuccess(test)
        self._outcome = ("failed", "unexpected success")


def flatten(suite: Any) -> Iterator[Any]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def main(modules: list[str]) -> None:
    inject.install()
    if os.environ.get("CONF_MODE") == "cpython":
        import cpython_patch

        cpython_patch.prepare(modules)
    only = os.environ.get("CONF_ONLY")
    loader = unittest.defaultTestLoader
    tests = [
        test
        for module in modules
        for test in flatten(loader.loadTestsFromName(module))
        if not only or fnmatchcase(test.id(), only)
    ]
    kept = events.filtered(test.id() for test in tests)
    unittest.TestSuite(test for test in tests if test.id() in kept).run(Result())
    events.end()
    sys.stdout.flush()
    sys.stderr.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
