import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.data.negative_sampling import sample_pool
from lsfa_jax.model import shortlist

CHOOSE = jax.jit(shortlist.choose, static_argnums=3)


def padded(ids, size, num_labels):
    return np.array([*ids, *[num_labels] * (size - len(ids))], np.int32)


@st.composite
def problems(draw):
    """Candidates of a batch, the hardness of the pool, and L; of few shapes, so that few programs are compiled."""
    num_labels = draw(st.sampled_from([1, 5, 40]))
    label_ids = np.array(draw(st.lists(st.integers(0, num_labels - 1), max_size=6)), np.int32)
    candidates = sample_pool(label_ids, num_labels, draw(st.sampled_from([1, 4, 16])), 0, 1, draw(st.integers(0, 99)))
    size = len(candidates.pool)
    hardness = draw(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3e38]), min_size=size, max_size=size))
    return candidates, np.array(hardness, np.float32), num_labels


@pytest.mark.slow
@settings(deadline=None)
@given(problems())
def test_the_shortlist_holds_the_positives_the_hardest_and_the_first_of_the_pool(problem):
    (positives, pool), hardness, num_labels = problem
    label_ids, weights = map(np.asarray, CHOOSE(positives, pool, hardness, num_labels))
    positive, pooled = positives[positives < num_labels], pool[pool < num_labels]
    room = len(positives) - len(positive)
    num_hard = min(room // 2, len(pooled))
    num_uniform = min(room, len(pooled)) - num_hard
    used = label_ids[label_ids < num_labels]
    assert len(used) == len(positive) + num_hard + num_uniform
    assert len(set(label_ids)) == len(label_ids)
    np.testing.assert_array_equal(label_ids[: len(positive)], positive)

    hard = label_ids[len(positive) :][:num_hard]
    remaining = [label for label in pooled if label not in hard]
    hardness_of = dict(zip(pool, hardness, strict=True))
    easiest_hard = min([hardness_of[label] for label in hard], default=np.inf)
    assert easiest_hard >= max([hardness_of[label] for label in remaining], default=-np.inf)
    np.testing.assert_array_equal(label_ids[len(positive) + num_hard :][:num_uniform], remaining[:num_uniform])

    hard_weight = (num_labels - len(positive)) / max(len(pooled), 1)
    uniform_weight = hard_weight * len(remaining) / max(num_uniform, 1)
    expected = [1.0] * len(positive) + [hard_weight] * num_hard + [uniform_weight] * num_uniform
    np.testing.assert_allclose(weights, expected + [0.0] * (len(weights) - len(expected)), rtol=1e-6)
    # The weights estimate the number of labels exactly.
    assert weights.sum() == pytest.approx(num_labels)
    if len(positives) >= num_labels:
        np.testing.assert_array_equal(sorted(used), np.arange(num_labels))
        np.testing.assert_array_equal(weights[: len(used)], 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("positive", "size", "pool_size"),
    [([4], 2, 3), ([1, 3], 6, 4), ([], 4, 3), ([], 5, 6), ([0, 2, 5], 8, 3), ([2], 3, 1)],
    ids=["no hard ones", "both", "no positives", "pool of all", "pool of all negatives", "pool of one"],
)
def test_the_expectation_over_pools_is_the_sum_over_all_labels(positive, size, pool_size):
    """Computed exactly, as the mean over all pools in all orders, which are equally likely."""
    num_labels = 6
    negatives = [label for label in range(num_labels) if label not in positive]
    pools = np.array(list(itertools.permutations(negatives, pool_size)), np.int32)
    values, hardness = jnp.asarray(np.random.default_rng(0).normal(size=(2, num_labels)), jnp.float32)
    positives = padded(positive, size, num_labels)

    @jax.jit
    @jax.vmap
    def estimate(pool):
        label_ids, weights = shortlist.choose(positives, pool, hardness[pool], num_labels)
        return jnp.sum(weights * values.at[label_ids].get(mode="fill", fill_value=1e9))

    estimates = np.asarray(estimate(pools), np.float64)
    np.testing.assert_allclose(estimates.mean(), values.sum(), rtol=1e-5)
    is_exact = len(positive) + pool_size >= num_labels and size >= num_labels
    assert (np.ptp(estimates) < 1e-5) == is_exact


def test_accurate_hardness_lowers_the_variance_of_the_estimate():
    # A few of 200 labels hold most of the sum; the pool is half of them.
    values = np.where(np.arange(200) % 20 == 0, 10.0, 0.1).astype(np.float32)

    def standard_deviation(hardness):
        estimates = []
        for step in range(200):
            positives, pool = sample_pool(np.zeros(0, int), 200, 12, 0, 1, step)
            label_ids, weights = CHOOSE(positives, pool, hardness[np.minimum(pool, 199)], 200)
            estimates.append(float(weights @ values[np.minimum(label_ids, 199)]))
        return np.std(estimates)

    assert standard_deviation(values) < 0.5 * standard_deviation(np.zeros(200, np.float32))


def test_shortlists_of_one_size_share_one_program_whatever_the_number_of_positives():
    chex.clear_trace_counter()
    choose = jax.jit(chex.assert_max_traces(lambda *candidates: shortlist.choose(*candidates, 40), n=1))
    for num_positive in (0, 3, 8):
        candidates = sample_pool(np.arange(num_positive), 40, 16, 0, 1, 0)
        label_ids, _ = choose(*candidates, np.zeros(len(candidates.pool), np.float32))
        np.testing.assert_array_equal(label_ids[:num_positive], np.arange(num_positive))


def test_hardness_is_the_part_of_equation_6_of_a_label_without_documents():
    logits = np.array([[0.0, 100.0, -2.0], [1.0, -100.0, 0.0], [9.0, 9.0, 9.0]], np.float32)
    expected = [np.logaddexp(0, 0) + np.logaddexp(0, 1), 100.0, np.logaddexp(0, -2) + np.log(2)]
    hardness = shortlist.hardness(logits, np.array([True, True, False]))
    np.testing.assert_allclose(hardness, expected, rtol=1e-6)


def test_positions_are_those_of_the_labels_of_the_batch():
    positives = padded([3, 4, 9], 6, 10)
    label_ids = np.array([[9, 3, 0], [4, 4, 0]], np.int32)
    positions = np.asarray(shortlist.positions(positives, label_ids))
    np.testing.assert_array_equal(positions[:, :2], [[2, 0], [1, 1]])
    # Positions of padding are arbitrary but valid indices.
    assert np.all(np.asarray(shortlist.positions(positives, np.arange(11))) < 6)
    assert int(shortlist.positions(padded([], 1, 1), np.array(0))) == 0
