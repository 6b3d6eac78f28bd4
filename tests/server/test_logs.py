"""What the logs say of requests: formats of the access log, request ids, errors as JSON."""

import json
import re
import signal

import pytest

from tests.server.wire import Response, Served, serving

pytestmark = pytest.mark.rondel_server

FORMAT = "%(method)s %(path)s %(status)s %(bytes)s %(request_id)s <%(a)s> <%({x-a}i)s>"
APP = "tests.server.apps:app"


def stopped(served: Served) -> tuple[list[str], list[str]]:
    """Lines of the access log, and of the server's."""
    served.process.signal(signal.SIGTERM)
    outcome = served.process.end()
    assert outcome.status == 0, outcome.errors
    return outcome.output.splitlines(), outcome.errors.splitlines()


def with_id(served: Served, sent: str, target: str = "/hello") -> Response:
    with served.connect() as wire:
        return wire.request(target, headers=f"x-request-id: {sent}\r\n")


def test_fields_are_those_of_the_request() -> None:
    with serving(APP, "--access-log-format", FORMAT) as served:
        with served.connect() as wire:
            wire.request("/hello", headers="user-agent: me\r\nX-A: first\r\nx-a: second\r\n")
            wire.request("/hello", "HEAD")
            wire.request("/echo", "POST", body=b"x" * 1000)
            wire.request("/status?code=204")
        lines, _ = stopped(served)
    assert lines == [
        "GET /hello 200 5 - <me> <first>",
        "HEAD /hello 200 0 - <-> <->",
        "POST /echo 200 1000 - <-> <->",
        "GET /status 204 0 - <-> <->",
    ]


def test_the_combined_format() -> None:
    with serving(APP, "--access-log-format", "combined") as served:
        with served.connect() as wire:
            wire.request("/hello", headers='referer: /"x\r\nuser-agent: a/1\r\n')
        lines, _ = stopped(served)
    assert re.fullmatch(
        r'127\.0\.0\.1 - - \[[^]]+\] "GET /hello HTTP/1\.1" 200 5 "/\\"x" "a/1"', lines[0]
    )


def test_a_mistake_in_a_format_is_one_line() -> None:
    from tests.cli.support import RONDEL, call
    from tests.server.wire import ROOT

    ended = call([*RONDEL, "serve", APP, "--access-log-format", "%(hots)s"], ROOT)
    assert ended.status == 2
    assert ended.errors == (
        "rondel serve: access_log_format: %(hots)s is not a field; did you mean host?\n"
    )


def refused_ones(served: Served, name: str) -> list[int]:
    """Requests that the server answers by itself; their statuses."""
    post = "POST /length HTTP/1.1\r\nhost: t\r\n"
    statuses = []
    for sent, named in [
        (f"GET /{'x' * 300} HTTP/1.1\r\nhost: t\r\n\r\n", True),
        ("GET /a HTTP/1.1\r\n\r\n", True),
        (f"{post}content-length: 2000\r\n\r\n", True),
        (f"{post}transfer-encoding: chunked\r\n\r\n7d0\r\n{'x' * 2000}\r\n", True),
        (f"{post}transfer-encoding: chunked\r\n\r\nnonsense\r\n", True),
        (f"{post}content-length: 9\r\n\r\nabc", True),  # and no more
        ("GET /b HTTP/1.1\r\nhost: t", True),  # and no more
        ("GET /c HTTP/1.1\nhost: t\n\n", False),
        ("GET /d HTTP/1.1\r\nhost: t\r\n" + "x: y\r\n" * 30 + "\r\n", False),
    ]:
        with served.connect() as wire:
            wire.send(sent.encode())
            answer = wire.response()
            assert answer.get("server") == (name if named else None), sent
            statuses.append(answer.status)
    return statuses


