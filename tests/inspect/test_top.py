"""`rondel top` without a screen: figures of two looks, what keys change, what is drawn."""

import itertools
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from rondel.cli.inspect_client import InspectError
from rondel.cli.top.asking import (
    Ended,
    Failed,
    Found,
    News,
    Pulse,
    Want,
    answer,
    pulse,
)
from rondel.cli.top.figures import Sample, figures
from rondel.cli.top.proc import look
from rondel.cli.top.render import draw, frame
from rondel.cli.top.state import State
from rondel.cli.top.tasks import TaskBook
from rondel.cli.top.text import clip, pad, percent, plain, width_of
from rondel.cli.top.view import Answer, Choice, Question
from rondel.cli.top.views import PROCESSES, VIEWS
from rondel.inspect import LoopStats
from rondel.inspect.recording import Recording, Span, Task
from tests.cli.support import PATIENCE
from tests.inspect.test_attach import Child, running
from tests.inspect.top_support import TOLD, book, task, watching

TREE, TASKS, REQUESTS, THREADS, STALLS = VIEWS


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with running(tmp_path_factory.mktemp("run"), "mixed", "30") as child:
        child.connect().close()
        yield child


def screen(state: State, width: int = 100, height: int = 30) -> str:
    """What is drawn; it fills the screen and no more."""
    lines = draw(state, "python program.py", width, height)
    assert len(lines) == height
    for line in lines:
        assert sum(width_of(cell.text) for cell in line) == width
    return "\n".join(plain(line) for line in lines)


def press(state: State, *keys: str) -> None:
    for key in keys:
        state.press(key)


def asked(child: Child, question: Question = Question.TASKS) -> Found:
    want = Want(child.pid, question)
    found, _ = answer(want, seconds=0.3)
    return Found(want, found, time.monotonic())


def watched(child: Child, *more: News) -> State:
    """A state that knows the child's counters, and what its tree was answered."""
    state = State(1.0, child.pid)
    first = pulse(child.pid)
    time.sleep(0.1)
    for news in (first, pulse(child.pid), asked(child), *more):
        state.tell(news)
    return state


# ------------------------------------------------------------------------------- windows


def stats(**changed: Any) -> LoopStats:
    told: dict[str, Any] = dict.fromkeys(("steps", "turns", "polls", "ready", "timers", "tasks"), 0)
    told |= {"id": 1, "thread": 1, "phase": "awake", "in_phase": 0.0, "age": 10.0, "busy": 1.0}
    return LoopStats(**told | {"idle": 0.0, "lag": (0, 0, 0, 0)} | changed)


def test_a_window_is_the_difference_of_two_looks() -> None:
    earlier = stats(idle=4.0, steps=100, turns=90, polls=50, lag=(5, 0, 9, 2**32 - 1))
    later = stats(idle=4.5, steps=300, turns=190, polls=60, lag=(5, 3, 10, 0), age=12.0)
    window = later.since(earlier)
    assert (window.id, window.seconds, window.busy) == (1, 2.0, 0.75)
    assert (window.steps, window.turns, window.polls) == (200, 100, 10)
    # The last counter has gone over its end meanwhile.
    assert window.lag == (0, 3, 1, 1)
    assert [window.lag_at(share) for share in (0.5, 0.8, 1)] == [2e-6, 4e-6, 8e-6]
    assert later.since(later).lag_at(0.5) == 0.0


def test_a_wait_that_goes_on_is_no_part_of_the_busy_time() -> None:
    earlier = stats(phase="idle", in_phase=1.0, idle=2.0)
    later = stats(phase="idle", in_phase=5.0, idle=2.0, age=14.0)
    assert later.since(earlier).busy == 0.0
    awake = stats(phase="awake", idle=5.0, age=14.0)
    assert awake.since(earlier).busy == pytest.approx(0.5)


def test_a_window_over_two_runs_of_a_loop_is_that_of_the_present_one() -> None:
    window = stats(age=0.5, busy=0.25, idle=70.0, steps=9).since(stats(age=60.0, idle=50.0))
    assert (window.seconds, window.busy, window.steps) == (0.5, 0.25, 9)


def test_looks_that_are_not_a_loop_s_earlier_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="of loop 2, not of loop 1"):
        stats().since(stats(id=2))
    with pytest.raises(ValueError, match="is the later one"):
        stats(steps=1).since(stats(steps=2))


