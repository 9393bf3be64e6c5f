"""Runs with rivals to the PVAE and to generated features: interrupted and resumed they are the uninterrupted run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.stages.closed_form import EXPONENTS, RIDGES
from tests import training_corpus
from tests.training import runs

slow = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("one_device")

LATER = ("transfer", "adjustment")


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory, shared_steps) -> Path:
    """A run of the first stage; its folder is not to be changed."""
    data = training_corpus.write(tmp_path_factory.mktemp("data"))
    folder = tmp_path_factory.mktemp("runs") / "first"
    with training_corpus.one_device():
        runs.train(folder, training_corpus.run_config(data), ("representation",))
    return folder


@slow
def test_a_rival_that_is_interrupted_resumes(first_stage, tmp_path):
    sections = {"transfer": {"method": "gaussian", "nearest_heads": 2}, "adjust": {"negative_weight": 0.5}}
    whole, parts = (shutil.copytree(first_stage, tmp_path / name) for name in ("whole", "parts"))
    content = runs.train(whole, stages=LATER, **sections)
    assert content["pvae"]["variance_ratio"] > 0.1
    # In the adjustment, which draws from what the second stage kept.
    runs.interrupt(parts, 9, stages=LATER, **sections)
    assert runs.last_state(parts, "adjustment") is not None
    assert runs.last_state(parts, "adjustment")["step"] < 10
    runs.resume(parts)
    runs.assert_same_run(parts, whole)
    assert not list((parts / "checkpoints").glob("*.npy"))


@slow
def test_features_of_rare_labels_that_are_drawn_again_are_the_real_ones(first_stage, tmp_path):
    folder = shutil.copytree(first_stage, tmp_path / "run")
    runs.train(folder, stages=("transfer",), transfer={"method": "resample"})
    extra = runs.last_state(folder, "transfer")["extra"]
    real, sums = extra["constants"]["resample"], extra["sums"]
    counts = training_corpus.build().label_counts
    is_tail = counts < RunFolder(folder).read_config().pvae.head_threshold
    np.testing.assert_array_equal(np.diff(real["offsets"]), np.where(is_tail, counts, 0))
    for label in np.flatnonzero(is_tail):
        rows = real["features"][real["offsets"][label] : real["offsets"][label + 1]]
        np.testing.assert_allclose(rows.sum(axis=0), sums["totals"][label], rtol=1e-4, atol=1e-5)


@slow
def test_the_exponent_of_tau_normalisation_is_chosen_on_validation(first_stage, tmp_path):
    folder = shutil.copytree(first_stage, tmp_path / "run")
    sections = {"transfer": {"method": "none"}, "adjust": {"method": "tau_norm"}}
    content = runs.train(folder, stages=LATER, **sections)
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    scores = [line["validation"]["N@5"] for line in lines if line["stage"] == "adjustment"]
    assert len(scores) == len(EXPONENTS)
    assert content["stages"]["adjusted"]["validation"]["N@5"] == max(scores)
    before = np.asarray(runs.last_state(folder, "representation")["best"]["classifier"]["weights"], np.float64)
    chosen = np.asarray(runs.last_state(folder, "adjustment")["best"]["weights"], np.float64)
    norms = np.linalg.norm(before, axis=1, keepdims=True)
    tau = EXPONENTS[int(np.argmax(scores))]
    np.testing.assert_allclose(chosen, before * (np.exp(np.log(norms).mean()) / norms) ** tau, rtol=1e-4)


@slow
def test_httn_changes_the_classifiers_of_tail_labels_alone(first_stage, tmp_path):
    folder = shutil.copytree(first_stage, tmp_path / "run")
    content = runs.train(folder, stages=LATER, transfer={"method": "none"}, adjust={"method": "httn"})
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    scores = [line["validation"]["N@5"] for line in lines if line["stage"] == "adjustment"]
    assert len(scores) == len(RIDGES)
    assert content["stages"]["adjusted"]["validation"]["N@5"] == max(scores)
    before = runs.last_state(folder, "representation")["best"]["classifier"]["weights"]
    chosen = runs.last_state(folder, "adjustment")["best"]["weights"]
    is_changed = np.any(np.asarray(before) != np.asarray(chosen), axis=1)
    counts, config = training_corpus.build().label_counts, RunFolder(folder).read_config()
    np.testing.assert_array_equal(is_changed[: len(counts)], counts < config.pvae.head_threshold)
