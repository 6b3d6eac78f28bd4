"""The scope that an application gets, key by key as the ASGI specification has them."""

import json
from typing import Any

import pytest

from tests.server.wire import Served, Wire, serving


def scope(wire: Wire, target: str = "/scope", headers: str = "", method: str = "GET") -> Any:
    return json.loads(wire.request(target, method, headers=headers).body)


def test_every_key_is_there_with_its_type(wire: Wire) -> None:
    seen = scope(wire, "/scope/a?b=c", "user-agent: tests\r\n")
    expected = {
        "type": "str",
        "asgi": "dict",
        "http_version": "str",
        "method": "str",
        "scheme": "str",
        "path": "str",
        "raw_path": "bytes",
        "query_string": "bytes",
        "root_path": "str",
        "headers": "list",
        "client": "tuple",
        "server": "tuple",
        "state": "dict",
    }
    types = seen["types"]
    assert {name: types.get(name) for name in expected} == {
        # The specification asks for an iterable of two for both.
        name: types[name] if name in ("client", "server") and types[name] == "list" else kind
        for name, kind in expected.items()
    }
    assert seen["type"] == "http"
    assert seen["http_version"] == "1.1"
    assert seen["method"] == "GET"
    assert seen["scheme"] == "http"
    assert seen["path"] == "/scope/a"
    assert seen["raw_path"] == {"bytes": "/scope/a"}
    assert seen["query_string"] == {"bytes": "b=c"}
    assert seen["root_path"] == ""
    assert seen["asgi"]["version"] == "3.0"
    assert seen["asgi"]["spec_version"] >= "2.3"


def test_headers_are_lower_case_bytes_in_order_with_duplicates(wire: Wire) -> None:
    seen = scope(
        wire, headers="X-One: 1\r\ncookie: a=1\r\nX-ONE: 2\r\nCookie: b=2\r\nAccept: */*\r\n"
    )
    assert seen["header types"] == ["bytes"]
    # The order of lines with one name is kept; that of different names means nothing (RFC 9110,
    # section 5.3), and lines with one name may be given together.
    lines: dict[str, list[str]] = {}
    for name, value in seen["headers"]:
        lines.setdefault(name["bytes"], []).append(value["bytes"])
    assert lines == {
        "host": ["test"],
        "x-one": ["1", "2"],
        "cookie": ["a=1", "b=2"],
        "accept": ["*/*"],
    }


def test_header_values_keep_their_bytes_without_the_spaces_around(wire: Wire) -> None:
    seen = scope(wire, headers="x-latin: caf\xe9\r\nx-spaces:   in side \t\r\nx-empty:\r\n")
    values = {name["bytes"]: value["bytes"] for name, value in seen["headers"]}
    assert values["x-latin"] == "café"
    assert values["x-spaces"] == "in side"
    assert values["x-empty"] == ""


