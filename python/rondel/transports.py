"""The Python half of native transports. (Being written.)"""

from rondel import _rondel


class SocketTransport(_rondel.TcpTransportBase):  # type: ignore[misc]
    """A stream socket's transport."""
