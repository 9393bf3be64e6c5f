"""What the released code does otherwise than the paper, where it weighs most: the profile brings each of it back."""

import json
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax import config
from lsfa_jax.cli import train as command
from lsfa_jax.config import Config, merged
from lsfa_jax.model import pvae
from lsfa_jax.training import loop
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.stages import representation, transfer
from lsfa_jax.training.state import init_state
from lsfa_jax.util import interrupts, sharding
from tests import training_corpus
from tests.reference.agreement import assert_equal

D, L = 5, training_corpus.NUM_LABELS
SMALL = {
    "encoder": {
        "embedding_size": 3,
        "hidden_size": 4,
        "feature_size": D,
        "embedding_dropout": 0.0,
        "encoder_dropout": 0.0,
    },
    "pvae": {"hidden_size": 6, "latent_size": 2},
}


def settings(profile, **sections) -> Config:
    """A profile as it is in the files, with small layers."""
    return Config.model_validate(merged(merged(config.layered("custom", "full", profile), SMALL), sections))


def batch_of(tiny):
    batches = training_corpus.batches(tiny.train)
    return batches.gather(batches.in_order()[0])


@pytest.mark.parametrize(("profile", "rows"), [("paper", L), ("released", 1)])
def test_1_all_labels_share_one_classifier(tiny, profile, rows):
    model = training_corpus.make_model(settings(profile))
    params = training_corpus.init_params(model)
    assert params["classifier"]["weights"].shape == (rows, D)
    # Labels that attend to the same words have the same features, and can then not be told apart.
    params["label_queries"] = jnp.broadcast_to(params["label_queries"][:1], (L, 8))
    batch = batch_of(tiny)
    logits = np.asarray(model.apply({"params": params}, batch.words, batch.lengths))
    spread = np.ptp(logits, axis=1)
    assert np.all(spread > 1e-3) if profile == "paper" else np.all(spread < 1e-5)


def run_pvae(profile, features):
    """The PVAE of a profile after a step on features, one of them of each label."""
    own = settings(profile)
    model = transfer.make_pvae(own, D)
    params, statistics = transfer.init_variables(model, jax.random.key(0))
    ids = jnp.arange(len(features))
    sums = transfer.prototypes.feature_sums(features, ids, ids >= 0, len(features))
    state = init_state(
        jax.random.key(1), params, optax.sgd(0.1), {"sums": sums, "batch_stats": statistics}, validated=False
    )
    return transfer.make_step(model, own, optax.sgd(0.1))(state, transfer.PairBatch(features, ids, ids >= 0))


@pytest.mark.parametrize("profile", ["paper", "released"])
def test_2_features_and_prototypes_are_cast_to_integers(profile):
    features = jnp.asarray(np.random.default_rng(0).uniform(-0.99, 2.99, size=(12, D)), jnp.float32)
    cast = jnp.trunc(features)
    assert jnp.all(cast[jnp.abs(features) < 1] == 0)
    ours, theirs = run_pvae(profile, features), run_pvae(profile, cast)
    same = (ours.params, ours.loss_sums), (theirs.params, theirs.loss_sums)
    if profile == "released":
        assert_equal(*same)
    else:
        assert not np.allclose(ours.loss_sums, theirs.loss_sums, rtol=1e-3)

    # Where all features are between -1 and 1, encoder and decoder see nothing but zeros.
    small, model = features / 3, transfer.make_pvae(settings(profile), D)
    variables = model.init(jax.random.key(0), small, small, jnp.zeros((12, 2)))
    inside = model.apply(variables, jnp.zeros((12, 2)), small, method=pvae.Pvae.decode)
    nothing = model.apply(variables, jnp.zeros((12, 2)), 0 * small, method=pvae.Pvae.decode)
    assert np.array_equal(inside, nothing) == (profile == "released")


@pytest.mark.parametrize(("profile", "frozen_first"), [("paper", False), ("released", True)])
def test_3_word_vectors_are_frozen_until_prototypes_are_collected_and_then_trained(tiny, profile, frozen_first):
    own = settings(profile)
    model = training_corpus.make_model(own)
    step, batch = representation.make_step(model, own, optax.sgd(1.0)), batch_of(tiny)

    def learns(collected):
        extra = representation.no_prototypes(model)
        extra["present"] = jnp.full(L, collected)
        state = init_state(jax.random.key(0), training_corpus.init_params(model), optax.sgd(1.0), extra)
        before = np.array(state.params["embedding"])
        return bool(np.any(before != step(state, batch, False).params["embedding"]))

    assert learns(collected=False) == (not frozen_first)
    assert learns(collected=True)


