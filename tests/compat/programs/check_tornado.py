"""Tornado's server, client and websockets, which watch their sockets with add_reader."""

import asyncio
from typing import Any

import tornado.httpclient
import tornado.httpserver
import tornado.web
import tornado.websocket


class Echo(tornado.web.RequestHandler):
    async def post(self) -> None:
        await asyncio.sleep(0)
        self.write(self.request.body)


class Chat(tornado.websocket.WebSocketHandler):
    async def on_message(self, message: Any) -> None:
        await self.write_message(message.upper())


async def check_an_exchange() -> None:
    server = tornado.httpserver.HTTPServer(tornado.web.Application([("/", Echo), ("/chat", Chat)]))
    server.listen(0, "127.0.0.1")
    (listener,) = server._sockets.values()
    port = listener.getsockname()[1]
    client = tornado.httpclient.AsyncHTTPClient(force_instance=True)
    try:
        body = b"x" * 2_000_000
        answer = await client.fetch(f"http://127.0.0.1:{port}/", method="POST", body=body)
        assert answer.body == body
        many = await asyncio.gather(
            *(
                client.fetch(f"http://127.0.0.1:{port}/", method="POST", body=b"%d" % n)
                for n in range(30)
            )
        )
        assert [each.body for each in many] == [b"%d" % n for n in range(30)]
        socket = await tornado.websocket.websocket_connect(f"ws://127.0.0.1:{port}/chat")
        await socket.write_message("hello")
        assert await socket.read_message() == "HELLO"
        socket.close()
        assert await socket.read_message() is None
    finally:
        client.close()
        server.stop()
        await server.close_all_connections()
