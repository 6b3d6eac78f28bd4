"""Formats of the access log: five that have a name, and those that are spelled out.

    plain      127.0.0.1:54321 - "GET /a?b=c HTTP/1.1" 200 1.2ms
    common     127.0.0.1 - - [31/Jan/2026:12:00:00 +0000] "GET /a?b=c HTTP/1.1" 200 5
    combined   the same, then "REFERER" "USER-AGENT": what log analysers read
    json       {"time": "2026-01-31T12:00:00.000+00:00", "client": "127.0.0.1:54321", ...}
    anything with %(FIELD)s in it

A field has our name, and those that gunicorn (``%(h)s``, ``%({referer}i)s``), uvicorn
(``%(client_addr)s``) and granian (``%(dt_ms).3f``) have for it. What stands between the parentheses
and the letter is printf's: width, precision, flags.

Invariants: a format is compiled once; what a line costs is one ``%`` over a tuple. The native
server is asked only for what the format needs (``Format.asks``). Whatever a client sent is escaped
so that it cannot end a quoted field or a line, as Apache's server does it.
"""

import os
import re
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

__all__ = ["NAMES", "Format", "access_line", "parse"]

NAMES = ("plain", "common", "combined", "json")

COMMON = '%(h)s - - [%(time)s] "%(request_line)s" %(status)s %(B)s'
COMBINED = f'{COMMON} "%({{referer}}i)s" "%({{user-agent}}i)s"'

# What the server calls a log with: client, method, target, version, status, seconds, *asked for.
Values = tuple[Any, ...]
Getter = Callable[[Values], Any]


def access_line(
    client: str, method: str, target: str, version: str, status: int, seconds: float
) -> str:
    """One request as one line; ``target`` as it came, percent-encoded."""
    return f'{client} - "{method} {target} HTTP/{version}" {status} {seconds * 1000:.1f}ms'


class Format:
    """How a finished request becomes a line."""

    __slots__ = ("asks", "line")

    def __init__(self, line: Callable[..., str], asks: tuple[str, ...] = ()) -> None:
        # Called with the six values, and one for each of `asks`.
        self.line = line
        # `access_fields` of `_rondel.serve_http`.
        self.asks = asks


def parse(text: str, *, ids: bool = False) -> Format:
    """The format of that name or with those fields; raises ValueError, whose text is a sentence.

    With ``ids`` requests have ids: json lines have them too.
    """
    if text == "plain":
        return Format(access_line)
    if text == "json":
        return _json(ids)
    written = {"common": COMMON, "combined": COMBINED}.get(text)
    if written is None:
        if "%(" not in text:
            raise ValueError(f"{text!r} is none of {', '.join(NAMES)}, and has no %(FIELD)s in it")
        written = text
    return _compiled(written)


# ------------------------------------------------------------------------------------ fields

_UNSAFE = re.compile(r'[\x00-\x1f"\\\x7f-\x9f\u2028\u2029]')


def _escape(match: "re.Match[str]") -> str:
    char = match[0]
    return f"\\{char}" if char in '"\\' else char.encode("unicode_escape").decode("ascii")


def _safe(text: str) -> str:
    return _UNSAFE.sub(_escape, text)


def _host(client: str) -> str:
    """The address without its port."""
    host = client.rpartition(":")[0] or client
    return host.strip("[]")


def _port(client: str) -> str:
    return client.rpartition(":")[2] if ":" in client else "-"


def _zone(local: time.struct_time) -> str:
    minutes = local.tm_gmtoff // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class _Clock:
    """Times of lines; most lines of a second share their text. Threads may race: both are right."""

    def __init__(self, spell: Callable[[time.struct_time], str]) -> None:
        self._spell = spell
        self._last = (0, "")

    def __call__(self, at: float) -> str:
        second = int(at)
        known, text = self._last
        if known != second:
            text = self._spell(time.localtime(second))
            self._last = (second, text)
        return text


def _customary(local: time.struct_time) -> str:
    """``31/Jan/2026:12:00:00 +0000``, in English whatever the locale."""
    month = _MONTHS[local.tm_mon - 1]
    return (
        f"{local.tm_mday:02}/{month}/{local.tm_year}:"
        f"{local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02} {_zone(local)}"
    )


class _IsoClock:
    """``2026-01-31T12:00:00.000+00:00``."""

    def __init__(self) -> None:
        self._second = _Clock(lambda local: time.strftime("%Y-%m-%dT%H:%M:%S", local))
        self._zone = _Clock(lambda local: f"{_zone(local)[:3]}:{_zone(local)[3:]}")

    def __call__(self, at: float) -> str:
        return f"{self._second(at)}.{int(at * 1000) % 1000:03}{self._zone(at)}"


def _began(values: Values) -> float:
    return time.time() - float(values[5])


def _times() -> dict[str, Getter]:
    usual, iso = _Clock(_customary), _IsoClock()
    return {
        "time": lambda values: usual(_began(values)),
        "iso_time": lambda values: iso(_began(values)),
    }


def _path(values: Values) -> str:
    return _safe(values[2].partition("?")[0])


def _query(values: Values) -> str:
    return _safe(values[2].partition("?")[2])


def _request_line(values: Values) -> str:
    return f"{values[1]} {_safe(values[2])} HTTP/{values[3]}"


_FIELDS: dict[str, Getter] = {
    "client": lambda values: values[0],
    "host": lambda values: _host(values[0]),
    "port": lambda values: _port(values[0]),
    "method": lambda values: values[1],
    "target": lambda values: _safe(values[2]),
    "path": _path,
    "query": _query,
    "version": lambda values: values[3],
    "protocol": lambda values: f"HTTP/{values[3]}",
    "request_line": _request_line,
    "status": lambda values: values[4],
    "seconds": lambda values: values[5],
    "ms": lambda values: values[5] * 1e3,
    "us": lambda values: int(values[5] * 1e6),
    "pid": lambda values: os.getpid(),
    "nothing": lambda values: "-",
}

