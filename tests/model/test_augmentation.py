import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.model import augmentation, pvae
from tests.reference import augmentation as reference
from tests.reference import pvae as reference_pvae
from tests.reference.agreement import assert_agrees, assert_equal
from tests.reference.inputs import normal

L, N_A, D, Z = 4, 3, 3, 2
KEY = jax.random.key(0)


PROTOTYPES, MATRIX = jnp.array(normal(L, D)), normal(Z, D)
PAIRS = [(label, index) for label in range(L) for index in range(N_A)]


def linear(z, prototype):
    return z @ MATRIX + prototype


def draw(decode, key, label_ids, indices):
    sample = augmentation.from_decoder(decode, Z)
    return augmentation.draw_features(sample, key, label_ids, indices, PROTOTYPES[label_ids])


@jax.jit
def sample(label_ids, indices):
    return draw(linear, KEY, label_ids, indices)


@jax.jit
def latents(label_ids, indices):
    return draw(lambda z, p: z, KEY, label_ids, indices)


def columns(pairs):
    label_ids, indices = np.array(pairs, np.int32).T
    return label_ids, indices


@settings(deadline=None, max_examples=30)
@given(order=st.lists(st.sampled_from(PAIRS), min_size=len(PAIRS), max_size=len(PAIRS)))
def test_a_feature_depends_only_on_its_label_and_index(order):
    all_features = dict(zip(PAIRS, np.asarray(sample(*columns(PAIRS))), strict=True))
    for pair, feature in zip(order, np.asarray(sample(*columns(order))), strict=True):
        np.testing.assert_array_equal(feature, all_features[pair])


@pytest.mark.slow
def test_a_feature_does_not_depend_on_the_size_of_its_batch():
    all_features = sample(*columns(PAIRS))
    for i in (0, 7):
        np.testing.assert_array_equal(latents(*columns(PAIRS[i : i + 1]))[0], latents(*columns(PAIRS))[i])
        np.testing.assert_allclose(sample(*columns(PAIRS[i : i + 1]))[0], all_features[i], rtol=1e-6, atol=1e-6)


def test_each_index_label_and_key_has_a_different_latent():
    z = np.asarray(latents(*columns(PAIRS)))
    assert len(np.unique(z, axis=0)) == len(PAIRS)
    label_ids, indices = columns(PAIRS)
    z_of_second_key = draw(lambda z, p: z, jax.random.key(1), label_ids, indices)
    assert not np.any(np.all(np.asarray(z_of_second_key) == z, axis=1))


def test_latents_are_standard_normal_and_features_are_centred_on_the_prototype_of_their_label():
    # With a linear decoder the mean is the prototype and the covariance MATRIX' MATRIX. The bounds are five standard
    # errors of a mean and of a covariance over n samples; the key is fixed, so the test is deterministic.
    n = 4000
    covariance = MATRIX.T @ MATRIX
    variance = np.diag(covariance)
    for label in (0, 3):
        features = np.asarray(sample(np.full(n, label), np.arange(n)))
        error = np.abs(features.mean(axis=0) - PROTOTYPES[label])
        assert np.all(error < 5 * np.sqrt(variance / n))
        error = np.abs(np.cov(features.T) - covariance)
        assert np.all(error < 5 * np.sqrt((np.outer(variance, variance) + covariance**2) / n))


def test_features_come_from_the_decoder_of_equation_15():
    net = pvae.Pvae(feature_size=D, hidden_size=4, latent_size=Z)
    variables = jax.jit(net.init)(KEY, *(np.zeros((1, size)) for size in (D, D, Z)))
    label_ids, indices = columns(PAIRS)
    features = draw(lambda z, p: net.apply(variables, z, p, method="decode"), KEY, label_ids, indices)
    z = np.asarray(latents(label_ids, indices))
    expected = reference_pvae.decode(variables["params"], z, PROTOTYPES[label_ids])
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    assert np.any(expected > 0)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("mask", [[True, True, False, True], [False] * 4], ids=["one masked", "all masked"])
def test_augmented_loss_is_equation_19(mask, with_bias):
    assert_agrees(
        lambda *arguments: augmentation.augmented_loss(*arguments, np.array(mask)),
        lambda *arguments: reference.augmented_loss(*arguments, mask),
        normal(4, D),
        normal(4, D, seed=1),
        normal(4) if with_bias else None,
    )


@pytest.mark.parametrize("with_bias", [True, False])
def test_each_generated_feature_is_a_negative_of_the_other_labels(with_bias):
    label_ids, mask = np.array([2, 0, 2, 1, 0]), np.array([True, True, True, False, True])
    assert_agrees(
        lambda *arguments: augmentation.negative_loss(*arguments, label_ids, mask),
        lambda *arguments: reference.negative_loss(*arguments, label_ids, mask),
        normal(5, D),
        normal(5, D, seed=1),
        normal(5) if with_bias else None,
    )
    alone = augmentation.negative_loss(normal(2, D), normal(2, D), None, np.array([1, 1]), np.ones(2, bool))
    assert float(alone) == 0.0


loss_and_gradients = jax.jit(jax.value_and_grad(augmentation.augmented_loss, argnums=(0, 1)))


def test_padding_pairs_change_nothing():
    mask = np.array([True, False, True])
    pairs = normal(3, D), normal(3, D, seed=1)
    garbage = [np.where(mask[:, None], x, np.float32(1e8)) for x in pairs]
    expected = loss_and_gradients(*pairs, None, mask)
    assert_equal(loss_and_gradients(*garbage, None, mask), expected)
    assert not any(np.any(np.asarray(g)[~mask]) for g in expected[1])


def test_augmented_loss_is_exact_at_extreme_logits():
    features, weights = np.float32([[1e4], [-1e4], [0.0]]), np.ones((3, 1), np.float32)
    loss, (_, d_weights) = loss_and_gradients(features, weights, None, np.ones(3, bool))
    np.testing.assert_allclose(loss, 1e4 + np.log(2), rtol=1e-6)
    np.testing.assert_allclose(d_weights, [[0.0], [1e4], [0.0]], atol=1e-6)
