"""SIGINT and SIGTERM as an exception that loops raise between steps, so that a state can be saved first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - a request of the user, not an error
    """The process was asked to stop by signal `signum`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


_received: int | None = None


def check() -> None:
    """Raises Interrupted if a signal has arrived since the last call."""
    global _received
    if _received is not None:
        signum, _received = _received, None
        raise Interrupted(signum)


@contextmanager
def deferred() -> Iterator[None]:
    """Defers signals inside the block to the next `check`; a second one of the same kind acts at once."""

    def remember(signum: int, frame: FrameType | None) -> None:
        global _received
        _received = signum
        signal.signal(signum, before[signal.Signals(signum)])

    global _received
    _received = None
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    for signum in before:
        signal.signal(signum, remember)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
