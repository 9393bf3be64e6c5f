import functools
import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax.config import Config, Psc
from lsfa_jax.data import negative_sampling
from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.data.candidates import with_labels as with_labels_in_front
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.model.prototypes import prototypes
from lsfa_jax.training import collection, shortlist
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.stages import representation
from lsfa_jax.training.stages.representation import Representation, candidate_step, full_step, shortlist_step
from lsfa_jax.training.state import TrainState, init_state, with_best_on_host
from lsfa_jax.util import sharding
from tests import training_corpus
from tests.reference import candidates, classifier, contrastive
from tests.reference.agreement import assert_equal, central_differences, float64

L, D = training_corpus.NUM_LABELS, 5
NO_DROPOUT = {"embedding_dropout": 0.0, "encoder_dropout": 0.0}
PROTOTYPES = np.random.default_rng(1).normal(size=(L, D)).astype(np.float32)
PRESENT = np.arange(L) != 2

Step = Callable[..., TrainState]


def settings(**sections: Any) -> Config:
    return training_corpus.config(**{"encoder": NO_DROPOUT, **sections})


def batch_of(corpus: Corpus, number: int = -1) -> Batch:
    """A batch of the training documents; the last has four documents in eight rows."""
    batches = training_corpus.batches(corpus.train)
    return batches.gather(batches.in_order()[number])


def compiled(step: Step, config: Config, optimizer: optax.GradientTransformation) -> Step:
    """Compiles `full_step` or `shortlist_step`; it donates nothing."""
    model = training_corpus.make_model(config)
    return jax.jit(functools.partial(step, model, config, optimizer), static_argnums=2)


def state_with_prototypes(
    config: Config, optimizer: optax.GradientTransformation, present: np.ndarray = PRESENT, **options: bool
) -> TrainState:
    params = training_corpus.init_params(training_corpus.make_model(config))
    extra = {"prototypes": jnp.asarray(PROTOTYPES), "present": jnp.asarray(present)}
    return init_state(jax.random.key(5), params, optimizer, ("bce", "psc"), extra, **options)


@functools.cache
def _descent(config: Config) -> tuple[Step, Step]:
    return tuple(compiled(step, config, optax.sgd(1.0)) for step in (full_step, shortlist_step))


def descent(config: Config, present: np.ndarray = PRESENT) -> tuple[Step, Step, TrainState]:
    """Both steps with plain gradient descent at rate 1, and a state with prototypes."""
    return *_descent(config), state_with_prototypes(config, optax.sgd(1.0), present)


def gradient(before: TrainState, after: TrainState) -> Any:
    """What gradient descent at rate 1 subtracted."""
    return jax.tree.map(lambda a, b: np.asarray(a, np.float64) - b, before.params, after.params)


def head_kernel(params: dict[str, Any]) -> jax.Array:
    return params["labels"]["head"]["kernel"]


def head_bias(params: dict[str, Any]) -> jax.Array:
    return params["labels"]["head"]["bias"]


def sums(state: TrainState) -> list[float]:
    return [float(state.loss_sums["bce"]), float(state.loss_sums["psc"])]


def reference(params: dict[str, Any], batch: Batch, psc: Psc) -> tuple[float, float, float]:
    """Both losses of a batch, and the objective, by the equations."""
    features = training_corpus.reference_features(params, batch.words, batch.lengths)
    weights, bias = params["classifier"]["weights"], params["classifier"].get("bias")
    logits = classifier.scores(
        features, np.broadcast_to(weights, (L, D)), None if bias is None else np.broadcast_to(bias, L)
    )
    documents = batch.document_mask.sum()
    bce = classifier.binary_cross_entropy(logits, training_corpus.label_sets(batch)) / (documents * L)
    pairs = np.argwhere(batch.label_mask)
    label_ids = batch.label_ids[tuple(pairs.T)]
    total = contrastive.prototypical_contrastive(
        np.array([features[b, label] for (b, _), label in zip(pairs, label_ids, strict=True)]),
        label_ids,
        np.ones(len(pairs), bool),
        PROTOTYPES.astype(np.float64),
        PRESENT,
        psc.temperature,
        psc.normalize,
        psc.denominator,
    )
    divisor = documents * L if psc.reduction == "sum" else len(pairs) * documents
    return bce, total / len(pairs), bce + psc.weight * total / divisor


