"""Django under Rondel: the hybrid handler, the inline list, management commands.

* ``get_asgi_application()``: the ASGI application that answers sync views in one hop. ``rondel
  serve`` makes it of Django's own by itself; this is for applications that wrap theirs.
* ``inline``: functions that need no thread.
* In ``INSTALLED_APPS``, ``rondel.django`` brings ``manage.py runserver`` and ``manage.py serve``.

Importing it needs no configured settings; Django is imported when a name is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rondel.bridge.inline import inline as inline
    from rondel.django.handler import HybridHandler

__all__ = ["get_asgi_application", "inline"]


def get_asgi_application() -> "HybridHandler":
    """As ``django.core.asgi.get_asgi_application``: set Django up, return the application."""
    import django

    django.setup(set_prefix=False)
    from rondel.django.handler import HybridHandler

    return HybridHandler()


def __getattr__(name: str) -> Any:
    if name == "inline":
        from rondel.bridge.inline import inline

        return inline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