# The server is asked for these.
_ASKED = {
    "bytes": "sent",
    "request_id": "id",
    "referer": "header:referer",
    "user_agent": "header:user-agent",
}

# Other servers' names. Of gunicorn's, T is whole seconds, M milliseconds, D microseconds, L seconds
# with a fraction; b is "-" for no bytes, B is 0.
_ALIASES = {
    "h": "host",
    "l": "nothing",
    "u": "nothing",
    "t": "bracketed_time",
    "r": "request_line",
    "s": "status",
    "m": "method",
    "U": "path",
    "q": "query",
    "H": "protocol",
    "B": "bytes",
    "b": "bytes_or_dash",
    "f": "referer",
    "a": "user_agent",
    "T": "whole_seconds",
    "M": "whole_ms",
    "D": "us",
    "L": "seconds_text",
    "p": "bracketed_pid",
    # uvicorn
    "client_addr": "client",
    "status_code": "status",
    "full_path": "target",
    # granian
    "addr": "host",
    "query_string": "query",
    "dt_ms": "ms",
}

_FIELD = re.compile(r"%(?:%|\(([^()]*)\)([#0 +-]*\d*(?:\.\d+)?)([a-zA-Z])?)?")


def _compiled(text: str) -> Format:
    asks: list[str] = []
    getters: list[Getter] = []
    times = _times()

    def asked(what: str) -> int:
        """Where among the values the server puts it."""
        if what not in asks:
            asks.append(what)
        return 6 + asks.index(what)

    def getter(name: str) -> Getter:
        if name in _ALIASES:
            return getter(_ALIASES[name])
        if name in _FIELDS:
            return _FIELDS[name]
        if name in times:
            return times[name]
        if name == "bracketed_time":
            usual = times["time"]
            return lambda values: f"[{usual(values)}]"
        if name == "bracketed_pid":
            return lambda values: f"<{os.getpid()}>"
        if name == "whole_seconds":
            return lambda values: int(values[5])
        if name == "whole_ms":
            return lambda values: int(values[5] * 1e3)
        if name == "seconds_text":
            return lambda values: f"{values[5]:.6f}"
        if name == "bytes_or_dash":
            at = asked("sent")
            return lambda values: values[at] or "-"
        if name.startswith("{") and name.endswith("}i") and len(name) > 3:
            return header(name[1:-2].lower())
        what = _ASKED.get(name)
        if what is None:
            raise ValueError(_unknown(name))
        if what.startswith("header:"):
            return header(what.removeprefix("header:"))
        at = asked(what)
        if what == "sent":
            return lambda values: values[at]
        return lambda values: values[at] or "-"

    def header(name: str) -> Getter:
        at = asked(f"header:{name}")

        def get(values: Values) -> str:
            value = values[at]
            return "-" if value is None else _safe(value)

        return get

    def place(match: "re.Match[str]") -> str:
        if match[0] == "%%":
            return "%%"
        name, form, letter = match[1], match[2], match[3]
        if name is None:
            raise ValueError("a % that stands for itself is written %%")
        if letter is None:
            raise ValueError(f"%({name}) lacks its letter: %({name})s")
        getters.append(getter(name))
        return f"%{form}{letter}"

    template = _FIELD.sub(place, text).replace("\r", "\\r").replace("\n", "\\n")
    compiled = tuple(getters)

    def line(*values: Any) -> str:
        return template % tuple([get(values) for get in compiled])

    sample = ("127.0.0.1:1", "GET", "/", "1.1", 200, 0.001)
    rest = tuple(0 if what == "sent" else None for what in asks)
    try:
        line(*sample, *rest)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text!r} does not work: {error}") from None
    return Format(line, tuple(asks))


def _unknown(name: str) -> str:
    import difflib

    if re.fullmatch(r"\{.*\}[oe]", name):
        kind = "response headers" if name.endswith("o") else "environment variables"
        return f"%({name})s: {kind} are not logged"
    names = [*_FIELDS, *_ASKED, "time", "iso_time"]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    known = ", ".join(sorted(set(names) - {"nothing"}))
    return f"%({name})s is not a field{hint or f': they are {known}, {{HEADER}}i'}"


# -------------------------------------------------------------------------------------- json


def _or_null(text: str | None) -> str:
    return "null" if text is None else _quoted(text)


def _json(ids: bool) -> Format:
    iso = _IsoClock()

    def line(
        client: str,
        method: str,
        target: str,
        version: str,
        status: int,
        seconds: float,
        sent: int,
        referer: str | None,
        user_agent: str | None,
        request_id: str | None = None,
    ) -> str:
        # Put together by hand: half of what `json.dumps` of a dictionary costs.
        text = (
            f'{{"time": "{iso(time.time() - seconds)}", "client": {_quoted(client)}, '
            f'"method": {_quoted(method)}, "target": {_quoted(target)}, '
            f'"protocol": "HTTP/{version}", "status": {status}, "bytes": {sent}, '
            f'"seconds": {seconds:.6f}, "referer": {_or_null(referer)}, '
            f'"user_agent": {_or_null(user_agent)}'
        )
        return f'{text}, "request_id": {_or_null(request_id)}}}' if ids else text + "}"

    asks = ("sent", "header:referer", "header:user-agent")
    return Format(line, (*asks, "id") if ids else asks)
