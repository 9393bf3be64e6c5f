from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.config import Config
from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.data.candidates import with_labels
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.negative_sampling import ShortlistPool
from lsfa_jax.model.generators import Generator
from lsfa_jax.training.placement import placed as placed_on_devices
from lsfa_jax.training.stages import adjustment, transfer
from lsfa_jax.training.stages.adjustment import Adjustment, FrozenParams, Generated, distribute_generated
from lsfa_jax.training.state import TrainState
from lsfa_jax.util import sharding
from lsfa_jax.util.random_streams import Stream
from tests import training_corpus
from tests.reference import augmentation, classifier
from tests.reference import pvae as reference_pvae
from tests.reference.agreement import assert_equal, central_differences, float64

L, D, Z = training_corpus.NUM_LABELS, 5, 2
TAIL = np.array([3, 4, 6])
WEIGHT = 3.0
PLAIN = optax.sgd(1.0)


@settings(deadline=None, max_examples=100)
@given(
    tail=st.lists(st.integers(0, 30), unique=True, max_size=6),
    num_augmented=st.integers(0, 7),
    steps=st.integers(1, 9),
    seed=st.integers(0, 99),
    epoch=st.integers(1, 99),
    multiple=st.integers(1, 4),
)
def test_each_generated_feature_is_in_one_step_of_an_epoch(tail, num_augmented, steps, seed, epoch, multiple):
    parts = distribute_generated(np.array(tail, int), num_augmented, steps, seed, epoch, multiple)
    assert len(parts) == steps
    shapes = {x.shape for part in parts for x in part}
    assert len(shapes) == 1
    assert shapes.pop()[0] % multiple == 0
    numbers = [int(part.mask.sum()) for part in parts]
    assert max(numbers) - min(numbers) <= 1
    pairs = [
        (label, index)
        for part in parts
        for label, index, real in zip(part.label_ids, part.indices, part.mask, strict=True)
        if real
    ]
    assert sorted(pairs) == sorted((label, index) for label in tail for index in range(num_augmented))
    again = distribute_generated(np.array(tail, int), num_augmented, steps, seed, epoch, multiple)
    assert_equal(again, parts)


def test_the_order_of_generated_features_differs_between_epochs_and_seeds():
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        parts = distribute_generated(TAIL, 7, 5, seed, epoch)
        return tuple(np.concatenate([10 * part.label_ids + part.indices for part in parts]))

    assert len({order(0, 1), order(0, 2), order(1, 1)}) == 3


@pytest.mark.parametrize(
    ("adjust", "expected"),
    [
        ({"schedule": "joint"}, ["both"] * 8),
        ({"schedule": "alternate"}, ["real"] * 5 + ["generated", "real", "generated"]),
        ({"schedule": "alternate", "alternate_from": 1}, ["real", "generated"] * 4),
        ({"schedule": "alternate", "alternate_from": 8}, ["real"] * 8),
    ],
)
def test_what_takes_part_in_each_epoch(adjust, expected):
    names = {(True, True): "both", (True, False): "real", (False, True): "generated"}
    config = Config.model_validate({"adjust": adjust})
    assert [names[adjustment.takes_part(config, epoch)] for epoch in range(1, 9)] == expected


def random_like(tree: Any, seed: int) -> Any:
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), tree)


PVAE = transfer.make_pvae(training_corpus.config(), D)
PARAMS = training_corpus.init_params(training_corpus.make_model(training_corpus.config()))
BIAS = np.linspace(-1.5, 0.5, L).astype(np.float32)
PVAE_SHAPES = jax.eval_shape(lambda: transfer.init_variables(PVAE, jax.random.key(0))["params"])
SCALE = {"centre": np.arange(D, dtype=np.float32), "deviation": np.float32(0.7)}
FROZEN = FrozenParams(
    params={name: value for name, value in PARAMS.items() if name != "classifier"},
    prototypes=random_like(jnp.zeros((L, D)), 1),
    learned={"params": random_like(PVAE_SHAPES, 2), "scale": SCALE},
    key=jax.random.key(11),
)


