"""The soak itself: a short one passes, on asyncio too, and it sees what it is there for."""

import argparse
import asyncio
import gc
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.soak import traffic
from tests.soak.__main__ import ALLOWED, Watch, parser, run
from tests.support import ONLY_ASYNCIO


@pytest.fixture(params=["asyncio"] if ONLY_ASYNCIO else ["asyncio", "rondel"])
def options(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of a short soak whose mishaps and kinds all come up; what it changes is put back."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    gc.collect()
    with warnings.catch_warnings():
        yield parser().parse_args(
            ["--aio", request.param, "--seconds", "2", "--connections", "40", "--think", "0.02"]
        )


def test_a_short_soak_passes(
    options: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(options), capsys.readouterr().out
    out = capsys.readouterr().out
    for name in [*traffic.KINDS, *(f"mishap {mishap}" for mishap in traffic.MISHAPS)]:
        if name != "children":  # rare
            assert f"{name} " in out
    assert out.splitlines()[-1].startswith("soak: 1 passed, 0 failed (")


def test_a_wrong_answer_is_seen(
    options: argparse.Namespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def feed(parser: traffic.Parser, data: bytes, *, good: Any = traffic.Parser.feed) -> Any:
        return [(kind, payload[:-1] + b"!") for kind, payload in good(parser, data)]

    monkeypatch.setattr(traffic.Parser, "feed", feed)
    options.seconds = 1
    assert not run(options)
    out = capsys.readouterr().out
    assert "bytes sent" in out
    assert out.splitlines()[-1].startswith("soak: 0 passed, 1 failed (")


def test_an_unreported_error_and_a_leak_are_seen(
    options: argparse.Namespace,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    left: list[Any] = []

    async def broken(session: traffic.Session, mishap: str) -> None:
        if not left:
            left.append(open(tmp_path / "left", "w"))  # noqa: SIM115
            left.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)

    monkeypatch.setitem(traffic.KINDS, "threads", (50, broken))
    options.seconds = 1
    assert not run(options)
    out = capsys.readouterr().out
    assert "ZeroDivisionError" in out
    assert "descriptors before" in out
    assert f"process {left[1].pid} is left" in out
    left[0].close()
    left[1].communicate(b"\n")


def test_growth_counts_after_the_first_quarter() -> None:
    watch = Watch()
    watch.sizes = [0] * 10 + [50 * ALLOWED] * 30
    assert watch.grown() == 0
    watch.sizes = [10 * ALLOWED] * 30 + [12 * ALLOWED] * 10
    assert watch.grown() == 2 * ALLOWED
    # What comes and goes does not, more of it at the end or not.
    watch.sizes = [10 * ALLOWED, 10 * ALLOWED, 12 * ALLOWED] * 7
    watch.sizes += [10 * ALLOWED, 12 * ALLOWED, 12 * ALLOWED] * 6
    assert watch.grown() == 0


def test_a_seed_gives_the_same_choices() -> None:
    one, two = traffic.seeds(7, 3), traffic.seeds(7, 3)
    assert [rng.random() for rng in one] == [rng.random() for rng in two]
    assert len({random.Random(7).random(), *(rng.random() for rng in one)}) == 4
