import jax
import numpy as np
import pytest

from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.training import discriminants
from lsfa_jax.training.discriminants import Moments
from lsfa_jax.util import sharding
from tests import training_corpus
from tests.reference.agreement import float64

L = training_corpus.NUM_LABELS


def discriminant(features: np.ndarray, has_label: np.ndarray) -> tuple[np.ndarray, float]:
    """Computes one label's discriminant from float64[N, D] and bool[N], in float64."""
    size = features.shape[1]
    covariance = np.cov(features.T, bias=True)
    covariance += 0.03 * np.trace(covariance) / size * np.eye(size)
    mean, of_label = features.mean(0), features[has_label].mean(0)
    inverse = np.linalg.inv(covariance)
    squared = (of_label - mean) @ inverse @ (of_label - mean)
    true_squared = squared - size * (1 / has_label.sum() - 1 / len(features))
    difference = max(0.0, true_squared / squared) * (of_label - mean)
    weights = 0.1 * inverse @ difference
    return weights, -weights @ mean - 0.05 * difference @ inverse @ difference


@pytest.mark.parametrize("devices", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_moments_are_the_sums_over_documents_of_the_feature_of_the_mean_state(tiny, devices):
    model = training_corpus.make_model(training_corpus.config())
    params = training_corpus.init_params(model)
    exact, empty = float64(params), Ragged.from_rows([np.zeros(0, np.int32)])
    words, labels = (
        Ragged(np.concatenate([split.values, more.values]), np.append(split.offsets, split.offsets[-1] + more.sizes))
        for split, more in ((tiny.train.words, empty), (tiny.train.labels, Ragged.from_rows([np.array([2, 5])])))
    )
    features = np.zeros((len(tiny.train) + 1, model.feature_size))
    for i, length in enumerate(words.sizes):
        states = (
            training_corpus.reference_states(exact, words.row(i)[None], [length])[0] if length else np.zeros((1, 8))
        )
        head = exact["labels"]["head"]
        features[i] = np.maximum(0, states.mean(0) @ head["kernel"] + head["bias"])
    by_label = np.zeros((L, model.feature_size))
    for i in range(len(features)):
        for label in labels.row(i):
            by_label[label] += features[i]

    mesh = sharding.make_mesh(jax.local_devices()[:devices])
    batches = training_corpus.batches(Split(words, labels), 8, devices)
    moments = discriminants.collect(model, sharding.replicate(mesh, params), batches, mesh)
    np.testing.assert_allclose(moments.by_label, by_label, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments.total, features.sum(0), rtol=1e-5)
    np.testing.assert_allclose(moments.products, features.T @ features, rtol=1e-5)


def test_the_classifiers_are_fishers_discriminants_of_each_label_with_shrunk_means():
    random, size = np.random.default_rng(3), 6
    has_label = random.random((50, 4)) < (0.5, 0.3, 0.1, 0.02)
    has_label[0] = (True, False, True, True)
    direction = random.normal(size=(4, size))
    features = 3 + random.normal(size=(50, size)) @ random.normal(size=(size, size)) + 2 * has_label @ direction
    moments = Moments(
        *(np.asarray(x, np.float32) for x in (has_label.T @ features, features.sum(0), features.T @ features))
    )
    weights, biases = discriminants.classifiers(moments, has_label.sum(0), 50)
    for label in range(4):
        expected, bias = discriminant(features, has_label[:, label])
        np.testing.assert_allclose(weights[label], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(biases[label], bias, rtol=1e-3, atol=1e-3)
    assert np.abs(weights[0]).max() > 0.02


def test_a_label_without_documents_and_features_that_never_vary_have_no_discriminant():
    features = np.ones((3, 2))
    moments = Moments(np.array([[0.0, 0.0], [1.0, 1.0]]), features.sum(0), features.T @ features)
    weights, biases = discriminants.classifiers(moments, np.array([0, 1]), 3)
    np.testing.assert_allclose(weights, 0.0, atol=1e-6)
    np.testing.assert_allclose(biases, 0.0, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_the_bias_keeps_the_log_odds_beside_that_of_the_discriminant(bias):
    classifier = {"weights": np.zeros((1, 2))} | ({"bias": np.array([-3.0])} if bias else {})
    moments = Moments(np.array([[4.0, 0.0]]), np.array([4.0, 2.0]), np.diag([8.0, 4.0]))
    started = discriminants.start(classifier, moments, np.array([2]), 4)
    weights, biases = discriminants.classifiers(moments, np.array([2]), 4)
    np.testing.assert_array_equal(started["weights"], weights)
    assert set(started) == set(classifier)
    if bias:
        np.testing.assert_allclose(started["bias"], biases - 3.0)
