"""`rondel top`: how a process is asked, and the command without a screen."""

import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rondel.cli.top import main
from rondel.cli.top.asking import (
    Failed,
    Pulse,
    Want,
    Watcher,
    answer,
    enough,
)
from rondel.cli.top.view import Question
from rondel.cli.top.views import VIEWS
from tests.cli.support import PATIENCE
from tests.inspect.test_attach import Child, running
from tests.inspect.top_support import TOLD, book, task, watching


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with running(tmp_path_factory.mktemp("run"), "mixed", "30") as child:
        child.connect().close()
        yield child


# -------------------------------------------------------------------------------- asking


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """This process seems to answer for Rondel: with what is in the dictionary.

    An event is a question without an answer until it is set. ``asked`` has what was asked.
    """
    folder = tmp_path / "rondel"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    given: dict[str, Any] = {"asked": []}

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=tell, args=(client,)))
            threads[-1].start()

    def tell(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), client.makefile("rwb") as file:
            asked = json.loads(file.readline())["ask"]
            given["asked"].append(asked)
            unknown = {"v": 1, "error": "unknown", "message": "no such question"}
            told = given.get(asked, unknown)
            if isinstance(told, threading.Event):
                told.wait(PATIENCE)
                told = unknown
            file.write(json.dumps(told).encode() + b"\n")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / f"{os.getpid()}.sock"))
        listener.listen()
        threads = [threading.Thread(target=serve, args=(listener,))]
        threads[0].start()
        yield given
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def test_requests_are_asked_for_and_their_tasks_when_one_is_looked_into(
    answers: dict[str, Any],
) -> None:
    answers["requests"] = TOLD
    answers["requests stacks"] = {**TOLD, "recent": []}
    answers["tasks"] = {"v": 1, **book(task(2)).data, "took": 0.25}
    found, cost = answer(Want(os.getpid(), Question.REQUESTS), seconds=1.0)
    assert found.requests is not None and found.requests["requests"] == TOLD["requests"]
    assert found.book is None and cost > 0.0
    found, cost = answer(Want(os.getpid(), Question.REQUESTS, deep=True), seconds=1.0)
    assert found.book is not None and found.book.get(2) is not None
    assert found.requests is not None and found.requests["recent"] == []
    assert cost >= 0.25


def test_a_process_that_knows_no_requests_says_so_in_the_view(answers: dict[str, Any]) -> None:
    found, _ = answer(Want(os.getpid(), Question.REQUESTS), seconds=1.0)
    assert "does not tell of requests" in found.remark


def test_requests_without_views_are_better_than_none(answers: dict[str, Any]) -> None:
    answers["requests"] = {"v": 1, "error": "gil", "message": "not in time"}
    answers["requests now"] = TOLD
    found, _ = answer(Want(os.getpid(), Question.REQUESTS), seconds=1.0)
    assert found.requests is not None and found.requests["requests"] == TOLD["requests"]


def test_a_recording_of_somebody_else_is_left_alone(answers: dict[str, Any]) -> None:
    answers["record 35"] = answers["record 6"] = {"v": 1, "error": "busy", "message": "going on"}
    answers["tasks"] = {"v": 1, **book(task(2)).data, "took": 0.25}
    found, _ = answer(Want(os.getpid(), Question.RECORDED), seconds=1.0)
    assert "somebody else records" in found.remark
    assert found.book is not None and found.book.recorded is None
    # It is tried again after the interval, not at once.
    answers["tasks"]["took"] = 0.0
    assert Watcher(Want(os.getpid(), Question.RECORDED), 30.0, lambda _: None)._view() > 15.0


def test_an_answer_that_is_none_is_a_problem_and_not_the_end(answers: dict[str, Any]) -> None:
    answers |= {"stats": {"v": 1}, "stalls": {"v": 1, "stalls": []}, "tasks": {"v": 1, "took": "?"}}
    with watching(Want(os.getpid(), Question.TASKS), 0.01) as watched:
        watched.until(
            lambda posted: (
                {news.question for news in posted if isinstance(news, Failed)}
                == {None, Question.TASKS}
            )
        )
    failed = [news for news in watched.posted if isinstance(news, Failed)]
    assert all("not understood" in str(news.error) for news in failed)


def test_the_counters_go_on_while_another_question_is_not_answered(
    answers: dict[str, Any],
) -> None:
    held = threading.Event()
    answers |= {"stats": {"v": 1, "loops": []}, "stalls": {"v": 1, "stalls": []}, "tasks": held}
    with watching(Want(os.getpid(), Question.TASKS), 0.01) as watched:
        watched.until(lambda posted: len(posted) >= 5 and "tasks" in answers["asked"])
        assert {type(news) for news in watched.posted} == {Pulse}
        # And that is not asked a second time meanwhile.
        watched.posted.clear()
        watched.until(lambda posted: len(posted) >= 5)
        assert answers["asked"].count("tasks") == 1
        held.set()


