import functools

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from lsfa_jax.model import prototypes
from tests.reference import prototypes as reference
from tests.reference.agreement import assert_agrees
from tests.reference.inputs import normal

P, L, D = 12, 5, 3


@functools.partial(jax.jit, static_argnames="num_labels")
def summaries(features, label_ids, mask, num_labels):
    sums = prototypes.feature_sums(features, label_ids, mask, num_labels)
    return sums, prototypes.prototypes(sums), prototypes.variances(sums)


@settings(deadline=None)
@given(
    label_ids=st.lists(st.integers(0, L - 1), min_size=P, max_size=P).map(np.array),
    mask=st.lists(st.booleans(), min_size=P, max_size=P).map(np.array),
    seed=st.integers(0, 1000),
)
def test_prototypes_are_the_mean_of_each_label(label_ids, mask, seed):
    features = 1.0 + normal(P, D, seed=seed)
    # Masked pairs must not change the sums, not even as nan.
    features[~mask] = np.nan
    sums, means, variances = summaries(features, label_ids, mask, L)
    exact = np.nan_to_num(features.astype(np.float64))
    np.testing.assert_array_equal(sums.counts, [np.sum(mask & (label_ids == label)) for label in range(L)])
    np.testing.assert_allclose(means, reference.prototypes(exact, label_ids, mask, L), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variances, reference.variances(exact, label_ids, mask, L), rtol=1e-4, atol=1e-5)
    has_no_feature = np.asarray(sums.counts) == 0
    assert not np.any(np.asarray(means)[has_no_feature])


LABELS = np.array([0, 3, 3, 0, 0, 4, 1, 3, 1, 0, 2, 2])
MASK = np.arange(P) != 11


@pytest.mark.parametrize("statistic", ["prototypes", "variances"])
@pytest.mark.parametrize("num_labels", [L, 1])
def test_values_and_gradients_in_the_features(statistic, num_labels):
    label_ids = LABELS if num_labels > 1 else np.zeros(P, int)
    assert_agrees(
        lambda v: getattr(prototypes, statistic)(prototypes.feature_sums(v, label_ids, MASK, num_labels)),
        lambda v: getattr(reference, statistic)(v, label_ids, MASK, num_labels),
        normal(P, D),
    )


def test_the_scale_is_that_of_the_deviations_from_prototypes():
    features = 3.0 + normal(P, D)
    scale = prototypes.scale(prototypes.feature_sums(features, LABELS, MASK, L))
    exact, ids = features.astype(np.float64)[MASK], LABELS[MASK]
    means = np.stack([exact[ids == label].mean(axis=0) for label in ids])
    np.testing.assert_allclose(scale["centre"], exact.mean(axis=0), rtol=1e-5)
    # Unbiased: each label takes a degree of freedom.
    square = np.sum((exact - means) ** 2) / (len(ids) - len(set(ids))) / D
    np.testing.assert_allclose(scale["deviation"], np.sqrt(square), rtol=1e-5)


def test_the_scale_of_equal_features_changes_nothing():
    equal = prototypes.feature_sums(np.ones((P, D), np.float32), LABELS, MASK, L)
    for sums in (equal, prototypes.zero_sums(L, D)):
        assert prototypes.scale(sums)["deviation"] == 1


@settings(deadline=None)
@given(part=st.lists(st.booleans(), min_size=P, max_size=P).map(np.array))
def test_sums_over_parts_add_up_to_the_sums_over_all_pairs(part):
    features = normal(P, D)
    parts = [summaries(features, LABELS, mask, L)[0] for mask in (part, ~part)]
    total, _, _ = summaries(features, LABELS, np.ones(P, bool), L)
    added = jax.tree.map(lambda *x: sum(x), prototypes.zero_sums(L, D), *parts)
    np.testing.assert_array_equal(added.counts, total.counts)
    np.testing.assert_allclose(added.totals, total.totals, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(added.squares, total.squares, rtol=1e-5, atol=1e-6)


def test_prototypes_and_variances_without_pairs_are_zero():
    sums = prototypes.zero_sums(L, D)
    assert sums.counts.dtype == np.int32
    np.testing.assert_array_equal(prototypes.prototypes(sums), np.zeros((L, D)))
    np.testing.assert_array_equal(prototypes.variances(sums), np.zeros(L))


def test_variance_of_equal_features_is_not_negative():
    features = np.full((P, D), 0.1, np.float32)
    _, _, variances = summaries(features, np.zeros(P, int), np.ones(P, bool), L)
    assert np.all(variances >= 0)
    np.testing.assert_allclose(variances, 0, atol=1e-6)


def test_pairs_sharded_over_four_devices_give_the_same_sums():
    devices = jax.devices("cpu")
    assert len(devices) == 4
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    sharded = NamedSharding(mesh, PartitionSpec("data"))
    arguments = normal(P, D), LABELS, MASK
    on_four = [jax.device_put(x, sharded) for x in arguments]
    assert {shard.data.shape for shard in on_four[0].addressable_shards} == {(P // 4, D)}
    actual, expected = summaries(*on_four, L), summaries(*arguments, L)
    np.testing.assert_array_equal(actual[0].counts, expected[0].counts)
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-6)


@given(counts=st.lists(st.integers(0, 100), min_size=1, max_size=20), threshold=st.integers(0, 100))
def test_a_tail_label_has_fewer_features_than_the_threshold(counts, threshold):
    expected = [not count < threshold for count in counts]
    assert prototypes.is_head(np.array(counts), threshold).tolist() == expected


def test_a_label_at_the_threshold_is_a_head_label():
    assert prototypes.is_head(np.array([49, 50, 51]), 50).tolist() == [False, True, True]
