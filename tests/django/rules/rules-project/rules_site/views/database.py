"""Views that use the database, and views that show on which thread code runs."""

import asyncio
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from rules_site.errors import DeliberateError
from rules_site.events import TRAIL, Gate, apass_gate, here, mark, pass_gate, record
from rules_site.models import Entry


def _backend() -> dict[str, Any]:
    """The connection and thread in use."""
    pid = None
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("select pg_backend_pid()")
            pid = cursor.fetchone()[0]
    else:
        connection.ensure_connection()
    return {**here(), "pid": pid, "connection": getattr(connection, "number")}  # noqa: B009 - our engines' own


def backend_sync(request: HttpRequest) -> HttpResponseBase:
    """Which connection a sync view gets; holds it at `?gate=`."""
    facts = _backend()
    if "gate" in request.GET:
        record("holding", mark=mark(request), **facts)
        pass_gate(request.GET["gate"])
    return JsonResponse(facts)


async def backend_async(request: HttpRequest) -> HttpResponseBase:
    """Which connection an async view gets, in several calls."""
    first = await sync_to_async(_backend)()
    await Entry.objects.acount()
    if "gate" in request.GET:
        record("holding", mark=mark(request), **first)
        await apass_gate(request.GET["gate"])
    second = await sync_to_async(_backend)()
    return JsonResponse({**first, "again": second})


def write_sync(request: HttpRequest) -> HttpResponseBase:
    """Store `?name=`, and fail after it if `?fail`."""
    Entry.objects.create(name=request.GET["name"])
    if "fail" in request.GET:
        raise DeliberateError("after the write")
    return JsonResponse({"atomic": connection.in_atomic_block}, status=201)


@transaction.non_atomic_requests
def write_sync_unbound(request: HttpRequest) -> HttpResponseBase:
    """The same, not atomic."""
    return write_sync(request)


async def write_async(request: HttpRequest) -> HttpResponseBase:
    """The same on the loop."""
    await Entry.objects.acreate(name=request.GET["name"])
    return JsonResponse({"atomic": False}, status=201)


@transaction.non_atomic_requests
async def write_async_unbound(request: HttpRequest) -> HttpResponseBase:
    """The same on the loop, not atomic."""
    return await write_async(request)


def entries(request: HttpRequest) -> HttpResponseBase:
    """How many rows have `?name=`."""
    return JsonResponse({"count": Entry.objects.filter(name=request.GET["name"]).count()})


def _begin(name: str) -> dict[str, Any]:
    transaction.set_autocommit(False)
    Entry.objects.create(name=name)
    return _backend()


def _end(commit: bool) -> dict[str, Any]:
    facts = _backend()
    if commit:
        transaction.commit()
    else:
        transaction.rollback()
    transaction.set_autocommit(True)
    return facts


async def split_transaction(request: HttpRequest) -> HttpResponseBase:
    """Open a transaction in one call, wait at `?gate=`, end it in another by `?commit=`."""
    began = await sync_to_async(_begin)(request.GET["name"])
    record("in-transaction", mark=mark(request))
    await apass_gate(request.GET["gate"])
    ended = await sync_to_async(_end)(request.GET.get("commit") == "yes")
    return JsonResponse({"began": began, "ended": ended})


async def threads_async(request: HttpRequest) -> HttpResponseBase:
    """Where sync code of an async view runs, in sequence, at once, and nested."""
    sequence = [await sync_to_async(here)() for _ in range(3)]
    at_once = await asyncio.gather(*(sync_to_async(here)() for _ in range(3)))

    async def back_on_the_loop() -> list[dict[str, Any]]:
        return [here(), await sync_to_async(here)()]

    nested = await sync_to_async(lambda: [here(), *async_to_sync(back_on_the_loop)(), here()])()
    insensitive = await sync_to_async(here, thread_sensitive=False)()
    return JsonResponse(
        {
            "sequence": sequence,
            "at_once": at_once,
            "nested": nested,
            "insensitive": insensitive,
            **here(),
        }
    )


def threads_sync(request: HttpRequest) -> HttpResponseBase:
    """Where a sync view's async code runs, and sync code called from there."""

    async def on_the_loop() -> list[dict[str, Any]]:
        return [here(), await sync_to_async(here)(), here()]

    return JsonResponse({"inside": async_to_sync(on_the_loop)(), **here()})


async def context_async(request: HttpRequest) -> HttpResponseBase:
    """Contextvars across bridges, down and up."""

    def below() -> tuple[str, ...]:
        seen = TRAIL.get()
        TRAIL.set((*seen, "below"))
        return seen

    TRAIL.set(("view",))
    down = await sync_to_async(below)()
    return JsonResponse({"down": down, "up": TRAIL.get()})


def context_sync(request: HttpRequest) -> HttpResponseBase:
    """The same from a sync view."""

    async def below() -> tuple[str, ...]:
        seen = TRAIL.get()
        TRAIL.set((*seen, "below"))
        return seen

    TRAIL.set(("view",))
    down = async_to_sync(below)()
    return JsonResponse({"down": down, "up": TRAIL.get()})


def clean_context(request: HttpRequest) -> HttpResponseBase:
    """What a request inherits from those before it on its thread: nothing."""
    seen = TRAIL.get()
    TRAIL.set(("left over",))
    return JsonResponse({"seen": seen, **here()})


async def spin(request: HttpRequest) -> HttpResponseBase:
    """Keep the loop busy, with a contextvar set, until `?gate=` opens."""
    TRAIL.set(("spinner",))
    record("spinning", mark=mark(request))
    with Gate(request.GET["gate"]) as gate:
        while not gate.passed():
            await asyncio.sleep(0)
    return JsonResponse({"trail": TRAIL.get()})


def hold(request: HttpRequest) -> HttpResponseBase:
    """Hold this thread at `?gate=`."""
    record("holding", mark=mark(request))
    pass_gate(request.GET["gate"])
    return JsonResponse(here())
