"""What the page's process answers: the page's files, and ``/api/...`` as JSON.

    GET  /                                   the page
    GET  /static/NAME                        its files; those that are in the package, no others
    GET  /api/state                          every process with its counters
    GET  /api/tasks?pid&words&state&older    the tree of a process's tasks (``groups``)
    GET  /api/members?pid&row&begin&...      the tasks of one row of it
    GET  /api/task?pid&id                    one task
    GET  /api/requests?stacks                of every process; stacks=1: with those of their threads
    GET  /api/stalls                         of every process
    POST /api/record?pid&seconds             a recording (``timeline``); answers when it is over

A failure is ``{"error": TEXT}`` with a status; the text is meant for people.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any
from urllib.parse import parse_qs

from rondel.cli.inspect_client import InspectError
from rondel.inspect.recording import read_answer
from rondel.inspect.web.access import HEADERS, Access, Entered, Refused
from rondel.inspect.web.groups import Filter, Grouped, detail
from rondel.inspect.web.processes import Processes, Taken
from rondel.inspect.web.timeline import timeline
from rondel.server.config import Receive, Scope, Send

__all__ = ["Page"]

_KINDS = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
    "LICENSE": b"text/plain; charset=utf-8",
}
# Away from the token, which would stay in the history and on the screen. No redirect: it would be
# part of the way from whichever page has the link, and such a way has no strict cookies.
_ENTERED = b'<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>Rondel</title>\n'
# Seconds of a recording that is asked for by the page, at most.
LONGEST = 60.0

Query = dict[str, str]


class _Wrong(Exception):
    """A question that is none: a status and the words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Page:
    """The ASGI application."""

    def __init__(self, access: Access, processes: Processes) -> None:
        self._access = access
        self._processes = processes
        self._files = dict(_files(resources.files("rondel.inspect.web") / "static", ""))
        self._answers: dict[tuple[str, str], Callable[[Query], Awaitable[Any]]] = {
            ("GET", "/api/state"): self._state,
            ("GET", "/api/tasks"): self._tasks,
            ("GET", "/api/members"): self._members,
            ("GET", "/api/task"): self._task,
            ("GET", "/api/requests"): self._requests,
            ("GET", "/api/stalls"): self._stalls,
            ("POST", "/api/record"): self._record,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status, kind, body, extra = await self._answer(scope, receive)
        length = (b"content-length", b"%d" % len(body))
        headers = [*HEADERS, (b"content-type", kind), length, *extra]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, scope: Scope, receive: Receive
    ) -> tuple[int, bytes, bytes, list[tuple[bytes, bytes]]]:
        method, path = scope["method"], scope["path"]
        match self._access.check(scope):
            case Refused(status, words):
                return status, _KINDS["LICENSE"], words.encode() + b"\n", []
            case Entered(cookie):
                return 200, _KINDS["html"], _ENTERED, [(b"set-cookie", cookie)]
        if path.startswith("/api/"):
            status, told = await self._ask(method, path, scope, receive)
            body = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
            # What a program is called may have halves of characters; JSON can, UTF-8 cannot.
            return status, b"application/json", body.encode("utf-8", "replace"), []
        name = "index.html" if path == "/" else path.removeprefix("/static/")
        file = self._files.get(name) if method in ("GET", "HEAD") else None
        if file is None or not (path == "/" or path.startswith("/static/")):
            return 404, _KINDS["LICENSE"], b"nothing is here\n", []
        return 200, _KINDS[name.rpartition(".")[2]], file, []

    async def _ask(self, method: str, path: str, scope: Scope, receive: Receive) -> tuple[int, Any]:
        answer = self._answers.get((method, path))
        if answer is None:
            return 404, {"error": "no such question"}
        raw = parse_qs(bytes(scope["query_string"]).decode("latin-1"), keep_blank_values=True)
        asked = asyncio.ensure_future(answer({key: values[-1] for key, values in raw.items()}))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                asked.cancel()
                await asyncio.wait({asked})
                return 499, {"error": "gone"}
            return 200, asked.result()
        except _Wrong as wrong:
            return wrong.status, {"error": str(wrong)}
        except InspectError as error:
            return 503, {"error": str(error)}
        finally:
            gone.cancel()
            asked.cancel()

    # -- the answers

    async def _state(self, query: Query) -> Any:
        return await self._processes.state()

    async def _tasks(self, query: Query) -> Any:
        taken, grouped = await self._grouped(query)
        return {**await asyncio.to_thread(grouped.tree), "took": taken.took}

    async def _members(self, query: Query) -> Any:
        begin = int(_number(query, "begin", 0, 1e9))
        _, grouped = await self._grouped(query)
        return grouped.members(query.get("row", ""), begin)

    async def _grouped(self, query: Query) -> tuple[Taken, Grouped]:
        """A fresh snapshot's rows: those that were made last, if they are the same."""
        pid, chosen = self._pid(query), _filter(query)
        taken = await self._processes.tasks(pid)
        grouped = taken.rows.get(chosen)
        if grouped is None:
            grouped = await asyncio.to_thread(Grouped, taken.data, chosen)
            taken.rows.clear()
            taken.rows[chosen] = grouped
        return taken, grouped

    async def _task(self, query: Query) -> Any:
        pid, number = self._pid(query), int(_number(query, "id", 0, 2**53))
        taken = await self._processes.tasks(pid)
        found = await asyncio.to_thread(detail, taken.data, number)
        if found is None:
            raise _Wrong(404, "this task has ended")
        return found

    async def _requests(self, query: Query) -> Any:
        stacks = query.get("stacks") == "1"
        return {"processes": await self._processes.requests(stacks=stacks)}

    async def _stalls(self, query: Query) -> Any:
        return {"processes": await self._processes.each("stalls")}

    async def _record(self, query: Query) -> Any:
        pid, seconds = self._pid(query), _number(query, "seconds", 0.05, LONGEST)
        answer = await self._processes.record(pid, seconds)
        return await asyncio.to_thread(lambda: timeline(read_answer(answer)))

    def _pid(self, query: Query) -> int:
        pid = int(_number(query, "pid", 1, 2**31))
        if not self._processes.shows(pid):
            raise _Wrong(404, f"process {pid} is not one of this page's, or has ended")
        return pid


async def _gone(receive: Receive) -> None:
    """Until the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _files(folder: Traversable, above: str) -> "list[tuple[str, bytes]]":
    """The package's files by name."""
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _files(entry, f"{above}{entry.name}/")
        elif entry.name.rpartition(".")[2] in _KINDS:
            found.append((above + entry.name, entry.read_bytes()))
    return found


def _filter(query: Query) -> Filter:
    return Filter(
        words=tuple(query.get("words", "")[:200].split()),
        state=query.get("state", ""),
        older=_number(query, "older", 0, 1e9) if query.get("older") else 0.0,
    )


def _number(query: Query, name: str, least: float, most: float) -> float:
    try:
        number = float(query.get(name, "0"))
    except ValueError:
        raise _Wrong(400, f"{name} is a number") from None
    if not least <= number <= most:
        raise _Wrong(400, f"{name} is from {least:g} to {most:g}")
    return number
