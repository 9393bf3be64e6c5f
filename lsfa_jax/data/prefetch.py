"""Items made by a thread before they are asked for: reading and padding go on while the device computes."""

import threading
from collections.abc import Generator, Iterable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

# Whoever stops waits so long for the item in the making. Python's exit must not find a thread halfway through a
# transfer to a device; one that reads from a keyboard may never come back.
_SECONDS_TO_END = 1.0


def ahead(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Yields the items in their order while a thread makes up to `depth` further ones, and one more in its hands.

    What making an item raises is raised in its place. The thread ends with the iterator: at its last item, or when it
    is closed (`contextlib.closing`), after the item in the making.
    """
    made: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    room = threading.Semaphore(depth)
    closed = threading.Event()

    def produce() -> None:
        try:
            for item in items:
                room.acquire()
                if closed.is_set():
                    return
                made.put(("item", item))
            made.put(("end", None))
        except BaseException as error:
            made.put(("error", error))

    # A daemon, so that a command whose input waits for a keyboard can still be interrupted.
    thread = threading.Thread(target=produce, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = made.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            room.release()
            yield value
    finally:
        closed.set()
        room.release()
        thread.join(_SECONDS_TO_END)
