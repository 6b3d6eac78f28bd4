"""pyzmq's asyncio sockets: their descriptor is edge-triggered, and watched with add_reader."""

import asyncio
from pathlib import Path

import pytest
import zmq
import zmq.asyncio

from .conftest import PATIENCE


async def check_requests_and_answers(tmp_path: Path) -> None:
    with zmq.asyncio.Context() as context:
        server, client = context.socket(zmq.REP), context.socket(zmq.REQ)
        with server, client:
            port = server.bind_to_random_port("tcp://127.0.0.1")
            client.connect(f"tcp://127.0.0.1:{port}")

            async def serve() -> None:
                while True:
                    await server.send_multipart([b"answer", *await server.recv_multipart()])

            task = asyncio.create_task(serve())
            for size in [1, 100_000, 10] * 30:
                await client.send(b"x" * size)
                got = await asyncio.wait_for(client.recv_multipart(), PATIENCE)
                assert got == [b"answer", b"x" * size]
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def check_a_pipeline_and_a_poller(tmp_path: Path) -> None:
    with zmq.asyncio.Context() as context:
        push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
        with push, pull:
            pull.bind(f"ipc://{tmp_path}/pipe")
            push.connect(f"ipc://{tmp_path}/pipe")
            poller = zmq.asyncio.Poller()
            poller.register(pull, zmq.POLLIN)
            assert await poller.poll(20) == []
            sent = asyncio.gather(*(push.send(b"%d" % number) for number in range(500)))
            got = [await asyncio.wait_for(pull.recv(), PATIENCE) for _ in range(500)]
            await sent
            assert got == [b"%d" % number for number in range(500)]
