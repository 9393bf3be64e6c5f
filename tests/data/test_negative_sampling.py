import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.data.negative_sampling import Candidates, draw
from tests.reference.agreement import assert_equal


@st.composite
def problems(draw_):
    num_labels = draw_(st.integers(1, 200))
    label_ids = draw_(st.lists(st.integers(0, num_labels - 1), max_size=60))
    return np.array(label_ids, np.int32), num_labels, draw_(st.integers(1, 64))


@given(problems(), st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(0, 10**6))
def test_the_batchs_labels_and_others(problem, seed, epoch, step):
    label_ids, num_labels, size = problem
    positives, pool = draw(label_ids, num_labels, size, seed, epoch, step)
    own, others = positives[positives < num_labels], pool[pool < num_labels]
    assert own.tolist() == sorted(set(label_ids.tolist()))
    assert not set(own) & set(others)
    assert len(set(others)) == len(others) == min(len(pool), num_labels - len(own))
    assert np.all(others >= 0)
    for padded, real in ((positives, own), (pool, others)):
        assert padded.dtype == np.int32
        assert np.all(padded[len(real) :] == num_labels)
    # Doubled until the batch's labels fill no more than half: few lengths, so few programs.
    assert 2 * len(own) <= len(positives)
    assert len(positives) == size or 4 * len(own) > len(positives)
    assert len(positives) in [size * 2**i for i in range(8)]


@given(problems())
def test_the_draw_follows_from_seed_epoch_and_step_alone(problem):
    label_ids, num_labels, size = problem
    assert_equal(draw(label_ids, num_labels, size, 3, 2, 7), draw(label_ids[::-1], num_labels, size, 3, 2, 7))


def test_draws_of_other_steps_epochs_and_seeds_differ():
    places = [(seed, epoch, step) for seed in (0, 1) for epoch in (1, 2) for step in (0, 1, 2)]
    pools = {tuple(draw(np.zeros(0, int), 1000, 16, *place).pool) for place in places}
    assert len(pools) == len(places)


@pytest.mark.parametrize("label_ids", [[], [0, 9, 9]], ids=["no labels", "two labels"])
def test_every_other_label_is_drawn_as_often_and_in_any_place(label_ids):
    draws, others = 4000, 30 - len(set(label_ids))
    pools = np.array([draw(np.array(label_ids, int), 30, 2, 0, 1, step).pool for step in range(draws)])[:, :8]
    for column in (slice(None), slice(0, 1), slice(7, 8)):
        seen = np.bincount(pools[:, column].reshape(-1), minlength=31)
        share = pools[:, column].shape[1] / others
        expected = np.full(31, draws * share)
        expected[[*label_ids, 30]] = 0
        # Five standard errors of a count.
        np.testing.assert_allclose(seen, expected, atol=5 * np.sqrt(draws * share * (1 - share)))


def test_one_label():
    assert_equal(draw(np.array([0, 0]), 1, 1, 0, 1, 0), Candidates(np.array([0, 1]), np.array([1])))
    assert_equal(draw(np.array([], int), 1, 1, 0, 1, 0), Candidates(np.array([1]), np.array([0])))
