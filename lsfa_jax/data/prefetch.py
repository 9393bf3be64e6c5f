"""Prefetch: a thread computes the next items of an iterator while the caller works on the current one."""

import threading
from collections.abc import Generator, Iterable
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

# How long closing waits for the item that the thread is computing. Python's exit must not interrupt a transfer to a
# device, but a thread that reads from a keyboard may never return.
_SECONDS_TO_END = 1.0


class _End:
    """The last entry of the queue; holds the exception that ended the iterator, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Yields items in their order while a thread computes the next ones: reading and padding overlap with the device.

    Args:
        items: consumed in the thread.
        depth: items that wait in the queue at most; the thread holds one more.

    Raises:
        BaseException: whatever `items` raises, after the items before it. The thread ends with the iterator: after its
            last item, or when it is closed (`contextlib.closing`), after the item that it is computing.
    """
    queue: SimpleQueue[T | _End] = SimpleQueue()
    room = threading.Semaphore(depth)
    closed = threading.Event()

    def produce() -> None:
        try:
            for item in items:
                room.acquire()
                if closed.is_set():
                    return
                queue.put(item)
            queue.put(_End(None))
        except BaseException as error:
            queue.put(_End(error))

    # A daemon, so that a command whose input waits for a keyboard can still be interrupted.
    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := queue.get(), _End):
            room.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        room.release()
        thread.join(_SECONDS_TO_END)
