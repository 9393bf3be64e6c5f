from itertools import product

import jax
import numpy as np
import pytest

from lsfa_jax.util.random_streams import Stream, key, stream


def first_numbers(use, seed, *counters):
    return tuple(stream(use, seed, *counters).integers(2**63, size=4).tolist())


def test_every_use_seed_and_counter_draws_other_numbers():
    seeds, counters = (0, 1, 2, 2**32 - 1, 2**63), ((), (1,), (2,), (0, 1), (1, 1), (1, 2), (2, 1))
    drawn = [first_numbers(use, seed, *c) for use, seed, c in product(Stream, seeds, counters)]
    assert len({number for numbers in drawn for number in numbers}) == 4 * len(drawn)


def test_a_stream_does_not_contain_another_one_a_few_steps_later():
    drawn = [set(stream(use, 3, epoch).integers(2**63, size=20_000).tolist()) for use in Stream for epoch in (0, 1)]
    assert len(set().union(*drawn)) == sum(map(len, drawn))


def test_equal_arguments_draw_equal_numbers():
    assert first_numbers(Stream.VALIDATION_SPLIT, 7) == first_numbers(Stream.VALIDATION_SPLIT, 7, 0, 0)
    np.testing.assert_array_equal(
        jax.random.key_data(key(Stream.MODEL, 7)), jax.random.key_data(jax.random.fold_in(jax.random.key(7), 21))
    )


def test_every_jax_key_differs():
    keys = {tuple(jax.random.key_data(key(use, seed)).tolist()) for use in Stream for seed in (0, 1)}
    assert len(keys) == 2 * len(Stream)


def test_at_most_two_counters():
    with pytest.raises(ValueError, match="3 counters, expected at most 2"):
        stream(Stream.MODEL, 0, 1, 2, 3)
