import functools
import itertools
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax.config import Config
from lsfa_jax.data import negative_sampling
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.stages import representation, transfer
from lsfa_jax.training.state import init_state
from lsfa_jax.util import sharding
from tests import training_corpus
from tests.reference import classifier, contrastive, encoder
from tests.reference.agreement import assert_equal, float64

L, D = training_corpus.NUM_LABELS, 5
NO_DROPOUT = {"embedding_dropout": 0.0, "encoder_dropout": 0.0}
PROTOTYPES = np.random.default_rng(1).normal(size=(L, D)).astype(np.float32)
PRESENT = np.arange(L) != 2


def settings(**sections):
    return training_corpus.config(**{"encoder": NO_DROPOUT, **sections})


def batch_of(corpus, number=-1):
    """A batch of the training documents; the last has four documents in eight rows."""
    batches = training_corpus.batches(corpus.train)
    return batches.gather(batches.in_order()[number])


def make(config, present=PRESENT):
    """The model, its step with plain gradient descent at rate 1, and a state with prototypes."""
    model = training_corpus.make_model(config)
    state = init_state(
        jax.random.key(5),
        training_corpus.init_params(model),
        optax.sgd(1.0),
        {"prototypes": jnp.asarray(PROTOTYPES), "present": jnp.asarray(present)},
    )
    return representation.make_step(model, config, optax.sgd(1.0)), state


def reference(params, batch, psc):
    """Both losses, and the whole of them that is minimised, of a batch by the equations."""
    sides = {
        side: {name: params[f"lstm_{side}_{name}"] for name in ("w_input", "w_hidden", "bias", "h0", "c0")}
        for side in ("forward", "backward")
    }
    states = encoder.bilstm(sides, params["embedding"][batch.words], batch.lengths)
    head = {"kernel": params["head_kernel"], "bias": params["head_bias"]}
    features = encoder.label_features(states, batch.lengths, params["label_queries"], head)
    logits = classifier.scores(features, params["classifier"]["weights"])
    label_sets = [
        set(ids[mask]) if real else None
        for ids, mask, real in zip(batch.label_ids, batch.label_mask, batch.document_mask, strict=True)
    ]
    documents = batch.document_mask.sum()
    bce = classifier.binary_cross_entropy(logits, label_sets) / (documents * L)
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


CASES = {
    "sum": ({}, True),
    "released": (
        {
            "reduction": "released",
            "denominator": "double_positive",
            "normalize": False,
            "temperature": 2.0,
            "weight": 0.5,
        },
        True,
    ),
    "without": ({}, False),
}


@pytest.mark.parametrize(("psc", "contrast"), CASES.values(), ids=CASES)
def test_losses_and_gradient_are_those_of_equations_1_to_9(tiny, psc, contrast):
    config = settings(psc=psc)
    batch = batch_of(tiny)
    assert 0 < batch.document_mask.sum() < len(batch.document_mask)
    step, state = make(config)
    before = float64(state.params)
    after = step(state, batch, contrast)
    bce, contrastive_loss, whole = reference(before, batch, config.psc)
    if not contrast:
        contrastive_loss, whole = 0.0, bce
    np.testing.assert_allclose(after.loss_sums, [bce, contrastive_loss], rtol=1e-5, atol=1e-6)
    assert (int(after.step), int(after.loss_steps)) == (1, 1)

    # The step is the gradient itself, so it also tells how both losses are weighed.
    for name, index in (("head_bias", (3,)), ("head_kernel", (1, 2)), ("label_queries", (0, 4)), ("embedding", (5, 1))):
        slopes = []
        for shift in (1e-5, -1e-5):
            moved = before | {name: before[name].copy()}
            moved[name][index] += shift
            slopes.append(reference(moved, batch, config.psc)[2 if contrast else 0])
        slope = (slopes[0] - slopes[1]) / 2e-5
        ours = before[name][index] - np.asarray(after.params[name], np.float64)[index]
        np.testing.assert_allclose(ours, slope, rtol=1e-3, atol=2e-6, err_msg=name)
    assert whole > bce or not contrast