RELEASED = {
    "reduction": "released", "denominator": "double_positive", "normalize": False, "temperature": 2.0, "weight": 0.5
}  # fmt: skip
PER_LABEL, SHARED = (
    settings(classifier={"bias": True}),
    settings(classifier={"weights": "shared", "bias": True}, psc=RELEASED),
)
CASES = [
    pytest.param(PER_LABEL, True, id="classifier per label, contrastive sum"),
    pytest.param(SHARED, True, id="shared classifier, released contrastive mean", marks=pytest.mark.slow),
    pytest.param(settings(), False, id="no bias, no contrast"),
]


@pytest.mark.parametrize(("config", "contrast"), CASES)
def test_losses_and_gradient_are_those_of_equations_1_to_9(tiny, config, contrast):
    batch = batch_of(tiny)
    assert 0 < batch.document_mask.sum() < len(batch.document_mask)
    step, _, state = descent(config)
    before = float64(state.params)
    after = step(state, batch, contrast)
    bce, psc_loss, objective = reference(before, batch, config.psc)
    np.testing.assert_allclose(sums(after), [bce, psc_loss if contrast else 0.0], rtol=1e-5, atol=1e-6)
    assert (int(after.step), int(after.loss_steps)) == (1, 1)
    assert objective > bce

    # The step subtracts the gradient itself, so both losses must be weighed and divided as in the objective.
    # Entries of some tables, because NumPy's objective is slow.
    def tables(params: Any) -> list[np.ndarray]:
        return [params["labels"]["head"]["bias"][3:4], params["labels"]["head"]["kernel"][1:2, 2:3],
                params["labels"]["queries"][0:1, 4:5], params["encoder"]["embedding"][5:6, 1:2]]  # fmt: skip

    def moved_objective(values: list[np.ndarray]) -> float:
        moved = jax.tree.map(np.copy, before)
        for view, value in zip(tables(moved), values, strict=True):
            view[:] = value
        return reference(moved, batch, config.psc)[2 if contrast else 0]

    (expected,) = central_differences(moved_objective, tables(before))
    for actual, value in zip(tables(gradient(state, after)), expected, strict=True):
        # `central_differences` weighs a scalar by cos(1).
        np.testing.assert_allclose(actual, value / np.cos(1.0), rtol=1e-3, atol=2e-6)


@pytest.mark.slow
def test_padding_rows_change_nothing(tiny):
    batch = batch_of(tiny)
    padding = ~batch.document_mask
    step, _, state = descent(training_corpus.config())
    expected = step(state, batch, True)
    random = np.random.default_rng(0)
    garbage = batch._replace(
        words=np.where(padding[:, None], random.integers(42, size=batch.words.shape), batch.words),
        lengths=np.where(padding, 7, batch.lengths),
        label_ids=np.where(batch.label_mask, batch.label_ids, 5),
    )
    after = step(state, garbage, True)
    assert_equal((after.params, after.loss_sums), (expected.params, expected.loss_sums))


@pytest.mark.slow
def test_rows_added_for_the_number_of_devices_change_nothing(tiny):
    # Eight rows for one device, twelve for six of them; dropout is that of the eight.
    step, _, state = descent(training_corpus.config())
    results = []
    for devices, rows in ((1, 8), (6, 12)):
        batches = training_corpus.batches(tiny.train, 8, devices)
        batch = batches.gather(batches.in_order()[0])
        assert len(batch.rows) == rows
        results.append(step(state, batch, True))
    few, more = results
    np.testing.assert_allclose(sums(more), sums(few), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), more.params, few.params)


