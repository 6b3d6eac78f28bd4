"""Echo over Unix sockets."""

from __future__ import annotations

from collections.abc import Iterator

from net.case import BARE, Serve, Served
from net.servers import BufferedEcho, Echo, over_unix, streams_unix

ORDER = 40
TITLE = "Unix sockets"
NOTE = "Echo over 10 connections."
LACKING = {"rloop": "no Unix sockets"}


def both_sizes(kind: str, title: str, serve: Serve) -> Iterator[Served]:
    for size_name, size_title, size, messages in (
        ("1k", "1 KB", 1_000, 10_000),
        ("100k", "100 KB", 100_000, 2_000),
    ):
        yield Served(
            f"{kind}-{size_name}",
            f"{title}, {size_title}",
            serve,
            "unix",
            10,
            size,
            messages,
            floors={BARE: "unix"},
            lacking=LACKING,
        )


CASES = (
    *both_sizes("protocol", "`Protocol`", over_unix(Echo)),
    *both_sizes("buffered", "`BufferedProtocol`", over_unix(BufferedEcho)),
    *both_sizes("streams", "streams", streams_unix),
)
