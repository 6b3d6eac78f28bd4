"""permessage-deflate (RFC 7692): the agreement, both contexts, windows, and what must not inflate.

The client's half is zlib's. These stand for Autobahn's cases 12 (sizes, round trips) and 13 (what
is offered).
"""

import os
import zlib
from collections.abc import Iterator

import pytest

from tests.server.frames import (
    BINARY,
    CONT,
    PING,
    PONG,
    TEXT,
    Deflate,
    Frame,
    Peer,
    closing,
    encode,
    peer,
)
from tests.server.wire import Served, serving

RSV1 = 4
PLAIN = "permessage-deflate"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving("tests.server.ws_apps:app", "--ws-max-size", "1M") as served:
        yield served
        assert served.get("/hello").body == b"hello"


def extension(offer: str) -> str:
    return f"sec-websocket-extensions: {offer}\r\n"


def text_of(size: int) -> bytes:
    """Text that shrinks, but not to nothing."""
    words = b"".join(b"%d, " % (n * n) for n in range(size // 4 + 1))
    return words[:size]


# -- the agreement -------------------------------------------------------------------------

OURS = "server_max_window_bits=12"
AGREED = {
    PLAIN: f"{PLAIN}; {OURS}",
    f"{PLAIN}; client_max_window_bits": f"{PLAIN}; {OURS}",
    f"{PLAIN}; client_max_window_bits=10": f"{PLAIN}; {OURS}; client_max_window_bits=10",
    f"{PLAIN}; client_max_window_bits=8": f"{PLAIN}; {OURS}; client_max_window_bits=8",
    f"{PLAIN}; server_max_window_bits=9": f"{PLAIN}; server_max_window_bits=9",
    f'{PLAIN}; server_max_window_bits="10"': f"{PLAIN}; server_max_window_bits=10",
    f"{PLAIN}; server_no_context_takeover": f"{PLAIN}; server_no_context_takeover; {OURS}",
    f"{PLAIN}; client_no_context_takeover": f"{PLAIN}; client_no_context_takeover; {OURS}",
    # The first offer that can be met.
    f"x-webkit-deflate-frame, {PLAIN}": f"{PLAIN}; {OURS}",
    f"{PLAIN}; server_max_window_bits=8, {PLAIN}": f"{PLAIN}; {OURS}",
    f"{PLAIN}; unknown=1, {PLAIN}; client_no_context_takeover": (
        f"{PLAIN}; client_no_context_takeover; {OURS}"
    ),
}


@pytest.mark.parametrize("offer", AGREED)
def test_what_can_be_agreed_to_is(server: Served, offer: str) -> None:
    with peer(server, "/echo", extension(offer)) as client:
        assert client.response.get("sec-websocket-extensions") == AGREED[offer]
        client.end()


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-bzip2",
        f"{PLAIN}; unknown",
        f"{PLAIN}; server_max_window_bits",
        f"{PLAIN}; server_max_window_bits=7",
        f"{PLAIN}; server_max_window_bits=16",
        f"{PLAIN}; client_max_window_bits=16",
        f"{PLAIN}; server_max_window_bits=010",
        f"{PLAIN}; server_no_context_takeover=1",
        f"{PLAIN}; client_no_context_takeover; client_no_context_takeover",
    ],
)
def test_what_cannot_be_agreed_to_is_left_out(server: Served, offer: str) -> None:
    with peer(server, "/echo", extension(offer)) as client:
        assert client.response.status == 101
        assert client.response.get("sec-websocket-extensions") is None
        client.text("uncompressed" * 10)
        assert client.message() == "uncompressed" * 10
        client.send(TEXT, b"compressed", rsv=RSV1)
        assert client.closed() == 1002


def test_it_can_be_switched_off() -> None:
    with (
        serving("tests.server.ws_apps:app", "--no-ws-per-message-deflate") as served,
        peer(served, "/echo", extension(PLAIN)) as client,
    ):
        assert client.response.get("sec-websocket-extensions") is None
        client.end()


# -- both directions -----------------------------------------------------------------------

