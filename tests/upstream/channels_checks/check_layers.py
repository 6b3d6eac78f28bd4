"""Channels' in-memory layer: what the channel layer specification promises, on either side.

Ours, because Channels' source distribution comes without its tests. The layer is built on
asyncio.Queue, private parts included (`queue._queue[0]` when it drops what expired), and on
`as_completed`: both are native once Rondel is installed.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import project  # noqa: F401 (settings first)
import pytest
import pytest_asyncio
from asgiref.sync import async_to_sync, sync_to_async
from channels.exceptions import ChannelFull
from channels.layers import InMemoryChannelLayer

PATIENCE = 10


@pytest_asyncio.fixture
async def layer() -> AsyncIterator[InMemoryChannelLayer]:
    made = InMemoryChannelLayer(capacity=3)
    # Its __init__ takes the dictionary but, in 4.3.2, does not compile it as Redis's does.
    made.channel_capacity = made.compile_capacities({"tiny": 1})
    yield made
    await made.flush()
    await made.close()


async def until(condition: Callable[[], bool], *running: asyncio.Task[object]) -> None:
    """Let tasks run until the condition holds, which must be before any of them ends."""
    while not condition():
        assert not any(task.done() for task in running), running
        await asyncio.sleep(0)


async def test_messages_arrive_in_order(layer: InMemoryChannelLayer) -> None:
    for number in range(3):
        await layer.send("channel", {"type": "a", "number": number})
    found = [(await layer.receive("channel"))["number"] for _ in range(3)]
    assert found == [0, 1, 2]
    assert layer.channels == {}


async def test_a_receiver_that_waits_is_woken(layer: InMemoryChannelLayer) -> None:
    receivers = [asyncio.create_task(layer.receive("channel")) for _ in range(3)]
    await until(lambda: "channel" in layer.channels, *receivers)
    await until(lambda: len(layer.channels["channel"]._getters) == 3, *receivers)
    for number in range(3):
        await layer.send("channel", {"number": number})
    found = await asyncio.wait_for(asyncio.gather(*receivers), PATIENCE)
    assert sorted(message["number"] for message in found) == [0, 1, 2]


async def test_a_cancelled_receiver_takes_nothing(layer: InMemoryChannelLayer) -> None:
    receiver = asyncio.create_task(layer.receive("channel"))
    await until(lambda: "channel" in layer.channels, receiver)
    receiver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiver
    await layer.send("channel", {"type": "kept"})
    assert await asyncio.wait_for(layer.receive("channel"), PATIENCE) == {"type": "kept"}


async def test_a_full_channel_refuses(layer: InMemoryChannelLayer) -> None:
    for _ in range(3):
        await layer.send("channel", {"type": "a"})
    with pytest.raises(ChannelFull):
        await layer.send("channel", {"type": "a"})
    await layer.send("tiny", {"type": "a"})
    with pytest.raises(ChannelFull):
        await layer.send("tiny", {"type": "a"})


async def test_a_group_reaches_its_members_and_skips_the_full_ones(
    layer: InMemoryChannelLayer,
) -> None:
    for name in ("first", "second", "tiny", "left"):
        await layer.group_add("group", name)
    await layer.group_discard("group", "left")
    await layer.send("tiny", {"type": "before"})
    await layer.group_send("group", {"type": "now"})
    assert await layer.receive("first") == {"type": "now"}
    assert await layer.receive("second") == {"type": "now"}
    assert await layer.receive("tiny") == {"type": "before"}
    assert layer.channels == {}


async def test_what_has_expired_is_dropped_with_the_membership(
    layer: InMemoryChannelLayer,
) -> None:
    await layer.group_add("group", "channel")
    layer.expiry = -1  # expired when sent
    await layer.send("channel", {"type": "old"})
    layer.expiry = 60
    receiver = asyncio.create_task(layer.receive("channel"))
    await until(lambda: "channel" in layer.channels and layer.channels["channel"].empty(), receiver)
    assert layer.groups["group"] == {}
    await layer.send("channel", {"type": "new"})
    assert await asyncio.wait_for(receiver, PATIENCE) == {"type": "new"}


async def test_threads_send_through_the_bridge(layer: InMemoryChannelLayer) -> None:
    """As a Django view does: async_to_sync in a thread, under the loop that receives."""
    threads = []

    def view() -> None:
        threads.append(threading.current_thread())
        async_to_sync(layer.send)("channel", {"type": "from a thread"})

    await asyncio.wait_for(sync_to_async(view)(), PATIENCE)
    assert await layer.receive("channel") == {"type": "from a thread"}
    assert threads != [threading.current_thread()]


def test_code_without_a_loop_sends_and_receives() -> None:
    made = InMemoryChannelLayer()
    async_to_sync(made.send)("channel", {"type": "a"})
    assert async_to_sync(made.receive)("channel") == {"type": "a"}
