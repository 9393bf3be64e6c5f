from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.config import Config
from lsfa_jax.model import pvae
from lsfa_jax.model.lsfa import CLASSIFIER
from lsfa_jax.training.stages import adjustment, transfer
from lsfa_jax.training.state import init_state
from lsfa_jax.util import sharding
from tests import training_corpus
from tests.reference import augmentation, classifier, encoder
from tests.reference import pvae as reference_pvae
from tests.reference.agreement import assert_equal, float64

L, D, Z = training_corpus.NUM_LABELS, 5, 2
TAIL = np.array([3, 4, 6])


@settings(deadline=None, max_examples=100)
@given(
    tail=st.lists(st.integers(0, 30), unique=True, max_size=6),
    num_augmented=st.integers(0, 7),
    steps=st.integers(1, 9),
    seed=st.integers(0, 99),
    epoch=st.integers(1, 99),
    multiple=st.integers(1, 4),
)
def test_each_generated_feature_is_dealt_once_an_epoch(tail, num_augmented, steps, seed, epoch, multiple):
    dealt = adjustment.deal_generated(np.array(tail, int), num_augmented, steps, seed, epoch, multiple)
    assert len(dealt) == steps
    shapes = {x.shape for one in dealt for x in one}
    assert len(shapes) == 1
    assert shapes.pop()[0] % multiple == 0
    pairs = [
        (label, index)
        for one in dealt
        for label, index, real in zip(one.label_ids, one.indices, one.mask, strict=True)
        if real
    ]
    assert sorted(pairs) == sorted((label, index) for label in tail for index in range(num_augmented))
    again = adjustment.deal_generated(np.array(tail, int), num_augmented, steps, seed, epoch, multiple)
    assert_equal(again, dealt)


def test_the_order_of_generated_features_is_another_in_each_epoch_and_seed():
    orders = [
        tuple(np.concatenate([10 * one.label_ids + one.indices for one in adjustment.deal_generated(TAIL, 7, 5, *key)]))
        for key in ((0, 1), (0, 2), (1, 1))
    ]
    assert len(set(orders)) == 3


@pytest.mark.parametrize(
    ("own", "turns"),
    [
        ({"schedule": "joint"}, ["both"] * 8),
        ({"schedule": "alternate"}, ["real"] * 5 + ["generated", "real", "generated"]),
        ({"schedule": "alternate", "alternate_from": 1}, ["real", "generated"] * 4),
        ({"schedule": "alternate", "alternate_from": 8}, ["real"] * 8),
    ],
)
def test_what_takes_part_in_each_epoch(own, turns):
    names = {(True, True): "both", (True, False): "real", (False, True): "generated"}
    config = Config.model_validate({"adjust": own})
    assert [names[adjustment.takes_part(config, epoch)] for epoch in range(1, 9)] == turns


def random_like(tree, seed):
    leaves, structure = jax.tree.flatten(tree)
    random = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [jnp.asarray(random.normal(size=x.shape), jnp.float32) for x in leaves])


@pytest.fixture(scope="module")
def setting(tiny):
    """A model with plain gradient descent at rate 1, what is frozen, a batch with generated pairs, and a new state."""
    config = training_corpus.config(adjust={"augmented_weight": 3.0})
    model = training_corpus.make_model(config)
    params = training_corpus.init_params(model)
    generator = transfer.make_pvae(config, D)
    frozen = adjustment.Frozen(
        encoder={name: value for name, value in params.items() if name != CLASSIFIER},
        prototypes=random_like(jnp.zeros((L, D)), 1),
        pvae=random_like(transfer.init_variables(generator, jax.random.key(0))[0], 2),
        pvae_statistics={},
        key=jax.random.key(11),
    )
    batches = training_corpus.batches(tiny.train)
    batch = batches.gather(batches.in_order()[-1])
    generated = adjustment.deal_generated(TAIL, 3, 5, seed=0, epoch=1, multiple=4)[1]
    step = adjustment.make_step(model, config, optax.sgd(1.0), lambda *made: transfer.decoder(generator, *made))

    def start():
        return init_state(jax.random.key(5), jax.tree.map(jnp.array, params[CLASSIFIER]), optax.sgd(1.0))

    return step, frozen, (batch, generated), start


