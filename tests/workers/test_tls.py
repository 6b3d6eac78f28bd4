"""HTTPS by several workers: sessions that any of them resumes, renewed certificates, redirects."""

import http.client
import shutil
import signal
import ssl
import urllib.parse
from pathlib import Path

from tests.cli.support import PATIENCE
from tests.net.certificates import client_context, identity
from tests.server.wire import Wire
from tests.workers.site import ends, serving
from tests.workers.test_reload import PRELOAD, Load


def certified(folder: Path, name: str = "localhost") -> tuple[str, ...]:
    """A certificate in the folder, where another may take its place."""
    shutil.copy(identity(name).certificate, folder / "c.pem")
    shutil.copy(identity(name).key, folder / "c.key")
    return ("--ssl-certfile", str(folder / "c.pem"), "--ssl-keyfile", str(folder / "c.key"))


@PRELOAD
def test_a_session_is_resumed_by_every_worker_also_after_a_reload(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    given = (*certified(tmp_path), *options, "--no-access-log")
    context = client_context()
    with serving(tmp_path, *given, context=context) as site:
        port = urllib.parse.urlsplit(site.url).port
        assert port is not None
        address = ("127.0.0.1", port)

        def ask(session: ssl.SSLSession | None) -> tuple[int, bool, ssl.SSLSession | None]:
            with Wire(address, context, session=session) as wire:
                pid = int(wire.request("/").body.split()[0])
                assert isinstance(wire.socket, ssl.SSLSocket)
                return pid, wire.socket.session_reused or False, wire.socket.session

        first, reused, session = ask(None)
        assert not reused
        for _ in range(200):
            pid, reused, _ = ask(session)
            assert reused
            if pid != first:
                break
        else:
            raise AssertionError("one worker answered everything")
        site.rewrite("second")
        site.signal(signal.SIGHUP)
        site.wait_for("reloaded")
        assert ask(session)[1]


def test_a_reload_brings_the_renewed_certificate_and_no_request_fails(tmp_path: Path) -> None:
    given = (*certified(tmp_path), "--ssl-reload", "0", "--no-access-log")
    both = client_context("localhost", "renewed.example")
    both.check_hostname = False
    with serving(tmp_path, *given, context=both) as site, Load(site) as load:
        old = site.workers(2)
        certified(tmp_path, "renewed.example")
        site.rewrite("second")
        site.signal(signal.SIGHUP)
        site.wait_for("reloaded")
        assert all(ends(pid) for pid in old)
        port = urllib.parse.urlsplit(site.url).port
        assert port is not None
        only = client_context("renewed.example")
        with Wire(("127.0.0.1", port), only, name="renewed.example") as wire:
            assert wire.request("/").body.endswith(b"second")
    assert load.failures == []
    assert load.answered > 0


def test_every_worker_sends_clients_to_https(tmp_path: Path) -> None:
    given = (*certified(tmp_path), "--http-redirect", "0")
    with serving(tmp_path, *given, context=client_context()) as site:
        found = site.wait_for(r"http://127\.0\.0\.1:(\d+) sends to (https://\S+)")
        port = urllib.parse.urlsplit(found[2]).port
        for _ in range(10):
            plain = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=PATIENCE)
            plain.request("GET", "/a", headers={"host": "localhost"})
            response = plain.getresponse()
            assert response.status == 308
            assert response.getheader("location") == f"https://localhost:{port}/a"
            plain.close()
        assert site.ask().generation == "first"
