"""What stock asyncio passes must pass with Rondel, and on a loop of Rondel's.

Conformance's rule, without its narrowing to tests that make a loop: most of Django's tests make
none, and `rondel.install()` must not break those either. Invariant: nothing missing passes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.conformance.compare import GOOD, Regression
from tests.conformance.process import Results
from tests.conformance.suites import OUTCOMES

# Units that are this project's own: what they ask must hold on stock asyncio.
OURS = "channels_checks/"


@dataclass(frozen=True)
class Tally:
    """One side of a target, in numbers."""

    outcomes: Counter[str]
    loops: int  # passed tests in which a loop of this side's ran

    def __str__(self) -> str:
        told = [f"{self.outcomes[kind]} {kind}" for kind in OUTCOMES if self.outcomes[kind]]
        return ", ".join(told) or "nothing"


@dataclass(frozen=True)
class Comparison:
    passed: int
    regressions: list[Regression]
    control_failures: dict[str, str]  # they say nothing about Rondel; name -> outcome
    stock: Tally
    rondel: Tally
    problems: list[str]  # why the comparison itself cannot be trusted
    # Differences that `settle` did not find again.
    unstable: list[Regression] = field(default_factory=list)


def compare(stock: Results, rondel: Results, empty: list[str]) -> Comparison:
    """`empty`: units in which a side found no test."""
    regressions = list(_regressions(stock, rondel))
    wanted = {name for name, result in stock.items() if result["outcome"] == "passed"}
    problems = [f"no test was found in {unit}" for unit in empty]
    if not wanted:
        problems.append("the control passed nothing")
    problems += [
        f"ours fails on stock: {name}"
        for name, result in sorted(stock.items())
        if result["unit"].startswith(OURS) and result["outcome"] not in (*GOOD, "excluded")
    ]
    lost = sum(result["outcome"] == "notrun" for result in stock.values())
    if lost:
        problems.append(f"the control could not run {lost} tests")
    return Comparison(
        passed=len(wanted - {regression.test for regression in regressions}),
        regressions=regressions,
        control_failures={
            name: result["outcome"]
            for name, result in sorted(stock.items())
            if result["outcome"] not in (*GOOD, "excluded")
        },
        stock=tally(stock),
        rondel=tally(rondel),
        problems=problems,
    )


def tally(results: Results) -> Tally:
    return Tally(
        Counter(result["outcome"] for result in results.values()),
        sum(result["touched"] and result["outcome"] == "passed" for result in results.values()),
    )


def _regressions(stock: Results, rondel: Results) -> Iterator[Regression]:
    for name, result in sorted(rondel.items()):
        # What the control has not got (a crash between tests, a set-up that failed) is no excuse.
        failed = result["outcome"] not in (*GOOD, "excluded")
        if failed and stock.get(name, {}).get("outcome", "passed") in GOOD:
            yield Regression(name, result["unit"], result["outcome"], result["msg"])
    for name, result in sorted(stock.items()):
        if result["outcome"] != "passed":
            continue
        here = rondel.get(name)
        if here is None:
            yield Regression(name, result["unit"], "missing")
        elif here["outcome"] in ("skipped", "excluded"):
            yield Regression(name, result["unit"], here["outcome"], here["msg"])
        elif here["outcome"] == "passed" and result["touched"] and not here["touched"]:
            yield Regression(name, result["unit"], "no loop of Rondel's ran")
