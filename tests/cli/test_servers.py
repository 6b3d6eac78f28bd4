"""Servers that name their loop's class, or serve from fresh interpreters, under `install()`.

A stand-in for the server's package says what is asked of it where a whole server would say no more;
uvicorn itself serves once, with a worker.
"""

import signal
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import PATIENCE, PYTHON, RONDEL, call, running

APP = """
import asyncio, os, rondel
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    loop = type(asyncio.get_running_loop()).__module__
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = f"{loop} {rondel.installed()} {asyncio.sleep is rondel.sleep} {os.getpid()}"
    await send({"type": "http.response.body", "body": body.encode()})
"""


@pytest.fixture
def check(tmp_path: Path) -> Callable[[str], None]:
    """Runs assertions in a fresh interpreter in which every warning is an error."""

    def run(body: str) -> None:
        code = "import asyncio, rondel\n" + textwrap.dedent(body)
        ended = call([*PYTHON, "-W", "error", "-c", code], tmp_path)
        assert (ended.status, ended.errors) == (0, ""), ended.errors

    return run


def stand_in(folder: Path, package: str, module: str, text: str) -> None:
    """`package.module` with that text, in front of an installed one."""
    path = folder
    for part in f"{package}.{module}".split(".")[:-1]:
        path /= part
        path.mkdir(exist_ok=True)
        (path / "__init__.py").touch()
    (path / f"{module.split('.')[-1]}.py").write_text(textwrap.dedent(text))


@pytest.mark.parametrize("imported", ["before", "after"])
def test_uvicorns_own_choice_is_our_loop(check: Callable[[str], None], imported: str) -> None:
    check(
        f"""
        if {imported!r} == "before":
            import uvicorn.loops.auto
        rondel.install()
        import uvicorn
        config = uvicorn.Config("some:app")
        assert config.get_loop_factory() is rondel.EventLoop
        rondel.install()
        rondel.uninstall()
        assert config.get_loop_factory() is not rondel.EventLoop
        rondel.install()
        assert config.get_loop_factory() is rondel.EventLoop
        """
    )


def test_a_loop_that_is_named_stays(check: Callable[[str], None]) -> None:
    check(
        """
        rondel.install()
        import uvicorn
        named = uvicorn.Config("some:app", loop="asyncio")
        assert named.get_loop_factory() is asyncio.SelectorEventLoop
        assert uvicorn.Config("some:app", loop="none").get_loop_factory() is None
        """
    )


def test_install_does_not_import_servers(check: Callable[[str], None]) -> None:
    check(
        """
        import sys
        rondel.install()
        assert not {"uvicorn", "hypercorn"} & set(sys.modules)
        """
    )


def test_what_somebody_replaced_in_uvicorn_stays_theirs(check: Callable[[str], None]) -> None:
    check(
        """
        from uvicorn.loops import auto
        kept = auto.auto_loop_factory
        rondel.install()
        ours = auto.auto_loop_factory
        assert ours is not kept and ours.__wrapped__ is kept
        auto.auto_loop_factory = theirs = lambda use_subprocess=False: None
        rondel.uninstall()
        assert auto.auto_loop_factory is theirs
        assert ours() is kept()  # kept by somebody: it answers as uvicorn's
        """
    )


def test_uvicorns_earlier_releases_leave_the_policy(
    check: Callable[[str], None], tmp_path: Path
) -> None:
    # They would set uvloop's where that is installed.
    text = """
        def auto_loop_setup(use_subprocess=False):
            raise AssertionError("asked")
    """
    stand_in(tmp_path, "uvicorn", "loops.auto", text)
    check(
        """
        rondel.install()
        from uvicorn.loops.auto import auto_loop_setup
        auto_loop_setup(use_subprocess=False)
        loop = asyncio.new_event_loop()
        assert isinstance(loop, rondel.EventLoop)
        loop.close()
        rondel.uninstall()
        try:
            auto_loop_setup()
        except AssertionError:
            pass
        else:
            raise SystemExit("not uvicorn's")
        """
    )


@pytest.mark.parametrize(
    ("package", "module", "name"),
    [
        ("uvicorn", "_subprocess", "subprocess_started"),
        ("hypercorn", "asyncio.run", "asyncio_worker"),
    ],
)
@pytest.mark.parametrize("bridge", [False, True])
def test_what_is_started_in_a_fresh_interpreter_installs(
    tmp_path: Path, package: str, module: str, name: str, bridge: bool
) -> None:
    text = f"""
        import asyncio
        import rondel
        from rondel import bridge

        def {name}(*, queue):
            loop = asyncio.new_event_loop()
            queue.put((type(loop).__name__, rondel.installed(), bridge.installed()))
            loop.close()
    """
    stand_in(tmp_path, package, module, text)
    program = f"""
        import multiprocessing, rondel
        if __name__ == "__main__":
            from {package}.{module} import {name} as plain
            rondel.install(bridge={bridge})
            from {package}.{module} import {name}
            context = multiprocessing.get_context("spawn")
            queue = context.Queue()
            for target in ({name}, plain):
                child = context.Process(target=target, kwargs={{"queue": queue}})
                child.start()
                print(*queue.get(timeout=20))
                child.join(20)
                assert child.exitcode == 0
                rondel.uninstall()
            assert {name}.__wrapped__ is plain
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    ended = call([*PYTHON, "program.py"], tmp_path)
    ours, theirs = ended.output.splitlines() or ["", ""]
    assert ours == f"EventLoop True {bridge}", ended.errors
    assert theirs.endswith("False False")


def ask(url: str) -> str:
    """The answer. uvicorn's workers say that they have started before they listen."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() > end:
                raise
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
def test_uvicorn_serves_on_our_loop(tmp_path: Path, workers: int) -> None:
    (tmp_path / "site_app.py").write_text(APP)
    options = ["--port", "0", "--workers", str(workers)]
    command = [*RONDEL, "-m", "uvicorn", "site_app:app", *options]
    with running(command, tmp_path) as child:
        try:
            url = child.wait_for(r"running on (http://\S+)")[1]
            if workers > 1:  # those that listen
                child.wait_for("startup complete")
            loop, installed, native, pid = ask(url).split()
        finally:
            child.signal(signal.SIGTERM)  # which its workers need to hear of
        child.end()
    assert (loop, installed, native) == ("rondel.loop", "True", "True")
    assert (int(pid) == child.pid) is (workers == 1)
