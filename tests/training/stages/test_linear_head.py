import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.model.augmentation import from_decoder
from lsfa_jax.training.stages.linear_head import FrozenInputs, HeadSettings, LinearHead
from lsfa_jax.util import sharding
from tests.reference import augmentation, classifier
from tests.reference.agreement import central_differences

L, D, N = 4, 3, 7
LABEL_SETS = [[0], [1, 2], [], [3, 0], [2], [1], [0, 1, 2, 3]]
LABELS = Ragged(np.concatenate(LABEL_SETS).astype(np.int32), np.cumsum([0, *map(len, LABEL_SETS)]))
TAIL = np.array([1, 3])
WEIGHT = 2.0
FEATURES = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


def make_stage(devices: int = 1, batch_size: int = 4) -> LinearHead:
    """The stage over random features, with a decoder that adds the scaled latent to the prototype."""
    random = np.random.default_rng(2)
    frozen = FrozenInputs(
        learned=jnp.float32(0.5),
        prototypes=jnp.asarray(random.normal(size=(L, D)), jnp.float32),
        shift=jnp.asarray(random.normal(size=D), jnp.float32),
        key=jax.random.key(3),
    )
    settings = HeadSettings(epochs=2, batch_size=batch_size, augmented_weight=WEIGHT, num_augmented=5, seed=0)
    return LinearHead(
        lambda scale: from_decoder(lambda z, p: p + scale * z, D),
        settings,
        FEATURES,
        LABELS,
        L,
        TAIL,
        frozen,
        optax.sgd(1.0),
        sharding.make_mesh(jax.local_devices()[:devices]),
    )


@pytest.mark.parametrize("intercept", [True, False])
def test_a_step_is_the_gradient_of_equations_6_and_19(intercept):
    stage = make_stage()
    *_, (documents, generated) = stage.batches(1, 0)
    mask = np.asarray(documents.mask)
    assert 0 < mask.sum() < len(mask)
    assert 0 < np.sum(generated.mask) <= len(generated.mask)
    random = np.random.default_rng(1)
    head = {"coef": random.normal(size=(L, D))} | ({"intercept": random.normal(size=L)} if intercept else {})

    features = np.asarray(documents.features, np.float64)[mask]
    rows = zip(*map(np.asarray, documents[1:3]), strict=True)
    label_sets = [label_ids[real] for label_ids, real in rows][: len(features)]
    label_ids = np.asarray(generated.label_ids)
    frozen = stage.frozen
    latents = [
        jax.random.normal(jax.random.fold_in(jax.random.fold_in(frozen.key, label), index), (D,))
        for label, index in zip(label_ids, generated.indices, strict=True)
    ]
    samples = np.asarray(frozen.shift) + np.asarray(frozen.prototypes)[label_ids] + 0.5 * np.array(latents, np.float64)

    def losses(head: dict[str, np.ndarray]) -> tuple[float, float]:
        bias = head.get("intercept")
        every_label = np.repeat(features[:, None], L, axis=1)
        bce = classifier.binary_cross_entropy(classifier.scores(every_label, head["coef"], bias), label_sets)
        augmented = augmentation.augmented_loss(
            samples, head["coef"][label_ids], None if bias is None else bias[label_ids], np.asarray(generated.mask)
        )
        return bce / len(features), augmented / len(features)

    def objective(head: dict[str, np.ndarray]) -> float:
        bce, augmented = losses(head)
        return bce + WEIGHT * augmented

    state = stage.init(jax.random.key(0), {name: value.astype(np.float32) for name, value in head.items()})
    after = stage.step(state, (documents, generated), 1, 1)
    bce, augmented = losses(head)
    np.testing.assert_allclose(after.loss_sums["bce"], bce, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.loss_sums["augmented"], augmented, rtol=1e-4, atol=1e-6)
    (expected,) = central_differences(objective, head)
    for name, value in head.items():
        gradient = value - np.asarray(after.params[name], np.float64)
        # `central_differences` weighs a scalar by cos(1).
        np.testing.assert_allclose(gradient, expected[name] / np.cos(1.0), rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("devices", [1, 4])
def test_an_epoch_has_each_document_and_each_generated_feature_once(devices):
    stage = make_stage(devices, batch_size=3)
    for epoch in (1, 2):
        rows, pairs = [], []
        for documents, generated in stage.batches(epoch, 0):
            for feature, label_ids, label_mask, real in zip(*map(np.asarray, documents), strict=True):
                if real:
                    (row,) = np.flatnonzero((feature == FEATURES).all(axis=1))
                    assert sorted(label_ids[label_mask]) == sorted(LABEL_SETS[row])
                    rows.append(row)
            distributed = zip(*map(np.asarray, generated), strict=True)
            pairs += [(label, index) for label, index, real in distributed if real]
        assert sorted(rows) == list(range(N))
        assert sorted(pairs) == [(label, index) for label in TAIL for index in range(5)]