def make_stage(
    corpus: Corpus,
    tail: np.ndarray = TAIL,
    validate: Callable[[Any], dict[str, float]] | None = None,
    devices: int = 1,
    shortlist: int = 0,
    optimizer: optax.GradientTransformation = PLAIN,
    bias: bool = False,
    **adjust: object,
) -> Adjustment:
    """The stage, by default with plain gradient descent at rate 1."""
    config = training_corpus.config(
        adjust={"augmented_weight": WEIGHT} | adjust,
        optimizer={"swa_every": 3},
        representation={"shortlist": shortlist},
        classifier={"bias": bias},
    )
    return Adjustment(
        training_corpus.make_model(config),
        config,
        training_corpus.batches(corpus.train, 8, devices),
        tail,
        FROZEN,
        Generator("pvae", PVAE),
        optimizer,
        sharding.make_mesh(jax.local_devices()[:devices]),
        validate,
    )


def initial_state(stage: Adjustment) -> TrainState:
    bias = {"bias": jnp.asarray(BIAS)} if stage.config.classifier.bias else {}
    return sharding.replicate(stage.mesh, stage.init(jax.random.key(5), PARAMS["classifier"] | bias))


OPTIONS: dict[str, dict[str, Any]] = {"both": {}, "bias and negatives": {"bias": True, "negative_weight": 0.5}}


@pytest.fixture(scope="module")
def stages(tiny):
    """Stages of which each epoch has both losses, and of which the first has documents, the second features."""
    with_both = {part: (make_stage(tiny, **options), 1) for part, options in OPTIONS.items()}
    alternating = make_stage(tiny, schedule="alternate", alternate_from=1)
    return with_both | {"real": (alternating, 1), "generated": (alternating, 2)}


@pytest.fixture(scope="module")
def batch(tiny):
    """Four documents in eight rows, and two generated features in four."""
    batches = training_corpus.batches(tiny.train)
    return batches.gather(batches.in_order()[-1]), distribute_generated(TAIL, 3, 5, seed=0, epoch=1, multiple=4)[1]


Loss = Callable[[dict[str, np.ndarray]], float]


def references(batch: Batch, generated: Generated, negative_weight: float = 0.0) -> tuple[Loss, Loss]:
    """Returns both losses as functions of the classifiers, by the equations."""
    exact = float64(FROZEN._replace(key=0))
    features = training_corpus.reference_features(exact.params, batch.words, batch.lengths)
    cells = batch.document_mask.sum() * L
    latents = [
        jax.random.normal(jax.random.fold_in(jax.random.fold_in(FROZEN.key, label), index), (Z,))
        for label, index in zip(generated.label_ids, generated.indices, strict=True)
    ]
    centres = exact.prototypes[generated.label_ids]
    samples = reference_pvae.decode(
        exact.learned["params"], np.array(latents, np.float64), centres, scale=exact.learned["scale"]
    )

    def bce(params: dict[str, np.ndarray]) -> float:
        scores = classifier.scores(features, params["weights"], params.get("bias"))
        return classifier.binary_cross_entropy(scores, training_corpus.label_sets(batch)) / cells

    def augmented(params: dict[str, np.ndarray]) -> float:
        label_ids, mask = generated.label_ids, generated.mask
        rows = params["weights"][label_ids], params["bias"][label_ids] if "bias" in params else None
        negative = augmentation.negative_loss(samples, *rows, label_ids, mask)
        assert negative > 0
        return (augmentation.augmented_loss(samples, *rows, mask) + negative_weight * negative) / cells

    return bce, augmented


@pytest.mark.parametrize(
    "part", ["both", "bias and negatives", pytest.param("real", marks=pytest.mark.slow), "generated"]
)
def test_losses_and_gradient_are_those_of_equations_6_and_19(stages, batch, part):
    documents, generated = batch
    assert 0 < documents.document_mask.sum() < len(documents.document_mask)
    assert 0 < generated.mask.sum() < len(generated.mask)
    stage, epoch = stages[part]
    state = initial_state(stage)
    before = float64(state.params)
    after = stage.step(state, batch, epoch, 1)
    bce, augmented = references(documents, generated, stage.config.adjust.negative_weight)
    has_real, has_generated = part != "generated", part != "real"
    np.testing.assert_allclose(after.loss_sums["bce"], has_real * bce(before), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.loss_sums["augmented"], has_generated * augmented(before), rtol=1e-4, atol=1e-6)

    def objective(params: dict[str, np.ndarray]) -> float:
        return has_real * bce(params) + WEIGHT * has_generated * augmented(params)

    assert_descended(before, after.params, objective)
    if part == "generated":
        # Only the classifiers of the generated features' labels are trained.
        trained = np.flatnonzero(np.any(before["weights"] != after.params["weights"], axis=1))
        assert set(trained) <= set(generated.label_ids[generated.mask])
        assert len(trained) > 0


