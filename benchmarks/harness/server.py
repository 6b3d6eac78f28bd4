"""The HTTP part: server CPU per request, one process a server, rounds interleaved over servers.

The figure is CPU time (user and system, every thread, the whole process tree) that the server
took for N requests, over N; the load's own CPU and the wall time do not enter.  Each round starts
each server anew, because a process keeps the luck of its memory layout; the servers then take
turns, one under load at a time.  The median over rounds is reported, because load comes from
outside and how well it batches varies both ways.
"""

from __future__ import annotations

import contextlib
import time

from asgi_app import HELLO, LARGE

from harness import programs
from harness.environment import Environment, progress
from harness.figures import Figures
from harness.traffic import HttpCase, Sink, measure_case, start

SERVERS = ("rondel", "uvicorn", "granian", programs.BARE)
SETTING = programs.Setting()

BROWSER_HEADERS = (
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "http://localhost/start"),
    ("Cookie", "sessionid=4y1qbkfyqzmhdx2mq8r2ykx4k4a6b3vz; csrftoken=Q0m3yqTz6k"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Cache-Control", "max-age=0"),
)
"""With Host, the dozen that a browser sends."""

ECHO = bytes(range(256)) * 40

HTTP_CASES: tuple[HttpCase, ...] = (
    HttpCase("hello", "ASGI hello", "GET", "/", HELLO, 20_000),
    HttpCase("headers", "12 request headers", "GET", "/", HELLO, 20_000, b"", BROWSER_HEADERS),
    HttpCase("echo", "POST echo, 10 KB", "POST", "/echo", ECHO, 15_000, ECHO),
    HttpCase("large", "100 KB body", "GET", "/100k", LARGE, 8_000),
)


def run(
    environment: Environment,
    servers: list[str],
    only: set[str],
    *,
    rounds: int,
    quick: bool,
    results: Figures,
) -> None:
    """All the cases asked for, on all the servers, `rounds` times."""
    cases = [case for case in HTTP_CASES if not only or case.name in only]
    starters = {server: programs.starter(environment, server, SETTING) for server in servers}
    sink = Sink(results)
    for number in range(rounds):
        begin = time.monotonic()
        with contextlib.ExitStack() as stack:
            there = start(stack, starters, [case.name for case in cases], sink)
            for case in cases:
                requests = dict.fromkeys(servers, case)
                measure_case(
                    environment, case.name, requests, there, fewer=5 if quick else 1, sink=sink
                )
        progress(f"http: round {number + 1} of {rounds}, {time.monotonic() - begin:.0f} s")
