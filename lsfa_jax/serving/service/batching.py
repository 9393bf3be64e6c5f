"""Texts of many requests in one batch: a bounded queue in front of one thread that computes.

While a batch is computed, the texts of further requests wait, and share the next one: the busier the service, the
fuller the batches.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

Compute = Callable[[list[str]], list[Any]]
"""Returns a result for each text. Texts whose functions are equal share batches."""


class QueueFullError(Exception):
    """More texts wait than the queue holds."""


class _Waiting(NamedTuple):
    compute: Compute
    text: str
    result: asyncio.Future[Any]


class Batcher:
    """Gathers texts into batches. All methods are for one event loop."""

    def __init__(
        self,
        batch_size: int,
        most_waiting: int,
        gather_seconds: float = 0.0,
        observe: Callable[[int], object] = lambda size: None,
    ) -> None:
        """Starts no work: `run` does.

        Args:
            batch_size: texts computed at a time.
            most_waiting: texts in the queue.
            gather_seconds: how long an idle device waits for further texts before it computes an incomplete batch.
            observe: called with the size of each batch.
        """
        self._batch_size, self._most_waiting, self._gather_seconds = batch_size, most_waiting, gather_seconds
        self._observe = observe
        self._queue: deque[_Waiting] = deque()
        self._arrived, self._full = asyncio.Event(), asyncio.Event()

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return len(self._queue)

    async def results(self, compute: Compute, texts: Sequence[str]) -> list[Any]:
        """Returns the result of each text. A caller that is cancelled takes its texts out of the queue.

        Raises:
            QueueFullError: the queue has no room for all of them; none is computed.
        """
        if len(self._queue) + len(texts) > self._most_waiting:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        added = [_Waiting(compute, text, loop.create_future()) for text in texts]
        self._queue.extend(added)
        self._arrived.set()
        if len(self._queue) >= self._batch_size:
            self._full.set()
        return await asyncio.gather(*(waiting.result for waiting in added))

    async def run(self) -> None:
        """Computes batches until it is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "batches") as thread:
            while True:
                await self._arrived.wait()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), self._gather_seconds)
                batch = self._take()
                if not batch:
                    self._arrived.clear()
                    continue
                self._observe(len(batch))
                texts = [waiting.text for waiting in batch]
                try:
                    results = await loop.run_in_executor(thread, batch[0].compute, texts)
                except Exception as error:
                    for waiting in batch:
                        if not waiting.result.done():
                            waiting.result.set_exception(error)
                else:
                    for waiting, result in zip(batch, results, strict=True):
                        if not waiting.result.done():  # the request may have ended meanwhile
                            waiting.result.set_result(result)

    def _take(self) -> list[_Waiting]:
        """Takes the oldest text out of the queue and, up to a batch, those that share its function."""
        batch: list[_Waiting] = []
        others: deque[_Waiting] = deque()
        for waiting in self._queue:
            if waiting.result.done():
                continue
            fits = not batch or (len(batch) < self._batch_size and waiting.compute == batch[0].compute)
            (batch if fits else others).append(waiting)
        self._queue = others
        if len(others) < self._batch_size:
            self._full.clear()
        return batch
