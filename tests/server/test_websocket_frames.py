"""The Autobahn testsuite's cases for servers, as tables of raw frames.

The suite's fuzzing client runs on Python 2 only. Its published cases are written down here, by
their numbers: 1 framing, 2 pings and pongs, 3 reserved bits, 4 opcodes, 5 fragmentation, 6 UTF-8,
7 closing, 9 limits, 10 chopped up. (12 and 13, compression, are in ``test_websocket_deflate``.)
The application echoes; ``6.4`` is held to its strict reading: bad text fails at its first bad byte.
"""

import signal
import struct
from collections.abc import Iterator

import pytest

from tests.server.frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Frame,
    Peer,
    closing,
    encode,
    peer,
)
from tests.server.wire import Served, serving

KAPPA = "Hello-µ@ßöäüàá-UTF-8!!"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving("tests.server.ws_apps:app", "--ws-max-size", "32M") as served:
        yield served
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert outcome.status == 0
        assert "Traceback" not in outcome.errors


@pytest.fixture
def client(server: Served, key: str) -> Iterator[Peer]:
    with peer(server, f"/echo?key={key}") as client:
        assert client.response.status == 101
        yield client


def fails(client: Peer, code: int, *before: Frame) -> None:
    """The server answers with ``before``, and then fails the connection."""
    for expected in before:
        assert client.frame() == expected
    assert client.closed() == code


def fine(client: Peer) -> None:
    """A message goes there and back: what fails afterwards does not overtake its answer."""
    client.text("fine")
    assert client.message() == "fine"


def echoes(client: Peer, *expected: Frame) -> None:
    for frame in expected:
        assert client.frame() == frame
    client.end()


# -- 1: framing ----------------------------------------------------------------------------

SIZES = [0, 125, 126, 127, 128, 65535, 65536]


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["1.1 text", "1.2 binary"])
@pytest.mark.parametrize("size", SIZES)
def test_1_framing(client: Peer, opcode: int, size: int) -> None:
    client.send(opcode, b"*" * size)
    echoes(client, Frame(opcode, b"*" * size))


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["1.1.8 text", "1.2.8 binary"])
@pytest.mark.parametrize("chop", [1, 997])
def test_1_framing_in_chops(client: Peer, opcode: int, chop: int) -> None:
    size = 65536 if chop > 1 else 300
    data = encode(opcode, b"*" * size)
    for at in range(0, len(data), chop):
        client.wire.send(data[at : at + chop])
    echoes(client, Frame(opcode, b"*" * size))


# -- 2: pings and pongs --------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"", b"Hello, world!", b"\0\xff\xfe\xfd", b"\xfe" * 125], ids=["1", "2", "3", "4"]
)
def test_2_a_ping_is_answered_with_its_own_data(client: Peer, data: bytes) -> None:
    client.send(PING, data)
    echoes(client, Frame(PONG, data))


def test_2_5_a_ping_of_126_bytes(client: Peer) -> None:
    client.send(PING, b"\xfe" * 126)
    fails(client, 1002)


def test_2_6_a_ping_byte_by_byte(client: Peer) -> None:
    for byte in encode(PING, b"\xfe" * 125):
        client.wire.send(bytes([byte]))
    echoes(client, Frame(PONG, b"\xfe" * 125))


@pytest.mark.parametrize("data", [b"", b"unsolicited"], ids=["2.7", "2.8"])
def test_2_7_8_9_pongs_that_nobody_asked_for_are_ignored(client: Peer, data: bytes) -> None:
    client.send(PONG, data)
    client.send(PING, b"2.9")
    echoes(client, Frame(PONG, b"2.9"))


@pytest.mark.parametrize("chopped", [False, True], ids=["2.10", "2.11"])
def test_2_ten_pings(client: Peer, chopped: bool) -> None:
    data = b"".join(encode(PING, b"payload-%d" % n) for n in range(10))
    for at in range(0, len(data), 1 if chopped else len(data)):
        client.wire.send(data[at : at + (1 if chopped else len(data))])
    echoes(client, *(Frame(PONG, b"payload-%d" % n) for n in range(10)))


# -- 3: reserved bits ----------------------------------------------------------------------


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
def test_3_reserved_bits(client: Peer, rsv: int, opcode: int) -> None:
    fine(client)
    client.send(opcode, b"" if opcode == CLOSE else b"x", rsv=rsv)
    fails(client, 1002)


