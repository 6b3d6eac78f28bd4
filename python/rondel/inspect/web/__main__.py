"""The page's process: ``python -m rondel.inspect.web LISTENER ADDRESS PID``, started by ``side``.

It lives as long as its stdin. The token, if there is one, is in the environment, where other users
cannot read it.
"""

import asyncio
import os
import sys


def main() -> None:
    """Go on in a process that is nobody's child, and serve there."""
    if os.fork():
        os._exit(0)
    listener, address, pid = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    token = os.environ.pop("RONDEL_PAGE_TOKEN", "")

    import rondel

    rondel.run(serve(listener, address, pid, token))
    # A question under way may hold its thread for some seconds: nobody waits for it.
    os._exit(0)


async def serve(listener: int, address: str, pid: int, token: str) -> None:
    """Serve until stdin ends."""
    from rondel.inspect.web.access import Access
    from rondel.inspect.web.address import parse
    from rondel.inspect.web.app import Page
    from rondel.inspect.web.processes import Processes
    from rondel.server import Config, Server

    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    page = Page(Access(parse(address), token), Processes(pid))
    config = Config(
        fd=listener,
        access_log=False,
        log_level="error",
        lifespan="off",
        proxy_headers="off",
        server_header=False,
        ws="none",
        name="the inspector's page",
    )
    async with Server(page, config):
        await ended.wait()
        os._exit(0)


if __name__ == "__main__":
    main()
