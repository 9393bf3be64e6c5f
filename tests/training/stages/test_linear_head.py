import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.training.stages import linear_head
from lsfa_jax.training.state import init_state
from lsfa_jax.util import sharding
from tests.reference import augmentation, classifier

L, D, N = 4, 3, 7
SETS = [[0], [1, 2], [], [3, 0], [2], [1], [0, 1, 2, 3]]
LABELS = Ragged(np.array([label for own in SETS for label in own], np.int32), np.cumsum([0, *map(len, SETS)]))
TAIL = np.array([1, 3])


def stage_and_step(count=1, batch_size=4, weight=2.0):
    """The stage over random features, with a decoder that moves the prototype by the latent."""
    random = np.random.default_rng(0)
    step = linear_head.make_step(lambda scale: lambda z, p: p + scale * z, D, weight, optax.sgd(1.0))
    frozen = linear_head.Frozen(
        pvae=jnp.float32(0.5),
        prototypes=jnp.asarray(random.normal(size=(L, D)), jnp.float32),
        shift=jnp.asarray(random.normal(size=D), jnp.float32),
        key=jax.random.key(3),
    )
    features = random.normal(size=(N, D)).astype(np.float32)
    mesh = sharding.make_mesh(jax.local_devices()[:count])
    stage = linear_head.make_stage(
        step, features, LABELS, L, TAIL, 5, frozen, mesh, epochs=2, batch_size=batch_size, seed=0
    )  # fmt: skip
    return stage, step, features, frozen


@pytest.mark.parametrize("intercept", [True, False])
def test_a_step_is_the_gradient_of_equations_6_and_19(intercept):
    stage, step, _, frozen = stage_and_step()
    *_, (documents, generated) = stage.batches(1, 0)
    mask = np.asarray(documents.mask)
    assert 0 < mask.sum() < len(mask)
    assert 0 < np.sum(generated.mask) <= len(generated.mask)
    random = np.random.default_rng(1)
    head = {"coef": random.normal(size=(L, D))} | ({"intercept": random.normal(size=L)} if intercept else {})

    features = np.asarray(documents.features, np.float64)[mask]
    sets = [ids[real] for ids, real in zip(*map(np.asarray, documents[1:3]), strict=True)][: len(features)]
    latents = [
        jax.random.normal(jax.random.fold_in(jax.random.fold_in(frozen.key, label), index), (D,))
        for label, index in zip(generated.label_ids, generated.indices, strict=True)
    ]
    own = np.asarray(generated.label_ids)
    made = np.asarray(frozen.shift) + np.asarray(frozen.prototypes)[own] + 0.5 * np.array(latents, np.float64)

    def losses(head):
        bias = head.get("intercept")
        every_label = np.repeat(features[:, None], L, axis=1)
        bce = classifier.binary_cross_entropy(classifier.scores(every_label, head["coef"], bias), sets)
        augmented = augmentation.augmented_loss(
            made, head["coef"][own], None if bias is None else bias[own], np.asarray(generated.mask)
        )
        return np.array([bce, augmented]) / len(features)

    state = init_state(
        jax.random.key(0), jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), head), optax.sgd(1.0), validated=False
    )
    after = step(state, (documents, generated), frozen)
    np.testing.assert_allclose(after.loss_sums, losses(head), rtol=1e-4, atol=1e-6)
    for name, value in head.items():
        slopes = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            shifted = []
            for shift in (1e-5, -1e-5):
                moved = value.copy()
                moved[index] += shift
                bce, augmented = losses(head | {name: moved})
                shifted.append(bce + 2.0 * augmented)
            slopes[index] = (shifted[0] - shifted[1]) / 2e-5
        np.testing.assert_allclose(
            value - np.asarray(after.params[name], np.float64), slopes, rtol=1e-3, atol=1e-5, err_msg=name
        )


@pytest.mark.parametrize("count", [1, 4])
def test_an_epoch_meets_each_document_and_each_generated_feature_once(count):
    stage, _, features, _ = stage_and_step(count, batch_size=3)
    for epoch in (1, 2):
        seen, pairs = [], []
        for documents, generated in stage.batches(epoch, 0):
            for feature, ids, labels, real in zip(*map(np.asarray, documents), strict=True):
                if real:
                    (row,) = np.flatnonzero((features == feature).all(axis=1))
                    assert sorted(ids[labels]) == sorted(SETS[row])
                    seen.append(row)
            dealt = zip(*map(np.asarray, generated), strict=True)
            pairs += [(label, index) for label, index, real in dealt if real]
        assert sorted(seen) == list(range(N))
        assert sorted(pairs) == [(label, index) for label in TAIL for index in range(5)]
