"""Twisted on its asyncio reactor: the loop is ours, the sockets are Twisted's (add_reader)."""

import subprocess

from .conftest import MODE, PATIENCE, child_command

PROGRAM = """
import asyncio, sys
if sys.argv[1] == "loop":
    import rondel
    loop = rondel.new_event_loop()
else:
    loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
from twisted.internet import asyncioreactor
asyncioreactor.install(loop)
from twisted.internet import defer, endpoints, protocol, reactor, task, threads

class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

class Ask(protocol.Protocol):
    def __init__(self):
        self.got, self.done = b"", defer.Deferred()
    def connectionMade(self):
        self.transport.write(b"x" * 1_000_000)
    def dataReceived(self, data):
        self.got += data
        if len(self.got) == 1_000_000:
            self.transport.loseConnection()
            self.done.callback(self.got)

async def main():
    port = await endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
        protocol.Factory.forProtocol(Echo)
    )
    where = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    for _ in range(5):
        asking = await endpoints.connectProtocol(where, Ask())
        assert await asking.done == b"x" * 1_000_000
    assert await threads.deferToThread(sum, (1, 2)) == 3
    assert await defer.Deferred.fromFuture(asyncio.ensure_future(asyncio.sleep(0.01, 7))) == 7
    await task.deferLater(reactor, 0.01)
    await port.stopListening()
    print(type(loop).__module__, "done", flush=True)

task.react(lambda _reactor: defer.ensureDeferred(main()))
"""


def check_its_asyncio_reactor() -> None:
    ended = subprocess.run(
        child_command("-c", PROGRAM, MODE), capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    wanted = "asyncio" if MODE == "stdlib" else "rondel"
    assert ended.stdout.partition(".")[0] == wanted
    assert ended.stdout.endswith("done\n")