SETTINGS = {
    "both contexts": ("", Deflate(server_bits=12)),
    "no context of ours": (
        "; server_no_context_takeover",
        Deflate(server_bits=12, server_takeover=False),
    ),
    "no context of the client's": (
        "; client_no_context_takeover",
        Deflate(server_bits=12, client_takeover=False),
    ),
    "no context": (
        "; server_no_context_takeover; client_no_context_takeover",
        Deflate(server_bits=12, server_takeover=False, client_takeover=False),
    ),
    "small windows": (
        "; server_max_window_bits=9; client_max_window_bits=9",
        Deflate(server_bits=9, client_bits=9),
    ),
    "small windows, no context": (
        "; server_max_window_bits=9; client_max_window_bits=9; "
        "server_no_context_takeover; client_no_context_takeover",
        Deflate(server_bits=9, client_bits=9, server_takeover=False, client_takeover=False),
    ),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_12_messages_of_many_sizes_there_and_back(
    server: Served, setting: str, opcode: int
) -> None:
    more, _ = SETTINGS[setting]
    deflate = fresh(setting)
    sizes = [0, 1, 16, 63, 64, 65, 256, 1024, 4096, 8191, 8192, 32768, 131072]
    with peer(server, "/echo", extension(PLAIN + more)) as client:
        assert client.response.get("sec-websocket-extensions")
        for size in sizes * 2:
            data = text_of(size)
            client.send(opcode, deflate.compress(data), rsv=RSV1)
            frame = client.frame()
            assert frame.opcode == opcode
            assert deflate.inflate(frame) == data
            if size > 1000:
                assert frame.rsv == RSV1
                assert len(frame.data) < size
        client.end()


def fresh(setting: str) -> Deflate:
    """One with nothing in its windows."""
    _, used = SETTINGS[setting]
    (client_bits, server_bits), (client_takeover, server_takeover) = used.settings
    return Deflate(
        client_bits=client_bits,
        server_bits=server_bits,
        client_takeover=client_takeover,
        server_takeover=server_takeover,
    )


def test_the_context_is_kept_between_messages(server: Served) -> None:
    data = os.urandom(2000)  # shrinks only by what was sent before
    deflate = Deflate(server_bits=12)
    with peer(server, "/echo", extension(PLAIN)) as client:
        sizes = []
        for _ in range(3):
            client.send(BINARY, deflate.compress(data), rsv=RSV1)
            frame = client.frame()
            assert deflate.inflate(frame) == data
            sizes.append(len(frame.data))
        assert sizes[0] >= 2000
        assert sizes[1] < 100
        assert sizes[2] < 100
        client.end()


def test_what_does_not_shrink_comes_through(server: Served) -> None:
    for setting in SETTINGS:
        deflate = fresh(setting)
        with peer(server, "/echo", extension(PLAIN + SETTINGS[setting][0])) as client:
            for size in (100, 10_000, 100_000):
                data = os.urandom(size)
                client.send(BINARY, deflate.compress(data), rsv=RSV1)
                assert deflate.inflate(client.frame()) == data
                client.send(TEXT, deflate.compress(b"ok" * 100), rsv=RSV1)
                assert deflate.inflate(client.frame()) == b"ok" * 100
            client.end()


def test_messages_may_come_uncompressed_in_between(server: Served) -> None:
    deflate = Deflate(server_bits=12)
    with peer(server, "/echo", extension(PLAIN)) as client:
        for _ in range(3):
            client.send(TEXT, deflate.compress(text_of(500)), rsv=RSV1)
            assert deflate.inflate(client.frame()) == text_of(500)
            client.text("short")
            assert client.message() == "short"
        client.end()


@pytest.mark.parametrize("part", [1, 7, 100])
def test_a_compressed_message_may_come_in_fragments(server: Served, part: int) -> None:
    deflate = Deflate(server_bits=12)
    data = text_of(1000)
    with peer(server, "/echo", extension(PLAIN)) as client:
        small = deflate.compress(data)
        for at in range(0, len(small), part):
            client.send(
                CONT if at else TEXT,
                small[at : at + part],
                fin=at + part >= len(small),
                rsv=0 if at else RSV1,
            )
            if at == part:
                client.send(PING, b"between")
                assert client.frame() == Frame(PONG, b"between")
        assert deflate.inflate(client.frame()) == data
        client.end()


def test_a_block_that_is_marked_as_the_last_is_understood(server: Served) -> None:
    """RFC 7692, 7.2.3.4: a client may end a message with a final block, and an empty byte."""
    with peer(server, "/echo", extension(f"{PLAIN}; client_no_context_takeover")) as client:
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        whole = deflater.compress(b"final block" * 10) + deflater.flush(zlib.Z_FINISH)
        client.send(TEXT, whole + b"\0", rsv=RSV1)
        deflate = Deflate(server_bits=12)
        assert deflate.inflate(client.frame()) == b"final block" * 10
        client.end()


# -- what breaks the rules -----------------------------------------------------------------


def test_control_frames_are_never_compressed(server: Served) -> None:
    with peer(server, "/echo", extension(PLAIN)) as client:
        client.send(PING, b"x" * 100)
        assert client.frame() == Frame(PONG, b"x" * 100)
        client.send(PING, b"x", rsv=RSV1)
        assert client.closed() == 1002


def test_a_continuation_must_not_be_marked(server: Served) -> None:
    with peer(server, "/echo", extension(PLAIN)) as client:
        data = Deflate().compress(b"twice")
        client.wire.send(
            encode(TEXT, data[:2], fin=False, rsv=RSV1) + encode(CONT, data[2:], rsv=RSV1)
        )
        assert client.closed() == 1002


@pytest.mark.parametrize("rsv", [1, 2, 3, 5, 6, 7])
def test_the_other_reserved_bits_stay_reserved(server: Served, rsv: int) -> None:
    with peer(server, "/echo", extension(PLAIN)) as client:
        client.send(TEXT, Deflate().compress(b"x"), rsv=rsv)
        assert client.closed() == 1002


def test_data_that_does_not_inflate(server: Served, key: str) -> None:
    with peer(server, f"/echo?key={key}", extension(PLAIN)) as client:
        client.send(BINARY, b"\xff" * 20, rsv=RSV1)
        assert client.closed() == 1007
    (seen,) = server.events(key)
    assert seen.startswith("disconnect 1007")


@pytest.mark.parametrize("fragments", [1, 3])
def test_inflated_text_that_is_not_utf8(server: Served, fragments: int) -> None:
    with peer(server, "/echo", extension(PLAIN)) as client:
        data = Deflate().compress(b"fine until here: \xf4\x90\x80\x80")
        part = -(-len(data) // fragments)
        client.wire.send(
            b"".join(
                encode(
                    CONT if at else TEXT,
                    data[at : at + part],
                    fin=at + part >= len(data),
                    rsv=0 if at else RSV1,
                )
                for at in range(0, len(data), part)
            )
        )
        assert client.closed() == 1007


def test_a_bomb_is_not_inflated_beyond_the_limit(server: Served, key: str) -> None:
    with peer(server, f"/echo?key={key}", extension(PLAIN)) as client:
        bomb = Deflate().compress(bytes(200 << 20))
        assert len(bomb) < 1 << 20
        client.send(BINARY, bomb, rsv=RSV1)
        assert client.closed() == 1009
    (seen,) = server.events(key)
    assert seen.startswith("disconnect 1009")


def test_a_message_of_just_the_limit_is_inflated(server: Served) -> None:
    deflate = Deflate(server_bits=12)
    with peer(server, "/echo", extension(PLAIN)) as client:
        client.send(BINARY, deflate.compress(bytes(1 << 20)), rsv=RSV1)
        assert deflate.inflate(client.frame()) == bytes(1 << 20)
        client.send(BINARY, deflate.compress(bytes((1 << 20) + 1)), rsv=RSV1)
        assert client.closed() == 1009


def test_a_close_is_understood_whatever_was_compressed(server: Served) -> None:
    with peer(server, "/echo", extension(PLAIN)) as client:
        client.wire.send(
            encode(TEXT, Deflate().compress(b"half")[:2], fin=False, rsv=RSV1) + closing(1001)
        )
        assert client.closed() == 1001


def test_one_peer_is_not_affected_by_another(server: Served) -> None:
    clients: list[tuple[Peer, Deflate]] = []
    wires = [server.connect() for _ in range(3)]
    for wire in wires:
        clients.append((Peer(wire, "/echo", extension(PLAIN)), Deflate(server_bits=12)))
    for turn in range(4):
        for number, (client, deflate) in enumerate(clients):
            client.send(TEXT, deflate.compress(b"%d %d " % (turn, number) * 100), rsv=RSV1)
        for number, (client, deflate) in enumerate(clients):
            assert deflate.inflate(client.frame()) == b"%d %d " % (turn, number) * 100
    for client, _ in clients:
        client.end()
        client.wire.close()
