"""Echo by the loop's `sock_*` coroutines."""

from __future__ import annotations

from net.groups.protocol import matrix
from net.servers import over_sockets, receive_and_send, receive_into_and_send

ORDER = 30
TITLE = "`sock_*`"
NOTE = "Echo over TCP by `sock_recv` or `sock_recv_into`, and `sock_sendall`; a task a connection."

CASES = (
    *matrix("sock", "`sock_recv`", over_sockets(receive_and_send), keeps=True),
    *matrix("into", "`sock_recv_into`", over_sockets(receive_into_and_send))[::2],
)