@pytest.mark.parametrize(
    ("trainable", "collected", "trains"),
    [
        ("yes", False, True),
        pytest.param("no", True, False, marks=pytest.mark.slow),
        pytest.param("after_collection", False, False, marks=pytest.mark.slow),
        pytest.param("after_collection", True, True, marks=pytest.mark.slow),
    ],
)
def test_word_vectors_train_when_the_settings_say_so(tiny, trainable, collected, trains):
    config, batch = settings(encoder=NO_DROPOUT | {"embedding_trainable": trainable}), batch_of(tiny)
    step, _, state = descent(config, PRESENT & collected)
    after = step(state, batch, False).params
    moved = np.flatnonzero(np.any(state.params["encoder"]["embedding"] != after["encoder"]["embedding"], axis=1))
    assert list(moved) == (list(np.unique(batch.words[batch.words > 0])) if trains else [])
    assert np.any(head_kernel(state.params) != head_kernel(after))


@pytest.mark.slow
def test_dropout_differs_from_step_to_step_and_repeats_with_the_seed(tiny):
    batch = batch_of(tiny)
    step, _, state = descent(training_corpus.config())

    def loss(number: int, seed: int) -> float:
        return sums(step(replace(state, step=jnp.int32(number), key=jax.random.key(seed)), batch, True))[0]

    assert loss(0, 5) == loss(0, 5)
    assert len({loss(0, 5), loss(1, 5), loss(0, 6)}) == 3


@pytest.mark.parametrize(
    ("psc", "epochs"),
    [
        ({}, [2, 3, 4, 5, 6, 7, 8]),
        ({"start_epoch": 1}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"start_epoch": 3, "every": 2}, [3, 5, 7]),
        ({"start_epoch": 2, "every": 3}, [2, 5, 8]),
        ({"start_epoch": 9}, []),
        ({"weight": 0.0, "start_epoch": 1}, []),
    ],
)
def test_epochs_with_the_contrastive_loss(psc, epochs):
    config = Config.model_validate({"psc": {"start_epoch": 2} | psc})
    assert [epoch for epoch in range(1, 9) if representation.uses_contrast(config, epoch)] == epochs


@pytest.mark.parametrize(
    ("psc", "epochs"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"start_epoch": 4}, [1, 2, 3, 4, 5]),
        ({"start_epoch": 3, "every": 2}, [3, 5]),
        ({"start_epoch": 6}, []),
        ({"weight": 0.0}, []),
    ],
)
def test_epochs_before_the_contrastive_loss_run_the_program_of_those_with_it(psc, epochs):
    config = Config.model_validate({"psc": {"start_epoch": 2} | psc, "representation": {"epochs": 5}})
    assert [epoch for epoch in range(1, 6) if representation.computes_contrast(config, epoch)] == epochs


def test_without_prototypes_the_contrastive_loss_changes_nothing(tiny):
    step, _, state = descent(PER_LABEL, present=np.zeros(L, bool))
    batch = batch_of(tiny)
    after = step(state, batch, True)
    assert sums(after)[1] == 0
    for changed, expected in zip(
        jax.tree.leaves(after.params), jax.tree.leaves(step(state, batch, False).params), strict=True
    ):
        np.testing.assert_allclose(changed, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("swa", "psc", "epochs", "wait", "expected"),
    [
        (10, {"start_epoch": 2}, 30, True, 10),
        (3, {"start_epoch": 7}, 30, True, 7),
        (3, {"start_epoch": 7, "weight": 0.0}, 30, True, 3),
        (10, {"start_epoch": 4}, 6, True, 4),
        (10, {"start_epoch": 7}, 6, True, 1),
        (10, {"start_epoch": 2}, 30, False, 1),
    ],
    ids=["SWA last", "PSC last", "no PSC", "SWA never", "neither", "does not wait"],
)
def test_the_first_epoch_after_which_training_may_stop(swa, psc, epochs, wait, expected):
    config = Config.model_validate(
        {
            "optimizer": {"swa_start_epoch": swa},
            "psc": psc,
            "representation": {"epochs": epochs, "wait_for_stages": wait},
        }
    )
    assert representation.first_stop(config) == expected


ONE_DEVICE = sharding.make_mesh(jax.local_devices()[:1])


