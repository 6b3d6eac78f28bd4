"""Django's application within another that knows two messages alone, as many do."""

import os
from typing import Any

from rondel.django import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rules_site.settings")

inner: Any = get_asgi_application()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Pass on what is known."""

    async def known(message: Any) -> None:
        if message["type"] in ("http.response.start", "http.response.body"):
            await send(message)

    await inner(scope, receive, known)
