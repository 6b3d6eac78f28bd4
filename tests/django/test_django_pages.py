"""Pages of the site: sync and async views, connections, many requests at once."""

import asyncio
import http.client
import re
import time

import httpx
import pytest

from .site_server import PATIENCE, SiteServer

PAGES = {
    "/": "一个事件循环，同时做许多事",
    "/where/": "我在哪里运行？",
    "/books/": "红楼梦",
    "/books/alice/": "rabbit",
    "/async/books/": "红楼梦",
    "/async/books/alice/": "rabbit",
    "/guestbook/": "欢迎光临",
    "/upload/": "上传文件",
    "/events/": "服务器推送事件",
    "/api/books/": "Journey to the West",
    "/api/where/": "CPython",
    "/admin/login/": "csrfmiddlewaretoken",
    "/static/shelf/site.css": ".timeline",
    "/static/shelf/events.js": "EventSource",
}


@pytest.mark.parametrize("path", PAGES)
def test_page_is_served(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert PAGES[path] in response.text


def test_every_link_of_the_index_leads_somewhere(client: httpx.Client) -> None:
    links = set(re.findall(r'href="(/[^"]*)"', client.get("/").text))
    assert len(links) > 15
    for link in sorted(links - {"/errors/sync/", "/stream/"}):
        assert client.get(link, follow_redirects=True).status_code == 200, link


def test_sync_and_async_views_show_the_same_books(client: httpx.Client) -> None:
    def titles(path: str) -> list[str]:
        return re.findall(r'<span class="title">([^<]*)', client.get(path).text)

    assert titles("/books/") == titles("/async/books/")
    assert len(titles("/books/")) == 14
    assert titles("/async/books/?q=西游") == ["Journey to the West"]


def test_view_runs_in_a_task_of_the_servers_loop(client: httpx.Client, server: SiteServer) -> None:
    facts = client.get("/api/where/").json()
    assert facts["process"] == server.pid
    assert facts["protocol"] == "ASGI 3.0, HTTP/1.1"
    assert facts["server_address"] == f"127.0.0.1:{server.port}"
    assert facts["client_address"].startswith("127.0.0.1:")
    assert facts["task"]
    # The whole point: the server's own loop steps the view, as one of its own tasks.
    expected = "asyncio" if server.kind.name == "uvicorn" else "rondel"
    assert expected in facts["loop"]
    assert expected in facts["task_type"]


def test_query_string_and_absolute_urls_survive(client: httpx.Client, server: SiteServer) -> None:
    books = client.get("/api/books/").json()
    assert books["count"] == 14
    assert {book["url"].split("/books/")[0] for book in books["books"]} == {server.url}
    page = client.get("/books/", params={"q": 'a&b="<ü>'}).text
    assert 'value="a&amp;b=&quot;&lt;ü&gt;"' in page


@pytest.mark.parametrize("path", ["/events/", "/api/books/", "/static/shelf/site.css"])
def test_head_has_the_headers_of_get_and_no_body(server: SiteServer, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("GET", path)
    got = connection.getresponse()
    length = len(got.read())
    connection.request("HEAD", path)
    head = connection.getresponse()
    assert head.status == got.status == 200
    assert head.getheader("content-length") == got.getheader("content-length") == str(length)
    assert head.getheader("content-type") == got.getheader("content-type")
    assert head.read() == b""
    # Had a body followed the head, this request would read it as its response.
    connection.request("GET", "/api/where/")
    assert connection.getresponse().status == 200
    connection.close()


def test_one_connection_carries_many_requests(server: SiteServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.connect()
    sock = connection.sock
    own = "{}:{}".format(*sock.getsockname())
    for path in ["/books/", "/async/books/", "/static/shelf/site.css", "/no-such-page/"] * 3:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.read()
        assert not response.will_close
    connection.request("GET", "/api/where/")
    assert f'"client_address": "{own}"' in connection.getresponse().read().decode()
    # http.client would have replaced the socket had the server closed the connection.
    assert connection.sock is sock
    connection.close()


def test_pipelined_requests_are_answered_in_order(server: SiteServer) -> None:
    paths = ["/ways/task-group-failing/?format=json", "/api/books/", "/api/where/"]
    with server.connect() as sock:
        head = "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n"
        close = ["", "", "Connection: close\r\n"]
        sock.sendall("".join(map(head.format, paths, close)).encode())
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 3
    order = [received.index(mark) for mark in (b'"way":', b'"count": 14', b'"open_streams"')]
    assert order == sorted(order)


def test_fifty_requests_at_once_are_all_answered(server: SiteServer) -> None:
    kinds = ["/ways/gather/?format=json", "/books/", "/async/books/alice/", "/api/books/", "/"]
    paths = kinds * 10

    async def ask_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(
            base_url=server.url, timeout=PATIENCE, limits=limits, trust_env=False
        ) as client:
            return await asyncio.gather(*(client.get(path) for path in paths))

    began = time.monotonic()
    responses = asyncio.run(ask_all())
    elapsed = time.monotonic() - began
    assert [response.status_code for response in responses] == [200] * 50
    assert [response.url.raw_path.decode() for response in responses] == paths
    gathered = [r.json()["elapsed"] for r in responses[::5]]
    assert len(gathered) == 10
    # The requests overlap, and so do the sleeps of a gather view, 1.2 s one after another: in
    # the quickest at least, as a busy machine adds to each.
    assert elapsed < sum(gathered)
    assert min(gathered) < 1.2