def make_stage(
    corpus: Corpus,
    config: Config,
    validate: Callable[[Any], dict[str, float]] | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> Representation:
    """The stage on one device."""
    model, batches = training_corpus.make_model(config), training_corpus.batches(corpus.train)
    return Representation(model, config, batches, optimizer or optax.sgd(0.1), ONE_DEVICE, validate)


def initial_state(stage: Representation) -> TrainState:
    # As in a run: a state without the mesh's sharding would be compiled separately from those that steps return.
    return sharding.replicate(stage.mesh, stage.init(jax.random.key(1), training_corpus.init_params(stage.model)))


@pytest.fixture(scope="module")
def shared_stage(tiny):
    """A stage whose steps are compiled once; each test sets the settings that choose contrast and average."""
    return make_stage(tiny, settings())


def run_epochs(stage: Representation, epochs: int, record: Callable[[TrainState], object] | None = None) -> TrainState:
    """Runs epochs of a stage from its start and calls `record` after each step."""
    state = initial_state(stage)
    for epoch in range(1, epochs + 1):
        state = stage.before_epoch(state, epoch)
        for batch in stage.batches(epoch, 0):
            state = stage.step(state, batch, epoch, int(state.step) + 1)
            if record:
                record(state)
    return state


@pytest.mark.parametrize(
    ("start", "every", "recency"), [(2, 3, 0.0), (3, 4, 0.0), (1, 1, 0.0), (9, 1, 0.0), (2, 3, 3.0)]
)
def test_the_average_is_over_the_weights_of_the_right_steps(shared_stage, start, every, recency):
    stage, biases = shared_stage, []
    swa = {"swa_start_epoch": start, "swa_every": every, "swa_recency": recency}
    stage.config = settings(optimizer=swa, psc={"start_epoch": 99})
    assert stage.steps_per_epoch == 5
    state = run_epochs(stage, 4, lambda state: biases.append(np.array(head_bias(state.params))))
    assert int(state.step) == 20
    averaged = [step for step in range(1, 21) if step > 5 * (start - 1) and step % every == 0]
    assert int(state.num_averaged) == len(averaged)
    if averaged:
        expected = 0.0
        for number, step in enumerate(averaged, start=1):
            share = (recency + 1) / (number + recency)
            expected = (1 - share) * expected + share * biases[step - 1]
        np.testing.assert_allclose(head_bias(state.average), expected, rtol=1e-5)
    np.testing.assert_array_equal(head_bias(state.params), biases[-1])


@pytest.mark.slow
def test_prototypes_are_collected_before_each_epoch_with_the_contrastive_loss(shared_stage):
    stage, present, contrast = shared_stage, [], []
    stage.config = settings(psc={"start_epoch": 2, "every": 2})
    state = initial_state(stage)
    for epoch in range(1, 6):
        expected = prototypes_of(stage, state) if epoch in (2, 4) else state.extra
        state = stage.before_epoch(state, epoch)
        assert_equal(state.extra, expected)
        present.append(bool(np.all(state.extra["present"])))
        for batch in stage.batches(epoch, 0):
            earlier = sums(state)[1]
            state = stage.step(state, batch, epoch, int(state.step) + 1)
            contrast.append(sums(state)[1] > earlier)
    assert present == [False, True, True, True, True]
    assert contrast == [epoch in (2, 4) for epoch in range(1, 6) for _ in range(5)]


def prototypes_of(stage: Representation, state: TrainState) -> dict[str, jax.Array]:
    features = collection.collect_features(stage.model, state.params, stage.train, stage.mesh)
    return {"prototypes": prototypes(features), "present": features.counts > 0}


def test_validation_is_of_the_averaged_weights_once_there_are_any(tiny, shared_stage):
    validated: list[Any] = []
    config = settings(optimizer={"swa_start_epoch": 2, "swa_every": 2}, psc={"start_epoch": 99})
    shared_stage.config = config
    validating = make_stage(tiny, config, lambda params: validated.append(params) or {"N@5": 1.0})
    for epochs, averages in ((1, False), (2, True)):
        state = run_epochs(shared_stage, epochs)
        params, metrics = validating.validate(state)
        assert metrics == {"N@5": 1.0}
        assert params is validated[-1]
        assert_equal(params, state.average if averages else state.params)
        assert np.any(head_bias(state.average) != head_bias(state.params))


def test_the_stage_reads_its_settings(tiny):
    changed = {"epochs": 7, "patience": 3, "validate_every": 11, "select": "P@1"}
    stage = make_stage(tiny, settings(representation=changed, optimizer={"swa_start_epoch": 4}))
    assert (stage.epochs, stage.patience, stage.validate_every, stage.select, stage.first_stop) == (7, 3, 11, "P@1", 4)
    assert (stage.name, stage.items_per_epoch, stage.unit) == ("representation", 36, "documents")
    state = initial_state(stage)
    assert stage.validate(state) is None
    assert set(state.loss_sums) == {"bce", "psc"}
    assert set(initial_state(make_stage(tiny, settings(psc={"weight": 0.0}))).loss_sums) == {"bce"}


def test_batches_continue_within_an_epoch(tiny):
    stage = make_stage(tiny, settings())
    epoch = [np.asarray(batch.rows) for batch in stage.batches(2, 0)]
    rest = [np.asarray(batch.rows) for batch in stage.batches(2, 3)]
    assert len(epoch) == 5
    np.testing.assert_array_equal(rest, epoch[3:])
    assert any(np.any(a != b) for a, b in zip(epoch, [batch.rows for batch in stage.batches(3, 0)], strict=True))


def test_before_the_first_collection_no_label_has_a_prototype(tiny):
    extra = initial_state(make_stage(tiny, settings())).extra
    assert extra["prototypes"].shape == (L, D)
    assert not np.any(extra["present"])


def listed(batch: Batch, size: int, step: int = 0, num_labels: int = L) -> Batch:
    """The batch with candidates for a shortlist."""
    label_ids = batch.label_ids[batch.label_mask]
    return batch._replace(shortlist_pool=negative_sampling.sample_pool(label_ids, num_labels, size, 0, 1, step))


def with_labels(batch: Batch, labels: Iterable[int]) -> Batch:
    """The batch with the given labels for its first document, and none for the others."""
    labels = list(labels)
    label_ids, label_mask = np.zeros_like(batch.label_ids), np.zeros_like(batch.label_mask)
    label_ids[0, : len(labels)], label_mask[0, : len(labels)] = labels, True
    return batch._replace(label_ids=label_ids, label_mask=label_mask)


@pytest.mark.slow
@pytest.mark.parametrize("config", [PER_LABEL, SHARED], ids=["per label", "shared"])
def test_a_shortlist_of_all_labels_is_the_full_loss(tiny, config):
    full, short, state = descent(config)
    batch = batch_of(tiny)
    empty = batch._replace(document_mask=np.zeros_like(batch.document_mask), lengths=np.zeros_like(batch.lengths))
    cases = (
        batch, with_labels(batch, []), with_labels(batch, [3]), with_labels(batch, range(L)), with_labels(empty, [])
    )  # fmt: skip
    for case in cases:
        expected = full(state, case, True)
        # The 8 labels on a shortlist of 16.
        after = short(state, listed(case, 16), True)
        np.testing.assert_allclose(sums(after), sums(expected), rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6),
            gradient(state, after),
            gradient(state, expected),
        )


