"""The network's benchmark: a figure may be missing, but never wrong."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import limits
from harness.environment import BENCHMARKS
from harness.figures import Figures
from net.case import BARE, KEEPING, LOOPS, Own, Served, groups


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    target = tmp_path_factory.mktemp("net") / "load"
    source = str(BENCHMARKS / "net" / "load.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", str(target), source], check=True)
    return target


@contextlib.contextmanager
def serving(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """The port of a server that gives `answer` for each chunk of its one connection."""

    def serve() -> None:
        conn, _ = listener.accept()
        with conn, contextlib.suppress(ConnectionError):
            while data := conn.recv(1 << 16):
                conn.sendall(answer(data))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def run(load: Path, port: int, talk: str) -> subprocess.CompletedProcess[str]:
    command = [str(load), "tcp", str(port), "1", "1000"]
    return subprocess.run(
        command, input=talk, capture_output=True, text=True, timeout=30, check=False
    )


def test_the_load_gives_seconds_for_each_turn_it_is_asked_for(load: Path) -> None:
    with serving(lambda data: data) as port:
        done = run(load, port, "10\n20\n")
    ready, *seconds = done.stdout.split()
    assert (ready, done.returncode) == ("ready", 0)
    assert len(seconds) == 2
    assert all(float(each) > 0 for each in seconds)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda data: bytes(len(data)), "other bytes"),
        (lambda data: data + data, "more came back"),
    ],
)
def test_a_wrong_echo_is_no_figure(
    load: Path, answer: Callable[[bytes], bytes], complaint: str
) -> None:
    with serving(answer) as port:
        done = run(load, port, "10\n")
    assert done.returncode == 1
    assert complaint in done.stderr


def test_every_case_has_a_name_of_its_own_in_its_group_and_lacks_known_loops_only() -> None:
    found = groups()
    assert [group.module.ORDER for group in found] == sorted(group.module.ORDER for group in found)
    for group in found:
        names = [case.name for case in group.cases]
        assert len(set(names)) == len(names), group.name
        for case in group.cases:
            assert isinstance(case, Served | Own)
            assert set(case.lacking) <= set(LOOPS)
            assert set(case.floors) <= set(limits.FLOORS)


@pytest.mark.parametrize(
    ("against", "measured", "floor"),
    [
        ("uvloop", {BARE: 2.0}, 0.5),
        ("uvloop", {BARE: 2.0, KEEPING: 3.0}, 0.75),
        (BARE, {BARE: 2.0, KEEPING: 3.0}, 1.5),
        (BARE, {BARE: 2.0}, None),
        ("uvloop", {}, None),
        (limits.ITSELF, {BARE: 2.0}, None),
    ],
)
def test_beside_a_limit_stands_what_takes_no_python(
    against: str, measured: dict[str, float], floor: float | None
) -> None:
    figures = Figures("median")
    for subject, value in ({"rondel": 5.0, "uvloop": 4.0} | measured).items():
        figures.add("case", subject, [value])
    assert limits.floor(figures, "case", against) == floor
