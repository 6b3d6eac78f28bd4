"""WebSocket frames made and read by hand: a client that may break every rule (RFC 6455).

The deflating half is zlib's, so that what the server's compressor writes is read by another's.
"""

import base64
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.server.wire import Closed, Response, Served, Wire

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Frame:
    opcode: int
    data: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def code(self) -> int | None:
        """Of a close frame."""
        return struct.unpack("!H", self.data[:2])[0] if self.data else None


def encode(
    opcode: int,
    data: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length: int | None = None,
) -> bytes:
    """One frame's bytes; ``length`` is what its head says if that is not the truth."""
    size = len(data) if length is None else length
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + data
    mask = os.urandom(4)
    return head + mask + masking(data, mask)


def masking(data: bytes, mask: bytes) -> bytes:
    whole = (mask * (len(data) // 4 + 1))[: len(data)]
    number = int.from_bytes(data, "big") ^ int.from_bytes(whole, "big")
    return number.to_bytes(len(data), "big")


def closing(code: int | None = None, reason: bytes = b"") -> bytes:
    return encode(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def handshake(target: str = "/", headers: str = "", *, key: str = KEY) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n{headers}\r\n"
    ).encode("latin-1")


class Peer:
    """One connection after its handshake."""

    def __init__(self, wire: Wire, target: str, headers: str = "") -> None:
        self.wire = wire
        wire.send(handshake(target, headers))
        self.response: Response = wire.response()
        if self.response.status == 101:
            accept = base64.b64encode(hashlib.sha1(KEY.encode() + _GUID).digest()).decode()
            assert self.response.get("sec-websocket-accept") == accept
            assert (self.response.get("upgrade") or "").lower() == "websocket"

    def send(self, opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0) -> None:
        self.wire.send(encode(opcode, data, fin=fin, rsv=rsv))

    def text(self, text: str) -> None:
        self.send(TEXT, text.encode())

    def frame(self) -> Frame:
        """The next frame. A server's frames are not masked, and as short as can be."""
        first, second = self.wire.exactly(2)
        assert second < 128, "a masked frame from the server"
        size = second
        if second == 126:
            (size,) = struct.unpack("!H", self.wire.exactly(2))
            assert size > 125
        elif second == 127:
            (size,) = struct.unpack("!Q", self.wire.exactly(8))
            assert size > 65535
        return Frame(first & 15, self.wire.exactly(size), first >= 128, first >> 4 & 7)

    def message(self) -> str | bytes:
        """The next message, which must come in one frame, uncompressed."""
        frame = self.frame()
        assert frame.fin and frame.rsv == 0 and frame.opcode in (TEXT, BINARY), frame
        return frame.data.decode() if frame.opcode == TEXT else frame.data

    def closed(self) -> int | None:
        """The code of the close frame that comes next, behind which the server ends."""
        frame = self.frame()
        assert frame.opcode == CLOSE, frame
        assert self.wire.rest() == b"", "something after the close frame"
        return frame.code

    def lost(self) -> bool:
        """The server ends without a close frame."""
        try:
            return self.wire.rest() == b""
        except Closed:
            return True

    def end(self, code: int | None = 1000) -> None:
        """The closing handshake."""
        self.wire.send(closing(code))
        assert self.closed() == code


@contextmanager
def peer(server: Served, target: str, headers: str = "") -> Iterator[Peer]:
    with server.connect() as wire:
        yield Peer(wire, target, headers)


class Deflate:
    """A client's half of permessage-deflate (RFC 7692)."""

    def __init__(
        self,
        *,
        client_bits: int = 15,
        server_bits: int = 15,
        client_takeover: bool = True,
        server_takeover: bool = True,
    ) -> None:
        self.settings = (client_bits, server_bits), (client_takeover, server_takeover)
        self._bits = client_bits, server_bits
        self._takeover = client_takeover, server_takeover
        self._deflater = zlib.compressobj(9, zlib.DEFLATED, -client_bits)
        self._inflater = zlib.decompressobj(-server_bits)

    def compress(self, data: bytes) -> bytes:
        if not self._takeover[0]:
            self._deflater = zlib.compressobj(9, zlib.DEFLATED, -self._bits[0])
        out = self._deflater.compress(data) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        assert out.endswith(b"\0\0\xff\xff")
        return out[:-4]

    def inflate(self, frame: Frame) -> bytes:
        if not frame.rsv & 4:
            return frame.data
        if not self._takeover[1]:
            self._inflater = zlib.decompressobj(-self._bits[1])
        return self._inflater.decompress(frame.data + b"\0\0\xff\xff")
