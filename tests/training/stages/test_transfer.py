from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax.model import augmentation, prototypes, pvae
from lsfa_jax.model.generators import Generator
from lsfa_jax.training.collection import FeaturesInMemory
from lsfa_jax.training.stages import transfer
from lsfa_jax.training.state import TrainState
from lsfa_jax.util import sharding
from tests import training_corpus
from tests.reference import pvae as reference_pvae
from tests.reference.agreement import assert_equal, central_differences, float64

L, D, Z = training_corpus.NUM_LABELS, 5, 2
FEATURES = FeaturesInMemory(
    np.random.default_rng(0).random((62, D)).astype(np.float32),
    np.random.default_rng(1).integers(0, 3, 62).astype(np.int32),
)


def make_stage(batch_size: int = 16, devices: int = 1, **settings: object) -> transfer.Transfer:
    """The stage over random features of three head labels."""
    config = training_corpus.config(pvae={"batch_size": batch_size, **settings})
    mesh = sharding.make_mesh(jax.local_devices()[:devices])
    return transfer.Transfer(transfer.make_pvae(config, D), config, FEATURES, optax.sgd(1.0), mesh, 4)


def test_an_epoch_has_each_feature_once_with_its_label():
    stage, orders = make_stage(batch_size=10, devices=4), []
    assert stage.steps_per_epoch == 7
    for epoch in (1, 2):
        rows = []
        for batch in stage.batches(epoch, 0):
            assert len(batch.mask) == 12  # ten, padded to a multiple of four devices
            for feature, label, real in zip(*map(np.asarray, batch), strict=True):
                if real:
                    (row,) = np.flatnonzero((FEATURES.features == feature).all(axis=1))
                    assert FEATURES.label_ids[row] == label
                    rows.append(row)
        assert sorted(rows) == list(range(len(FEATURES)))
        orders.append(rows)
    assert orders[0] != orders[1]
    epoch, rest = list(stage.batches(2, 0)), list(stage.batches(2, 2))
    assert_equal(rest, epoch[2:])