# -- 4: opcodes ----------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("data", [b"", b"reserved"], ids=["empty", "data"])
@pytest.mark.parametrize("before", [False, True])
def test_4_reserved_opcodes(client: Peer, opcode: int, data: bytes, before: bool) -> None:
    if before:
        fine(client)
    client.send(opcode, data)
    fails(client, 1002)


# -- 5: fragmentation ----------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE], ids=["5.1", "5.2", "close"])
def test_5_control_frames_have_no_fragments(client: Peer, opcode: int) -> None:
    client.wire.send(encode(opcode, fin=False) + encode(CONT))
    fails(client, 1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("chop", [0, 1], ids=["5.3-5.4", "5.5"])
def test_5_two_fragments(client: Peer, opcode: int, chop: int) -> None:
    data = encode(opcode, b"fragment1", fin=False) + encode(CONT, b"fragment2")
    for at in range(0, len(data), chop or len(data)):
        client.wire.send(data[at : at + (chop or len(data))])
    echoes(client, Frame(opcode, b"fragment1fragment2"))


@pytest.mark.parametrize("chop", [0, 1], ids=["5.6-5.7", "5.8"])
def test_5_a_ping_between_fragments(client: Peer, chop: int) -> None:
    data = (
        encode(TEXT, b"fragment1", fin=False) + encode(PING, b"ping") + encode(CONT, b"fragment2")
    )
    for at in range(0, len(data), chop or len(data)):
        client.wire.send(data[at : at + (chop or len(data))])
    echoes(client, Frame(PONG, b"ping"), Frame(TEXT, b"fragment1fragment2"))


@pytest.mark.parametrize("fin", [True, False], ids=["5.9-5.11", "5.12-5.14"])
@pytest.mark.parametrize("chop", [0, 1])
def test_5_a_continuation_of_nothing(client: Peer, fin: bool, chop: int) -> None:
    data = encode(CONT, b"nothing", fin=fin) + encode(TEXT, b"Hello")
    for at in range(0, len(data), chop or len(data)):
        # In chops the server may have failed the connection before the rest is sent.
        try:
            client.wire.send(data[at : at + (chop or len(data))])
        except OSError:
            break
    fails(client, 1002)


def test_5_15_a_continuation_after_the_last(client: Peer) -> None:
    client.send(TEXT, b"fragment1", fin=False)
    client.send(CONT, b"fragment2")
    assert client.message() == "fragment1fragment2"
    client.wire.send(encode(CONT, b"fragment3", fin=False) + encode(TEXT, b"fragment4"))
    fails(client, 1002)


@pytest.mark.parametrize("fin", [True, False], ids=["5.17", "5.16"])
def test_5_a_continuation_and_then_a_message(client: Peer, fin: bool) -> None:
    client.wire.send(
        encode(CONT, b"fragment1", fin=fin)
        + encode(TEXT, b"fragment2", fin=False)
        + encode(CONT, b"fragment3")
    )
    fails(client, 1002)


def test_5_18_a_message_within_a_message(client: Peer) -> None:
    client.send(TEXT, b"fragment1", fin=False)
    client.send(TEXT, b"fragment2")
    fails(client, 1002)


@pytest.mark.parametrize("at_once", [True, False], ids=["5.20", "5.19"])
def test_5_pings_between_five_fragments(client: Peer, at_once: bool) -> None:
    first = [
        encode(TEXT, b"fragment1", fin=False),
        encode(CONT, b"fragment2", fin=False),
        encode(PING, b"ping 1"),
    ]
    second = [
        encode(CONT, b"fragment3", fin=False),
        encode(CONT, b"fragment4", fin=False),
        encode(PING, b"ping 2"),
        encode(CONT, b"fragment5"),
    ]
    if at_once:
        client.wire.send(b"".join(first + second))
        assert client.frame() == Frame(PONG, b"ping 1")
    else:
        client.wire.send(b"".join(first))
        assert client.frame() == Frame(PONG, b"ping 1")
        client.wire.send(b"".join(second))
    whole = b"".join(b"fragment%d" % n for n in range(1, 6))
    echoes(client, Frame(PONG, b"ping 2"), Frame(TEXT, whole))


def test_5_empty_fragments(client: Peer) -> None:  # 6.1.2 as well
    client.send(TEXT, b"", fin=False)
    client.send(CONT, b"", fin=False)
    client.send(CONT, b"")
    echoes(client, Frame(TEXT, b""))


# -- 6: UTF-8 ------------------------------------------------------------------------------

# Markus Kuhn's stress test, as the suite has it: 6.5 to 6.22.
VALID = {
    "6.1.1": b"",
    "6.2.1": KAPPA.encode(),
    "6.5.1": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5",
    "6.6.2": b"\xce\xba",
    "6.6.5": b"\xce\xba\xe1\xbd\xb9",
    "6.7.1": b"\x00",
    "6.7.2": b"\xc2\x80",
    "6.7.3": b"\xe0\xa0\x80",
    "6.7.4": b"\xf0\x90\x80\x80",
    "6.9.1": b"\x7f",
    "6.9.2": b"\xdf\xbf",
    "6.9.3": b"\xef\xbf\xbf",
    "6.9.4": b"\xf4\x8f\xbf\xbf",
    "6.11.1": b"\xed\x9f\xbf",
    "6.11.2": b"\xee\x80\x80",
    "6.11.3": b"\xef\xbf\xbd",
    "6.11.4": b"\xf4\x8f\xbf\xbf",
    "6.22.1": b"\xef\xbf\xbe",
    "6.22.2": b"\xef\xbf\xbf",
    "6.22.3": b"\xf0\x9f\xbf\xbe",
    "6.22.34": b"\xf4\x8f\xbf\xbf",
    "6.23.1": b"\xef\xbf\xbd",
}
INVALID = {
    "6.3.1": KAPPA.encode() + b"\xed\xa0\x80edited",
    "6.6.1": b"\xce",
    "6.6.3": b"\xce\xba\xe1",
    "6.6.4": b"\xce\xba\xe1\xbd",
    "6.8.1": b"\xf8\x88\x80\x80\x80",
    "6.8.2": b"\xfc\x84\x80\x80\x80\x80",
    "6.10.1": b"\xf7\xbf\xbf\xbf",
    "6.10.2": b"\xfb\xbf\xbf\xbf\xbf",
    "6.10.3": b"\xfd\xbf\xbf\xbf\xbf\xbf",
    "6.11.5": b"\xf4\x90\x80\x80",
    "6.12.1": b"\x80",
    "6.12.2": b"\xbf",
    "6.12.3": b"\x80\xbf",
    "6.12.8": bytes(range(0x80, 0xC0)),
    "6.13.1": b"".join(bytes([n, 0x20]) for n in range(0xC0, 0xE0)),
    "6.13.2": b"".join(bytes([n, 0x20]) for n in range(0xE0, 0xF0)),
    "6.13.3": b"".join(bytes([n, 0x20]) for n in range(0xF0, 0xF8)),
    "6.14.1": b"\xc0",
    "6.14.2": b"\xe0\x80",
    "6.14.3": b"\xf0\x80\x80",
    "6.14.6": b"\xdf",
    "6.14.7": b"\xef\xbf",
    "6.14.8": b"\xf7\xbf\xbf",
    "6.15.1": b"\xc0\xe0\x80\xf0\x80\x80",
    "6.16.1": b"\xfe",
    "6.16.2": b"\xff",
    "6.17.1": b"\xc0\xaf",
    "6.17.2": b"\xe0\x80\xaf",
    "6.17.3": b"\xf0\x80\x80\xaf",
    "6.18.1": b"\xc1\xbf",
    "6.18.2": b"\xe0\x9f\xbf",
    "6.18.3": b"\xf0\x8f\xbf\xbf",
    "6.19.1": b"\xc0\x80",
    "6.20.1": b"\xed\xa0\x80",
    "6.20.4": b"\xed\xaf\xbf",
    "6.20.7": b"\xed\xbf\xbf",
    "6.21.1": b"\xed\xa0\x80\xed\xb0\x80",
    "6.21.8": b"\xed\xaf\xbf\xed\xbf\xbf",
}


@pytest.mark.parametrize("case", VALID)
def test_6_text_that_is_utf8(client: Peer, case: str) -> None:
    data = VALID[case]
    client.send(TEXT, data)
    # 6.2.2 to 6.2.4: the same in fragments, cut within characters.
    for at, byte in enumerate(data):
        client.send(CONT if at else TEXT, bytes([byte]), fin=at == len(data) - 1)
    client.wire.send(b"".join(bytes([byte]) for byte in encode(TEXT, data)))
    expected = [Frame(TEXT, data)] * (3 if data else 2)
    echoes(client, *expected)


@pytest.mark.parametrize("case", INVALID)
@pytest.mark.parametrize("how", ["whole", "fragments", "slowly"])
def test_6_text_that_is_not_utf8(client: Peer, case: str, how: str) -> None:
    data = INVALID[case]
    if how == "whole":
        client.send(TEXT, data)
    elif how == "fragments":
        client.wire.send(
            b"".join(
                encode(CONT if at else TEXT, data[at : at + 1], fin=at == len(data) - 1)
                for at in range(len(data))
            )
        )
    else:
        frame = encode(TEXT, data)
        for at in range(len(frame)):
            try:
                client.wire.send(frame[at : at + 1])
            except OSError:
                break  # failed at the first bad byte
    fails(client, 1007)


GOOD, BAD, MORE = KAPPA.encode(), b"\xf4\x90\x80\x80", b"edited"


def test_6_4_1_bad_text_fails_with_the_fragment_it_is_in(client: Peer) -> None:
    client.send(TEXT, GOOD, fin=False)
    client.send(CONT, BAD, fin=False)
    fails(client, 1007)  # its end never came


def test_6_4_2_a_character_beyond_unicode_fails_where_that_shows(client: Peer) -> None:
    client.send(TEXT, GOOD + b"\xf4", fin=False)
    client.send(CONT, b"\x90", fin=False)
    fails(client, 1007)


@pytest.mark.parametrize("end", [2, 1], ids=["6.4.3", "6.4.4"])
def test_6_4_bad_text_fails_within_a_frame(client: Peer, end: int) -> None:
    data = GOOD + BAD + MORE
    frame = encode(TEXT, data)
    head = len(frame) - len(data)
    client.wire.send(frame[: head + len(GOOD) + end])
    if end == 1:
        client.wire.send(frame[head + len(GOOD) + 1 : head + len(GOOD) + 2])
    fails(client, 1007)


def test_6_a_character_that_is_cut_by_the_messages_end(client: Peer) -> None:
    client.send(TEXT, b"\xe2\x82", fin=False)
    client.send(PING, b"between")
    client.send(CONT, b"")
    fails(client, 1007, Frame(PONG, b"between"))


def test_6_binary_may_be_anything(client: Peer) -> None:
    client.send(BINARY, BAD, fin=False)
    client.send(CONT, BAD)
    echoes(client, Frame(BINARY, BAD * 2))


# -- 7: closing ----------------------------------------------------------------------------


def test_7_1_1_a_message_and_a_close(client: Peer) -> None:
    client.text("Hello World!")
    echoes(client, Frame(TEXT, b"Hello World!"))


@pytest.mark.parametrize(
    "after",
    [closing(1000), encode(PING, b"late"), encode(TEXT, b"late")],
    ids=["7.1.2", "7.1.3", "7.1.4"],
)
def test_7_1_nothing_after_a_close_is_answered(client: Peer, after: bytes) -> None:
    client.wire.send(closing(1000) + after)
    assert client.closed() == 1000


def test_7_1_5_a_close_within_a_message(client: Peer) -> None:
    client.send(TEXT, b"fragment1", fin=False)
    client.wire.send(closing(1000) + encode(CONT, b"fragment2"))
    assert client.closed() == 1000


def test_7_1_6_a_close_behind_much(client: Peer, server: Served, key: str) -> None:
    client.wire.send(
        encode(TEXT, b"BAsd7&jh23" * 26 * 1024) + encode(TEXT, b"Hello World!") + closing(1000)
    )
    frames = [client.frame()]
    while frames[-1].opcode != CLOSE:
        frames.append(client.frame())
    assert frames[-1].code == 1000


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", None),
        (b"x", 1002),
        (struct.pack("!H", 1000), 1000),
        (struct.pack("!H", 1000) + b"Hello World!", 1000),
        (struct.pack("!H", 1000) + b"*" * 123, 1000),
        (struct.pack("!H", 1000) + b"*" * 124, 1002),
    ],
    ids=["7.3.1", "7.3.2", "7.3.3", "7.3.4", "7.3.5", "7.3.6"],
)
def test_7_3_what_a_close_may_hold(client: Peer, data: bytes, code: int | None) -> None:
    client.send(CLOSE, data)
    frame = client.frame()
    assert (frame.opcode, frame.code) == (CLOSE, code)
    if code != 1002:
        assert frame.data == data
    assert client.wire.closed()


