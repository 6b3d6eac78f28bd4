"""The supervisor's signals, as bytes of a pipe that its selector watches as all else."""

import contextlib
import selectors
import signal
import socket
from collections.abc import Callable, Iterator

__all__ = ["heard"]

_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


@contextlib.contextmanager
def heard(
    selector: selectors.BaseSelector, signalled: Callable[[socket.socket], None]
) -> Iterator[Callable[[], None]]:
    """Within the block, ``selector`` calls ``signalled`` with the socket at which numbers come.

    Gives what a fork has to call, so that its signals are not told to us, and do what they usually
    do.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    before = {sig: signal.getsignal(sig) for sig in _SIGNALS}
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    for sig in _SIGNALS:
        signal.signal(sig, lambda *_: None)
    selector.register(ours, selectors.EVENT_READ, lambda: signalled(ours))

    def deafen() -> None:
        signal.set_wakeup_fd(-1)
        for sig in _SIGNALS:
            usual = signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL
            signal.signal(sig, usual)
        ours.close()
        theirs.close()

    try:
        yield deafen
    finally:
        selector.unregister(ours)
        for sig, handler in before.items():
            signal.signal(sig, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(wakeup)
        ours.close()
        theirs.close()