def test_padding_rows_change_nothing(tiny):
    batch = batch_of(tiny)
    padding = ~batch.document_mask
    step, state = make(training_corpus.config())
    expected = step(jax.tree.map(jnp.array, state), batch, True)
    random = np.random.default_rng(0)
    garbage = batch._replace(
        words=np.where(padding[:, None], random.integers(42, size=batch.words.shape), batch.words),
        lengths=np.where(padding, 7, batch.lengths),
        label_ids=np.where(batch.label_mask, batch.label_ids, 5),
    )
    after = step(state, garbage, True)
    assert_equal((after.params, after.loss_sums), (expected.params, expected.loss_sums))


def test_rows_added_for_the_number_of_devices_change_nothing(tiny):
    # Eight rows for one device, twelve for six of them; dropout is that of the eight.
    step, state = make(training_corpus.config())
    results = []
    for devices_ in (1, 6):
        batches = training_corpus.batches(tiny.train, 8, devices_)
        batch = batches.gather(batches.in_order()[0])
        assert len(batch.rows) == (8 if devices_ == 1 else 12)
        results.append(step(jax.tree.map(jnp.array, state), batch, True))
    few, more = results
    np.testing.assert_allclose(more.loss_sums, few.loss_sums, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), more.params, few.params)


@pytest.mark.parametrize(
    ("trainable", "collected", "learns"),
    [
        ("yes", False, True),
        ("no", True, False),
        ("after_collection", False, False),
        ("after_collection", True, True),
    ],
)
def test_word_vectors_learn_when_the_settings_say_so(tiny, trainable, collected, learns):
    config = settings(encoder=NO_DROPOUT | {"embedding_trainable": trainable})
    batch = batch_of(tiny)
    step, state = make(config, PRESENT & collected)
    before = jax.tree.map(np.array, state.params)
    after = step(state, batch, False).params
    moved = np.flatnonzero(np.any(before["embedding"] != after["embedding"], axis=1))
    assert list(moved) == (list(np.unique(batch.words[batch.words > 0])) if learns else [])
    assert np.any(before["head_kernel"] != after["head_kernel"])


def test_dropout_differs_from_step_to_step_and_repeats_with_the_seed(tiny):
    batch = batch_of(tiny)
    step, state = make(training_corpus.config())

    def loss(number, seed):
        here = replace(jax.tree.map(jnp.array, state), step=jnp.int32(number), key=jax.random.key(seed))
        return float(step(here, batch, True).loss_sums[0])

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


@pytest.fixture
def stage_of_counters(tiny, monkeypatch):
    """Makes the stage with a step that adds 1 to the one weight there is, and notes what it was asked."""

    def make(validate=None, **sections):
        seen = SimpleNamespace(contrast=[], collected=0)

        def step(state, batch, contrast):
            seen.contrast.append(contrast)
            return replace(state, step=state.step + 1, params=state.params + 1.0)

        def collect(*_):
            seen.collected += 1
            return transfer.prototypes.FeatureSums(jnp.full((2, 3), 6.0), jnp.array([3, 0]), jnp.ones(2))

        monkeypatch.setattr(representation, "make_step", lambda *_: step)
        monkeypatch.setattr(transfer, "collect_features", collect)
        config = settings(**sections)
        train = training_corpus.batches(tiny.train)
        mesh = sharding.make_mesh(jax.local_devices()[:1])
        model = training_corpus.make_model(config)
        stage = representation.make_stage(model, config, train, optax.sgd(1.0), mesh, validate)
        return stage, init_state(jax.random.key(0), jnp.zeros(()), optax.sgd(1.0), average=True), seen

    return make


def run_epochs(stage, state, epochs):
    for epoch in range(1, epochs + 1):
        state = stage.before_epoch(state, epoch)
        for number, batch in enumerate(stage.batches(epoch, 0), (epoch - 1) * stage.steps_per_epoch + 1):
            state = stage.step(state, batch, epoch, number)
    return state


