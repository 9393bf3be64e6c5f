import asyncio
import threading

import pytest

from lsfa_jax.serving.service.batching import Batcher, QueueFullError


class Upper:
    """Computes upper case; records its batches, and waits in the first one until it may go on."""

    def __init__(self):
        self.batches, self.started, self.may_go_on = [], threading.Event(), threading.Event()

    def __call__(self, texts):
        self.batches.append(texts)
        self.started.set()
        assert self.may_go_on.wait(500)
        return [text.upper() for text in texts]


def with_batcher(scenario, **options):
    """Runs a scenario while a batcher runs."""

    async def main():
        batcher = Batcher(**{"batch_size": 3, "most_waiting": 6} | options)
        running = asyncio.create_task(batcher.run())
        try:
            return await asyncio.wait_for(scenario(batcher), 500)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return asyncio.run(main())


async def started(compute):
    while not compute.started.is_set():
        await asyncio.sleep(0.001)


def test_texts_that_arrive_during_a_batch_share_the_next_ones_in_order():
    upper, sizes = Upper(), []

    async def scenario(batcher):
        first = asyncio.create_task(batcher.results(upper, ["a"]))
        await started(upper)
        others = [asyncio.create_task(batcher.results(upper, texts)) for texts in (["b", "c"], ["d"], ["e"])]
        await asyncio.sleep(0)
        assert batcher.waiting == 4
        upper.may_go_on.set()
        return await asyncio.gather(first, *others)

    assert with_batcher(scenario, observe=sizes.append) == [["A"], ["B", "C"], ["D"], ["E"]]
    assert upper.batches == [["a"], ["b", "c", "d"], ["e"]]
    assert sizes == [1, 3, 1]


def test_an_idle_device_waits_for_further_texts():
    upper = Upper()
    upper.may_go_on.set()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.results(upper, ["a"]))
        await asyncio.sleep(0.01)
        assert not upper.batches
        # A full batch does not wait.
        return await asyncio.gather(first, batcher.results(upper, ["b", "c"]))

    assert with_batcher(scenario, gather_seconds=1000) == [["A"], ["B", "C"]]
    assert upper.batches == [["a", "b", "c"]]


def test_texts_of_different_functions_do_not_share_a_batch():
    one, other = Upper(), Upper()
    other.may_go_on.set()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.results(one, ["a"]))
        await started(one)
        rest = [asyncio.create_task(batcher.results(*what)) for what in ((one, ["b"]), (other, ["c"]), (one, ["d"]))]
        await asyncio.sleep(0)
        one.may_go_on.set()
        return await asyncio.gather(first, *rest)

    assert with_batcher(scenario) == [["A"], ["B"], ["C"], ["D"]]
    assert (one.batches, other.batches) == ([["a"], ["b", "d"]], [["c"]])


def test_a_full_queue_refuses_a_request_as_a_whole():
    upper = Upper()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.results(upper, ["a"]))
        await started(upper)
        waiting = asyncio.create_task(batcher.results(upper, ["b"] * 5))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await batcher.results(upper, ["c", "d"])
        last = asyncio.create_task(batcher.results(upper, ["e"]))
        await asyncio.sleep(0)
        upper.may_go_on.set()
        return await asyncio.gather(first, waiting, last)

    assert with_batcher(scenario) == [["A"], ["B"] * 5, ["E"]]


def test_texts_of_a_request_that_has_ended_are_not_computed():
    upper = Upper()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.results(upper, ["a"]))
        await started(upper)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await batcher.results(upper, ["b"])
        upper.may_go_on.set()
        return await asyncio.gather(first, batcher.results(upper, ["c"]))

    assert with_batcher(scenario) == [["A"], ["C"]]
    assert upper.batches == [["a"], ["c"]]


def test_an_error_reaches_the_requests_of_its_batch_alone():
    def divide(texts):
        return [1 // 0 for _ in texts]

    async def scenario(batcher):
        with pytest.raises(ZeroDivisionError):
            await batcher.results(divide, ["a", "b"])
        return await batcher.results(lambda texts: texts, ["c"])

    assert with_batcher(scenario) == ["c"]
