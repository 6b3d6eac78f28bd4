"""A snapshot as the page's rows, a recording as its timeline: what is told, and its bounds."""

import os
import re
import time
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import rondel
from rondel.inspect.recording import Outcome, Recording, Span, Task, ThreadCall, Wait, record
from rondel.inspect.web import single
from rondel.inspect.web.groups import Filter, Grouped, detail
from rondel.inspect.web.timeline import KINDS, timeline

WHEEL = os.environ.get("RONDEL_WHEEL", "")
STATIC = resources.files("rondel.inspect.web") / "static"


def snapshot(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    plain = {"loop": 1, "state": "waiting", "coro": "work", "chain": 0}
    return {
        "frames": [["/app/a.py", 3, "work"], ["/app/b.py", 4, "other"]],
        "chains": [[0], [0, 1]],
        "ages": [[len(tasks), 2.0]],
        "loops": [{"id": 1, "thread": 1, "phase": "idle", "tasks": len(tasks)}],
        "tasks": [{"id": n, "name": f"t{n}", **plain, **task} for n, task in enumerate(tasks, 1)],
    }


def told(data: dict[str, Any], **chosen: Any) -> list[tuple[int, int, str]]:
    rows = Grouped(data, Filter(**chosen)).tree()["rows"]
    return [(row["depth"], row["count"], row["coro"]) for row in rows]


def test_children_of_a_crowd_are_one_row_below_it() -> None:
    data = snapshot([{}, {}, {"parent": 1, "coro": "child"}, {"parent": 2, "coro": "child"}])
    assert told(data) == [(0, 2, "work"), (1, 2, "child")]


def test_another_place_or_wait_is_another_row() -> None:
    on = {"kind": "call", "call": "Queue.get", "what": "<Queue at 0x1>"}
    other = {**on, "what": "<Queue at 0x2>"}
    thread = {"kind": "thread", "call": "to_thread", "what": "read"}
    tasks = [{"on": on}, {"on": other}, {"chain": 1, "on": on}, {"on": thread}, {"state": "ready"}]
    rows = Grouped(snapshot(tasks), Filter()).tree()["rows"]
    assert [row["count"] for row in rows] == [2, 1, 1, 1]
    assert rows[0]["wait"] == "Queue.get <Queue> (not one and the same)"
    assert rows[3]["wait"] is None


def test_a_row_keeps_its_id_while_tasks_come_and_go() -> None:
    sleeps = {"on": {"kind": "sleep", "left": 1.0}, "state": "sleeping"}
    first = Grouped(snapshot([{}, sleeps, {**sleeps, "parent": 1}]), Filter()).tree()["rows"]
    slept = {**sleeps, "on": {"kind": "sleep", "left": 0.2}}
    later = Grouped(snapshot([slept, {}, {**sleeps, "parent": 2}]), Filter()).tree()["rows"]
    assert {row["id"] for row in first} == {row["id"] for row in later}
    assert len({row["id"] for row in first}) == 3


def test_those_that_are_chosen_stand_without_their_creators() -> None:
    data = snapshot([{"name": "Main"}, {"parent": 1, "coro": "child"}, {"state": "ready"}])
    assert told(data, words=("child",)) == [(0, 1, "child")]
    assert told(data, words=("main",)) == [(0, 1, "work")]
    assert told(data, words=("b.py",)) == []
    assert told(data, state="ready") == [(0, 1, "work")]
    assert told(data, older=1.0) == [(0, 2, "work"), (1, 1, "child")]
    assert told(data, older=3.0) == []


def test_a_long_line_of_creators_is_no_deep_tree() -> None:
    data = snapshot([{"parent": number, "coro": f"c{number}"} for number in range(5000)])
    rows = Grouped(data, Filter()).tree()
    assert max(row["depth"] for row in rows["rows"]) <= 40
    assert rows["shown"] == 5000
    assert rows["more"] == 3000


def test_a_hundred_thousand_are_some_rows_in_a_moment() -> None:
    on = [{"kind": "call", "call": "Queue.get", "what": f"<Queue at 0x{n:x}>"} for n in range(9)]
    data = snapshot([{"on": on[n % 9], "chain": n % 2} for n in range(100_000)])
    began = time.process_time()
    assert [row["count"] for row in Grouped(data, Filter()).tree()["rows"]] == [50_000, 50_000]
    assert time.process_time() - began < 20
    row = Grouped(data, Filter()).tree()["rows"][0]["id"]
    some = Grouped(data, Filter()).members(row, 400)
    assert (some["count"], len(some["tasks"])) == (50_000, 200)
    assert some["tasks"][0]["name"] == "t801"


def test_a_task_tells_whom_it_waits_for_and_who_waits_for_it() -> None:
    waits = {"on": {"kind": "task", "task": 2, "what": "t2"}}
    gathers = {"on": {"kind": "gather", "tasks": [2, 9], "done": 0, "total": 2}}
    data = snapshot([waits, {"parent": 1}, gathers])
    one = detail(data, 2)
    assert one is not None
    assert [task["name"] for task in one["waited_by"]["tasks"]] == ["t1", "t3"]
    assert [task["name"] for task in one["creators"]] == ["t1"]
    three = detail(data, 3)
    assert three is not None
    assert [task["name"] for task in three["awaits"]] == ["t2"]
    assert detail(data, 4) is None


# ------------------------------------------------------------------------------ timelines


def test_a_recording_is_told_whole() -> None:
    async def child() -> None:
        await rondel.sleep(0.01)

    async def main() -> None:
        task = rondel.create_task(child(), name="child")
        await task
        await rondel.to_thread(time.sleep, 0.01)
        doomed = rondel.create_task(rondel.sleep(10), name="doomed")
        await rondel.sleep(0)
        doomed.cancel()
        await rondel.gather(doomed, return_exceptions=True)

    recorder = record()
    rondel.run(main())
    data = timeline(recorder.stop())
    assert [task["runs"].rpartition(".")[2] for task in data["tasks"]] == [
        *("main", "child", "sleep"),
    ]
    first, second, third = data["tasks"]
    assert (second["parent"], second["depth"], second["outcome"]) == (0, 1, "result")
    assert third["outcome"] == "cancelled"
    [[at, by]] = third["cancels"]
    assert by == 0 and third["created"] <= at <= third["ended"]
    kinds = [KINDS[kind] for kind in first["waits"][2::6]]
    assert kinds[:2] == ["inside", "thread"]
    assert first["waits"][5] == 1, "the task that it waits for"
    assert data["calls"][first["waits"][11]]["runs"] == "sleep"
    assert first["steps"] == sorted(first["steps"])
    assert data["joined"] == data["lost"] == 0


def test_too_many_spans_are_joined_and_that_is_told() -> None:
    task = Task(0, "t", "work", 0.0)
    for number in range(10_000):
        at = number / 10_000
        task.steps.append(Span(at, at + 5e-5))
        task.waits.append(Wait(at + 5e-5, at + 1e-4, "sleep", "sleep", None))
    task.waits[-1].end = task.ended = 2.0
    task.outcome = Outcome.RESULT
    call = ThreadCall("read", 0.1)
    data = timeline(Recording(2.0, [task], [call], [], 0), most=1000)
    [told] = data["tasks"]
    assert len(told["steps"]) // 2 + len(told["waits"]) // 6 <= 1000
    assert data["joined"] > 0
    assert told["steps"][0] == 0.0
    # Long waits stay what they are.
    assert told["waits"][-5] == 2e6
    assert len(timeline(Recording(2.0, [task], [call], [], 0))["tasks"][0]["steps"]) == 20_000


# -------------------------------------------------------------------------- the page's files


def test_every_file_that_the_page_names_is_in_the_package() -> None:
    text = (STATIC / "index.html").read_text("utf-8")
    named = re.findall(r'(?:href|src)="static/([^"]+)"', text)
    assert len(named) > 6
    for name in named:
        assert (STATIC / name).is_file(), name
    modules = [path for path in Path(str(STATIC)).rglob("*.js") if "vendor" not in path.parts]
    assert len(modules) > 12
    for path in modules:
        for name in re.findall(r'from "([^"]+)";', path.read_text("utf-8")):
            assert (path.parent / name).is_file(), f"{path}: {name}"
        assert len(path.read_text("utf-8").splitlines()) < 600


def test_the_charts_library_comes_with_its_licence() -> None:
    assert "MIT License" in (STATIC / "vendor" / "uPlot.LICENSE").read_text("utf-8")
    assert "uPlot (v1.6" in (STATIC / "vendor" / "uPlot.js").read_text("utf-8")[:300]


def test_no_module_of_ours_writes_markup() -> None:
    for path in Path(str(STATIC)).rglob("*.js"):
        if "vendor" not in path.parts:
            text = path.read_text("utf-8")
            for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
                assert word not in text, f"{path}: {word}"


def test_the_single_page_has_every_module_that_its_own_import() -> None:
    joined = set(single._MODULES)
    for name in joined:
        text = (STATIC / "js" / f"{name}.js").read_text("utf-8")
        folder = Path(name).parent
        for found in re.findall(r'from "([^"]+)\.js";', text):
            parts = (folder / found).as_posix().replace("timeline/../", "")
            assert str(Path(parts)) in joined, f"{name}: {found}"


def test_each_example_has_its_picture_in_the_docs() -> None:
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "timelines.md").read_text("utf-8")
    programs = (docs.parent / "examples" / "concurrency").glob("*.py")
    names = [program.stem for program in programs if program.stem != "stopwatch"]
    assert len(names) > 9
    for name in names:
        assert f"](pictures/{name}.png)" in text
        assert 5_000 < (docs / "pictures" / f"{name}.png").stat().st_size < 60_000


@pytest.mark.skipif(not WHEEL, reason="RONDEL_WHEEL names no wheel")
def test_the_wheel_has_the_page_s_files() -> None:
    with zipfile.ZipFile(WHEEL) as wheel:
        inside = set(wheel.namelist())
    here = Path(str(STATIC))
    files = [path.relative_to(here) for path in here.rglob("*") if path.is_file()]
    assert len(files) > 25
    assert {f"rondel/inspect/web/static/{path.as_posix()}" for path in files} <= inside
