"""What a request and a plain response look like: META, paths, cookies, HEAD, empty bodies."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.django.site_server import KINDS, Kind, running

from .conftest import Serve
from .ground import Ground, Profile, links, new_server

each_view = pytest.mark.parametrize("view", ["sync", "async"])

# Differ from server to server by nature: ports.
PORTS = ("SERVER_PORT", "REMOTE_PORT")


@pytest.fixture(scope="module")
def oracle(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The same project under uvicorn."""
    if kind.name == "uvicorn":
        pytest.skip("the oracle itself")
    pytest.importorskip("uvicorn", reason="uvicorn, the oracle, is not installed")
    folder = tmp_path_factory.mktemp("oracle")
    with running(new_server(KINDS["uvicorn"], Profile(), folder)) as server:
        ground = Ground(server, folder)
        yield ground
        ground.close()


REQUESTS = {
    "bare": b"GET /meta/ HTTP/1.1\r\nHost: rules\r\nConnection: close\r\n\r\n",
    "browser": (
        b"GET /meta/?a=1&b=%C3%A4&a=2 HTTP/1.1\r\nHost: rules:8000\r\nConnection: close\r\n"
        b"User-Agent: Mozilla/5.0 (X11)\r\nAccept: text/html,*/*;q=0.8\r\n"
        b"Accept-Language: de,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n"
        b"Referer: http://rules/\r\nCookie: a=1; b=2\r\nUpgrade-Insecure-Requests: 1\r\n\r\n"
    ),
    "body": (
        b"POST /meta/ HTTP/1.1\r\nHost: rules\r\nConnection: close\r\nContent-Length: 3\r\n"
        b"Content-Type: text/plain; charset=latin-1\r\n\r\nabc"
    ),
    "chunked": (
        b"POST /meta/ HTTP/1.1\r\nHost: rules\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    ),
    "repeated": (
        b"GET /meta/ HTTP/1.1\r\nHost: rules\r\nConnection: close\r\nX-Twice: one\r\n"
        b"X-Twice: two\r\nx-LOWER: Mixed Case\r\nX_Under: hidden\r\nX-Under: shown\r\n\r\n"
    ),
    "latin": (
        b"GET /meta/ HTTP/1.1\r\nHost: rules\r\nConnection: close\r\nX-Latin: caf\xe9\r\n"
        b"X-Empty:\r\nX-Spaces:   around   \r\n\r\n"
    ),
    "forwarded": (
        b"GET /meta/ HTTP/1.1\r\nHost: rules\r\nConnection: close\r\n"
        b"X-Requested-With: XMLHttpRequest\r\nX-Real-Ip: 10.0.0.1\r\n\r\n"
    ),
    "http/1.0": b"GET /meta/ HTTP/1.0\r\nHost: rules\r\n\r\n",
    "odd method": b"PURGE /meta/ HTTP/1.1\r\nHost: rules\r\nConnection: close\r\n\r\n",
    "odd query": b"GET /meta/?&&a=%00&=b&c HTTP/1.1\r\nHost: rules\r\nConnection: close\r\n\r\n",
}


def meta(site: Ground, request: bytes) -> dict[str, Any]:
    head, body = site.raw(request)
    assert b" 200 " in head.partition(b"\r\n")[0], head
    if b"chunked" in head.lower():
        body = body.partition(b"\r\n")[2].rpartition(b"\r\n0\r\n")[0]
    facts: dict[str, Any] = json.loads(body)
    return facts


@pytest.mark.parametrize("name", REQUESTS)
def test_meta_is_what_uvicorn_gives_key_by_key(plain: Ground, oracle: Ground, name: str) -> None:
    ours, theirs = (meta(site, REQUESTS[name]) for site in (plain, oracle))
    for port in PORTS:
        assert type(ours.pop(port)) is type(theirs.pop(port))
    assert ours == theirs


def test_meta_of_a_request(plain: Ground) -> None:
    facts = meta(plain, REQUESTS["repeated"])
    assert facts["REQUEST_METHOD"] == "GET"
    assert facts["PATH_INFO"] == "/meta/"
    assert (facts["QUERY_STRING"], facts["SCRIPT_NAME"]) == ("", "")
    assert (facts["REMOTE_ADDR"], facts["SERVER_NAME"]) == ("127.0.0.1", "127.0.0.1")
    assert facts["SERVER_PORT"] == str(plain.server.port)
    assert facts["HTTP_HOST"] == "rules"
    assert facts["HTTP_X_TWICE"] == "one,two"
    assert facts["HTTP_X_LOWER"] == "Mixed Case"
    # A header with an underscore could pass for the one with a dash.
    assert facts["HTTP_X_UNDER"] == "shown"
    body = meta(plain, REQUESTS["body"])
    assert (body["CONTENT_LENGTH"], body["CONTENT_TYPE"]) == ("3", "text/plain; charset=latin-1")


@each_view
def test_request_is_an_asgi_request_with_its_scope(plain: Ground, view: str) -> None:
    facts = plain.facts(f"/{view}/")
    assert facts["request_class"] == "ASGIRequest"
    assert {"type", "asgi", "http_version", "method", "path", "raw_path", "headers"} <= set(
        facts["scope"]
    )
    assert facts["scope_path"] == f"/{view}/"
    assert facts["scheme"] == "http"


@each_view
def test_path_and_query_beyond_ascii(plain: Ground, view: str) -> None:
    facts = plain.facts(f"/{view}/p%C3%A4th/%E6%9D%B1%E4%BA%AC/", params={"größe": "ß 東"})
    assert facts["path"] == facts["path_info"] == f"/{view}/päth/東京/"
    assert facts["query"] == {"größe": ["ß 東"]}


@each_view
def test_path_with_what_is_escaped(plain: Ground, view: str) -> None:
    facts = plain.facts(f"/{view}/p%C3%A4th/a%20b+c%25d;e=f/?q=a+b%2Bc%26d&q=&r")
    assert facts["path"] == f"/{view}/päth/a b+c%d;e=f/"
    assert facts["query"] == {"q": ["a b+c&d", ""], "r": [""]}


def test_path_that_is_no_utf8_is_answered(plain: Ground) -> None:
    head, _body = plain.raw(
        b"GET /sync/%FF%FE/ HTTP/1.1\r\nHost: rules\r\nConnection: close\r\n\r\n"
    )
    assert int(head.split()[1]) in (400, 404)
    plain.still_serves()


def test_query_that_is_no_utf8_is_a_bad_request_or_replaced(plain: Ground) -> None:
    assert plain.facts("/sync/?a=%FF")["query"] == {"a": ["\ufffd"]}
    plain.still_serves()


def test_http_1_0_gets_an_answer_and_the_connections_end(plain: Ground) -> None:
    head, body = plain.raw(b"GET /answer/?size=5 HTTP/1.0\r\nHost: rules\r\n\r\n")
    assert b" 200 " in head.partition(b"\r\n")[0]
    assert body == b"xxxxx"


# -- prefixes


@each_view
@pytest.mark.parametrize("chain", [(), ("asyncclass", "syncclass")])
def test_root_path_is_the_script_name(serve: Serve, chain: tuple[str, ...], view: str) -> None:
    site = serve(Profile(links(*chain), options=("--root-path", "/prefix")))
    facts = site.facts(f"/{view}/")
    assert facts["path"] == f"/prefix/{view}/"
    assert facts["path_info"] == f"/{view}/"
    assert facts["here_url"] == "/prefix/sync/"


@each_view
def test_forced_script_name_is_in_every_url(serve: Serve, view: str) -> None:
    site = serve(Profile(settings={"FORCE_SCRIPT_NAME": "/forced"}))
    facts = site.facts(f"/{view}/")
    assert facts["here_url"] == "/forced/sync/"
    assert facts["path_info"] == f"/{view}/"


# -- responses


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_000_000])
def test_response_of_any_size(plain: Ground, size: int) -> None:
    response = plain.get(f"/answer/?size={size}")
    assert response.content == b"x" * size