@pytest.mark.parametrize("kl_weight", ["auto", 0.5])
def test_a_step_is_the_gradient_of_equations_11_to_17(kl_weight):
    stage = make_stage(batch_size=13, kl_weight=kl_weight)
    *_, batch = stage.batches(1, 0)
    mask = np.asarray(batch.mask)
    assert 0 < mask.sum() < len(mask)
    random = np.random.default_rng(3)
    sums = prototypes.FeatureSums(
        jnp.asarray(random.normal(size=(L, D)), jnp.float32), jnp.arange(L), jnp.ones(L, jnp.float32)
    )
    state = stage.init(jax.random.key(9), jax.random.key(1), sums)
    assert state.extra["constants"].keys() == {"scale"}
    scale = float64(state.extra["constants"]["scale"])
    state = state.replace(
        params=jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), state.params)
    )
    noise = np.asarray(jax.random.normal(jax.random.fold_in(state.key, 0), (len(mask), Z)), np.float64)
    centres = (np.asarray(sums.totals, np.float64) / np.maximum(np.arange(L), 1)[:, None])[np.asarray(batch.label_ids)]
    features, before = np.asarray(batch.features, np.float64), float64(state.params)

    def losses(params: Any) -> tuple[float, float]:
        mu, log_variance = reference_pvae.encode(params, features, centres, scale)
        latents = reference_pvae.reparameterize(mu, log_variance, noise)
        decoded = reference_pvae.decode(params, latents, centres, scale=scale)
        kl = reference_pvae.kl_divergence(mu, log_variance)[mask].mean()
        return reference_pvae.negative_elbo(features, decoded, mu, log_variance, mask, kl_weight), kl

    def elbo_with(biases: dict[str, np.ndarray]) -> float:
        moved = {name: before[name] | {"bias": bias} for name, bias in biases.items()}
        return losses(before | moved)[0]

    elbo, kl = losses(before)
    names = ("encoder_mu", "decoder_out")
    (expected,) = central_differences(elbo_with, {name: before[name]["bias"] for name in names})
    after = stage.step(state, batch, 1, 1)
    np.testing.assert_allclose(after.loss_sums["negative_elbo"], elbo, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(after.loss_sums["kl"], kl, rtol=1e-4, atol=1e-4)
    for name in names:
        gradient = before[name]["bias"] - np.asarray(after.params[name]["bias"], np.float64)
        # `central_differences` weighs a scalar by cos(1).
        np.testing.assert_allclose(gradient, expected[name] / np.cos(1.0), rtol=1e-3, atol=1e-4, err_msg=name)


def test_the_decoder_normalises_by_the_statistics_of_training():
    """The statistics of the decoder's norm are those of the PVAE's training; decoding does not update them."""
    model = pvae.Pvae(feature_size=D, hidden_size=4, latent_size=Z, decoder_norm=True, nonnegative=False)
    variables = transfer.init_variables(model, jax.random.key(0))
    moved = variables | {"batch_stats": jax.tree.map(lambda x: x + 2.0, variables["batch_stats"])}
    z, centre = jnp.ones(Z), jnp.ones(D)
    initial, later = (model.apply(each, z, centre, method=pvae.Pvae.decode) for each in (variables, moved))
    # (x - 2) / sqrt(3) against x / 1: mean 0 + 2, variance 1 + 2.
    np.testing.assert_allclose(later, (initial * np.sqrt(1 + 1e-5) - 2) / np.sqrt(3 + 1e-5), rtol=1e-4, atol=1e-5)


class FunctionAsPvae:
    """Stands for the PVAE: decodes by a function of latent and prototype."""

    latent_size = D

    def __init__(self, decode: Callable[[jax.Array, jax.Array], jax.Array]) -> None:
        self.decode = decode

    def apply(self, variables: Any, z: jax.Array, prototype: jax.Array, method: object) -> jax.Array:
        assert method is pvae.Pvae.decode
        return self.decode(z, prototype)


REAL = np.random.default_rng(4).normal(3.0, 2.0, size=(40, D))
REAL_LABELS = np.arange(40) % 4
REAL_LABELS[-1] = 5  # the only feature of its label
CHOSEN = np.array([1, 3, 5])
KEY = jax.random.key(2)


@pytest.mark.parametrize(
    ("method", "labels"), [("pvae", [0, 1]), ("gaussian", [0, 1]), ("resample", [2, 3, 4]), ("none", [])]
)
def test_the_labels_whose_features_each_method_learns_from(method, labels):
    config = training_corpus.config(transfer={"method": method})
    assert np.flatnonzero(transfer.learns_from(config, np.arange(5) < 2)).tolist() == labels


def test_features_that_are_drawn_again_are_real_ones_of_their_label():
    config, is_head = training_corpus.config(transfer={"method": "resample"}), np.arange(L) < 2
    chosen = transfer.learns_from(config, is_head)[REAL_LABELS]
    features = FeaturesInMemory(REAL[chosen].astype(np.float32), REAL_LABELS[chosen].astype(np.int32))
    learned = transfer.fit_rival(config, features, real_sums(), is_head)
    label_ids = np.repeat([2, 3, 5], 20)
    sample = Generator("resample", make_stage().model)(learned)
    drawn = augmentation.draw_features(sample, KEY, label_ids, np.tile(np.arange(20), 3), jnp.zeros((60, D)))
    for label, feature in zip(label_ids, np.asarray(drawn), strict=True):
        assert (features_of(label).astype(np.float32) == feature).all(axis=1).any()


def state_with(sums: prototypes.FeatureSums) -> TrainState:
    return make_stage().init(jax.random.key(0), jax.random.key(0), sums)


def real_sums() -> prototypes.FeatureSums:
    return prototypes.feature_sums(jnp.asarray(REAL, jnp.float32), REAL_LABELS, np.ones(40, bool), L)


def features_of(label: int) -> np.ndarray:
    return REAL[np.equal(REAL_LABELS, label)]


REAL_VARIANCE = sum(np.var(features_of(label), axis=0, ddof=1).sum() for label in (1, 3))


@pytest.mark.parametrize(
    ("decode", "error"),
    [
        (lambda z, p: p, 0.0),
        (lambda z, p: 0 * p, 1.0),
        (lambda z, p: -p, 2.0),
        (lambda z, p: 1.5 * p, 0.5),
    ],
    ids=["prototype", "nothing", "opposite", "too far"],
)
def test_diagnostics_of_decoders_without_noise(decode, error):
    measured = transfer.diagnose(Generator("pvae", FunctionAsPvae(decode)), state_with(real_sums()), CHOSEN, KEY)
    assert measured["relative_mean_error"] == pytest.approx(error, abs=1e-5)
    assert measured["variance_ratio"] == pytest.approx(0.0, abs=1e-6)


def test_diagnostics_are_those_of_numpy_on_the_same_samples():
    """The sample variance, n - 1 in the denominator as for real features: n would be less by one part in 128."""

    def decode(z: jax.Array, prototype: jax.Array) -> jax.Array:
        return prototype + 2.0 * z

    measured = transfer.diagnose(Generator("pvae", FunctionAsPvae(decode)), state_with(real_sums()), CHOSEN, KEY)
    centres = np.stack([features_of(label).mean(axis=0) for label in CHOSEN])
    samples = [
        augmentation.draw_features(
            augmentation.from_decoder(decode, D),
            KEY,
            np.full(128, label),
            np.arange(128),
            np.tile(centre, (128, 1)).astype(np.float32),
        )
        for label, centre in zip(CHOSEN, centres, strict=True)
    ]
    samples = np.asarray(samples, np.float64)
    errors = np.linalg.norm(samples.mean(axis=1) - centres, axis=1) / np.linalg.norm(centres, axis=1)
    assert measured["relative_mean_error"] == pytest.approx(errors.mean(), rel=1e-4)
    # Only the two labels with two documents or more have a variance.
    generated = np.var(samples[:2], axis=1, ddof=1).sum()
    assert measured["variance_ratio"] == pytest.approx(generated / REAL_VARIANCE, rel=1e-4)
    assert measured["variance_ratio"] == pytest.approx(2 * 4.0 * D / REAL_VARIANCE, rel=0.1)


def test_diagnostics_of_no_label_are_zero():
    sums = prototypes.FeatureSums(jnp.zeros((L, D)), jnp.zeros(L, jnp.int32), jnp.zeros(L))
    measured = transfer.diagnose(
        Generator("pvae", FunctionAsPvae(lambda z, p: p)), state_with(sums), np.zeros(0, int), KEY
    )
    assert measured == {"relative_mean_error": 0.0, "variance_ratio": 0.0}