def references(frozen, batch, generated):
    """Both losses as functions of the classifier's weights, by the equations."""
    exact = float64({"encoder": frozen.encoder, "pvae": frozen.pvae, "prototypes": frozen.prototypes})
    sides = {
        side: {name: exact["encoder"][f"lstm_{side}_{name}"] for name in ("w_input", "w_hidden", "bias", "h0", "c0")}
        for side in ("forward", "backward")
    }
    states = encoder.bilstm(sides, exact["encoder"]["embedding"][batch.words], batch.lengths)
    head = {"kernel": exact["encoder"]["head_kernel"], "bias": exact["encoder"]["head_bias"]}
    features = encoder.label_features(states, batch.lengths, exact["encoder"]["label_queries"], head)
    label_sets = [
        set(ids[mask]) if real else None
        for ids, mask, real in zip(batch.label_ids, batch.label_mask, batch.document_mask, strict=True)
    ]
    cells = batch.document_mask.sum() * L
    latents = [
        jax.random.normal(jax.random.fold_in(jax.random.fold_in(frozen.key, label), index), (Z,))
        for label, index in zip(generated.label_ids, generated.indices, strict=True)
    ]
    made = reference_pvae.decode(exact["pvae"], np.array(latents, np.float64), exact["prototypes"][generated.label_ids])

    def bce(weights):
        return classifier.binary_cross_entropy(classifier.scores(features, weights), label_sets) / cells

    def augmented(weights):
        return augmentation.augmented_loss(made, weights[generated.label_ids], None, generated.mask) / cells

    return bce, augmented


def slopes(function, weights):
    out = np.zeros_like(weights)
    for index in np.ndindex(weights.shape):
        values = []
        for shift in (1e-5, -1e-5):
            moved = weights.copy()
            moved[index] += shift
            values.append(function(moved))
        out[index] = (values[0] - values[1]) / 2e-5
    return out


@pytest.mark.parametrize("part", ["both", "real", "generated"])
def test_losses_and_gradient_are_those_of_equations_6_and_19(setting, part):
    step, frozen, (batch, generated), start = setting
    assert 0 < generated.mask.sum() < len(generated.mask)
    state = start()
    before = float64(state.params)["weights"]
    after = step(state, (batch, generated), frozen, part != "generated", part != "real")
    bce, augmented = references(frozen, batch, generated)
    expected = [bce(before) if part != "generated" else 0.0, augmented(before) if part != "real" else 0.0]
    np.testing.assert_allclose(after.loss_sums, expected, rtol=1e-4, atol=1e-6)

    gradient = before - np.asarray(after.params["weights"], np.float64)
    expected = np.zeros_like(before)
    if part != "generated":
        expected += slopes(bce, before)
    if part != "real":
        expected += 3.0 * slopes(augmented, before)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=2e-6)
    if part == "generated":
        # Only the classifiers of the pairs' own labels are touched.
        touched = np.flatnonzero(np.any(gradient, axis=1))
        assert set(touched) <= set(generated.label_ids[generated.mask])
        assert len(touched) > 0


def test_the_classifiers_are_all_that_a_step_changes(setting):
    step, frozen, pair, start = setting
    public = frozen._replace(key=jax.random.key_data(frozen.key))
    before = jax.tree.map(np.array, public)
    state = start()
    old = np.array(state.params["weights"])
    after = step(state, pair, frozen, True, True)
    assert set(after.params) == {"weights"}
    assert np.any(old != after.params["weights"])
    assert_equal(public, before)


def test_padding_pairs_change_nothing(setting):
    step, frozen, (batch, generated), start = setting
    expected = step(start(), (batch, generated), frozen, True, True)
    other = generated._replace(label_ids=np.where(generated.mask, generated.label_ids, 6).astype(np.int32))
    after = step(start(), (batch, other), frozen, True, True)
    assert_equal((after.params, after.loss_sums), (expected.params, expected.loss_sums))


def stage_of(tiny, monkeypatch, tail=TAIL, validate=None, count=1, **own):
    """The stage with a step that adds 1 to the one weight there is, and notes what it was asked."""
    asked = []

    def step(state, pair, frozen, real, augment):
        asked.append((real, augment))
        return replace(state, step=state.step + 1, params={"weights": state.params["weights"] + 1.0})

    monkeypatch.setattr(adjustment, "make_step", lambda *_: step)
    config = training_corpus.config(adjust=own, optimizer={"swa_every": 3})
    frozen = adjustment.Frozen({"head_bias": 1}, None, None, None, None)
    stage = adjustment.make_stage(
        training_corpus.make_model(config),
        config,
        training_corpus.batches(tiny.train, 8, count),
        tail,
        frozen,
        None,
        optax.sgd(1.0),
        sharding.make_mesh(jax.local_devices()[:count]),
        validate,
    )
    return stage, asked


def begin():
    return init_state(jax.random.key(0), {"weights": jnp.zeros(())}, optax.sgd(1.0), average=True)


def test_a_step_is_asked_for_what_takes_part(tiny, monkeypatch):
    stage, asked = stage_of(tiny, monkeypatch, schedule="alternate", alternate_from=1)
    for epoch in (1, 2):
        stage.step(begin(), None, epoch, 1)
    assert asked == [(True, False), (False, True)]
    assert stage.loss_names == ("bce", "augmented")


@pytest.mark.parametrize(
    "options",
    [{"tail": np.zeros(0, int)}, {"num_augmented": 0}, {"augmented_weight": 0.0}],
    ids=["no tail", "none generated", "no weight"],
)
def test_without_augmentation_every_epoch_is_of_documents(tiny, monkeypatch, options):
    stage, asked = stage_of(tiny, monkeypatch, schedule="alternate", alternate_from=1, **options)
    for epoch in (1, 2):
        stage.step(begin(), None, epoch, 1)
    assert asked == [(True, False)] * 2
    assert stage.loss_names == ("bce", "")
    assert len(list(stage.batches(1, 0))) == stage.steps_per_epoch


