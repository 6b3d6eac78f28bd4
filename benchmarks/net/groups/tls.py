"""Echo over TLS with Python's ssl contexts."""

from __future__ import annotations

from net.case import Serve, Served
from net.servers import BufferedEcho, Echo, over_tcp, streams_tls

ORDER = 60
TITLE = "TLS"
NOTE = "Echo over TLS 1.3; the ciphers' own work is in every figure."
LACKING = {"rloop": "no TLS"}


def case(name: str, title: str, serve: Serve, connections: int, size: int, messages: int) -> Served:
    return Served(name, title, serve, "tls", connections, size, messages, lacking=LACKING)


PROTOCOL = over_tcp(Echo, secure=True)

CASES = (
    case("protocol-1k-10", "`Protocol`, 1 KB, 10 connections", PROTOCOL, 10, 1_000, 5_000),
    case("protocol-1k-1000", "`Protocol`, 1 KB, 1000 connections", PROTOCOL, 1000, 1_000, 5_000),
    case("protocol-100k-10", "`Protocol`, 100 KB, 10 connections", PROTOCOL, 10, 100_000, 1_000),
    case(
        "protocol-100k-1000",
        "`Protocol`, 100 KB, 1000 connections",
        PROTOCOL,
        1000,
        100_000,
        1_000,
    ),
    case(
        "buffered-1k-10",
        "`BufferedProtocol`, 1 KB, 10 connections",
        over_tcp(BufferedEcho, secure=True),
        10,
        1_000,
        5_000,
    ),
    case("streams-1k-10", "streams, 1 KB, 10 connections", streams_tls, 10, 1_000, 5_000),
)
