"""What can go wrong before and around serving, as one line for the user; and what an application
is told while it serves.
"""

__all__ = ["ClientDisconnected", "ServeError", "TargetImportError", "UsageError"]


class ServeError(Exception):
    """A reason not to serve; its text is complete: what happened and what to do next."""

    exit_status = 1


class UsageError(ServeError):
    """The command line or the call is wrong."""

    exit_status = 2


class TargetImportError(ServeError):
    """The application's module raised while it was imported; ``__cause__`` is what it raised."""


class ClientDisconnected(OSError):
    """Raised by ``send()`` on a WebSocket connection that has ended (ASGI 2.4); an application may
    let it pass.
    """
