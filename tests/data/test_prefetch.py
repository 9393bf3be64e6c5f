import itertools
import threading
import time
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.data.prefetch import prefetch


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@given(st.lists(st.integers()), st.integers(1, 5))
def test_items_keep_their_order(items, depth):
    assert list(prefetch(iter(items), depth)) == items
    assert not threads()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_items_are_computed_while_the_caller_works_and_no_more_than_the_depth(depth):
    computed = []
    with closing(prefetch((computed.append(i) or i for i in range(100)), depth)) as items:
        for item in range(3):
            assert next(items) == item
            deadline = time.monotonic() + 10
            # The consumed items, `depth` in the queue, and one that the thread holds.
            while len(computed) < item + 1 + depth + 1 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.02)
            assert computed == list(range(item + 1 + depth + 1))


@pytest.mark.parametrize("consumed", [0, 1, 7])
def test_the_thread_ends_when_the_caller_stops(consumed):
    with closing(prefetch(itertools.count(), depth=2)) as items:
        assert list(itertools.islice(items, consumed)) == list(range(consumed))
        assert len(threads()) == (consumed > 0)
    assert not threads()


def test_the_thread_ends_on_ctrl_c_while_an_item_is_computed():
    computing = threading.Event()

    def slow():
        yield 0
        computing.set()
        time.sleep(0.1)
        yield 1

    def consume():
        with closing(prefetch(slow())) as items:
            for _ in items:
                assert computing.wait(10)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert not threads()


@pytest.mark.slow
def test_closing_does_not_wait_for_input_that_never_comes():
    never = threading.Event()

    def keyboard():
        yield "typed"
        never.wait()

    items = prefetch(keyboard())
    assert next(items) == "typed"
    began = time.monotonic()
    items.close()
    assert time.monotonic() - began < 5
    assert all(thread.daemon for thread in threads())
    never.set()


def test_an_exception_is_raised_after_the_items_before_it_and_once():
    def failing():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    items = prefetch(failing(), depth=5)
    assert next(items) == 1
    assert next(items) == 2
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    assert list(items) == []
    assert not threads()
