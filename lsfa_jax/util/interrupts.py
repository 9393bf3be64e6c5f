"""SIGINT and SIGTERM are remembered, and raised between two training steps, so that the state can be saved first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - not an error
    """The user or the system asked the process to stop, with signal `signum`."""

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
    """Keeps signals for `check` inside the block; a second signal of the same kind is handled at once."""

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
