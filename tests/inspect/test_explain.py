"""`rondel explain` draws what tasks did beside each other, and says what to look at."""

import json
from pathlib import Path

import pytest

from rondel.inspect.explain import Marks, explain
from rondel.inspect.recording import Outcome, Place, Recording, Span, Task, ThreadCall, Wait

from ..cli.support import RONDEL, call

HERE = Place("program.py", 7, "main")
PLAIN = Marks("#", "+", "-", ".", "` ")


def task(number: int, runs: str, created: float, ended: float, **more: object) -> Task:
    made = Task(number, f"Task-{number + 1}", runs, created, ended=ended, outcome=Outcome.RESULT)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def sleeper(number: int, parent: Task | None, begin: float, end: float, name: str = "") -> Task:
    made = task(number, "fetch", begin, end, parent=parent)
    made.name = name or made.name
    made.steps = [Span(begin, begin), Span(end, end)]
    made.waits = [Wait(begin, end, "sleep", "sleep", HERE)]
    return made


def waiting(end: float) -> Task:
    made = task(0, "main", 0.0, end)
    made.steps = [Span(0.0, 0.0), Span(end, end)]
    made.waits = [Wait(0.0, end, "gather", "gather", HERE)]
    return made


def recording(tasks: list[Task], calls: list[ThreadCall] | None = None, lost: int = 0) -> Recording:
    return Recording(max(task.ended or 0.0 for task in tasks), tasks, calls or [], [], lost)


def test_a_program_that_overlaps() -> None:
    root = waiting(2.0)
    tasks = [root, sleeper(1, root, 0.0, 1.0), sleeper(2, root, 0.0, 2.0, "slow")]
    assert explain(recording(tasks), width=70, marks=PLAIN).splitlines() == [
        "              0 s            1 s             2 s",
        "main          +.............................+ 2.00 s",
        "` fetch       +--------------+                1.00 s",
        "` slow: fetch +-----------------------------+ 2.00 s",
        "",
        "# runs   + runs for a moment   - sleeps, or waits for a thread or the world   . waits "
        "for other tasks",
        "",
        "It took 2.00 s. One after another, the same steps and waits take 3.00 s: "
        "1.5 times as long.",
        "3 tasks, at most 2 of them under way at once.",
        "The loop ran their code for 0 µs, 0.0 % of the time.",
    ]


def test_endings_are_told() -> None:
    root = waiting(1.0)
    failed, cancelled, open_one = (sleeper(number, root, 0.0, 1.0) for number in (1, 2, 3))
    failed.outcome, cancelled.outcome = Outcome.EXCEPTION, Outcome.CANCELLED
    open_one.ended = open_one.outcome = None
    lines = explain(recording([root, failed, cancelled, open_one]), marks=PLAIN).splitlines()
    assert [line.split("+ ")[-1] for line in lines[2:5]] == [
        "1.00 s  failed",
        "1.00 s  cancelled",
        "not over",
    ]


def test_a_step_that_holds_the_loop_is_told_with_its_lines() -> None:
    root = waiting(1.0)
    late = task(1, "work", 0.0, 1.0, parent=root)
    late.steps = [Span(0.0, 0.0), Span(0.2, 0.8), Span(1.0, 1.0)]
    late.waits = [
        Wait(0.0, 0.2, "sleep", "sleep", Place("program.py", 3, "work")),
        Wait(0.8, 1.0, "sleep", "sleep", Place("program.py", 5, "work")),
    ]
    text = explain(recording([root, late, sleeper(2, root, 0.0, 1.0)]), width=200, marks=PLAIN)
    assert (
        "! work ran for 0.60 s without an await, between lines 3 and 5 of program.py, and 2 other "
        "tasks stood still meanwhile." in text
    )
    assert "asyncio.to_thread" in text
    drawn = next(line for line in text.splitlines() if "work" in line)
    assert 0.5 < drawn.count("#") / (drawn.count("#") + drawn.count("-")) < 0.7


def test_waits_in_a_row_are_told() -> None:
    alone = task(0, "main", 0.0, 1.0)
    alone.steps = [Span(0.0, 0.0), Span(0.5, 0.5), Span(1.0, 1.0)]
    alone.waits = [Wait(0.0, 0.5, "sleep", "sleep", HERE), Wait(0.5, 1.0, "sleep", "sleep", HERE)]
    text = explain(recording([alone]), width=200, marks=PLAIN)
    assert "! main waited 2 times in a row, 1.00 s, with nothing beside it (sleep)." in text
    beside = explain(recording([alone, sleeper(1, alone, 0.0, 1.0)]), width=200, marks=PLAIN)
    assert "in a row" not in beside


