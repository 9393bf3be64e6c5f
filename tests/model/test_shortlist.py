import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.data import negative_sampling
from lsfa_jax.model import shortlist

CHOOSE = jax.jit(shortlist.choose, static_argnums=3)


def padded(ids, size, num_labels):
    return np.array([*ids, *[num_labels] * (size - len(ids))], np.int32)


@st.composite
def problems(draw):
    """Labels of a batch, a drawn pool and how hard it is, and L. Few shapes, so that few programs are compiled."""
    num_labels = draw(st.sampled_from([1, 5, 40]))
    label_ids = np.array(draw(st.lists(st.integers(0, num_labels - 1), max_size=6)), np.int32)
    found = negative_sampling.sample_candidates(
        label_ids, num_labels, draw(st.sampled_from([1, 4, 16])), 0, 1, draw(st.integers(0, 99))
    )
    size = len(found.pool)
    hardness = draw(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3e38]), min_size=size, max_size=size))
    return found, np.array(hardness, np.float32), num_labels


@settings(deadline=None)
@given(problems())
def test_the_list_holds_the_batchs_labels_the_hardest_and_the_first_drawn(problem):
    (positives, pool), hardness, num_labels = problem
    label_ids, weights = map(np.asarray, CHOOSE(positives, pool, hardness, num_labels))
    own, others = positives[positives < num_labels], pool[pool < num_labels]
    room = len(positives) - len(own)
    hard = min(room // 2, len(others))
    uniform = min(room, len(others)) - hard
    listed = label_ids[label_ids < num_labels]
    assert len(listed) == len(own) + hard + uniform
    assert len(set(label_ids)) == len(label_ids)
    np.testing.assert_array_equal(label_ids[: len(own)], own)

    tough = label_ids[len(own) :][:hard]
    how_hard = dict(zip(pool, hardness, strict=True))
    softer = [how_hard[label] for label in others if label not in tough]
    assert min([how_hard[label] for label in tough], default=np.inf) >= max(softer, default=-np.inf)
    rest = [label for label in others if label not in tough]
    np.testing.assert_array_equal(label_ids[len(own) + hard :][:uniform], rest[:uniform])

    each = (num_labels - len(own)) / max(len(others), 1)
    expected = [1.0] * len(own) + [each] * hard + [each * len(rest) / max(uniform, 1)] * uniform
    np.testing.assert_allclose(weights, expected + [0.0] * (len(weights) - len(expected)), rtol=1e-6)
    # Every label is counted once, in sum.
    assert weights.sum() == pytest.approx(num_labels)
    if len(positives) >= num_labels:
        np.testing.assert_array_equal(sorted(listed), np.arange(num_labels))
        np.testing.assert_array_equal(weights[: len(listed)], 1.0)


@pytest.mark.parametrize(
    ("own", "size", "drawn"),
    [([4], 2, 3), ([1, 3], 6, 4), ([], 4, 3), ([], 5, 6), ([0, 2, 5], 8, 3), ([2], 3, 1)],
    ids=["no hard ones", "both", "no labels", "pool of all", "pool of all others", "pool of one"],
)
def test_the_mean_over_all_draws_is_the_sum_over_all_labels(own, size, drawn):
    """Exactly: every pool in every order is as likely as any, and all of them are tried."""
    num_labels = 6
    others = [label for label in range(num_labels) if label not in own]
    pools = np.array(list(itertools.permutations(others, drawn)), np.int32)
    values, hardness = jnp.asarray(np.random.default_rng(0).normal(size=(2, num_labels)), jnp.float32)
    positives = padded(own, size, num_labels)

    @jax.jit
    @jax.vmap
    def estimate(pool):
        label_ids, weights = shortlist.choose(positives, pool, hardness[pool], num_labels)
        return jnp.sum(weights * values.at[label_ids].get(mode="fill", fill_value=1e9))

    estimates = np.asarray(estimate(pools), np.float64)
    np.testing.assert_allclose(estimates.mean(), values.sum(), rtol=1e-5)
    everything = len(own) + drawn >= num_labels and size >= num_labels
    assert (np.ptp(estimates) < 1e-5) == everything


def test_hard_ones_that_are_hard_make_the_estimate_surer():
    # A few of 200 labels hold most of the sum; the pool is half of them.
    values = np.where(np.arange(200) % 20 == 0, 10.0, 0.1).astype(np.float32)

    def spread(hardness):
        estimates = []
        for step in range(200):
            positives, pool = negative_sampling.sample_candidates(np.zeros(0, int), 200, 12, 0, 1, step)
            label_ids, weights = CHOOSE(positives, pool, hardness[np.minimum(pool, 199)], 200)
            estimates.append(float(weights @ values[np.minimum(label_ids, 199)]))
        return np.std(estimates)

    assert spread(values) < 0.5 * spread(np.zeros(200, np.float32))


def test_hardness_is_what_a_label_without_documents_adds_to_equation_6():
    logits = np.array([[0.0, 100.0, -2.0], [1.0, -100.0, 0.0], [9.0, 9.0, 9.0]], np.float32)
    expected = [np.logaddexp(0, 0) + np.logaddexp(0, 1), 100.0, np.logaddexp(0, -2) + np.log(2)]
    found = shortlist.hardness(logits, np.array([True, True, False]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_places_are_where_the_batchs_labels_stand():
    positives = padded([3, 4, 9], 6, 10)
    label_ids = np.array([[9, 3, 0], [4, 4, 0]], np.int32)
    found = np.asarray(shortlist.positions(positives, label_ids))
    np.testing.assert_array_equal(found[:, :2], [[2, 0], [1, 1]])
    # What is padding in a batch stands anywhere, but on the list.
    assert np.all(np.asarray(shortlist.positions(positives, np.arange(11))) < 6)
    assert int(shortlist.positions(padded([], 1, 1), np.array(0))) == 0