ADAM_CONFIG = training_corpus.config(classifier={"bias": True})
ADAM = make_optimizer(ADAM_CONFIG.optimizer, 0.05)
SHORT_ADAM_STEP = compiled(shortlist_step, ADAM_CONFIG, ADAM)


@pytest.mark.slow
def test_steps_of_adam_behind_the_clip_are_those_of_the_full_loss(tiny):
    full_state = short_state = state_with_prototypes(ADAM_CONFIG, ADAM)
    full, short = compiled(full_step, ADAM_CONFIG, ADAM), SHORT_ADAM_STEP
    for number in range(4):
        batch = batch_of(tiny, number)
        full_state, short_state = full(full_state, batch, True), short(short_state, listed(batch, 16, number), True)
    # Adam divides by the gradient's size, which magnifies rounding where a gradient is almost zero.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        replace(short_state, key=0),
        replace(full_state, key=0),
    )


@pytest.mark.slow
def test_rows_that_are_not_on_the_shortlist_stay_bit_for_bit(tiny):
    step, batch = SHORT_ADAM_STEP, with_labels(batch_of(tiny), [6])
    # All labels have moments after the first step.
    state = step(state_with_prototypes(ADAM_CONFIG, ADAM), listed(batch, 16), True)

    def tables(state: TrainState) -> list[np.ndarray]:
        """Queries, classifiers and biases, with their moments."""
        adam = state.opt_state[1][0]
        trees = [[tree["labels"]["queries"], tree["classifier"]] for tree in (state.params, adam.mu, adam.nu)]
        return [np.array(x).reshape(L, -1) for x in jax.tree.leaves(trees)]

    pairs = zip(tables(state), tables(step(state, listed(batch, 4), True)), strict=True)
    changed = [np.flatnonzero(np.any(before != after, axis=1)).tolist() for before, after in pairs]
    assert len(changed) == 3 * 3
    for label_ids in changed:
        assert label_ids == changed[0]
        assert len(label_ids) == 4
        assert 6 in label_ids


