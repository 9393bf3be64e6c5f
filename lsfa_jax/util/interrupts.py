"""SIGINT and SIGTERM: the first stops a run where its state can be saved, the second ends the process at once.

Python calls a signal's handler in the main thread between two of its instructions, which is too late while the main
thread compiles a program. A thread that the signal itself wakes (`signal.set_wakeup_fd`) ends the process instead.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# How long a message may take: standard output may be a pipe that is not read.
_SECONDS_TO_PRINT = 1.0


class Interrupted(Exception):  # noqa: N818 - a request of the user, not an error
    """The process was requested to stop by signal `signum`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


_received: int | None = None
_is_deferring = False
_ends_process = False
_skips_teardown = False


def received() -> int:
    """Returns the number of a signal that has arrived since the last `check`; 0: none."""
    return _received or 0


def receive(signum: int) -> None:
    """Lets the next `check` raise Interrupted for a signal that arrived elsewhere; 0: none."""
    global _received
    _received = signum or _received


def check() -> None:
    """Raises Interrupted if a signal has arrived since the last call."""
    global _received
    if _received is not None:
        signum, _received = _received, None
        raise Interrupted(signum)


@contextmanager
def deferred() -> Iterator[None]:
    """Defers a signal inside the block to the next `check`, at the latest to the block's end.

    A signal that was received before the block and has stopped nothing is deferred too. In a thread that is not the
    main thread, where Python allows no handlers, signals are left as they are.

    Raises:
        Interrupted: at the block's end, if a signal arrived after the last `check`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def remember(signum: int, frame: FrameType | None) -> None:
        global _received
        _received = signum

    global _received, _is_deferring
    handlers = {signum: signal.signal(signum, remember) for signum in _SIGNALS}
    _is_deferring = True
    is_interrupted, has_failed = False, True
    try:
        yield
        has_failed = False
    except Interrupted:
        is_interrupted = True
        raise
    finally:
        _is_deferring = False
        # A command has saved everything and ends now: a further signal would interrupt what Python tears down.
        is_over = _ends_process and (is_interrupted or _received is not None)
        for signum, handler in handlers.items():
            signal.signal(signum, signal.SIG_IGN if is_over else handler)
        if has_failed:
            _received = None
    check()


@contextmanager
def second_ends(on_deferred: Callable[[], None], on_second: Callable[[], None]) -> Iterator[None]:
    """Ends the process with code 128 + signal at the second signal inside the block, whatever the main thread does.

    Args:
        on_deferred: called in a thread when the first signal arrives inside `deferred`, to print what happens now.
        on_second: called in a thread before the process ends, to print what remains.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        is_second = False
        while arrived := os.read(reader, 64):
            for signum in arrived:
                if signum not in _SIGNALS:
                    continue
                if is_second:
                    _within_limit(on_second)
                    leave(128 + signum)
                if _is_deferring:
                    _within_limit(on_deferred)
                is_second = True
        os.close(reader)

    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join(2 * _SECONDS_TO_PRINT)


def skip_teardown() -> None:
    """Lets `run_and_exit` end the process without tearing down the interpreter, whatever the exit code."""
    global _skips_teardown
    _skips_teardown = True


def run_and_exit(command: Callable[[], int]) -> NoReturn:
    """Calls a command and ends the process with its exit code; after a signal, without tearing down the interpreter.

    A further signal, or a thread that still works, would disturb that.
    """
    global _ends_process, _skips_teardown
    _ends_process, _skips_teardown = True, False
    try:
        code: int | str | None = command()
    except SystemExit as request:
        code = request.code
    except KeyboardInterrupt:  # in the last lines of the command
        code = 128 + signal.SIGINT
    finally:
        _ends_process = False
    if isinstance(code, int) and (code > 128 or _skips_teardown):
        with suppress(KeyboardInterrupt):
            for signum in _SIGNALS:
                signal.signal(signum, signal.SIG_IGN)
        leave(code)
    raise SystemExit(code)


def leave(code: int) -> NoReturn:
    """Ends the process at once, after printed lines are flushed.

    Nothing of the interpreter is torn down: threads of JAX and Orbax that still work would crash in it.
    """
    _within_limit(sys.stdout.flush)
    _within_limit(sys.stderr.flush)
    os._exit(code)


def _within_limit(call: Callable[[], None]) -> None:
    """Calls a function that prints; gives up waiting for it where the output is blocked."""

    def attempt() -> None:
        with suppress(Exception):
            call()

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(_SECONDS_TO_PRINT)