@each_view
def test_head_has_the_head_alone(plain: Ground, view: str) -> None:
    response = plain.client.head(f"/{view}/")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == "application/json"
    # The connection is where it should be: the next response is the next request's.
    assert plain.facts(f"/{view}/")["method"] == "GET"


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body_has_none(plain: Ground, status: int) -> None:
    for _ in range(2):
        response = plain.get(f"/answer/?status={status}")
        assert (response.status_code, response.content) == (status, b"")
        assert "transfer-encoding" not in response.headers
    assert plain.get("/answer/?size=3").content == b"xxx"


@pytest.mark.parametrize("status", [201, 302, 418, 503])
def test_status_arrives(plain: Ground, status: int) -> None:
    assert plain.get(f"/answer/?status={status}&size=2").status_code == status


def test_several_cookies_are_several_headers(plain: Ground) -> None:
    response = plain.get("/answer/?cookie=a=1&cookie=b=two&cookie=c=x%2Cy")
    assert response.headers.get_list("set-cookie") == [
        "a=1; HttpOnly; Path=/; SameSite=Lax",
        "b=two; HttpOnly; Path=/; SameSite=Lax",
        'c="x\\054y"; HttpOnly; Path=/; SameSite=Lax',
    ]
    plain.client.cookies.clear()


