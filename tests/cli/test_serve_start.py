"""`rondel serve` when it cannot serve: one clear line, the right status, no traceback of ours."""

import signal
import socket
import textwrap
from pathlib import Path

import pytest

from .support import RONDEL, Outcome, call, running, serving

APPLICATION = """\
import asyncio
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
def make():
    return app
def wsgi(environ, start_response):
    return []
class Holder:
    inner = app
number = 3
def broken_factory():
    raise ValueError("no settings")
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    files = {
        "hello.py": APPLICATION,
        "package/__init__.py": "",
        "package/asgi.py": APPLICATION,
        "needs.py": "import no_such_library\n",
        "deep.py": "import needs\n",
        "wrong.py": "def f(:\n",
        "raises.py": "def load():\n    raise RuntimeError('first\\nsecond')\nload()\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return tmp_path


def serve(site: Path, *arguments: str) -> Outcome:
    return call([*RONDEL, "serve", "--port", "0", *arguments], site)


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("helo:app", "no module named 'helo'; did you mean 'hello'?"),
        ("package.agsi:app", "no module 'agsi' in package 'package'; did you mean 'package.asgi'?"),
        ("hello.asgi:app", "no module 'hello.asgi': 'hello' is a module, not a package"),
        ("hello:ap", "'hello' has no attribute 'ap'; did you mean 'app'?"),
        ("hello:application", "'hello' has no attribute 'application'; did you mean 'app'?"),
        ("hello:Holder.iner", "'hello.Holder' has no attribute 'iner'; did you mean 'inner'?"),
        (
            "hello:number",
            "hello:number is an int, not an ASGI or WSGI application: it cannot be called",
        ),
        ("hello:make", "hello:make takes no arguments: if it makes the application, add --factory"),
    ],
)
def test_a_wrong_target_is_one_line(site: Path, target: str, line: str) -> None:
    got = serve(site, target)
    assert (got.status, got.output) == (1, "")
    assert got.errors == f"rondel serve: {line}\n"


def test_an_unlike_module_name_says_where_was_looked(site: Path) -> None:
    got = serve(site, "zzzzzz:app")
    assert got.status == 1
    assert got.errors.startswith("rondel serve: no module named 'zzzzzz'; looked in " + str(site))
    assert "--app-dir" in got.errors
    assert got.errors.count("\n") == 1


def test_a_wsgi_application_is_recognised(site: Path) -> None:
    got = serve(site, "hello:wsgi", "--interface", "asgi")
    assert got.status == 1
    assert "takes two arguments, as WSGI applications do" in got.errors
    assert got.errors.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "frames", "last"),
    [
        (
            "needs:app",
            ["needs.py"],
            "importing 'needs' failed: ModuleNotFoundError: No module named 'no_such_library'",
        ),
        (
            "deep:app",
            ["deep.py", "needs.py"],
            "importing 'deep' failed: ModuleNotFoundError: No module named 'no_such_library'",
        ),
        ("wrong:app", ["wrong.py"], "importing 'wrong' failed: SyntaxError: invalid syntax"),
        ("raises:app", ["raises.py"], "importing 'raises' failed: RuntimeError: first"),
    ],
)
def test_an_error_inside_the_module_keeps_its_traceback(
    site: Path, target: str, frames: list[str], last: str
) -> None:
    got = serve(site, target)
    assert got.status == 1
    *traceback, line = got.errors.splitlines()
    assert line.startswith(f"rondel serve: {last}")
    text = "\n".join(traceback)
    for frame in frames:
        assert f'/{frame}", line' in text
    assert "rondel/server" not in text
    assert "importlib" not in traceback[1]


def test_a_factory_that_raises_keeps_its_traceback(site: Path) -> None:
    got = serve(site, "hello:broken_factory", "--factory")
    assert got.status == 1
    assert got.errors.splitlines()[-1] == (
        "rondel serve: calling hello:broken_factory failed: ValueError: no settings"
    )
    assert 'hello.py", line' in got.errors
    assert "rondel/server" not in got.errors


def test_a_port_in_use_is_one_line(site: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        got = call([*RONDEL, "serve", "hello:app", "--port", str(port)], site)
    assert got.status == 1
    assert got.errors.startswith(f"rondel serve: 127.0.0.1:{port} is already in use")
    assert got.errors.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "192.0.2.1"], "is not an address of this machine"),
        (["--host", "no such host"], "host 'no such host' cannot be resolved"),
        (["--uds", "missing/dir.sock"], "its directory does not exist"),
        (["--uds", "hello.py"], "exists and is not a socket"),
    ],
)
def test_an_impossible_address_is_one_line(site: Path, options: list[str], words: str) -> None:
    got = serve(site, "hello:app", *options)
    assert got.status == 1
    assert words in got.errors
    assert got.errors.count("\n") == 1


def test_a_socket_file_somebody_listens_on_is_left_alone(site: Path) -> None:
    path = site / "app.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        got = serve(site, "hello:app", "--uds", "app.sock")
        assert got.status == 1
        assert got.errors.startswith(f"rondel serve: {path} is already in use")
        assert path.exists()


def test_a_stale_socket_file_is_replaced_and_removed_at_the_end(site: Path) -> None:
    path = site / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving("hello:app", site, "--uds", "app.sock") as (process, url):
        assert url == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert b"hello" in b"".join(iter(lambda: client.recv(4096), b""))
        process.signal(signal.SIGTERM)
        assert process.end().status == 0
    assert not path.exists()


def test_ctrl_c_while_the_application_is_imported_is_quiet(site: Path) -> None:
    (site / "slow.py").write_text(
        "import sys, time\nsys.stderr.write('importing\\n')\ntime.sleep(60)\n"
    )
    with running([*RONDEL, "serve", "slow:app", "--port", "0"], site) as process:
        process.wait_for("importing")
        process.signal(signal.SIGINT)
        got = process.end()
    assert got.status == 130
    assert got.errors == "importing\nrondel serve: interrupted\n"