@pytest.mark.slow
def test_the_mean_over_all_samples_is_the_full_loss_and_its_gradient(tiny):
    """Exactly: every pool in every order is equally likely, and all of them are tried."""
    full, short, state = descent(settings())
    # The shortlist has four labels: three, two and one of them are negative.
    for positives in ([], [2, 7], [0, 2, 5]):
        batch = with_labels(batch_of(tiny), positives)
        expected = full(state, batch, False)
        padded = np.array([*positives, *[L] * (4 - len(positives))], np.int32)
        negatives = [label for label in range(L) if label not in positives]
        losses, total = [], jax.tree.map(np.zeros_like, gradient(state, expected))
        for pool in itertools.permutations(negatives, 3):
            candidates = negative_sampling.ShortlistPool(padded, np.array(pool, np.int32))
            after = short(state, batch._replace(shortlist_pool=candidates), False)
            losses.append(sums(after)[0])
            total = jax.tree.map(np.add, total, gradient(state, after))
        assert np.std(losses) > 1e-3
        np.testing.assert_allclose(np.mean(losses), sums(expected)[0], rtol=1e-5)
        mean = jax.tree.map(functools.partial(np.multiply, 1 / len(losses)), total)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6), mean, gradient(state, expected)
        )


@pytest.mark.slow
def test_the_shortlist_step_needs_no_memory_that_grows_with_the_labels(tiny):
    config = settings()
    optimizer = make_optimizer(config.optimizer, 0.1)
    batch, needed = batch_of(tiny), []
    for num_labels in (1_000, 100_000):
        model = training_corpus.make_model(config).clone(num_labels=num_labels)
        batches = training_corpus.batches(tiny.train)
        stage = Representation(model, config, batches, optimizer, ONE_DEVICE)

        def init(model=model, stage=stage):
            words, lengths = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
            return stage.init(jax.random.key(0), model.init(jax.random.key(0), words, lengths)["params"])

        state = jax.eval_shape(init)
        step = jax.jit(
            functools.partial(shortlist_step, model, config, optimizer), static_argnums=2, donate_argnums=0
        )  # fmt: skip
        memory = step.lower(state, listed(batch, 16, num_labels=num_labels), True).compile().memory_analysis()
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(replace(state, key=jnp.zeros(2, jnp.uint32))))
        # The new state is written into the memory of the old one.
        assert memory.alias_size_in_bytes == pytest.approx(size, rel=0.01)
        needed.append(memory.temp_size_in_bytes)
    assert needed[1] < 1.1 * needed[0]


@pytest.mark.parametrize(
    ("setting", "num_labels", "size"),
    [
        ("auto", 30_000, 0),
        ("auto", 30_001, 4096),
        (0, 10**6, 0),
        (512, 513, 512),
        (512, 512, 0),
        (4096, 10, 0),
    ],
)
def test_the_size_of_the_shortlist(setting, num_labels, size):
    config = Config.model_validate({"representation": {"shortlist": setting}})
    assert shortlist.size(config, num_labels) == size


