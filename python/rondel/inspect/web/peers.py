"""Whose a loopback connection is: the user of the process at its other end, as the kernel tells."""

import ipaddress
import socket
from collections.abc import Iterator

__all__ = ["user_of"]

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def user_of(client: tuple[str, int] | None, server: tuple[str, int] | None) -> int | None:
    """The user who holds the client's socket; None if that cannot be told."""
    if client is None or server is None:
        return None
    wanted = {
        f"{here} {there}" for here, there in zip(_spelled(client), _spelled(server), strict=True)
    }
    for table in _TABLES:
        try:
            with open(table, encoding="ascii") as file:
                next(file, None)
                for line in file:
                    words = line.split()
                    if f"{words[1]} {words[2]}" in wanted:
                        return int(words[7])
        except OSError:
            continue
    return None


def _spelled(end: tuple[str, int]) -> Iterator[str]:
    """An address as these tables have it: words of 32 bits in the machine's order, in hex."""
    address = ipaddress.ip_address(end[0])
    packed = [address.packed]
    if isinstance(address, ipaddress.IPv4Address):
        packed.append(ipaddress.IPv6Address(f"::ffff:{address}").packed)
    for raw in packed:
        words = (socket.ntohl(int.from_bytes(raw[at : at + 4])) for at in range(0, len(raw), 4))
        yield "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"