@pytest.mark.parametrize("profile", ["paper", "released"])
def test_4_the_posterior_is_never_narrower_than_the_prior(profile):
    model = transfer.make_pvae(settings(profile), D)
    random = np.random.default_rng(1)
    features, centres = (jnp.asarray(random.normal(0, 5, size=(200, D)), jnp.float32) for _ in range(2))
    variables = model.init(jax.random.key(0), features, centres, jnp.zeros((200, 2)))
    variables["params"]["encoder_log_variance"]["bias"] -= 1.0
    mu, log_variance = model.apply(variables, features, centres, method=pvae.Pvae.encode)
    variance, negative = np.exp(log_variance), np.any(np.asarray(mu) < 0)
    if profile == "released":
        assert np.all(variance >= 1)
        assert np.any(variance > 1)
        assert not negative
    else:
        assert np.any(variance < 1)
        assert negative


@pytest.mark.usefixtures("shared_steps")
def test_a_run_with_the_profile_resumes_with_the_decoders_statistics(tmp_path, monkeypatch, compiled_fast):
    data = training_corpus.write(tmp_path / "data")
    short = ("--profile", "released", "--optimizer.swa-start-epoch", 1, "--adjust.alternate-from", 1)
    short += ("--psc.start-epoch", 9, "--representation.validate-every", 0, "--pvae.learning-rate", 0.01)

    def train(*line):
        return command.train(command.parse([str(word) for word in line]))

    def stop_at(call):
        def check():
            nonlocal left
            left -= sys._getframe(1).f_code.co_name == "run"
            if not left:
                raise interrupts.Interrupted(15)

        left = call
        return check

    line = (*training_corpus.arguments(data, tmp_path / "whole"), *short)
    expected = train(*line)
    assert (tmp_path / "whole" / "config.toml").read_text().count("after_collection") == 1
    folder = tmp_path / "stopped"
    line = (*training_corpus.arguments(data, folder), *short)
    for call in (18, 12):  # 15 steps and two of the PVAE; six more of it and five of adjustment
        with monkeypatch.context() as patch:
            patch.setattr(interrupts, "check", stop_at(call))
            with pytest.raises(interrupts.Interrupted):
                train(*line)
        line = ("--output", folder, "--resume")
    found = train(*line)
    names = [{k: v for k, v in one.items() if k != "seconds"} for one in (found, expected)]
    assert names[0] == names[1]
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    adjusting = [(line["bce"] > 0, line["augmented"] > 0) for line in lines if line["stage"] == "adjustment"]
    assert adjusting == [(True, False), (False, True)]


class Memory:
    """Checkpoints that keep nothing."""

    save_every, last_save = 1e9, 0.0

    def save(self, state, complete=False):
        pass


@pytest.mark.parametrize("profile", ["paper", "released"])
def test_11_early_stopping_comes_before_averaging_and_the_contrastive_loss(tiny, tmp_path, monkeypatch, profile):
    contrasts = set()

    def step(state, batch, contrast):
        contrasts.add(contrast)
        return replace(state, step=state.step + 1)

    monkeypatch.setattr(representation, "make_step", lambda *_: step)
    monkeypatch.setattr(transfer, "collect_features", lambda *_: transfer.prototypes.zero_sums(1, 1))
    monkeypatch.setattr(sharding, "shard_batch", lambda mesh, batch: batch)
    own = settings(profile)
    # 579 steps an epoch, as RCV1 has, on documents that are not looked at.
    batches = training_corpus.batches(tiny.train)
    monkeypatch.setattr(type(batches), "steps_per_epoch", 579)
    monkeypatch.setattr(type(batches), "load", lambda self, plan, start: iter([None] * (579 - start)))
    stage = representation.make_stage(
        training_corpus.make_model(own),
        own,
        batches,
        None,
        sharding.make_mesh(jax.local_devices()[:1]),
        lambda weights: {"N@5": 50.0},
    )
    state = init_state(jax.random.key(0), jnp.zeros(()), optax.sgd(1.0), average=True)
    state = loop.run(stage, state, Memory(), RunFolder(tmp_path))
    if profile == "released":
        # The first of 16 validations was the best: 1,600 steps, 2.8 epochs.
        assert int(state.step) == 1600
        assert int(state.num_averaged) == 0
        assert contrasts == {False}
    else:
        assert int(state.step) == 10 * 579
        assert int(state.num_averaged) > 0
        assert contrasts == {False, True}