def test_candidates_of_a_resumed_epoch_are_those_of_the_full_epoch(tiny):
    stage = make_stage(tiny, settings(representation={"shortlist": 4}))
    epoch = [to_numpy(batch.shortlist_pool) for batch in stage.batches(2, 0)]
    assert all(np.any(a.pool != b.pool) for a, b in itertools.combinations(epoch, 2))
    for start in range(1, 5):
        resumed = [to_numpy(batch.shortlist_pool) for batch in stage.batches(2, start)]
        assert len(resumed) == 5 - start
        assert_equal(resumed, epoch[start:])


def with_candidates(batch: Batch, width: int) -> Batch:
    """The batch with the same number of random proposals for each document, its labels in front, and a sample."""
    random = np.random.default_rng(3)
    proposed = np.stack([random.permutation(L)[:width] for _ in batch.rows]).astype(np.int32)
    return with_labels_in_front(batch._replace(candidates=proposed, sample=np.array([6, 1, 4], np.int32)))


@pytest.mark.parametrize(("config", "contrast"), CASES)
def test_a_step_with_all_labels_as_candidates_is_one_over_all_labels(tiny, config, contrast):
    batch, optimizer = batch_of(tiny), optax.sgd(1.0)
    step, _, state = descent(config)
    expected = step(state, batch, contrast)
    after = compiled(candidate_step, config, optimizer)(state, with_candidates(batch, L), contrast)
    np.testing.assert_allclose(sums(after), sums(expected), rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.params, expected.params)


def test_the_losses_of_a_step_are_those_of_the_candidates_and_the_sample(tiny):
    batch = with_candidates(batch_of(tiny), 5)
    _, _, state = descent(PER_LABEL)
    after = compiled(candidate_step, PER_LABEL, optax.sgd(1.0))(state, batch, True)
    params, sets, psc = float64(state.params), training_corpus.label_sets(batch), PER_LABEL.psc
    features = training_corpus.reference_features(params, batch.words, batch.lengths)
    logits = classifier.scores(features, params["classifier"]["weights"], params["classifier"]["bias"])
    bce = candidates.binary_cross_entropy(logits, batch.candidates, sets, batch.sample)
    listed = [rows[labels] for rows, labels in zip(features, np.maximum(batch.candidates, 0), strict=True)]
    options = psc.temperature, psc.normalize, psc.denominator
    exact = PROTOTYPES.astype(np.float64), PRESENT
    total = candidates.contrastive(listed, batch.candidates, sets, batch.sample, *exact, *options)
    expected = [bce / (batch.document_mask.sum() * L), total / batch.label_mask.sum()]
    np.testing.assert_allclose(sums(after), expected, rtol=1e-5)


@pytest.mark.slow
def test_a_step_over_candidates_on_four_devices_is_that_on_one(tiny):
    batch = with_candidates(batch_of(tiny), 5)
    _, _, state = descent(PER_LABEL)
    step, mesh = compiled(candidate_step, PER_LABEL, optax.sgd(1.0)), sharding.make_mesh()
    assert mesh.size == 4
    expected = step(state, batch, True)
    sharded = sharding.shard_batch(mesh, batch._replace(sample=None))
    sharded = sharded._replace(sample=sharding.replicate(mesh, batch.sample))
    after = step(sharding.replicate(mesh, state), sharded, True)
    np.testing.assert_allclose(sums(after), sums(expected), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.params, expected.params)


def candidate_stage(corpus: Corpus) -> Representation:
    config = settings(candidates="linear", representation={"num_sampled": 3})
    proposed = np.stack([np.random.default_rng(row).permutation(L)[:4] for row in range(len(corpus.train))])
    batches = Batches(corpus.train, L, 8, [16], candidates=proposed)
    return Representation(training_corpus.make_model(config), config, batches, optax.sgd(0.1), ONE_DEVICE)


