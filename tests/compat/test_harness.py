"""The matrix itself: what failed or never ran is told as failed; the table says what was run."""

from collections import Counter
from pathlib import Path

import pytest

from tests.compat.__main__ import (
    BEGIN,
    END,
    Outcome,
    Result,
    main,
    outcomes,
    programs,
    report,
    table,
    write_table,
)
from tests.compat.prepare import REQUIREMENTS
from tests.conformance.suites import SuiteError

REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="check_redis" name="check_one"/>
<testcase classname="check_redis" name="check_two[a.b]"><failure message="m">t</failure></testcase>
<testcase classname="programs.check_grpc" name="check_one"><skipped message="none here"/></testcase>
<testcase classname="check_anyio" name="check_one"><error message="m">t</error></testcase>
</testsuite></testsuites>
"""


def test_outcomes_are_counted_by_program(tmp_path: Path) -> None:
    path = tmp_path / "path"
    report(path, "loop").write_text(REPORT)
    found = outcomes(path, "loop", ["redis", "grpc", "anyio", "smtp"])
    assert found["redis"].counts == Counter(passed=1, failed=1)
    assert found["grpc"].counts == Counter(skipped=1)
    assert found["anyio"].counts == Counter(failed=1)
    # Nothing of it was reported: that is no success.
    assert found["smtp"].counts == Counter(failed=1)


def test_a_run_that_broke_down_is_a_failure(tmp_path: Path) -> None:
    assert outcomes(tmp_path / "path", "stdlib", ["redis"])["redis"].counts == Counter(failed=1)


def test_the_table_tells_versions_and_results() -> None:
    counts = {mode: Outcome(Counter(passed=3)) for mode in ("stdlib", "loop")}
    counts["install"] = Outcome(Counter(passed=2, failed=1))
    result = Result("3.13.0", {"grpcio": "1.2"}, {mode: {"grpc": o} for mode, o in counts.items()})
    assert [*table([result])][2:] == ["| grpc | grpcio 1.2 | 3.13.0 | 3 | 3 | 2, 1 failed |"]


def test_the_table_goes_between_the_marks(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(file, ["| new |"])
    assert file.read_text() == f"before\n{BEGIN}\n\n| new |\n\n{END}\nafter\n"
    file.write_text("no marks")
    with pytest.raises(SuiteError):
        write_table(file, [])


def test_every_program_is_documented_and_has_a_range() -> None:
    page = (Path(__file__).parents[2] / "docs/compat.md").read_text()
    listed = REQUIREMENTS.read_text().lower()
    for name in programs():
        assert f"| {name.replace('_', '-')} |" in page
        if name not in ("grpc", "smtp"):  # named otherwise
            assert f"\n{name.replace('_', '-')}" in listed
    for line in listed.splitlines():
        assert line.startswith("#") or (">=" in line and ",<" in line), line


def test_an_unknown_program_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-thing"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