def test_a_process_s_figures_are_rates_of_its_own_counters(child: Child) -> None:
    before = pulse(child.pid).sample
    time.sleep(0.3)
    found = figures(before, pulse(child.pid).sample)
    assert found.seconds >= 0.3
    [loop] = found.loops
    steps = loop.per_second("steps")
    # It ticks every 10 ms, or less often where there is no time.
    assert steps is not None and 0 < steps < 1000
    assert loop.window is not None and 0 <= loop.window.busy <= 1
    assert loop.lag() is not None
    assert found.tasks >= 34
    assert found.rss is not None and found.rss > 1_000_000
    assert found.cpu is not None and found.cpu >= 0
    assert found.threads is not None and found.threads >= 3
    names = {thread.name for thread in found.each_thread}
    assert "rondel-inspect" in names
    assert child.pid in {thread.tid for thread in found.each_thread}


def test_the_first_look_has_what_is_now_and_no_rates(child: Child) -> None:
    found = figures(None, pulse(child.pid).sample)
    assert found.tasks >= 34
    assert (found.seconds, found.cpu, found.created, found.busy) == (0.0, None, None, None)
    assert found.loops[0].per_second("steps") is None
    with pytest.raises(ValueError, match="not the earlier"):
        sample = pulse(child.pid).sample
        figures(sample, sample)


def test_what_the_process_tells_of_itself_goes_before_what_the_system_has() -> None:
    def sample(at: float, cpu: float, calls: int, waited: float) -> Sample:
        pool = {"threads": 8, "busy": 2, "queued": 1, "calls": calls}
        pool |= {"waited": waited, "ran": 10 * waited}
        told = {"loops": [], "process": {"cpu": cpu, "rss": 5000}, "pool": pool, "created": calls}
        return Sample(at, told, look(os.getpid()))

    found = figures(sample(1.0, 3.0, 100, 1.0), sample(3.0, 4.0, 150, 1.5))
    assert (found.cpu, found.rss, found.created) == (0.5, 5000, 25.0)
    assert found.pool is not None
    assert (found.pool.threads, found.pool.busy, found.pool.queued) == (8, 2, 1)
    assert (found.pool.calls, found.pool.waited, found.pool.ran) == (25.0, 0.01, 0.1)
    assert found.as_json()["pool"]["calls"] == 25.0


def test_a_process_that_has_ended_has_no_figures() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        end = time.monotonic() + PATIENCE
        # A zombie until it is waited for.
        while look(pid) is not None:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        os.waitpid(pid, 0)
    assert look(pid) is None


# ---------------------------------------------------------------------------------- tree


def test_the_tree_has_tasks_that_wait_alike_as_one_line(child: Child) -> None:
    shown = screen(watched(child))
    assert re.search(r"├ ▾ creator  creates +waiting", shown)
    assert re.search(r"│ └ ▸ 30 × worker  \(worker-", shown)
    assert re.search(r"× worker .* waiting .* Queue\.get <Queue", shown)
    assert "worker-29" not in shown


def test_lines_open_and_close_and_stay_so_in_the_next_answer(child: Child) -> None:
    state = watched(child)
    rows = [item for item in state.items if len(item.tasks) == 30]
    assert [item.open for item in rows] == [False]
    press(state, *["down"] * state.items.index(rows[0]), "right")
    assert "worker-29" in screen(state, height=60)
    state.tell(asked(child))
    assert "worker-29" in screen(state, height=60)
    press(state, "down", "left")
    # From within, left goes to what it stands below; once more closes it.
    assert len(state.selected.tasks) == 30
    press(state, "left")
    assert "worker-29" not in screen(state, height=60)
    press(state, "left")
    assert state.selected.tasks[0]["name"] == "creator"
    press(state, "left")
    assert re.search(r"▸ creator  creates  \+30", screen(state))


def test_enter_shows_a_task_s_stack_and_who_created_it(child: Child) -> None:
    state = watched(child)
    names = [item.tasks[0]["name"] for item in state.items]
    press(state, *["down"] * names.index("creator"), "enter")
    shown = screen(state)
    assert re.search(r"^creator  creates  \[waiting\]$", shown, re.MULTILINE)
    assert re.search(r"^  creates  .*tests/inspect/child\.py:\d+$", shown, re.MULTILINE)
    assert "→ TaskGroup.__aexit__" in shown
    assert "Created by Task-1  main" in shown
    press(state, "esc")
    assert "WAITS FOR" in screen(state)


