"""What the control passes must pass: one run of a suite held against the stock loop's.

Invariant: nothing that is missing passes. A test counts as passed only if the run under test has
it as passed; one that it lacks, skips or never gave its loop to is a regression like a failure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.conformance.process import Results
from tests.conformance.run import Run, counted

GOOD = ("passed", "skipped")


@dataclass(frozen=True)
class Regression:
    """A test that passes on the control and does not here."""

    test: str
    unit: str
    what: str
    message: str = ""


@dataclass(frozen=True)
class Comparison:
    passed: int
    regressions: list[Regression]
    # Failed by the control: they say nothing about the loop under test. Name -> last outcome.
    control_failures: dict[str, str]
    excluded: int
    problems: list[str]  # reasons why the comparison itself cannot be trusted


def compare(control: Run, subject: Run) -> Comparison:
    suite = subject.request.suite
    stock = counted(control.results, suite)
    regressions = list(_regressions(stock, control.results, subject))
    problems = [
        f"{run.request.title}: no test was found in {', '.join(run.empty)}"
        for run in (control, subject)
        if run.empty
    ]
    lost = sum(result["outcome"] == "notrun" for result in stock.values())
    if lost:
        problems.append(f"the control could not run {lost} tests")
    wanted = {name for name, result in stock.items() if result["outcome"] == "passed"}
    if not wanted:
        problems.append("the control passed nothing: see --unit and --only")
    return Comparison(
        passed=len(wanted - {regression.test for regression in regressions}),
        regressions=regressions,
        control_failures={
            name: result["outcome"]
            for name, result in sorted(stock.items())
            if result["outcome"] not in GOOD
        },
        excluded=sum(result["outcome"] == "excluded" for result in control.results.values()),
        problems=problems,
    )


def _regressions(stock: Results, control: Results, subject: Run) -> Iterator[Regression]:
    mine = subject.results
    for name, result in sorted(mine.items()):
        failed = result["outcome"] not in (*GOOD, "excluded")
        # What the control excludes or has not got (a crash between tests) is no excuse.
        if failed and control.get(name, {}).get("outcome", "passed") in GOOD:
            yield Regression(name, result["unit"], result["outcome"], result["msg"])
    makes_loop = subject.request.suite != "cpython-primitives"
    for name, result in sorted(stock.items()):
        if result["outcome"] != "passed":
            continue
        here = mine.get(name)
        if here is None:
            yield Regression(name, result["unit"], "missing")
        elif here["outcome"] in ("skipped", "excluded"):
            yield Regression(name, result["unit"], here["outcome"], here["msg"])
        elif here["outcome"] == "passed" and makes_loop and not here["touched"]:
            yield Regression(name, result["unit"], "never made the loop")
