"""Echo by StreamReader and StreamWriter."""

from __future__ import annotations

from dataclasses import replace

from net.groups.protocol import matrix
from net.servers import Echo, over_tcp, streams

ORDER = 20
TITLE = "Streams"
NOTE = """\
Echo over TCP by `start_server`: `read`, `write`, `drain`. The columns with *protocol* are what
a peer's `Protocol` takes for the same messages. *Bare keeping* is the bare limit of a program that
keeps each message until the next, as `data = await reader.read()` does, in memory of its own.\
"""

PROTOCOLS = {f"{loop} protocol": (loop, over_tcp(Echo)) for loop in ("asyncio", "uvloop", "rloop")}

CASES = tuple(
    replace(case, also=PROTOCOLS) for case in matrix("streams", "streams", streams, keeps=True)
)
