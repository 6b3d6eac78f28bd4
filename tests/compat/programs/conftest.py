"""How a program meets a loop, and what no exchange may leave behind.

COMPAT_MODE says which loop:

    stdlib    the stock loop: the control
    loop      Rondel's loop by `loop_factory=rondel.new_event_loop`, asyncio's names untouched
    install   `python -m rondel -m pytest`: asyncio's names are Rondel's in the whole process

An `async def` test is the main coroutine of a Runner. Nothing may reach the loop's exception
handler, no task may be pending and no descriptor open when it ends; every warning is an error, the
ResourceWarning of a thing never closed among them.
"""

import asyncio
import contextlib
import functools
import gc
import importlib
import inspect
import os
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

MODE = os.environ.get("COMPAT_MODE", "stdlib")
PATIENCE = 20.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "keeps_descriptors: the program keeps some until its exit")
    # The inspector's socket is opened by a thread of its own, at a time that no test knows.
    os.environ.setdefault("RONDEL_INSPECT", "0")


def new_event_loop() -> asyncio.AbstractEventLoop:
    if MODE == "loop":
        return importlib.import_module("rondel").new_event_loop()  # type: ignore[no-any-return]
    return asyncio.new_event_loop()


def is_the_loop(loop: asyncio.AbstractEventLoop) -> None:
    """It is the loop that this run is about."""
    module = type(loop).__module__.partition(".")[0]
    assert module == ("asyncio" if MODE == "stdlib" else "rondel"), loop


def descriptors() -> set[tuple[int, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    errors: list[dict[str, Any]] = []
    before = descriptors()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda _loop, context: errors.append(context))
        names = inspect.signature(pyfuncitem.obj).parameters
        arguments = {name: pyfuncitem.funcargs[name] for name in names}

        async def main() -> None:
            is_the_loop(asyncio.get_running_loop())
            await pyfuncitem.obj(**arguments)

        runner.run(main())
        # Connections that were told to close do so in the turns that follow.
        end = time.monotonic() + 2
        while len(asyncio.all_tasks(loop)) and time.monotonic() < end:
            runner.run(asyncio.sleep(0.01))
        pending = asyncio.all_tasks(loop)
        assert not pending, f"left pending: {pending}"
    gc.collect()
    assert not errors, f"reported to the loop: {errors}"
    if pyfuncitem.get_closest_marker("keeps_descriptors") is None:
        assert not descriptors() - before, "left open"
    return True


@pytest.fixture
def run() -> Any:
    """Runs a coroutine as a program would: for the programs that run the loop themselves."""
    return functools.partial(asyncio.run) if MODE != "loop" else _run_on_loop


def _run_on_loop(main: Any) -> Any:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Contexts for both ends of a TLS connection to localhost; `cert`, `key`: the files."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued.configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    folder = tmp_path_factory.mktemp("tls")
    files = {name: str(folder / f"{name}.pem") for name in ("cert", "key", "ca")}
    issued.private_key_pem.write_to_path(files["key"])
    issued.cert_chain_pems[0].write_to_path(files["cert"])
    authority.cert_pem.write_to_path(files["ca"])
    return SimpleNamespace(server=server, client=client, **files)


@pytest.fixture(scope="session")
def postgres() -> SimpleNamespace:
    """`host`: the directory of a cluster's socket (scripts/postgres.sh); `database`: one of this
    mode's own, as the modes run at the same time.
    """
    folder = os.environ.get("RONDEL_TEST_POSTGRES")
    if not folder:
        pytest.skip("no PostgreSQL here")
    import psycopg

    name = f"compat_{MODE}"
    with psycopg.connect(f"host={folder} user=postgres dbname=postgres", autocommit=True) as db:
        db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        db.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return SimpleNamespace(host=folder, database=name)


@pytest.fixture(scope="session")
def redis_socket() -> SimpleNamespace:
    """`path`: a server's socket (scripts/redis.sh); `db`: a database of this mode's own."""
    folder = os.environ.get("RONDEL_TEST_REDIS")
    if not folder:
        pytest.skip("no Redis here")
    return SimpleNamespace(
        path=f"{folder}/redis.sock", db=("stdlib", "loop", "install").index(MODE)
    )


def child_command(*arguments: str) -> list[str]:
    """The interpreter for a program of its own, in the mode of this run."""
    if MODE == "install":
        return [sys.executable, "-m", "rondel", *arguments]
    return [sys.executable, *arguments]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """An empty working directory."""
    before = os.getcwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)