@pytest.mark.parametrize("average", [True, False])
def test_weights_are_averaged_over_the_whole_stage(tiny, monkeypatch, average):
    stage, _ = stage_of(tiny, monkeypatch, average=average)
    state = begin()
    for step in range(10):
        state = stage.step(state, None, 1 + step // 5, step + 1)
    # The weight after a step is the number of that step; every third enters.
    assert int(state.num_averaged) == (3 if average else 0)
    assert float(state.average["weights"]) == (6.0 if average else 0.0)
    assert float(state.params["weights"]) == 10.0


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"epochs": 9}, 1),
        ({"epochs": 9, "schedule": "alternate"}, 6),
        ({"epochs": 5, "schedule": "alternate"}, 1),
        ({"epochs": 5, "schedule": "alternate", "alternate_from": 2}, 3),
    ],
)
def test_the_stage_does_not_stop_before_generated_features_had_their_turn(tiny, monkeypatch, own, expected):
    assert stage_of(tiny, monkeypatch, **own)[0].first_stop == expected


def test_validation_is_of_the_encoder_with_the_adjusted_classifiers(tiny, monkeypatch):
    stage, _ = stage_of(tiny, monkeypatch, validate=lambda weights: {"N@5": 1.0, "seen": weights})
    state, tried = begin(), []
    for number in (1, 2, 3):
        state = stage.step(state, None, 1, number)
        weights, measured = stage.validate(state)
        assert measured["seen"] == {"head_bias": 1, CLASSIFIER: weights}
        tried.append(weights)
    # The current ones until the average begins.
    assert [float(weights["weights"]) for weights in tried] == [1.0, 2.0, 3.0]
    state = stage.step(state, None, 1, 4)
    assert float(stage.validate(state)[0]["weights"]) == 3.0
    assert stage_of(tiny, monkeypatch)[0].validate is None


def test_batches_bring_documents_and_their_share_of_generated_pairs(tiny, monkeypatch):
    stage, _ = stage_of(tiny, monkeypatch, num_augmented=7, count=4)
    whole, rest = list(stage.batches(2, 0)), list(stage.batches(2, 3))
    assert len(whole) == stage.steps_per_epoch == 5
    real = np.concatenate([batch.rows[batch.document_mask] for batch, _ in whole])
    assert sorted(real) == list(range(len(tiny.train)))
    made = sorted((int(x), int(j)) for _, g in whole for x, j, real in zip(*g, strict=True) if real)
    assert made == [(label, index) for label in TAIL for index in range(7)]
    for ours, theirs in zip(rest, whole[3:], strict=True):
        assert_equal(jax.tree.map(np.asarray, ours), jax.tree.map(np.asarray, theirs))


def test_generated_features_come_from_the_decoder_without_batch_statistics_in_motion(tiny):
    """The decoder norm's statistics are those of the PVAE's training, and are not moved by sampling."""
    model = pvae.Pvae(feature_size=D, hidden_size=4, latent_size=Z, decoder_norm=True, nonnegative=False)
    params, statistics = transfer.init_variables(model, jax.random.key(0))
    moved = jax.tree.map(lambda x: x + 2.0, statistics)
    z, centre = jnp.ones(Z), jnp.ones(D)
    plain, other = (transfer.decoder(model, params, one)(z, centre) for one in (statistics, moved))
    # (x - 2) / sqrt(3) against x / 1: mean 0 + 2, variance 1 + 2.
    np.testing.assert_allclose(other, (plain * np.sqrt(1 + 1e-5) - 2) / np.sqrt(3 + 1e-5), rtol=1e-4, atol=1e-5)


def test_weights_are_averaged_over_the_stage(tiny, monkeypatch):
    """The weights of every swa_every-th step, from the first on, enter the mean; params stay the raw ones."""

    def fake_step(state, batch, frozen, real, augment):
        return replace(state, step=state.step + 1, params={"weights": state.params["weights"] + 1.0})

    monkeypatch.setattr(adjustment, "make_step", lambda *args: fake_step)
    config = training_corpus.config(optimizer={"swa_every": 2})
    tail = np.array([1])
    stage = adjustment.make_stage(
        None, config, training_corpus.batches(tiny.train), tail, None, None, None, sharding.make_mesh(), None
    )
    state = init_state(jax.random.key(0), {"weights": jnp.zeros(3)}, optax.sgd(1.0), average=True)
    for number in range(1, 7):
        state = stage.step(state, None, 1, number)
    assert int(state.num_averaged) == 3
    np.testing.assert_allclose(state.average["weights"], np.full(3, np.mean([2, 4, 6])))
    np.testing.assert_allclose(state.params["weights"], np.full(3, 6.0))