@pytest.mark.parametrize(("start", "every"), [(2, 3), (3, 4), (1, 1), (9, 1)])
def test_the_average_is_over_the_weights_of_the_right_steps(stage_of_counters, start, every):
    stage, state, _ = stage_of_counters(optimizer={"swa_start_epoch": start, "swa_every": every})
    assert stage.steps_per_epoch == 5
    state = run_epochs(stage, state, 4)
    assert int(state.step) == 20
    # The weight after a step is the number of that step.
    taken = [step for step in range(1, 21) if step > 5 * (start - 1) and step % every == 0]
    assert int(state.num_averaged) == len(taken)
    if taken:
        assert float(state.average) == pytest.approx(np.mean(taken))
    assert float(state.params) == 20


def test_prototypes_are_collected_before_each_epoch_with_the_contrastive_loss(stage_of_counters):
    stage, state, seen = stage_of_counters(psc={"start_epoch": 2, "every": 2})
    state = run_epochs(stage, state, 5)
    assert seen.contrast == [epoch in (2, 4) for epoch in range(1, 6) for _ in range(5)]
    assert seen.collected == 2
    np.testing.assert_array_equal(state.extra["prototypes"], [[2.0] * 3, [6.0] * 3])
    np.testing.assert_array_equal(state.extra["present"], [True, False])


def test_validation_is_of_the_averaged_weights_once_there_are_any(stage_of_counters):
    tried = []
    stage, state, _ = stage_of_counters(
        validate=lambda weights: tried.append(float(weights)) or {"N@5": 1.0},
        optimizer={"swa_start_epoch": 2, "swa_every": 2},
    )
    for epochs in (1, 2):
        weights, measured = stage.validate(run_epochs(stage, state, epochs))
        assert measured == {"N@5": 1.0}
        assert float(weights) == tried[-1]
    assert tried == [5.0, 8.0]  # the last of five; the mean of 6, 8 and 10


def test_what_the_stage_takes_from_the_settings(stage_of_counters):
    own = {"epochs": 7, "patience": 3, "validate_every": 11, "select": "P@1"}
    stage, _, _ = stage_of_counters(representation=own, optimizer={"swa_start_epoch": 4})
    assert (stage.epochs, stage.patience, stage.validate_every, stage.select, stage.first_stop) == (7, 3, 11, "P@1", 4)
    assert (stage.name, stage.items_per_epoch, stage.unit, stage.validate) == ("representation", 36, "documents", None)
    assert stage.loss_names == ("bce", "psc")
    assert stage_of_counters(psc={"weight": 0.0})[0].loss_names == ("bce", "")


def test_batches_go_on_within_an_epoch(stage_of_counters):
    stage, _, _ = stage_of_counters()
    whole = [np.asarray(batch.rows) for batch in stage.batches(2, 0)]
    rest = [np.asarray(batch.rows) for batch in stage.batches(2, 3)]
    assert len(whole) == 5
    np.testing.assert_array_equal(rest, whole[3:])
    assert any(np.any(a != b) for a, b in zip(whole, [b.rows for b in stage.batches(3, 0)], strict=True))


def test_before_the_first_collection_no_label_has_a_prototype():
    extra = representation.no_prototypes(training_corpus.make_model(settings()))
    assert extra["prototypes"].shape == (L, D)
    assert not np.any(extra["present"])


def listed(batch, size, step=0, num_labels=L):
    """The batch with candidates for a shortlist."""
    label_ids = batch.label_ids[batch.label_mask]
    return batch._replace(candidates=negative_sampling.sample_candidates(label_ids, num_labels, size, 0, 1, step))


def copied(state):
    """A copy that a step may take."""
    return jax.tree.map(jnp.array, state)


def alone(batch, labels):
    """The batch with labels of its first document only."""
    label_ids, label_mask = np.zeros_like(batch.label_ids), np.zeros_like(batch.label_mask)
    label_ids[0, : len(labels)], label_mask[0, : len(labels)] = labels, True
    return batch._replace(label_ids=label_ids, label_mask=label_mask)


def gradient(before, after):
    """What gradient descent at rate 1 took off."""
    return jax.tree.map(lambda a, b: np.asarray(a, np.float64) - b, before.params, after.params)


