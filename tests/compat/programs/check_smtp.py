"""aiosmtpd and aiosmtplib: a mail, in the clear and after STARTTLS (`loop.start_tls`)."""

import asyncio
from email.message import EmailMessage
from typing import Any

import aiosmtplib
from aiosmtpd.smtp import SMTP


class Mailbox:
    def __init__(self) -> None:
        self.got: list[tuple[str, bytes, bool]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.got.append((envelope.mail_from, envelope.content, session.ssl is not None))
        return "250 OK"


async def exchange(tls: Any, *, secure: bool) -> None:
    mailbox, loop = Mailbox(), asyncio.get_running_loop()
    context = tls.server if secure else None
    server = await loop.create_server(
        lambda: SMTP(mailbox, tls_context=context, hostname="localhost", loop=loop), "127.0.0.1", 0
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "a@localhost", "b@localhost", "news"
        mail.set_content("line\n" * 20_000)
        options: dict[str, Any] = {"start_tls": secure}
        if secure:
            options["tls_context"] = tls.client
        for _ in range(3):
            await aiosmtplib.send(mail, hostname="localhost", port=port, **options)
    assert [(sender, secured) for sender, _, secured in mailbox.got] == [
        ("a@localhost", secure)
    ] * 3
    assert all(content.count(b"line") == 20_000 for _, content, _ in mailbox.got)


async def check_a_mail_in_the_clear(tls: Any) -> None:
    await exchange(tls, secure=False)


async def check_a_mail_after_starttls(tls: Any) -> None:
    await exchange(tls, secure=True)
