"""The inspector's web page beside a server (``--inspect``): once per service, not per worker."""

import contextlib
import os
import sys
from collections.abc import Iterator

from rondel.server.config import Config
from rondel.server.errors import ServeError

__all__ = ["beside"]


@contextlib.contextmanager
def beside(config: Config) -> Iterator[None]:
    """Serve the page of this process and its workers meanwhile, if one is asked for.

    Raises ServeError if it cannot be. Its process is started before there is a loop or a thread.
    """
    if config.inspect is None:
        yield
        return
    from rondel.inspect.web import address, side

    # It is asked for: what the environment says is for services that are not to be looked at.
    os.environ.pop("RONDEL_INSPECT", None)
    try:
        page = side.start(address.parse(config.inspect))
    except side.PageError as error:
        raise ServeError(str(error)) from None
    # Not to the log: it may be kept where others read it, and the URL may have a token.
    sys.stderr.write(f"inspector: {page.url}\n")
    sys.stderr.flush()
    try:
        yield
    finally:
        page.close()
