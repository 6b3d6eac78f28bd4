"""asyncssh: a server and a client of it; a session, SFTP, a forwarded port, a rekeying."""

import asyncio
import os
from pathlib import Path
from typing import Any

import asyncssh
import pytest


class Server(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return password == "secret"

    def connection_requested(self, *where: Any) -> bool:
        return True


async def upper(process: asyncssh.SSHServerProcess[str]) -> None:
    async for line in process.stdin:
        process.stdout.write(line.upper())
    process.exit(3)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readexactly(5))
    writer.close()
    await writer.wait_closed()


async def check_sessions_files_and_forwarded_ports(tmp_path: Path) -> None:
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        process_factory=upper,
        sftp_factory=True,
        rekey_bytes=500_000,
    )
    options: dict[str, Any] = {"known_hosts": None, "username": "me", "config": None}
    options |= {"client_keys": None, "agent_path": None}
    port = server.get_port()
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect("127.0.0.1", port, password="wrong", **options)
    target = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with asyncssh.connect("127.0.0.1", port, password="secret", **options) as client:
        done = await client.run("upper", input="line\n" * 2000)
        assert (done.stdout, done.exit_status) == ("LINE\n" * 2000, 3)
        body = os.urandom(1_000_000)
        (tmp_path / "one").write_bytes(body)
        async with client.start_sftp_client() as sftp:
            await sftp.get(str(tmp_path / "one"), str(tmp_path / "two"))
            assert (tmp_path / "two").read_bytes() == body
        inner = target.sockets[0].getsockname()[1]
        async with client.forward_local_port("127.0.0.1", 0, "127.0.0.1", inner) as forwarded:
            reader, writer = await asyncio.open_connection("127.0.0.1", forwarded.get_port())
            writer.write(b"hello")
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
    target.close()
    server.close()
    await server.wait_closed()