@each_view
def test_cookies_of_the_client_arrive(plain: Ground, view: str) -> None:
    facts = plain.facts(f"/{view}/", headers={"Cookie": "a=1; b=x=y; c=caf%C3%A9"})
    assert facts["cookies"] == {"a": "1", "b": "x=y", "c": "caf%C3%A9"}


def test_response_headers_keep_their_values(plain: Ground) -> None:
    response = plain.get("/answer/?header=X-Own:some value&header=Content-Type:image/x-own")
    assert response.headers["x-own"] == "some value"
    assert response.headers["content-type"] == "image/x-own"


def test_requests_of_one_connection_are_answered_in_their_order(plain: Ground) -> None:
    one = b"GET /answer/?size=%d HTTP/1.1\r\nHost: rules\r\n%s\r\n"
    ends = [b"", b"", b"", b"", b"Connection: close\r\n"]
    head, rest = plain.raw(b"".join(one % (n, end) for n, end in enumerate(ends, 1)))
    received = head + b"\r\n\r\n" + rest
    bodies = [part.partition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 200 OK")[1:]]
    assert [body.count(b"x") for body in bodies] == [1, 2, 3, 4, 5]


@pytest.fixture
def multilingual(serve: Serve) -> Ground:
    """A site whose paths differ by language; English unless the request says otherwise."""
    settings = {
        "ROOT_URLCONF": "rules_site.languages",
        "LANGUAGE_CODE": "en",
        "LANGUAGES": [["en", "English"], ["de", "Deutsch"]],
    }
    return serve(Profile(("django.middleware.locale.LocaleMiddleware",), settings))


@each_view
def test_a_path_with_its_language_is_answered_in_that(view: str, multilingual: Ground) -> None:
    for _ in range(2):
        for language in ("de", "en", "de"):
            response = multilingual.get(f"/{language}/language/{view}/")
            assert response.json()["language"] == language
            assert response.json()["loop"] == (view == "async")
    assert multilingual.get(f"/fr/language/{view}/").status_code == 404


@each_view
def test_a_translated_route_is_that_of_the_requests_language(
    view: str, multilingual: Ground
) -> None:
    for _ in range(2):
        for language, word, other in (("de", "buch", "book"), ("en", "book", "buch")):
            asked = {"Accept-Language": language}
            response = multilingual.get(f"/{view}/{word}/", headers=asked)
            assert (response.status_code, response.json()["language"]) == (200, language)
            assert multilingual.get(f"/{view}/{other}/", headers=asked).status_code == 404
