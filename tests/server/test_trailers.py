"""The extension `http.response.trailers`: what follows a body, on both versions of HTTP."""

import json

import pytest

from tests.server.h2wire import H2Wire
from tests.server.wire import SERVER, Closed, Served, Wire

pytestmark = pytest.mark.skipif(SERVER != "rondel", reason="an extension of Rondel's")


def test_it_is_offered(wire: Wire) -> None:
    assert "http.response.trailers" in json.loads(wire.request("/scope").body)["extensions"]


def test_http2(server: Served) -> None:
    with H2Wire(server.address) as wire2:
        answer = wire2.get("/trailers")
        assert (bytes(answer.body), answer.trailers) == (b"onetwo", {"x-sum": "3", "x-more": "4"})
        assert wire2.answer(wire2.open("/trailers", "HEAD")).status == 200
        assert wire2.get("/trailers?forgets=yes").reset is not None
        assert wire2.get("/hello").body == b"hello"


def test_http1_to_a_client_that_asks_for_them(wire: Wire) -> None:
    wire.send(b"GET /trailers HTTP/1.1\r\nhost: t\r\nte: trailers\r\n\r\n")
    end = b"0\r\nx-sum: 3\r\nx-more: 4\r\n\r\n"
    seen = b""
    while end not in seen:
        seen += wire.exactly(1)
    assert b"3\r\none\r\n" in seen
    assert wire.request("/hello").body == b"hello"


def test_http1_to_a_client_that_does_not(wire: Wire) -> None:
    assert wire.request("/trailers").body == b"onetwo"
    assert wire.request("/hello").body == b"hello"


def test_trailers_that_were_promised_and_not_sent_break_the_response_off(wire: Wire) -> None:
    with pytest.raises(Closed):
        wire.request("/trailers?forgets=yes")