def test_a_task_that_has_ended_is_shown_as_it_was(child: Child) -> None:
    state = watched(child)
    press(state, "enter")
    assert "over" not in screen(state)
    before = asked(child)
    assert before.answer.book is not None
    data = {**before.answer.book.data, "tasks": []}
    state.tell(Found(before.want, Answer(book=TaskBook(data)), 0.0))
    shown = screen(state)
    assert "It is over. This is as it was last seen:" in shown
    assert "Task-1  main  [" in shown


def test_the_story_follows_whom_a_task_waits_for_even_in_a_circle() -> None:
    def waits(other: int) -> dict[str, Any]:
        return {"kind": "task", "task": other, "what": f"Task-{other}"}

    story = list(book(task(1, on=waits(2)), task(2, on=waits(3)), task(3, on=waits(1))).story(1))
    assert "It waits for Task-2  main  [waiting]:" in story
    assert "It waits for Task-3  main  [waiting]:" in story
    assert story[-1] == "It waits for Task-1: they wait for each other."
    assert list(book().story(1)) == ["This task has ended."]


def test_a_place_is_the_program_s_own_and_not_asyncio_s() -> None:
    found = book(task(1))
    found.data["frames"].append(["/usr/lib/python3.13/asyncio/taskgroups.py", 5, "TaskGroup.x"])
    found.data["frames"].append(["<native>", 0, "sleep"])
    found.data["chains"][0] = [0, 1, 2]
    assert found.site(found.tasks[0]) == "program.py:7 main"
    found.data["chains"].append([1, 2])
    assert found.site(task(2, chain=1)) == "taskgroups.py:5 TaskGroup.x"
    found.data["chains"].append([2])
    assert found.site(task(3, chain=2)) == ""


def test_a_task_that_answers_a_request_is_shown_with_it() -> None:
    found = book(task(1), task(2, coro="app"))
    data = {**found.data, "requests": [[2, "GET", "/books/\x1b"]]}
    state = State(1.0, 5)
    state.tell(Found(state.want, Answer(book=TaskBook(data)), 0.0))
    assert r"Task-2  app  GET /books/\x1b" in screen(state)
    press(state, "/", *"get /b", "enter", "enter")
    assert r"Task-2  app  GET /books/\x1b  [waiting]" in screen(state)


def test_groups_of_one_place_have_keys_of_their_own() -> None:
    crowd = [task(i, state="waiting" if i % 2 else "ready") for i in range(1, 9)]
    nodes = book(*crowd).tree(None, set())
    assert len(nodes) == 2 and len({node.key for node in nodes}) == 2
    opened = book(*crowd).tree(None, {nodes[0].key})
    assert [node.open for node in opened] == [True, None, None, None, None, False]


def test_tasks_of_tasks_of_tasks_are_drawn_to_any_depth() -> None:
    deep = [task(i, parent=i - 1) for i in range(1, 50_001)]
    state = State(1.0, 5)
    state.tell(Found(state.want, Answer(book=book(*deep)), 0.0))
    screen(state)
    assert "1-25 of 50000" in screen(state)
    press(state, "G")
    assert re.search(r"^….*└   Task-50000", screen(state), re.MULTILINE)
    press(state, "left")
    assert state.selected.tasks[0]["name"] == "Task-49999"


# ------------------------------------------------------------------- filter, sort, freeze


def test_a_filter_matches_names_places_and_waits(child: Child) -> None:
    state = watched(child)
    press(state, "/", *"WORKER-1\\d")
    assert "/WORKER-1\\d_" in screen(state)
    assert re.search(r"▸ 10 × worker", screen(state))
    press(state, "enter")
    assert "enter keep" not in screen(state)
    press(state, "/", *["backspace"] * 20, *"queue.get", "enter")
    assert re.search(r"▸ 30 × worker", screen(state))
    # What is no regular expression stands for itself, and what matches nothing says so.
    press(state, "/", *["backspace"] * 20, *"(((", "enter")
    assert "nothing matches the filter" in screen(state)
    press(state, "/", "x", "esc")
    assert "/(((" in screen(state)
    press(state, "esc")
    assert "creator" in screen(state)