def assert_descended(before: dict[str, np.ndarray], after: dict[str, jax.Array], objective: Loss) -> None:
    """Asserts that a step has subtracted the gradient of the objective from classifiers."""
    assert set(after) == set(before)
    (expected,) = central_differences(objective, before)
    for name, value in before.items():
        gradient = value - np.asarray(after[name], np.float64)
        # `central_differences` weighs a scalar by cos(1).
        np.testing.assert_allclose(gradient, expected[name] / np.cos(1.0), rtol=1e-3, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("part", OPTIONS)
def test_a_step_over_a_shortlist_of_all_labels_is_one_over_all_labels(tiny, stages, batch, part):
    """Its size, 4, is doubled until the labels of the batch fill at most half: all labels are in it."""
    documents, generated = batch
    full, epoch = stages[part]
    expected = full.step(initial_state(full), batch, epoch, 1)
    stage = make_stage(tiny, shortlist=4, **OPTIONS[part])
    streams = Stream.ADJUSTMENT_SAMPLE, Stream.ADJUSTMENT_NEGATIVES
    placed = placed_on_devices(stage.mesh, documents, stage.config, stage.train, *streams, 1, 0)
    assert len(placed.shortlist_pool.positives) >= L
    after = stage.step(initial_state(stage), (placed, generated), epoch, 1)
    assert set(after.params) == set(expected.params)
    for name, value in expected.params.items():
        np.testing.assert_allclose(after.params[name], value, rtol=1e-4, atol=1e-6)
    for name, total in expected.loss_sums.items():
        np.testing.assert_allclose(after.loss_sums[name], total, rtol=1e-5)


def test_a_step_over_a_shortlist_changes_its_rows_and_those_of_generated_features(tiny, batch):
    documents, generated = batch
    stage = make_stage(tiny, shortlist=4)
    # One label of the documents, one beside it; the generated features are of others.
    pool = ShortlistPool(np.array([1, L], np.int32), np.array([2, L], np.int32))
    one_label = documents._replace(label_ids=np.full_like(documents.label_ids, 1), shortlist_pool=pool)
    state = initial_state(stage)
    before = np.asarray(state.params["weights"])
    after = np.asarray(stage.step(state, (one_label, generated), 1, 1).params["weights"])
    changed = set(np.flatnonzero(np.any(before != after, axis=1)).tolist())
    assert changed == {1, 2, *generated.label_ids[generated.mask].tolist()}
    assert len(changed) < L


@pytest.mark.parametrize(("epoch", "changed"), [(1, "listed"), (2, "generated")])
def test_momentum_moves_only_the_rows_that_take_part_in_a_step_over_a_shortlist(tiny, batch, epoch, changed):
    documents, generated = batch
    momentum, alternate = optax.sgd(1.0, momentum=0.9), {"schedule": "alternate", "alternate_from": 1}
    stage = make_stage(tiny, shortlist=4, optimizer=momentum, **alternate)
    pool = ShortlistPool(np.array([1, L], np.int32), np.array([2, L], np.int32))
    one_label = documents._replace(label_ids=np.full_like(documents.label_ids, 1), shortlist_pool=pool)
    state = initial_state(stage)
    state = replace(state, opt_state=jax.tree.map(jnp.ones_like, state.opt_state))
    before = np.asarray(state.params["weights"])
    after = np.asarray(stage.step(state, (one_label, generated), epoch, 1).params["weights"])
    rows = {"listed": {1, 2}, "generated": set(generated.label_ids[generated.mask].tolist())}
    assert set(np.flatnonzero(np.any(before != after, axis=1)).tolist()) == rows[changed]


def test_a_step_over_candidates_that_are_all_labels_is_one_over_all_labels(tiny, stages, batch):
    documents, generated = batch
    stage, epoch = stages["both"]
    expected = stage.step(initial_state(stage), batch, epoch, 1)
    proposed = np.tile(np.arange(L, dtype=np.int32), (len(documents.rows), 1))
    listed = with_labels(documents._replace(candidates=proposed))._replace(sample=np.array([5, 2], np.int32))
    after = stage.step(initial_state(stage), (listed, generated), epoch, 1)
    np.testing.assert_allclose(after.params["weights"], expected.params["weights"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.loss_sums["bce"], expected.loss_sums["bce"], rtol=1e-5)
    np.testing.assert_array_equal(after.loss_sums["augmented"], expected.loss_sums["augmented"])


def test_batches_have_candidates_and_a_sample_where_steps_are_over_candidates(tiny):
    proposed = np.tile(np.arange(3), (len(tiny.train), 1))
    config = training_corpus.config(candidates="linear", representation={"num_sampled": 2})
    documents = Batches(tiny.train, L, 8, [16], candidates=proposed)
    model, mesh = training_corpus.make_model(config), sharding.make_mesh(jax.local_devices()[:1])
    arguments = TAIL, FROZEN, Generator("pvae", PVAE), optax.sgd(1.0), mesh
    epoch = [batch for batch, _ in Adjustment(model, config, documents, *arguments).batches(1, 0)]
    for batch in epoch:
        assert batch.sample.shape == (2,)
        for row, labels in zip(batch.candidates, training_corpus.label_sets(batch), strict=True):
            assert set(np.asarray(row[: len(labels or ())]).tolist()) == (labels or set())
    with pytest.raises(ValueError, match="no candidates"):
        Adjustment(model, config, training_corpus.batches(tiny.train), *arguments)


def test_a_step_changes_nothing_but_the_classifiers(stages, batch):
    stage, epoch = stages["both"]

    def frozen_values() -> Any:
        return jax.tree.map(np.array, FROZEN._replace(key=jax.random.key_data(FROZEN.key)))

    before, state = frozen_values(), initial_state(stage)
    weights = np.array(state.params["weights"])
    after = stage.step(state, batch, epoch, 1)
    assert set(after.params) == {"weights"}
    assert np.any(weights != after.params["weights"])
    assert_equal(frozen_values(), before)
    # The state had a copy of the classifiers: its memory is donated, that of the classifiers is not.
    np.testing.assert_array_equal(PARAMS["classifier"]["weights"], weights)


def test_padding_of_generated_features_changes_nothing(stages, batch):
    stage, epoch = stages["both"]
    documents, generated = batch
    expected = stage.step(initial_state(stage), batch, epoch, 1)
    padded_otherwise = generated._replace(
        label_ids=np.where(generated.mask, generated.label_ids, 6).astype(np.int32)
    )  # fmt: skip
    after = stage.step(initial_state(stage), (documents, padded_otherwise), epoch, 1)
    assert_equal((after.params, after.loss_sums), (expected.params, expected.loss_sums))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"tail": np.zeros(0, int)}, {"num_augmented": 0}, {"augmented_weight": 0.0}],
    ids=["no tail", "none generated", "no weight"],
)
def test_without_augmentation_every_epoch_is_of_documents(tiny, batch, options):
    stage = make_stage(tiny, schedule="alternate", alternate_from=1, **options)
    results = []
    for epoch in (1, 2):
        state = initial_state(stage)
        assert set(state.loss_sums) == {"bce"}
        results.append(stage.step(state, batch, epoch, 1))
    assert float(results[0].loss_sums["bce"]) > 0
    assert_equal(*[(state.params, state.loss_sums) for state in results])
    assert len(list(stage.batches(1, 0))) == stage.steps_per_epoch


