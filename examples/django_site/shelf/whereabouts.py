"""Where the calling code runs: process, thread, event loop, task, server."""

import asyncio
import os
import platform
import threading
from typing import Any

import django
from django.http import HttpRequest


def _class_name(thing: object) -> str:
    """Module and name of an object's class."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def here(request: HttpRequest) -> dict[str, Any]:
    """Describe the caller's surroundings; in a sync view there is neither loop nor task."""
    facts: dict[str, Any] = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "django": django.get_version(),
        "process": os.getpid(),
        "thread": threading.current_thread().name,
        "loop": None,
        "task": None,
        "task_type": None,
    }
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        pass  # a sync view: the answer is that there is no loop
    else:
        task = asyncio.current_task()
        facts["loop"] = _class_name(loop)
        facts["task"] = task.get_name() if task else None
        facts["task_type"] = _class_name(task) if task else None
    scope = getattr(request, "scope", None)  # WSGI requests have none
    facts["protocol"] = (
        f"ASGI {scope['asgi']['version']}, HTTP/{scope['http_version']}" if scope else "WSGI"
    )
    if scope and scope.get("server"):
        facts["server_address"] = ":".join(map(str, filter(None, scope["server"])))
    if scope and scope.get("client"):
        facts["client_address"] = ":".join(map(str, scope["client"]))
    return facts
