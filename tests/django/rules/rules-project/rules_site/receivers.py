"""Receivers of the request's signals, sync ones and, where Django has them, async ones."""

from typing import Any

import django
from django.conf import settings
from django.core.signals import got_request_exception, request_finished, request_started

from rules_site.errors import DeliberateError
from rules_site.events import record

# A project whose receiver fails at requests with `?broken`.
BROKEN = getattr(settings, "RULES_BROKEN_RECEIVER", False)

SIGNALS = {
    "started": request_started,
    "finished": request_finished,
    "exception": got_request_exception,
}


def connect() -> None:
    """Connect a sync and an async receiver to each signal."""
    for name, signal in SIGNALS.items():
        signal.connect(_sync_receiver(name), weak=False, dispatch_uid=f"{name}-sync")
        if django.VERSION >= (5, 0):
            signal.connect(_async_receiver(name), weak=False, dispatch_uid=f"{name}-async")


def _facts(named: dict[str, Any]) -> dict[str, Any]:
    scope = named.get("scope")
    if scope is None and named.get("request") is not None:
        scope = named["request"].scope
    return {"path": scope["path"]} if scope is not None else {}


def _sync_receiver(name: str) -> Any:
    def receive(sender: Any, **named: Any) -> None:
        record(name, **_facts(named))
        if BROKEN and name == "started" and b"broken" in named["scope"]["query_string"]:
            raise DeliberateError("in a receiver")

    return receive


def _async_receiver(name: str) -> Any:
    async def receive(sender: Any, **named: Any) -> None:
        record(f"{name}-async", **_facts(named))

    return receive