def test_7_5_1_a_reason_that_is_not_utf8(client: Peer) -> None:
    client.wire.send(closing(1000, GOOD + b"\xed\xa0\x80edited"))
    fails(client, 1007)


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1012), 3000, 3999, 4000, 4999])
def test_7_7_codes_that_may_be_sent(client: Peer, code: int) -> None:
    client.end(code)


@pytest.mark.parametrize(
    "code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
)
def test_7_9_and_7_13_codes_that_may_not(client: Peer, code: int) -> None:
    client.wire.send(closing(code))
    fails(client, 1002)


# -- masks and lengths (RFC 6455, 5.1 and 5.2; not among the suite's cases) ------------------


def test_a_frame_without_a_mask(client: Peer) -> None:
    client.wire.send(encode(TEXT, b"bare", masked=False))
    fails(client, 1002)


@pytest.mark.parametrize(
    "head",
    [b"\x82\xfe\x00\x7d", b"\x82\xff" + struct.pack("!Q", 65535), b"\x82\xff\x80" + bytes(7)],
    ids=["16 bits for 125", "64 bits for 65535", "a negative length"],
)
def test_a_length_that_is_not_the_shortest(client: Peer, head: bytes) -> None:
    client.wire.send(head + bytes(4))
    fails(client, 1002)