ALL_ON_THE_LIST = {
    "classifier per label, contrastive sum": ({"bias": True}, CASES["sum"][0]),
    "shared classifier, contrastive mean": ({"weights": "shared", "bias": True}, CASES["released"][0]),
}


@pytest.mark.parametrize(("own", "psc"), ALL_ON_THE_LIST.values(), ids=ALL_ON_THE_LIST)
def test_a_shortlist_of_all_labels_is_the_full_loss(tiny, own, psc):
    step, state = make(settings(classifier=own, psc=psc))
    batch = batch_of(tiny)
    empty = batch._replace(document_mask=np.zeros_like(batch.document_mask), lengths=np.zeros_like(batch.lengths))
    for here in (batch, alone(batch, []), alone(batch, [3]), alone(batch, range(L)), alone(empty, [])):
        expected = step(copied(state), here, True)
        # Of 8 labels, with room for 16.
        after = step(copied(state), listed(here, 16), True)
        np.testing.assert_allclose(after.loss_sums, expected.loss_sums, rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6),
            gradient(state, after),
            gradient(state, expected),
        )


def test_whole_steps_of_adam_behind_the_clip_are_those_of_the_full_loss(tiny):
    config = training_corpus.config()
    model, optimizer = training_corpus.make_model(config), make_optimizer(config.optimizer, 0.05)
    extra = {"prototypes": jnp.asarray(PROTOTYPES), "present": jnp.asarray(PRESENT)}
    full = init_state(jax.random.key(5), training_corpus.init_params(model), optimizer, extra, average=True)
    short = copied(full)
    step = representation.make_step(model, config, optimizer)
    for number in range(4):
        batch = batch_of(tiny, number)
        full, short = step(full, batch, True), step(short, listed(batch, 16, number), True)
    # Adam divides by the gradient's size, so where that is next to nothing its rounding shows.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), replace(short, key=0), replace(full, key=0)
    )


def test_rows_that_are_not_on_the_list_stay_bit_for_bit(tiny, compiled_fast):
    config = settings(classifier={"bias": True})
    model, optimizer = training_corpus.make_model(config), make_optimizer(config.optimizer, 0.05)
    extra = {"prototypes": jnp.asarray(PROTOTYPES), "present": jnp.asarray(PRESENT)}
    state = init_state(jax.random.key(5), training_corpus.init_params(model), optimizer, extra)
    step = representation.make_step(model, config, optimizer)
    batch = alone(batch_of(tiny), [6])
    # All labels have moments after the first step.
    states = [step(state, listed(batch, 16), True)]

    def tables(state):
        """Queries, classifiers and biases, with their moments."""
        adam = state.opt_state[1][0]
        trees = [[tree["label_queries"], tree["classifier"]] for tree in (state.params, adam.mu, adam.nu)]
        return [np.array(x).reshape(L, -1) for x in jax.tree.leaves(trees)]

    before = tables(states[0])
    after = tables(step(states[0], listed(batch, 4), True))
    changed = [np.flatnonzero(np.any(old != new, axis=1)).tolist() for old, new in zip(before, after, strict=True)]
    assert len(changed) == 3 * 3
    for own in changed:
        assert own == changed[0]
        assert len(own) == 4
        assert 6 in own


def test_the_mean_over_all_draws_is_the_full_loss_and_its_gradient(tiny):
    """Exactly: every pool in every order is as likely as any, and all of them are tried."""
    step, state = make(settings())
    # Two hard ones of the list's four, one, none.
    for own in ([], [2, 7], [0, 2, 5]):
        batch = alone(batch_of(tiny), own)
        expected = step(copied(state), batch, False)
        positives = np.array([*own, *[L] * (4 - len(own))], np.int32)
        others = [label for label in range(L) if label not in own]
        losses, total = [], jax.tree.map(np.zeros_like, gradient(state, expected))
        for pool in itertools.permutations(others, 3):
            here = batch._replace(candidates=negative_sampling.Candidates(positives, np.array(pool, np.int32)))
            after = step(copied(state), here, False)
            losses.append(float(after.loss_sums[0]))
            total = jax.tree.map(np.add, total, gradient(state, after))
        assert np.std(losses) > 1e-3
        np.testing.assert_allclose(np.mean(losses), expected.loss_sums[0], rtol=1e-5)
        mean = jax.tree.map(functools.partial(np.multiply, 1 / len(losses)), total)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6), mean, gradient(state, expected)
        )


