import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax.model import augmentation, gaussian
from lsfa_jax.model.generators import Generator
from lsfa_jax.model.pvae import Pvae

L, D = 5, 3
IS_HEAD = np.array([True, False, True, True, False])
RANDOM = np.random.default_rng(3)
LABEL_IDS = np.repeat([2, 0, 3], [9, 6, 4])[RANDOM.permutation(19)].astype(np.int32)
FEATURES = (2.0 + LABEL_IDS[:, None] * RANDOM.normal(size=(19, D)) @ RANDOM.normal(size=(D, D))).astype(np.float32)


def mean(label):
    return FEATURES[np.equal(LABEL_IDS, label)].astype(np.float64).mean(axis=0)


def covariance(label):
    return np.cov(FEATURES[np.equal(LABEL_IDS, label)].astype(np.float64).T)


# The prototypes of labels 1 and 4, which have no features, are near those of labels 3 and 0.
PROTOTYPES = np.stack([mean(0), mean(3) + 0.1, mean(2), mean(3), mean(0) - 0.1])


def covariances_of(fitted, label):
    factors = np.asarray(fitted.factors, np.float64)[np.asarray(fitted.chosen)[label]]
    return factors @ factors.transpose(0, 2, 1)


def test_the_pooled_covariance_is_that_of_the_deviations_from_the_prototypes():
    fitted = gaussian.fit(FEATURES, LABEL_IDS, PROTOTYPES, IS_HEAD, num_nearest=0)
    deviations = np.concatenate([FEATURES[np.equal(LABEL_IDS, label)] - mean(label) for label in (0, 2, 3)])
    expected = deviations.T @ deviations / (19 - 3)
    for label in range(L):
        (actual,) = covariances_of(fitted, label)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_the_pooled_covariance_takes_no_memory_for_each_head_label():
    heads, size = 300, 60
    label_ids = np.repeat(np.arange(heads), 2).astype(np.int32)
    features = RANDOM.normal(size=(2 * heads, size)).astype(np.float32)
    prototypes = features.reshape(heads, 2, size).mean(axis=1)
    tracemalloc.start()
    try:
        fitted = gaussian.fit(features, label_ids, prototypes, np.ones(heads, bool), num_nearest=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert fitted.factors.shape == (1, size, size)
    assert peak < heads * size * size * 8 / 4


def test_covariances_of_the_nearest_head_labels():
    fitted = gaussian.fit(FEATURES, LABEL_IDS, PROTOTYPES, IS_HEAD, num_nearest=2)
    heads = np.array([0, 2, 3])
    for label in range(L):
        nearest = heads[np.argsort(np.linalg.norm(PROTOTYPES[heads] - PROTOTYPES[label], axis=1))[:2]]
        for actual, head in zip(covariances_of(fitted, label), nearest, strict=True):
            np.testing.assert_allclose(actual, covariance(head), rtol=1e-4, atol=1e-5)
    assert (heads[fitted.chosen[1, 0]], heads[fitted.chosen[4, 0]]) == (3, 0)


def test_a_singular_covariance_has_a_factor():
    matrix = np.outer([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    root = gaussian.factor(matrix)
    np.testing.assert_allclose(root @ root.T, matrix, atol=1e-12)


def test_empty_has_the_shapes_of_a_fit():
    for number in (0, 2, 7):
        fitted = gaussian.fit(FEATURES, LABEL_IDS, PROTOTYPES, IS_HEAD, number)
        shapes = [x.shape for x in gaussian.empty(L, 3, D, number)]
        assert [x.shape for x in fitted] == shapes
        assert [x.dtype for x in fitted] == [x.dtype for x in gaussian.empty(L, 3, D, number)]


@pytest.mark.parametrize("number", [0, 2])
def test_drawn_features_have_the_prototype_as_mean_and_the_mean_covariance(number):
    fitted = gaussian.fit(FEATURES, LABEL_IDS, PROTOTYPES, IS_HEAD, number)
    n, label = 4000, 1
    draws = np.asarray(
        augmentation.draw_features(
            gaussian.sampler(fitted, nonnegative=False),
            jax.random.key(0),
            jnp.full(n, label),
            jnp.arange(n),
            jnp.broadcast_to(jnp.asarray(PROTOTYPES[label], jnp.float32), (n, D)),
        )
    )
    expected = covariances_of(fitted, label).mean(axis=0)
    variance = np.diag(expected)
    # Five standard errors; the key is fixed.
    assert np.all(np.abs(draws.mean(axis=0) - PROTOTYPES[label]) < 5 * np.sqrt(variance / n))
    error = np.abs(np.cov(draws.T) - expected)
    assert np.all(error < 5 * np.sqrt((np.outer(variance, variance) + expected**2) / n))


def test_features_of_a_relu_are_not_negative():
    learned = {"gaussian": gaussian.fit(FEATURES, LABEL_IDS, PROTOTYPES, IS_HEAD, 0)}
    # As those of the PVAE in whose place they are.
    signed, of_relu = (
        Generator("gaussian", Pvae(D, 4, 2, nonnegative=nonnegative))(learned)(
            jax.random.key(1), jnp.int32(1), jnp.zeros(D)
        )
        for nonnegative in (False, True)
    )
    assert np.any(signed < 0)
    np.testing.assert_array_equal(of_relu, np.maximum(signed, 0))