# -- 9: limits -----------------------------------------------------------------------------

MIB = 1 << 20


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["9.1", "9.2"])
@pytest.mark.parametrize("size", [1 << 16, 1 << 18, MIB, 4 * MIB, 16 * MIB])
def test_9_large_messages(client: Peer, opcode: int, size: int) -> None:
    client.send(opcode, b"*" * size)
    echoes(client, Frame(opcode, b"*" * size))


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["9.3", "9.4"])
@pytest.mark.parametrize("part", [64, 4096, MIB])
def test_9_large_messages_in_fragments(client: Peer, opcode: int, part: int) -> None:
    size = 4 * MIB if part > 64 else MIB // 4
    count = size // part
    client.wire.send(
        b"".join(
            encode(CONT if n else opcode, b"*" * part, fin=n == count - 1) for n in range(count)
        )
    )
    echoes(client, Frame(opcode, b"*" * size))


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["9.5", "9.6"])
@pytest.mark.parametrize("chop", [256, 2048])
def test_9_a_message_in_chops(client: Peer, opcode: int, chop: int) -> None:
    frame = encode(opcode, b"*" * (MIB // 4))
    for at in range(0, len(frame), chop):
        client.wire.send(frame[at : at + chop])
    echoes(client, Frame(opcode, b"*" * (MIB // 4)))


@pytest.mark.parametrize("chop", [16_384, 65_536, 65_550, 131_072])
def test_9_large_messages_of_changing_sizes_without_a_pause(client: Peer, chop: int) -> None:
    """Each read begins and ends anywhere in a message; large ones are read to where they stay."""
    sizes = [70_000, 70_000, 70_000, 5, 16_370, 300_000, 300_000, 0, 65_536, 65_537, 20_000, 20_000]
    texts = [f"{number}ä" + "x" * size for number, size in enumerate(sizes)]
    stream = b"".join(encode(TEXT, text.encode()) for text in texts)
    at = 0
    for text in texts:  # what is not read would fill the sockets
        needed = at + len(encode(TEXT, text.encode()))
        while at < needed:
            client.wire.send(stream[at : at + chop])
            at += chop
        assert client.message() == text


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["9.7", "9.8"])
@pytest.mark.parametrize("size", [0, 16, 256, 4096])
def test_9_round_trips(client: Peer, opcode: int, size: int) -> None:
    for _ in range(200):
        client.send(opcode, b"*" * size)
        assert client.frame() == Frame(opcode, b"*" * size)
    client.end()


@pytest.mark.parametrize("chop", [16, 1300])
def test_10_1_1_fragments_chopped_up(client: Peer, chop: int) -> None:
    data = b"*" * 65536
    frames = b"".join(
        encode(CONT if at else TEXT, data[at : at + 1300], fin=at + 1300 >= len(data))
        for at in range(0, len(data), 1300)
    )
    for at in range(0, len(frames), chop):
        client.wire.send(frames[at : at + chop])
    echoes(client, Frame(TEXT, data))


def test_a_flood_of_empty_fragments_costs_no_more_than_its_bytes(client: Peer) -> None:
    client.send(TEXT, b"", fin=False)
    client.wire.send(encode(CONT, fin=False) * 100_000)
    client.send(CONT, b"end")
    echoes(client, Frame(TEXT, b"end"))