def test_headers_are_those_of_the_request_whatever_the_one_before_had(wire: Wire) -> None:
    few = ["accept: */*", "x-a: 1", "x-b: 2"]
    requests = [
        few,
        few,
        ["accept: */*", "x-a: 2", "x-b: 2"],
        ["accept: */*", "x-a: 12", "x-b: 2"],
        ["accept: */*", "x-a1: 2", "x-b: 2"],  # the same letters, cut elsewhere
        ["x-b: 2", "accept: */*", "x-a: 1"],
        ["accept: */*"],
        [],
        few,
        [*few, "x-c: 3"],
        [f"x-{i}: {i}" for i in range(60)],
        [f"x-{i}: {i}" for i in range(60)],
        few,
        ["x-a: " + "long" * 1000, "x-b: 2"],
        ["x-a: " + "long" * 1000, "x-b: 2"],
        few,
    ]
    for lines in requests:
        seen = scope(wire, headers="".join(line + "\r\n" for line in lines))
        headers = {name["bytes"]: value["bytes"] for name, value in seen["headers"]}
        assert len(seen["headers"]) == len(lines) + 1
        assert headers == {"host": "test", **dict(line.split(": ") for line in lines)}


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query_string"),
    [
        ("/scope/a%20b", "/scope/a b", "/scope/a%20b", ""),
        ("/scope/%C3%A9", "/scope/é", "/scope/%C3%A9", ""),
        ("/scope/%2Fslash", "/scope//slash", "/scope/%2Fslash", ""),
        ("/scope/a+b", "/scope/a+b", "/scope/a+b", ""),
        ("/scope?", "/scope", "/scope", ""),
        ("/scope?a=1&b=%20&c", "/scope", "/scope", "a=1&b=%20&c"),
        ("/scope?a?b", "/scope", "/scope", "a?b"),
        ("/scope/", "/scope/", "/scope/", ""),
        ("/scope//double/../up", "/scope//double/../up", "/scope//double/../up", ""),
        ("/scope/100%25", "/scope/100%", "/scope/100%25", ""),
    ],
)
def test_path_is_decoded_and_raw_path_and_query_string_are_not(
    wire: Wire, target: str, path: str, raw_path: str, query_string: str
) -> None:
    seen = scope(wire, target)
    assert seen["path"] == path
    assert seen["raw_path"] == {"bytes": raw_path}
    assert seen["query_string"] == {"bytes": query_string}


def test_paths_that_come_again_are_not_mistaken_for_each_other(wire: Wire) -> None:
    # Aa and BB have one hash by many a simple function.
    tails = ["Aa", "BB", "Aa", "%41a", "Aa", "x" * 40, "BB", "x" * 40, "BB?Aa", "Aa"]
    for tail in tails:
        seen = scope(wire, f"/scope/{tail}")
        path = tail.partition("?")[0]
        assert seen["path"] == "/scope/" + path.replace("%41", "A")
        assert seen["raw_path"] == {"bytes": "/scope/" + path}


def test_a_path_that_is_not_utf_8_does_not_break_the_server(wire: Wire) -> None:
    seen = scope(wire, "/scope/%ff")
    assert seen["raw_path"] == {"bytes": "/scope/%ff"}
    assert seen["path"].startswith("/scope/")


@pytest.mark.rondel_server
def test_an_absolute_target_gives_the_path(wire: Wire) -> None:
    seen = scope(wire, "http://elsewhere.example:99/scope/x?q=1")
    assert seen["path"] == "/scope/x"
    assert seen["query_string"] == {"bytes": "q=1"}


def test_client_and_server_are_the_two_ends(server: Served, wire: Wire) -> None:
    seen = scope(wire)
    assert seen["client"] == list(wire.socket.getsockname())
    assert seen["server"] == list(server.address)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
def test_any_method_passes_in_upper_case(wire: Wire, method: str) -> None:
    assert scope(wire, method=method)["method"] == method


def test_http_1_0_says_so(wire: Wire) -> None:
    wire.send(b"GET /scope HTTP/1.0\r\n\r\n")
    seen = json.loads(wire.response().body)
    assert seen["http_version"] == "1.0"
    assert seen["headers"] == []
    assert wire.closed()


def test_each_request_has_its_own_scope_and_a_copy_of_the_state(server: Served) -> None:
    with server.connect() as wire:
        first = json.loads(wire.request("/state").body)
        second = json.loads(wire.request("/state").body)
    assert first["number"] == second["number"] == 7
    assert second["shared"] == first["shared"] + 1


def test_root_path_is_an_option() -> None:
    with serving("tests.server.apps:app", "--root-path", "/prefix") as served:
        again = [served.json("/scope")["path"] for _ in range(3)]
        seen = served.json("/scope")
    assert set(again) == {seen["path"]}
    assert seen["root_path"] == "/prefix"
    assert seen["path"] == "/prefix/scope"  # the specification's path contains the root_path


def test_a_unix_socket_has_no_client_address(tmp_path: Any) -> None:
    with serving(uds=tmp_path / "socket") as served:
        seen = served.json("/scope")
    assert seen["client"] in (None, [])
    assert seen["path"] == "/scope"