def test_sorting_goes_through_the_columns_and_turns_round() -> None:
    state = State(1.0, 5)
    state.tell(
        Found(state.want, Answer(book=book(task(2), task(10), task(1, name="Zoe"))), 0.0),
    )

    def names() -> list[str]:
        return [item.tasks[0]["name"] for item in state.items]

    # In the order of creation, and they wait alike: one line, which is opened.
    press(state, "right")
    assert names() == ["Zoe", "Zoe", "Task-2", "Task-10"]
    press(state, "s")
    assert "TASK▲" in screen(state) and "sorted by TASK" in screen(state)
    press(state, "<")
    assert "in its own order" in screen(state)
    press(state, ">", ">", ">")
    assert "AGE▼" in screen(state)
    press(state, "r")
    assert "AGE▲" in screen(state)


def test_tasks_are_sorted_by_what_they_did_the_busiest_first() -> None:
    numbers = itertools.count()

    def recorded(known: int, name: str, *seconds: float, ended: float | None = None) -> Task:
        one = Task(next(numbers), name, "main", 0.0, ended=ended, id=known)
        one.steps = [Span(0.0, length) for length in seconds]
        return one

    done = Recording(
        2.0,
        [
            recorded(1, "Task-1", 0.1, 0.1),
            recorded(2, "Task-2", 1.5),
            recorded(3, "Task-3", 0.3, ended=0.5),
            recorded(5, "twin", 0.05),
            recorded(6, "twin", 0.05),
        ],
        [],
        [],
        0,
    )
    state = State(1.0, 5, VIEWS[1])
    tasks = [task(1), task(2), task(4), task(5, name="twin"), task(6, name="twin")]
    state.tell(Found(state.want, Answer(book=book(*tasks, recorded=done)), 0.0))
    shown = screen(state)
    assert re.search(r"Task-2 +75% +0\.5 +1\.5s", shown)
    assert re.search(r"Task-1 +10% +1 +100ms", shown)
    assert re.search(r"Task-4 +- +- +- ", shown)
    assert "tasks that have ended: 15% of the time in 1 steps" in shown
    assert shown.index("Task-2 ") < shown.index("Task-1 ") < shown.index("Task-4 ")
    assert len(re.findall(r"twin +2\.5% +0\.5", shown)) == 2
    press(state, ">", "r")
    assert shown != screen(state)


def test_the_tasks_view_knows_what_a_real_task_did(child: Child) -> None:
    found = asked(child, Question.RECORDED)
    state = watched(child, found)
    press(state, "2")
    assert re.search(r"ticker +\S+% +\d", screen(state))
    assert re.search(r"worker-3 +0% +0 ", screen(state, height=60))
    press(state, "/", *"^ticker$", "enter", "enter")
    assert re.search(r"of the time in \d+ steps, the longest", screen(state))


def test_frozen_nothing_changes_and_nothing_is_asked(child: Child) -> None:
    state = watched(child)
    before = screen(state)
    press(state, " ")
    assert state.want.frozen
    state.tell(pulse(child.pid))
    state.tell(Found(Want(child.pid, Question.TASKS), Answer(book=book()), 0.0))
    assert "FROZEN" in screen(state)
    assert before.split("\n")[1:] == screen(state).split("\n")[1:]
    press(state, "5")
    assert "no step has kept a loop" in screen(state)
    press(state, "2")
    assert "frozen before this was asked for" in screen(state)
    press(state, " ")
    assert not state.want.frozen
    with watching(Want(child.pid, Question.TASKS, frozen=True), 0.01) as looking:
        looking.watcher.look_at(Want(child.pid, Question.TASKS))
        looking.until(lambda posted: {Pulse, Found} <= {type(news) for news in posted})


def test_the_same_task_stays_selected_when_others_come_and_go() -> None:
    state = State(1.0, 5, VIEWS[1])
    state.tell(Found(state.want, Answer(book=book(task(3), task(5), task(7))), 0.0))
    press(state, "down")
    assert state.selected["id"] == 5
    more = [task(i) for i in range(1, 9)]
    state.tell(Found(state.want, Answer(book=book(*more)), 0.0))
    assert state.selected["id"] == 5
    state.tell(Found(state.want, Answer(book=book(task(1))), 0.0))
    assert state.selected["id"] == 1
    state.tell(Found(state.want, Answer(book=book()), 0.0))
    assert state.selected is None
    press(state, "enter", "down", "right", "left", "G")
    assert "no task" in screen(state)