def test_the_step_needs_no_memory_that_grows_with_the_labels(tiny):
    config = settings()
    optimizer = make_optimizer(config.optimizer, 0.1)
    batch, needed = batch_of(tiny), []
    for num_labels in (1_000, 100_000):
        model = training_corpus.make_model(config).clone(num_labels=num_labels)
        words, lengths = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)

        def init(model=model, words=words, lengths=lengths):
            params = model.init(jax.random.key(0), words, lengths)["params"]
            return init_state(jax.random.key(0), params, optimizer, representation.no_prototypes(model), average=True)

        state = jax.eval_shape(init)
        step = representation.make_step(model, config, optimizer)
        memory = step.lower(state, listed(batch, 16, num_labels=num_labels), True).compile().memory_analysis()
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(replace(state, key=jnp.zeros(2, jnp.uint32))))
        # The state is written where it stood.
        assert memory.alias_size_in_bytes == pytest.approx(size, rel=0.01)
        needed.append(memory.temp_size_in_bytes)
    assert needed[1] < 1.1 * needed[0]


@pytest.mark.parametrize(
    ("shortlist", "num_labels", "size"),
    [
        ("auto", 30_000, 0),
        ("auto", 30_001, 4096),
        (0, 10**6, 0),
        (512, 513, 512),
        (512, 512, 0),
        (4096, 10, 0),
    ],
)
def test_how_long_the_shortlist_is(shortlist, num_labels, size):
    config = Config.model_validate({"representation": {"shortlist": shortlist}})
    assert representation.shortlist_size(config, num_labels) == size


def test_a_stage_with_a_shortlist_goes_on_bit_for_bit(tiny, compiled_fast):
    config = training_corpus.config(representation={"shortlist": 4}, encoder={"encoder_dropout": 0.5})
    model, optimizer = training_corpus.make_model(config), make_optimizer(config.optimizer, 0.05)
    mesh = sharding.make_mesh()
    stage = representation.make_stage(model, config, training_corpus.batches(tiny.train), optimizer, mesh, None)

    def fresh():
        params, extra = training_corpus.init_params(model), representation.no_prototypes(model)
        state = init_state(jax.random.key(1), params, optimizer, extra, average=True)
        return sharding.replicate(mesh, state)

    def run(state, first, last):
        for number in range(first, last):
            epoch, position = number // stage.steps_per_epoch + 1, number % stage.steps_per_epoch
            if position == 0:
                state = stage.before_epoch(state, epoch)
            batch = next(stage.batches(epoch, position))
            state = stage.step(state, batch, epoch, number + 1)
        return state

    whole = run(fresh(), 0, 2 * stage.steps_per_epoch)
    half = run(fresh(), 0, 7)
    # Through the host, as a checkpoint.
    stopped = replace(sharding.to_host(replace(half, key=0)), key=half.key)
    resumed = run(sharding.replicate(mesh, stopped), 7, 2 * stage.steps_per_epoch)
    assert_equal(sharding.to_host(replace(resumed, key=0)), sharding.to_host(replace(whole, key=0)))
    drawn = [np.asarray(batch.candidates.pool) for batch in stage.batches(1, 0)]
    assert all(np.any(a != b) for a, b in itertools.pairwise(drawn))


def test_several_devices_choose_and_train_as_one(tiny):
    config = settings(representation={"shortlist": 6})
    batches = training_corpus.batches(tiny.train, 8, 4)
    results = []
    for count in (1, 4):
        mesh = sharding.make_mesh(jax.local_devices()[:count])
        step, state = make(config)
        model = training_corpus.make_model(config)
        stage = representation.make_stage(model, config, batches, optax.sgd(1.0), mesh, None)
        batch = next(stage.batches(1, 0))
        assert batch.candidates is not None
        after = step(sharding.replicate(mesh, state), batch, True)
        results.append(sharding.to_host((after.params, after.loss_sums)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)
