import itertools
import threading
import time
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.data.prefetch import ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


@given(st.lists(st.integers()), st.integers(1, 5))
def test_it_changes_nothing_but_the_time(items, depth):
    assert list(ahead(iter(items), depth)) == items
    assert not threads()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_items_are_made_while_the_caller_works_and_no_more_than_asked_for(depth):
    made = []
    with closing(ahead((made.append(i) or i for i in range(100)), depth)) as items:
        for taken in range(3):
            assert next(items) == taken
            deadline = time.monotonic() + 10
            # So many taken, the depth waiting, one in the thread's hands.
            while len(made) < taken + 1 + depth + 1 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.02)
            assert made == list(range(taken + 1 + depth + 1))


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_its_thread_ends_when_the_caller_stops(taken):
    with closing(ahead(itertools.count(), depth=2)) as items:
        assert list(itertools.islice(items, taken)) == list(range(taken))
        assert len(threads()) == (taken > 0)
    assert not threads()


def test_its_thread_ends_when_ctrl_c_comes_while_an_item_is_made():
    making = threading.Event()

    def slow():
        yield 0
        making.set()
        time.sleep(0.1)
        yield 1

    def consume():
        with closing(ahead(slow())) as items:
            for _ in items:
                assert making.wait(10)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert not threads()


def test_a_caller_that_stops_does_not_wait_for_input_that_never_comes():
    never = threading.Event()

    def keyboard():
        yield "typed"
        never.wait()

    items = ahead(keyboard())
    assert next(items) == "typed"
    began = time.monotonic()
    items.close()
    assert time.monotonic() - began < 5
    assert all(thread.daemon for thread in threads())
    never.set()


def test_a_fault_comes_in_its_place_and_once():
    def faulty():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    items = ahead(faulty(), depth=5)
    assert next(items) == 1
    assert next(items) == 2
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    assert list(items) == []
    assert not threads()
