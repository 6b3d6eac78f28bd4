"""The access log's formats: what a line says, whose names are understood, what is a mistake."""

import json
import re
import time
from typing import Any

import pytest

from rondel.server import formats
from rondel.server.config import Config
from rondel.server.errors import UsageError

REQUEST = ("127.0.0.1:54321", "GET", "/a%20b?c=d", "1.1", 200, 0.00123)
TIME = r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}"
ANSWERS = {
    "sent": 5,
    "id": "id-1",
    "header:referer": "http://here/",
    "header:user-agent": "curl/8",
    "header:x-a": "b",
}


def line(text: str, request: tuple[Any, ...] = REQUEST, **answers: Any) -> str:
    """A request in this format; ``answers`` are what the server knows, else ``ANSWERS``."""
    known = {**ANSWERS, **{key.replace("_", "-"): value for key, value in answers.items()}}
    known |= {f"header:{key}": value for key, value in known.items()}
    written = formats.parse(text, ids=True)
    return written.line(*request, *(known[what] for what in written.asks))


def test_common_and_combined_are_what_log_analysers_read() -> None:
    common = rf'127\.0\.0\.1 - - \[{TIME}\] "GET /a%20b\?c=d HTTP/1\.1" 200 5'
    assert re.fullmatch(common, line("common"))
    assert re.fullmatch(common + ' "http://here/" "curl/8"', line("combined"))


def test_headers_that_were_not_sent_are_dashes() -> None:
    assert line("combined", referer=None, user_agent=None).endswith(' 200 5 "-" "-"')


def test_json_is_an_object_a_line() -> None:
    told = json.loads(line("json", user_agent='"\n\\\x1b\xe9', referer=None))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", told.pop("time"))
    assert told == {
        "client": "127.0.0.1:54321",
        "method": "GET",
        "target": "/a%20b?c=d",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 5,
        "seconds": 0.00123,
        "referer": None,
        "user_agent": '"\n\\\x1b\xe9',
        "request_id": "id-1",
    }
    assert "\n" not in line("json", user_agent="a\nb")
    assert "id" not in formats.parse("json").asks


@pytest.mark.parametrize(
    ("text", "says"),
    [
        # gunicorn's own default, but for the time
        (
            '%(h)s %(l)s %(u)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
            '127.0.0.1 - - "GET /a%20b?c=d HTTP/1.1" 200 5 "http://here/" "curl/8"',
        ),
        ("%(m)s %(U)s %(q)s %(H)s %(B)d", "GET /a%20b c=d HTTP/1.1 5"),
        ("%(T)s %(M)s %(D)s %(L)s", "0 1 1230 0.001230"),
        ("%({X-A}i)s", "b"),
        # uvicorn's, granian's
        (
            '%(client_addr)s - "%(request_line)s" %(status_code)s',
            '127.0.0.1:54321 - "GET /a%20b?c=d HTTP/1.1" 200',
        ),
        (
            '%(addr)s - "%(method)s %(path)s %(protocol)s" %(status)d %(dt_ms).3f',
            '127.0.0.1 - "GET /a%20b HTTP/1.1" 200 1.230',
        ),
        # ours
        (
            "%(client)s|%(host)s|%(port)s|%(target)s|%(query)s|%(version)s",
            "127.0.0.1:54321|127.0.0.1|54321|/a%20b?c=d|c=d|1.1",
        ),
        ("%(request_id)s %(bytes)6d|%(ms)-8.2f|100%%", "id-1      5|1.23    |100%"),
    ],
)
def test_fields_have_the_names_that_people_know(text: str, says: str) -> None:
    assert line(text) == says


def test_times_are_those_of_the_request_s_beginning() -> None:
    request = (*REQUEST[:5], 7200.0)
    said = line("%(iso_time)s", request)
    assert said.startswith(time.strftime("%Y-%m-%dT", time.localtime(time.time() - 7200)))
    assert re.fullmatch(rf"\[{TIME}\] {TIME}", line("%(t)s %(time)s", request))


def test_clients_of_other_kinds() -> None:
    assert line("%(host)s %(port)s", ("[::1]:80", *REQUEST[1:])) == "::1 80"
    assert line("%(host)s %(port)s", ("unix", *REQUEST[1:])) == "unix -"


@pytest.mark.parametrize("text", ["combined", '"%(target)s" "%(a)s" "%({referer}i)s"'])
def test_a_client_cannot_forge_a_line_or_a_field(text: str) -> None:
    request = (*REQUEST[:2], '/"\u2028x', *REQUEST[3:])
    said = line(text, request, user_agent='a" 200 "\n\r\x1b[2J\\', referer="\x85")
    assert said.isprintable()
    assert re.sub(r"\\.", "", said).count('"') == 6


def test_the_plain_line_asks_for_nothing() -> None:
    assert formats.parse("plain").asks == ()
    assert formats.parse("%(h)s %(t)s %(D)s").asks == ()
    assert formats.parse("common").asks == ("sent",)
    twice = formats.parse("%(a)s %({User-Agent}i)s %(user_agent)s")
    assert twice.asks == ("header:user-agent",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("comon", "'comon' is none of plain, common, combined, json, and has no %(FIELD)s in it"),
        ("%(h)", "%(h) lacks its letter: %(h)s"),
        ("%(statu)s", "%(statu)s is not a field; did you mean status?"),
        ("%(h)d", "'%(h)d' does not work: "),
        ("%(h)y", "'%(h)y' does not work: "),
        ("50% %(h)s", "a % that stands for itself is written %%"),
        ("%({etag}o)s", "%({etag}o)s: response headers are not logged"),
        ("%({HOME}e)s", "%({HOME}e)s: environment variables are not logged"),
        ("%(zzzzzz)s", "%(zzzzzz)s is not a field: they are bytes, client, "),
    ],
)
def test_mistakes_are_told_at_the_start(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config(access_log_format=text)
    assert str(caught.value).startswith(f"access_log_format: {says}")
    assert "\n" not in str(caught.value)