# --------------------------------------------------------------------------- other views


def test_requests_are_listed_the_longest_first_then_those_that_have_ended() -> None:
    state = State(1.0, 5, REQUESTS)
    assert "asking …" in screen(state)
    state.tell(Found(state.want, Answer(requests=TOLD), 0.0))
    lines = screen(state).split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith("REQUEST"))
    assert re.match(r"POST /\\x1b\[2J +waiting +2\.5s", lines[at + 1])
    wanted = r"GET /books/ +thread +200ms  shelf\.views\.index +3 +4ms +100ms +2"
    assert re.match(wanted, lines[at + 2])
    assert re.match(r"GET /bad +500 +20ms", lines[at + 3])
    assert re.match(r"GET /ok +200 +10ms", lines[at + 4])
    press(state, "/", *"shelf", "enter", "enter")
    assert state.want.deep
    assert "its task is being asked for" in screen(state)
    told = Answer(requests=TOLD, book=book(task(2, name="request")))
    state.tell(Found(state.want, told, 0.0))
    shown = screen(state)
    assert "3 hops to threads, 4ms of waiting for one, 100ms in them" in shown
    assert "request  main  [waiting]" in shown
    stack = [["/a/views.py", 9, "index"], ["/a/threads.py", 3, "run"]]
    more = {**TOLD, "requests": [{**TOLD["requests"][0], "stack": stack}]}
    state.tell(Found(state.want, Answer(requests=more), 0.0))
    assert "  index (/a/views.py:9)\n  run (/a/threads.py:3)" in screen(state)


def test_threads_are_the_system_s_with_their_share_of_a_processor(child: Child) -> None:
    state = watched(child)
    press(state, "4")
    shown = screen(state)
    assert re.search(rf"{child.pid}  \S+ +(sleeps|runs) +\S+%", shown)
    assert re.search(r"rondel-inspect +(sleeps|runs)", shown)


def test_stalls_are_listed_and_looked_into(tmp_path: Path) -> None:
    flag = tmp_path / "go-on"
    with running(tmp_path, "python", str(flag)) as child:
        try:
            child.connect().close()
            state = State(1.0, child.pid, STALLS)
            end = time.monotonic() + PATIENCE
            while not state.stalls:
                assert time.monotonic() < end
                time.sleep(0.05)
                state.tell(pulse(child.pid))
            shown = screen(state)
            assert re.search(r"so far +1  blocker  stalls", shown)
            assert "5 stalls (1)" in shown
            press(state, "enter")
            shown = screen(state)
            assert "the event loop has been in one step of task 'blocker'" in shown
            assert re.search(r"blocks_in_python \(.*child\.py:\d+\)", shown)
        finally:
            flag.touch()


def test_a_process_is_chosen_from_the_list(child: Child) -> None:
    state = State(1.0)
    assert state.view is PROCESSES and state.want.question is Question.PROCESSES
    found = figures(None, pulse(child.pid).sample)
    choices = [Choice(1, "silent", None), Choice(child.pid, "python it.py", found)]
    state.tell(Found(state.want, Answer(processes=choices), 0.0))
    shown = screen(state)
    assert re.search(rf"{child.pid} +1 +3\d .*python it\.py", shown)
    assert re.search(r" 1 +\? +\? .*silent", shown)
    press(state, "1", "down", "enter")
    assert (state.pid, state.view.name) == (child.pid, "tree")
    assert state.want.question is Question.TASKS
    # News of one that is no longer looked at are not its.
    state.tell(Ended(1))
    assert not state.ended
    press(state, "p", "/", *"it.py", "enter")
    assert [item.pid for item in state.items] == [child.pid]
    press(state, "enter")
    assert state.view is TREE and state.wanted is None
    press(state, "p", "esc")
    assert state.view is PROCESSES and len(state.items) == 2
    press(state, "esc")
    assert state.view is TREE


