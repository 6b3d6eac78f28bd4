"""What `manage.py runserver` and `manage.py serve` share: how ASGI_APPLICATION becomes a callable.

Both go by `rondel.server.target.load`, as `rondel serve` does, so whatever is done to an
application there is done here.
"""

from django.core.exceptions import ImproperlyConfigured

from rondel.server.config import ASGIApp
from rondel.server.errors import ServeError, TargetImportError
from rondel.server.threads import with_hybrid

__all__ = ["load_application", "target_of"]


def load_application(name: str) -> ASGIApp:
    """ASGI_APPLICATION; an error inside the user's module is raised as it is.

    The reloader finds the file to watch in the exception: a module that fails is in no list.
    """
    from rondel.server import target

    try:
        app = target.load(target_of(name), interface="asgi")
    except TargetImportError as error:
        raise error.__cause__ or error from None
    except ServeError as error:
        raise ImproperlyConfigured(f"ASGI_APPLICATION {name!r}: {error}") from None
    # Here, as the development server wraps it in others.
    return with_hybrid(app)[0]


def target_of(name: str) -> str:
    """Django's `package.module.attribute` as `package.module:attribute`."""
    module, _, attribute = name.rpartition(".")
    return f"{module}:{attribute}"
