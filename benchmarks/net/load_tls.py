"""`load.c` for TLS: `load_tls.py PORT CONNECTIONS SIZE`, same talk on its standard streams.

Blocking sockets of Python's ssl module would answer one connection after the other; these are
non-blocking, on epoll, and all connections have a message under way.  OpenSSL does the work, so
that Python hardly slows the servers' peer down.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
import time

DEADLINE = 30.0


class Connection:
    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = context.wrap_socket(sock)
        self.sock.setblocking(False)
        self.unsent = b""
        self.left = 0


class Load:
    def __init__(self, port: int, connections: int, size: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.message = bytes(i * 7 % 256 for i in range(size))
        self.scratch = bytearray(1 << 18)
        self.poller = select.epoll()
        self.connections: dict[int, Connection] = {}
        for _ in range(connections):
            connection = Connection(context, port)
            self.connections[connection.sock.fileno()] = connection
            self.poller.register(connection.sock, select.EPOLLIN)

    def begin(self, connection: Connection) -> None:
        connection.unsent = self.message
        connection.left = len(self.message)
        self.send(connection)

    def send(self, connection: Connection) -> None:
        blocked = bool(connection.unsent)
        try:
            while connection.unsent:
                # OpenSSL wants the same bytes again after it was blocked.
                sent = connection.sock.send(connection.unsent)
                connection.unsent = connection.unsent[sent:]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self.poller.modify(connection.sock, select.EPOLLIN | select.EPOLLOUT)
            return
        if blocked:
            self.poller.modify(connection.sock, select.EPOLLIN)

    def receive(self, connection: Connection) -> bool:
        try:
            while connection.left:
                count = connection.sock.recv_into(self.scratch)
                if count == 0:
                    raise ConnectionError("the server closed a connection")
                begin = len(self.message) - connection.left
                if self.scratch[:count] != self.message[begin : begin + count]:
                    raise ConnectionError("other bytes came back than were sent")
                connection.left -= count
        except ssl.SSLWantReadError:
            return False
        return True

    def exchange(self, messages: int) -> float:
        start = time.monotonic()
        begun = done = 0
        for connection in self.connections.values():
            if begun < messages:
                begun += 1
                self.begin(connection)
        while done < messages:
            events = self.poller.poll(DEADLINE)
            if not events:
                raise ConnectionError(f"no answer in {DEADLINE:.0f} s")
            for number, event in events:
                connection = self.connections[number]
                if connection.unsent and event & (select.EPOLLOUT | select.EPOLLIN):
                    self.send(connection)
                if event & ~select.EPOLLOUT and connection.left and self.receive(connection):
                    done += 1
                    if begun < messages:
                        begun += 1
                        self.begin(connection)
        return time.monotonic() - start


def main() -> None:
    port, connections, size = map(int, sys.argv[1:])
    load = Load(port, connections, size)
    load.exchange(connections)
    print("ready", flush=True)
    for line in sys.stdin:
        print(f"{load.exchange(int(line)):.6f}", flush=True)


if __name__ == "__main__":
    main()