# ------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("view", [*VIEWS, PROCESSES], ids=lambda view: view.name)
def test_every_view_fills_every_size_of_a_terminal(child: Child, view: Any) -> None:
    recorded = asked(child, Question.RECORDED)
    requests = Found(Want(child.pid, Question.REQUESTS), Answer(requests=TOLD), 0.0)
    state = watched(child, recorded, requests)
    state.view = view
    sizes = [(60, 15), (20, 5), (1, 1), (9, 2), (80, 24), (300, 100), (40, 8), (5, 40)]
    for width, height in sizes:
        screen(state, width, height)
        for key in ("enter", "?", "x", "esc", "/", "esc", "G", "g"):
            press(state, key)
            screen(state, width, height)
    assert not state.quit


def test_only_what_is_seen_is_made_of_many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(1.0, 5, TASKS)
    many = [task(i, name=f"task-{i}") for i in range(1, 100_001)]
    state.tell(Found(state.want, Answer(book=book(*many)), 0.0))
    made: list[object] = []
    row = type(TASKS).row

    def counted(self: Any, item: Any, answer: Answer) -> Any:
        made.append(item)
        return row(self, item, answer)

    monkeypatch.setattr(type(TASKS), "row", counted)
    screen(state, 100, 30)
    assert len(made) <= 30
    press(state, "end")
    assert "task-100000" in screen(state, 100, 30)
    assert len(made) <= 60


def test_a_small_terminal_keeps_what_matters(child: Child) -> None:
    state = watched(child)
    shown = screen(state, 60, 15)
    assert re.search(r"^LOOP +BUSY +LAG 50% +99%", shown, re.MULTILINE)
    assert re.search(r"▸ 30 × worker", shown)
    assert "WAITS FOR" in shown and "q quit" in shown


def test_nothing_of_the_other_process_acts_on_the_terminal(child: Child) -> None:
    state = watched(child, asked(child, Question.RECORDED))
    for keys in ((), ("enter",), ("esc", "2"), ("/", *"^bad", "enter", "enter")):
        press(state, *keys)
        shown = screen(state)
        assert all(char.isprintable() or char == "\n" for char in shown)
    assert r"bad\x1b[2J\x07name" in shown


def test_text_is_as_wide_as_the_terminal_shows_it() -> None:
    assert [width_of(text) for text in ("abc", "日本", "e\u0301")] == [3, 4, 1]
    assert clip("日本語", 5) == "日本…"
    assert clip("日本語", 4) == "日…"
    assert pad("日本", 5, right=True) == " 日本"
    assert clip("a\nb\u202ec", 20) == r"a\nb\u202ec"
    assert [percent(share) for share in (None, 0, 0.0001, 0.05, 0.5)] == [
        "-",
        "0%",
        "<0.1%",
        "5.0%",
        "50%",
    ]


def test_a_problem_is_told_until_there_is_an_answer(child: Child) -> None:
    state = watched(child)
    error = InspectError("could not look at its tasks")
    state.tell(Failed(child.pid, Question.TASKS, error))
    assert "could not look at its tasks" in screen(state)
    press(state, "4")
    assert "could not look" not in screen(state)
    press(state, "1")
    state.tell(asked(child))
    assert "could not look" not in screen(state)


def test_another_process_of_the_same_number_is_not_taken_for_it() -> None:
    here = look(os.getpid())
    assert here is not None
    state = State(1.0, 5)
    loops = [asdict(stats(steps=100))]
    state.tell(Pulse(5, Sample(1.0, {"loops": loops}, here), []))
    assert not state.ended
    another = replace(here, started=here.started + 1)
    state.tell(Pulse(5, Sample(2.0, {"loops": [asdict(stats())]}, another), []))
    assert state.ended


def test_without_a_loop_it_says_so() -> None:
    state = State(1.0, 5)
    state.tell(Pulse(5, Sample(1.0, {"loops": []}, None), []))
    assert "no loop runs now" in screen(state)
    press(state, "4")
    assert "cannot be seen from here" in screen(state)


def test_more_loops_than_there_is_room_for_are_counted() -> None:
    loops = [stats(id=i) for i in range(1, 41)]
    told = [asdict(loop) for loop in loops]
    state = State(1.0, 5)
    state.tell(Pulse(5, Sample(1.0, {"loops": told}, None), []))
    assert re.search(r"^\d+ more loops$", screen(state, 80, 24), re.MULTILINE)
    assert len(frame(state, "program", 80)) > 40