def test_what_costs_the_process_time_is_asked_for_the_less_often(answers: dict[str, Any]) -> None:
    watcher = Watcher(Want(os.getpid(), Question.TASKS), 1.0, lambda _: None)
    for took, least in ((0.0, 0.0), (0.5, 4.5), (3.0, 27.0)):
        answers["tasks"] = {"v": 1, **book(task(2)).data, "took": took}
        assert least <= watcher._view() < max(least, 8 * PATIENCE)


def test_a_recording_is_short_where_much_happens() -> None:
    assert enough(0.0, 1.0) == 1.0
    assert enough(1_000_000, 1.0) == pytest.approx(0.1)
    assert enough(1e9, 1.0) == 0.02


def test_a_recording_is_ended_when_nobody_looks_any_more(child: Child) -> None:
    with watching(Want(child.pid, Question.RECORDED), 60.0) as watched:
        # It is recording as soon as nobody else can; a refusal that it got meanwhile was ours.
        end = time.monotonic() + PATIENCE
        while child.rondel("trace", str(child.pid), "--seconds", "0.01", "--draw").status == 0:
            assert time.monotonic() < end
            watched.watcher._threads[1].wake()
    while child.rondel("trace", str(child.pid), "--seconds", "0.01", "--draw").status != 0:
        assert time.monotonic() < end


# ------------------------------------------------------------------------- the command


def test_json_is_an_object_for_each_interval(child: Child) -> None:
    arguments = ("--json", "--iterations", "2", "--interval", "0.2")
    outcome = child.rondel("top", str(child.pid), *arguments)
    assert (outcome.status, outcome.errors) == (0, "")
    for line in outcome.output.splitlines():
        told = json.loads(line)
        assert (told["v"], told["pid"]) == (1, child.pid)
        assert told["seconds"] > 0
        assert told["loops"][0]["steps"] > 0
        assert 0 <= told["loops"][0]["busy"] <= 1
        assert set(told["loops"][0]["lag"]) == {"p50", "p99", "max"}
        assert told["process"]["rss"] > 0
    assert len(outcome.output.splitlines()) == 2


@pytest.mark.parametrize("view", [view.name for view in VIEWS])
def test_once_prints_a_frame_of_each_view(child: Child, view: str) -> None:
    outcome = child.rondel("top", str(child.pid), "--once", "--interval", "0.2", "--view", view)
    assert outcome.status == 0, outcome.errors
    assert re.search(r"^ rondel top  \d+  python", outcome.output)
    head = next(one for one in VIEWS if one.name == view).columns[0].name
    assert re.search(rf"^ *{head}", outcome.output, re.MULTILINE)


def test_once_is_filtered(child: Child) -> None:
    arguments = ("--once", "--interval", "0.2", "--filter", "worker-2$")
    output = child.rondel("top", str(child.pid), *arguments).output
    assert "worker-2  worker" in output and "creator" not in output


def test_the_only_process_needs_no_number(child: Child) -> None:
    outcome = child.rondel("top", "--json", "--iterations", "1", "--interval", "0.1")
    # There may be others of this user, in the folders that all share.
    if outcome.status == 0:
        assert json.loads(outcome.output)["pid"] == child.pid
    else:
        assert re.search(rf"which process\? .*\b{child.pid}\b", outcome.errors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--interval", "0"), "from 0.1 to 3600 seconds"),
        (("--interval", "x"), "not a number of seconds"),
        (("--iterations", "0"), "at least one interval"),
        (("--filter", "("), "no regular expression"),
        (("--view", "moon"), "invalid choice"),
    ],
)
def test_bad_usage_is_told(child: Child, arguments: tuple[str, ...], message: str) -> None:
    outcome = child.rondel("top", str(child.pid), *arguments)
    assert outcome.status == 2 and message in outcome.errors


def test_without_a_terminal_it_says_what_to_do(child: Child) -> None:
    outcome = child.rondel("top", str(child.pid))
    assert outcome.status == 1
    assert outcome.errors.endswith("use --once or --json\n")
    outcome = child.rondel("top", "999999999")
    assert outcome.status == 1 and "no process 999999999" in outcome.errors


def test_ps_tells_of_a_moment_and_not_of_all_time(tmp_path: Path) -> None:
    flag = tmp_path / "go-on"
    with running(tmp_path, "python", str(flag)) as child:
        try:
            child.connect().close()
            rows = json.loads(child.rondel("ps", "--json").output)
            [row] = [row for row in rows if row["pid"] == child.pid]
            [window] = row["window"]
            # It is in one long step.
            assert window["busy"] == 1.0 and window["steps"] == 0
            assert window["seconds"] > 0 and sum(window["lag"]) == 0
            assert re.search(rf"{child.pid} +1 +\d+ +100% +- ", child.rondel("ps").output)
        finally:
            flag.touch()


def test_a_python_without_curses_is_told_what_to_do(
    answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers |= {"stats": {"v": 1, "loops": []}, "stalls": {"v": 1, "stalls": []}}
    monkeypatch.setitem(sys.modules, "curses", None)
    monkeypatch.delitem(sys.modules, "rondel.cli.top.terminal", raising=False)
    assert main([str(os.getpid())]) == 1
    assert "no curses: use --once or --json" in capsys.readouterr().err
