"""Echo by `asyncio.Protocol` and by `asyncio.BufferedProtocol`."""

from __future__ import annotations

from net.case import BARE, KEEPING, Served
from net.servers import BufferedEcho, Echo, over_tcp

ORDER = 10
TITLE = "Protocols"
NOTE = "Echo over TCP; the least a protocol can do."


def matrix(kind: str, title: str, serve: object, keeps: bool = False) -> tuple[Served, ...]:
    """One and many connections, small and large messages; `keeps` if each is kept for a time."""
    floors = {BARE: "tcp", KEEPING: "keep"} if keeps else {BARE: "tcp"}
    return tuple(
        Served(
            f"{kind}-{size_name}-{connections}",
            f"{title}, {size_title}, {connections} connections",
            serve,  # type: ignore[arg-type]
            "tcp",
            connections,
            size,
            messages,
            floors=floors,
        )
        for size_name, size_title, size, messages in (
            ("1k", "1 KB", 1_000, 10_000),
            ("100k", "100 KB", 100_000, 2_000),
        )
        for connections in (10, 1000)
    )


CASES = (
    *matrix("protocol", "`Protocol`", over_tcp(Echo)),
    *matrix("buffered", "`BufferedProtocol`", over_tcp(BufferedEcho)),
)