def test_calls_in_threads_have_rows_of_their_own() -> None:
    root = task(0, "main", 0.0, 1.0)
    call_ = ThreadCall("grind", 0.0, 0.0, 1.0)
    root.steps = [Span(0.0, 0.0), Span(1.0, 1.0)]
    root.waits = [Wait(0.0, 1.0, "thread", "to_thread", HERE, call=call_)]
    lines = explain(recording([root], [call_]), marks=PLAIN).splitlines()
    assert lines[2].startswith("` in a thread: grind ####")
    assert "One task, 1 call in threads" in "\n".join(lines)


def test_more_rows_than_fit_are_summed_up() -> None:
    root = waiting(1.0)
    tasks = [root, *(sleeper(number, root, 0.0, 1.0) for number in range(1, 100))]
    short = explain(recording(tasks), rows=10, marks=PLAIN)
    assert "... and 90 more rows (--rows 0 shows all): 90 × fetch" in short
    assert explain(recording(tasks), rows=0, marks=PLAIN).count("` fetch") == 99


def test_lost_events_are_told() -> None:
    assert "17 events had no room" in explain(recording([waiting(1.0)], lost=17))


def test_nothing_to_draw() -> None:
    assert explain(Recording(0.0, [], [], [], 0)) == "no task ran on a Rondel loop\n"


@pytest.mark.parametrize(("encoding", "runs"), [("utf-8", "█"), ("ascii", "#"), (None, "#")])
def test_marks_are_what_can_be_written(encoding: str | None, runs: str) -> None:
    assert Marks.for_encoding(encoding).runs == runs


PROGRAM = """\
import asyncio, sys

async def fetch(seconds):
    await asyncio.sleep(seconds)

async def main():
    await asyncio.gather(fetch(0.01), fetch(0.02))
    print("done", sys.argv[1:])

asyncio.run(main())
sys.exit(3)
"""


def test_the_command_runs_the_program_and_draws_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    got = call([*RONDEL, "explain", "program.py", "--rows", "x"], tmp_path)
    assert (got.status, got.output) == (3, "done ['--rows', 'x']\n")
    assert got.errors.count("└ fetch") == 2
    assert "One after another" in got.errors


def test_it_writes_files_and_a_trace(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = ["explain", "-o", "lines.txt", "--trace", "trace.json", "program.py"]
    got = call([*RONDEL, *command], tmp_path)
    assert (got.status, got.errors) == (3, "")
    assert "└ fetch" in (tmp_path / "lines.txt").read_text(encoding="utf-8")
    events = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    tracks = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"loop", "Task-1: main", "Task-2: fetch", "Task-3: fetch"} <= tracks
    slices = [event for event in events if event["ph"] == "X"]
    assert {"runs", "waits: sleep", "waits: gather"} <= {event["name"] for event in slices}
    assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in slices)


def test_a_traceback_comes_before_the_drawing(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import asyncio\nasync def main(): 1 / 0\nasyncio.run(main())\n"
    )
    got = call([*RONDEL, "explain", "program.py"], tmp_path)
    assert got.status == 1
    assert got.errors.index("ZeroDivisionError") < got.errors.index("failed")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no program given"),
        (["--rows"], "--rows needs a value"),
        (["--rows", "many", "x.py"], "--rows takes a number, not 'many'"),
        (["-o", "no/such/folder/file", "x.py"], "cannot write"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    got = call([*RONDEL, "explain", *arguments], tmp_path)
    assert got.status == 2
    assert words in got.errors
    assert len(got.errors.splitlines()) == 1


def test_the_docs_have_a_drawing_of_each_example() -> None:
    root = Path(__file__).parents[2]
    names = {path.stem for path in (root / "examples" / "concurrency").glob("*.py")}
    text = (root / "docs" / "timelines.md").read_text(encoding="utf-8")
    parts = text.split("\n## ")[1:]
    assert {part.split("\n")[0] for part in parts} == names - {"stopwatch"}
    assert all("█" in part or "▪" in part for part in parts)