@pytest.mark.parametrize("app", [APP, "tests.server.wsgi_apps:app"], ids=["asgi", "wsgi"])
def test_what_the_server_refuses_by_itself_is_logged_and_says_who_it_is(app: str) -> None:
    options = (
        *("--limit-url-bytes", "200", "--limit-body-bytes", "1000", "--limit-header-count", "20"),
        *("--limit-header-timeout", "0.3", "--limit-body-timeout", "0.3"),
        *("--access-log-format", "%(m)s %(path)s %(status)s"),
    )
    with serving(app, *options) as served:
        statuses = refused_ones(served, "rondel")
        lines, _ = stopped(served)
    assert statuses == [414, 400, 413, 413, 400, 408, 408, 400, 431]
    assert sorted(lines) == sorted(
        [
            f"GET /{'x' * 300} 414",
            "GET /a 400",
            "POST /length 413",
            "POST /length 413",
            "POST /length 400",
            "POST /length 408",
            "- - 408",
            "- - 400",
            "- - 431",
        ]
    )


def test_a_client_s_id_is_everywhere() -> None:
    options = ("--request-id", "on", "--access-log-format", FORMAT)
    with serving(APP, *options) as served:
        answer = with_id(served, "abc-123_~.X", "/scope")
        assert json.loads(answer.body)["state"]["request_id"] == "abc-123_~.X"
        assert answer.get("x-request-id") == "abc-123_~.X"
        failed = with_id(served, "of-the-error", "/raise_before")
        assert (failed.status, failed.get("x-request-id")) == (500, "of-the-error")
        lines, errors = stopped(served)
    assert [line.split()[4] for line in lines] == ["abc-123_~.X", "of-the-error"]
    assert any(
        line.endswith("Exception in ASGI application [request of-the-error]") for line in errors
    )


@pytest.mark.parametrize("sent", ["", "a b", "a" * 129, 'x"y', "x;y", "caf\xe9", "x,y"], ids=repr)
def test_an_id_that_is_not_sane_is_replaced(sent: str) -> None:
    with serving(APP, "--request-id", "on") as served:
        got = with_id(served, sent).get("x-request-id")
        assert got is not None
        assert re.fullmatch("[0-9a-f]{32}", got)


def test_two_ids_are_none() -> None:
    with serving(APP, "--request-id", "on") as served:
        with served.connect() as wire:
            answer = wire.request("/hello", headers="x-request-id: a\r\nx-request-id: b\r\n")
        assert answer.get("x-request-id") not in ("a", "b")
        assert with_id(served, "a" * 128).get("x-request-id") == "a" * 128


def test_new_ids_differ() -> None:
    with serving(APP, "--request-id", "X-Correlation-ID") as served, served.connect() as wire:
        ids = [wire.request("/hello").get("x-correlation-id") for _ in range(300)]
    assert None not in ids
    assert len(set(ids)) == 300


def test_the_application_s_own_header_stays() -> None:
    with serving(APP, "--request-id", "content-type") as served, served.connect() as wire:
        answer = wire.request("/raise_before")
        assert answer.get("content-type") == "text/plain; charset=utf-8"


def test_without_the_option_there_are_no_ids() -> None:
    with serving() as served:
        assert with_id(served, "abc").get("x-request-id") is None
        scope = json.loads(with_id(served, "abc", "/scope").body)
    assert "request_id" not in scope.get("state", {})


def test_errors_as_json() -> None:
    options = ("--log-format", "json", "--request-id", "on", "--no-access-log")
    from tests.cli.support import RONDEL, running
    from tests.server.wire import ROOT

    command = [*RONDEL, "serve", APP, "--app-dir", str(ROOT), "--port", "0", *options]
    with running(command, ROOT) as process:
        port = process.wait_for(r"serving .*on http://127\.0\.0\.1:(\d+)")[1]
        served = Served(process, ("127.0.0.1", int(port)))
        with_id(served, "id-1", "/raise_before?a=b")
        _, lines = stopped(served)
    told = [json.loads(line) for line in lines]
    errors = [one for one in told if one["level"] == "error"]
    assert len(errors) == 1
    error = errors[0]
    assert (error["method"], error["target"]) == ("GET", "/raise_before?a=b")
    assert error["request_id"] == "id-1"
    assert error["client"].startswith("127.0.0.1:")
    assert error["exception"]["type"]
    assert "do_raise_before" in error["exception"]["traceback"]