def test_candidates_and_samples_of_a_resumed_epoch_are_those_of_the_full_epoch(tiny):
    stage = candidate_stage(tiny)
    epoch = [to_numpy(batch) for batch in stage.batches(2, 0)]
    assert all(batch.sample.shape == (3,) for batch in epoch)
    assert any(np.any(a.sample != b.sample) for a, b in itertools.pairwise(epoch))
    for batch in epoch:
        for row, labels in zip(batch.candidates, training_corpus.label_sets(batch), strict=True):
            assert set(row[: len(labels or ())]) == (labels or set())
    assert_equal([to_numpy(batch) for batch in stage.batches(2, 3)], epoch[3:])


def test_a_step_over_candidates_needs_the_candidates(tiny):
    with pytest.raises(ValueError, match="no candidates"):
        make_stage(tiny, settings(candidates="linear"))


@pytest.mark.slow
def test_a_stage_with_candidates_learns_as_one_over_all_labels(tiny):
    batch = batch_of(tiny, 0)
    step, _, state = descent(settings())

    def loss(params: Any) -> float:
        return sums(step(replace(state, params=params), batch, False))[0]

    stage = candidate_stage(tiny)
    before, over_candidates = loss(initial_state(stage).params), loss(run_epochs(stage, 8).params)
    over_all = loss(run_epochs(make_stage(tiny, settings()), 8).params)
    assert over_all < before
    assert before - over_candidates > 0.8 * (before - over_all), (before, over_candidates, over_all)


def to_numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


@pytest.mark.slow
@pytest.mark.parametrize("sparing", [False, True])
def test_a_stage_with_a_shortlist_continues_bit_for_bit(tiny, sparing):
    """Also with little memory for the rows of labels: rounded, with fewer moments, the best weights on the host."""
    optimizer = {"label_rows": "row_adam", "label_precision": "bfloat16"} if sparing else {}
    placed = with_best_on_host if sparing else lambda state: state
    config = training_corpus.config(
        representation={"shortlist": 4},
        encoder={"encoder_dropout": 0.5},
        psc={"start_epoch": 1},
        optimizer=optimizer,
    )
    stage = make_stage(tiny, config, optimizer=make_optimizer(config.optimizer, 0.05))

    def run(state: TrainState, first: int, last: int) -> TrainState:
        """Trains the steps from `first` to `last`, with the batches of an epoch loaded in one go."""
        while first < last:
            epoch, position = first // stage.steps_per_epoch + 1, first % stage.steps_per_epoch
            if position == 0:
                state = stage.before_epoch(state, epoch)
            for batch in itertools.islice(stage.batches(epoch, position), last - first):
                first += 1
                state = stage.step(state, batch, epoch, first)
        return state

    expected = run(placed(initial_state(stage)), 0, 10)
    half = run(placed(initial_state(stage)), 0, 7)
    if sparing:
        assert half.params["labels"]["queries"].dtype == jnp.bfloat16
        assert {x.sharding.memory_kind for x in jax.tree.leaves((half.average, half.best))} == {"pinned_host"}
    # Through the host, as a checkpoint.
    stopped = replace(to_numpy(replace(half, key=0)), key=half.key)
    resumed = run(placed(sharding.replicate(stage.mesh, stopped)), 7, 10)
    assert_equal(to_numpy(replace(resumed, key=0)), to_numpy(replace(expected, key=0)))


@pytest.mark.slow
def test_several_devices_choose_and_train_as_one(tiny):
    config = settings(representation={"shortlist": 6})
    batches = training_corpus.batches(tiny.train, 8, 4)
    model, results = training_corpus.make_model(config), []
    for count in (1, 4):
        mesh = sharding.make_mesh(jax.local_devices()[:count])
        stage = Representation(model, config, batches, optax.sgd(1.0), mesh)
        batch = next(stage.batches(1, 0))
        assert batch.shortlist_pool is not None
        state = sharding.replicate(mesh, state_with_prototypes(config, optax.sgd(1.0), average=True))
        after = stage.step(state, batch, 2, 1)
        assert sums(after)[1] > 0
        results.append(to_numpy((after.params, after.loss_sums)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)
