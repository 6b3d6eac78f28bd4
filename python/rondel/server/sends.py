"""Which `send` takes files: the server's own, and ours around it.

The message is that of ASGI's extension "zero copy send". Needs no Django.
"""

from typing import Any

from rondel import _rondel

__all__ = ["EXTENSION", "PassesFiles", "takes_files"]

EXTENSION = "http.response.zerocopysend"


class PassesFiles:
    """The owner of a `send` of Rondel's that passes on what it gets, files too."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


def takes_files(send: object) -> bool:
    """Whether `send` is Rondel's server's own, or one of ours around it.

    The scope's `extensions` cannot tell: an ASGI application around Django's passes them on, and
    may then meet a message that it does not know.
    """
    owner = getattr(send, "__self__", None)
    if isinstance(owner, PassesFiles):
        return takes_files(owner.inner)
    return isinstance(owner, _rondel.Cycle)