@pytest.mark.parametrize("average", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_weights_are_averaged_over_the_stage(tiny, average):
    """The weights of every swa_every-th step, from the first epoch on, enter the mean; params stay the raw ones."""
    stage, weights = make_stage(tiny, average=average), []
    state = initial_state(stage)
    for epoch in (1, 2):
        for batch in stage.batches(epoch, 0):
            state = stage.step(state, batch, epoch, len(weights) + 1)
            weights.append(np.array(state.params["weights"]))
    assert len(weights) == 10
    assert int(state.num_averaged) == (3 if average else 0)
    np.testing.assert_array_equal(state.params["weights"], weights[-1])
    if average:
        expected = np.mean([weights[step - 1] for step in (3, 6, 9)], axis=0)
        np.testing.assert_allclose(state.average["weights"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("adjust", "expected"),
    [
        ({"epochs": 9}, 1),
        ({"epochs": 9, "schedule": "alternate"}, 6),
        ({"epochs": 5, "schedule": "alternate"}, 1),
        ({"epochs": 5, "schedule": "alternate", "alternate_from": 2}, 3),
    ],
)
def test_the_stage_does_not_stop_before_generated_features_took_part(tiny, adjust, expected):
    assert make_stage(tiny, **adjust).first_stop == expected


def test_the_stage_reads_its_settings(tiny):
    stage = make_stage(tiny, epochs=7, patience=3, select="P@1")
    assert (stage.epochs, stage.patience, stage.select) == (7, 3, "P@1")
    assert (stage.name, stage.items_per_epoch, stage.unit) == ("adjustment", 36, "documents")


def test_validation_is_of_the_encoder_with_the_adjusted_classifiers(tiny):
    measured: list[Any] = []
    stage = make_stage(tiny, validate=lambda params: measured.append(params) or {"N@5": 1.0})
    state, batches = initial_state(stage), stage.batches(1, 0)
    for number in (1, 2, 3, 4):
        state = stage.step(state, next(batches), 1, number)
        classifiers, metrics = stage.validate(state)
        assert metrics == {"N@5": 1.0}
        assert_equal(measured[-1], FROZEN.params | {"classifier": classifiers})
        # The current classifiers until the average begins, at the third step.
        assert_equal(classifiers, state.params if number < 3 else state.average)
        assert np.any(state.average["weights"] != state.params["weights"]) == (number != 3)
    assert make_stage(tiny).validate(state) is None


def test_batches_have_documents_and_their_share_of_generated_features(tiny):
    stage = make_stage(tiny, num_augmented=7, devices=4)
    epoch, rest = list(stage.batches(2, 0)), list(stage.batches(2, 3))
    assert len(epoch) == stage.steps_per_epoch == 5
    documents = np.concatenate([batch.rows[batch.document_mask] for batch, _ in epoch])
    assert sorted(documents) == list(range(len(tiny.train)))
    parts = [zip(*map(np.asarray, generated), strict=True) for _, generated in epoch]
    pairs = sorted((int(label), int(index)) for part in parts for label, index, real in part if real)
    assert pairs == [(label, index) for label in TAIL for index in range(7)]
    assert_equal(*(jax.tree.map(np.asarray, batches) for batches in (rest, epoch[3:])))


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_logit_adjustment_shifts_the_logits_of_the_loss_alone(tiny, batch, bias):
    """Of classifiers without a bias too; the gradient is that of Eq. 6 at the shifted logits."""
    documents, _ = batch
    stage = make_stage(tiny, method="logit_adjustment", bias=bias)
    offsets = np.linspace(-3, 1, L).astype(np.float32)
    stage.frozen = FROZEN._replace(offsets=jnp.asarray(offsets))
    state = initial_state(stage)
    before = float64(state.params)
    exact = float64(FROZEN._replace(key=0))
    features = training_corpus.reference_features(exact.params, documents.words, documents.lengths)
    cells = documents.document_mask.sum() * L

    def loss(params: dict[str, np.ndarray]) -> float:
        scores = classifier.scores(features, params["weights"], params.get("bias")) + offsets
        return classifier.binary_cross_entropy(scores, training_corpus.label_sets(documents)) / cells

    after = stage.step(state, batch, 1, 1)
    assert set(after.params) == ({"weights", "bias"} if bias else {"weights"})
    assert set(after.loss_sums) == {"bce"}
    np.testing.assert_allclose(after.loss_sums["bce"], loss(before), rtol=1e-4, atol=1e-6)
    assert_descended(before, after.params, loss)


def test_the_dropout_of_the_frozen_encoder_differs_from_step_to_step_where_the_settings_keep_it(tiny, batch):
    stage = make_stage(tiny, tail=TAIL[:0], encoder_dropout=True)

    def loss(number: int) -> float:
        return float(stage.step(replace(initial_state(stage), step=jnp.int32(number)), batch, 1, 1).loss_sums["bce"])

    assert loss(0) == loss(0) != loss(1)


def test_class_balanced_retraining_draws_documents_and_no_features(tiny):
    stage = make_stage(tiny, method="crt")
    assert not stage.augments
    epochs = [[np.asarray(batch.rows[batch.document_mask]) for batch, _ in stage.batches(e, 0)] for e in (1, 2)]
    assert [len(epoch) for epoch in epochs] == [stage.steps_per_epoch] * 2
    documents = [np.sort(np.concatenate(epoch)) for epoch in epochs]
    assert len(documents[0]) == len(tiny.train)
    assert len(np.unique(documents[0])) < len(tiny.train)
    assert np.any(documents[0] != documents[1])
    rest = [np.asarray(batch.rows[batch.document_mask]) for batch, _ in stage.batches(1, 2)]
    assert_equal(rest, epochs[0][2:])


def test_nothing_is_generated_without_a_generator(tiny):
    config = training_corpus.config(transfer={"method": "none"})
    arguments = training_corpus.batches(tiny.train), TAIL, FROZEN, Generator("none", PVAE), optax.sgd(1.0)
    mesh = sharding.make_mesh(jax.local_devices()[:1])
    assert not Adjustment(training_corpus.make_model(config), config, *arguments, mesh).augments
