import errno
import json
import math
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from sklearn.metrics import f1_score

from lsfa_jax.config import STAGES, Config
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation.thresholded import GRID
from lsfa_jax.training import model_folder, precision, prior, run
from lsfa_jax.training.initial_encoder import initial_encoder
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.three_stages import Run
from lsfa_jax.util import processes
from lsfa_jax.util.console import UserError
from lsfa_jax.util.interrupts import Interrupted
from tests import job, training_corpus
from tests.training import runs
from tests.training.runs import assert_same_run, history, last_params, last_state, metrics

slow = pytest.mark.slow


class Finished(NamedTuple):
    """A run of all stages; its folder is not to be changed."""

    folder: Path
    config: Config
    metrics: dict[str, Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training_corpus.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory, shared_steps) -> Finished:
    folder, config = tmp_path_factory.mktemp("runs") / "finished", training_corpus.run_config(data)
    return Finished(folder, config, runs.train(folder, config))


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(finished.folder, tmp_path / "copy")


RANKING = {f"{name}@{k}" for name in ("P", "N", "PSP") for k in (1, 3, 5)} | {"macro_P@5"}


@slow
def test_files_of_a_run(finished, tiny):
    folder = finished.folder
    assert {path.name for path in folder.iterdir()} == {
        "config.toml", "environment.json", "metrics.json", "history.jsonl", "checkpoints", "vocabulary", "labels",
        "model.json", "weights.safetensors", "data.json", "texts.npy", "report.html", ".lock"
    }  # fmt: skip
    assert {path.name for path in (folder / "checkpoints").iterdir()} == set(STAGES)
    assert (folder / "vocabulary").read_text().splitlines() == tiny.words
    assert [json.loads(line) for line in (folder / "labels").read_text().splitlines()] == tiny.labels
    model = model_folder.read(folder)
    assert (model.words, model.labels) == (tiny.words, tiny.labels[: tiny.num_labels])
    assert model.label_counts.tolist() == tiny.published_counts[: tiny.num_labels].tolist()
    assert model.num_documents == tiny.published_documents
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["jax"] == jax.__version__
    assert len(environment["devices"]) == 4
    assert environment["seed"] == 0
    assert "git_commit" in environment


@slow
def test_content_of_metrics_json(finished):
    content = json.loads((finished.folder / "metrics.json").read_text())
    assert content == finished.metrics
    assert set(content) == {"dataset", "split", "num_labels", "stages", "kept", "test", "pvae", "seconds"}
    assert content["dataset"] == "custom"
    assert content["split"] == {"train": 36, "validation": 12, "test": 12}
    assert content["num_labels"] == 8
    assert set(content["stages"]) == {"representation", "adjusted"}
    quality = {name: stage["validation"]["N@5"] for name, stage in content["stages"].items()}
    assert content["kept"] == ("adjusted" if quality["adjusted"] >= quality["representation"] else "representation")
    assert content["test"] == content["stages"][content["kept"]]["test"]
    assert set(content["pvae"]) == {"relative_mean_error", "variance_ratio"}
    assert all(seconds > 0 for seconds in content["seconds"].values())
    for stage in content["stages"].values():
        for split in ("validation", "test"):
            for group in (stage[split], stage[split]["head"], stage[split]["tail"]):
                assert set(group) >= RANKING
                assert all(0 <= group[name] <= 100 + 1e-9 for name in RANKING)
            assert 0 <= stage[split]["ECE"] <= 100
        assert len(stage["macro_P@5_bins"]) == 1


@slow
def test_a_run_without_test_documents_is_measured_on_them_later(finished, tmp_path):
    folder, validations = tmp_path / "run", []

    def on_validation(*validation: Any) -> None:
        validations.append(validation)

    def train(**options: Any) -> dict[str, Any]:
        return run.train(finished.config, folder, ("representation",), **options)["stages"]["representation"]

    expected = finished.metrics["stages"]["representation"]
    assert train(test=False, on_validation=on_validation) == {
        name: expected[name] for name in ("threshold", "validation")
    }
    assert [(stage, epoch) for stage, epoch, _ in validations] == [("representation", epoch) for epoch in (1, 2, 3)]
    assert [metrics for *_, metrics in validations] == [line["validation"] for line in history(folder)]
    assert train(resume=True) == expected


@slow
def test_lines_of_history_jsonl(finished):
    lines = [json.loads(line) for line in (finished.folder / "history.jsonl").read_text().splitlines()]
    steps = {"representation": [5, 10, 15], "transfer": [4, 8], "adjustment": [5, 10]}
    assert [(line["stage"], line["step"]) for line in lines] == [(s, n) for s in STAGES for n in steps[s]]
    speed = {"representation": "documents/s", "transfer": "features/s", "adjustment": "documents/s"}
    losses = {
        "representation": {"bce", "psc"}, "transfer": {"negative_elbo", "kl"}, "adjustment": {"bce", "augmented"}
    }  # fmt: skip
    for line in lines:
        stage = line["stage"]
        validation = set() if stage == "transfer" else {"validation"}
        about = {"stage", "step", "epoch", "time", "learning_rate", "input_wait", speed[stage]}
        assert set(line) == about | losses[stage] | validation
        if validation:
            assert all(set(line["validation"][group]) >= RANKING for group in ("head", "tail"))
        assert all(np.isfinite(line[name]) for name in losses[stage])
        assert line[speed[stage]] > 0
        assert 0 <= line["input_wait"] <= 1


@slow
def test_the_metrics_are_those_of_the_weights_that_were_best_on_validation(finished, tiny):
    model, thresholds = training_corpus.make_model(finished.config), []
    best = last_state(finished.folder, "representation")["best"]
    adjusted = best | {"classifier": last_state(finished.folder, "adjustment")["best"]}
    assert np.any(best["classifier"]["weights"] != adjusted["classifier"]["weights"])
    for name, params in (("representation", best), ("adjusted", adjusted)):
        for split in ("validation", "test"):
            documents = getattr(tiny, split)
            batch = training_corpus.batches(documents, 12).gather(np.arange(12))
            logits = np.asarray(model.apply({"params": params}, batch.words, batch.lengths))
            order = np.argsort(-logits, axis=1)
            if split == "validation":
                thresholds.append(best_threshold(jax.nn.sigmoid(logits), documents.labels))
                assert finished.metrics["stages"][name]["threshold"] == thresholds[-1]
            precisions, gains = [], []
            for i in range(12):
                truth = documents.labels.row(i)
                precisions.append(order[i, 0] in truth)
                gain = sum(1 / math.log2(j + 2) for j, label in enumerate(order[i, :5]) if label in truth)
                gains.append(gain / sum(1 / math.log2(j + 2) for j in range(min(5, len(truth)))))
            measured = finished.metrics["stages"][name][split]
            assert measured["P@1"] == pytest.approx(100 * np.mean(precisions))
            assert measured["N@5"] == pytest.approx(100 * np.mean(gains))
    for name, stage in (("representation", "representation"), ("adjusted", "adjustment")):
        scores = [line["validation"]["N@5"] for line in history(finished.folder) if line["stage"] == stage]
        assert finished.metrics["stages"][name]["validation"]["N@5"] == max(scores)
    assert 0.5 not in thresholds
    kept = thresholds[finished.metrics["kept"] == "adjusted"]
    assert model_folder.read(finished.folder).threshold == kept


def best_threshold(probabilities: np.ndarray, labels: Ragged) -> float:
    """Returns the threshold with the largest micro F1 by scikit-learn, of several the nearest to 0.5."""
    truth = np.array([np.isin(np.arange(probabilities.shape[1]), labels.row(i)) for i in range(labels.num_rows)])
    scores = np.array([f1_score(truth, probabilities >= threshold, average="micro") for threshold in GRID])
    best = GRID[scores == scores.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


@slow
def test_weights_were_averaged_and_prototypes_collected(finished):
    state, params = last_state(finished.folder, "representation"), last_params(finished.folder, "representation")
    # Every second step of epochs 2 and 3, five steps each: 6, 8, 10, 12, 14.
    assert state["num_averaged"] == 5
    assert state["extra"]["present"].all()
    # The word vector of padding is zero at the start, and no text trains it.
    embedding = params["encoder"]["embedding"]
    assert not np.any(embedding[0])
    assert np.all(np.any(embedding[2:], axis=1))
    assert set(last_params(finished.folder, "adjustment")) == {"weights", "bias"}


@slow
def test_the_settings_file_of_a_run_repeats_it(finished, tmp_path):
    shutil.copy(finished.folder / "config.toml", tmp_path)
    settings = RunFolder(tmp_path).read_config()
    runs.train(tmp_path / "again", settings)
    assert_same_run(tmp_path / "again", finished.folder)


@slow
def test_a_run_without_checkpoints_ends_with_the_same_metrics(finished, tmp_path):
    run.train(finished.config, tmp_path / "run", save_every=math.inf)
    assert metrics(tmp_path / "run") == metrics(finished.folder)
    assert not [path for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file()]


# So many checks for a signal happen in each process of the interrupted run, again and again.
CALLS = (4, 9, 6, 11, 5, 8, 7, 15, 10)


@slow
def test_interrupted_again_and_again_and_resumed_the_run_is_the_uninterrupted_one(finished, tmp_path, capsys):
    folder, stops = tmp_path / "interrupted", []
    while True:
        call = CALLS[len(stops) % len(CALLS)]
        assert len(stops) < 40
        try:
            with runs.raised_at(call, Interrupted(15)):
                runs.train(folder, None if stops else finished.config, resume=bool(stops))
        except Interrupted:
            assert f"Continue with: bin/train --output {folder} --resume" in capsys.readouterr().out
        else:
            break
        stops.append(place_of_stop(folder))
    assert_same_run(folder, finished.folder)
    assert {stage for stage, place in stops if place == "epoch"} == set(STAGES), stops
    assert {place for _, place in stops} == {"epoch", "epoch's end", "validation", "complete"}, stops


def place_of_stop(folder: Path) -> tuple[str, str]:
    """Returns the stage that was interrupted, and where in it, as its checkpoint shows."""
    states = {stage: last_state(folder, stage) for stage in STAGES}
    stage = [stage for stage in STAGES if states[stage] is not None][-1]
    state, steps = states[stage], {"representation": 5, "transfer": 4, "adjustment": 5}[stage]
    if state["progress"]["complete"]:
        return stage, "complete"  # in the test of the stage, or in what the next stage collects
    if state["step"] % steps:
        return stage, "epoch"
    # Before the first step of the next epoch, in the collection of its prototypes, or in the validation before it.
    return stage, "epoch's end" if state["validated"] == state["step"] else "validation"


@slow
def test_stages_one_by_one_are_the_run_of_all_stages(finished, tmp_path):
    folder = tmp_path / "parts"
    content = runs.train(folder, finished.config, ("representation",))
    assert set(content["stages"]) == {"representation"}
    assert content["test"] == finished.metrics["stages"]["representation"]["test"]
    assert last_state(folder, "transfer") is None
    content = runs.train(folder, stages=("transfer",))
    assert content["pvae"] == finished.metrics["pvae"]
    assert last_state(folder, "adjustment") is None
    runs.train(folder, stages=("adjustment",))
    assert_same_run(folder, finished.folder)
    # A stage that runs again removes the results of the stages after it.
    assert "adjusted" not in runs.train(folder, stages=("transfer",))["stages"]
    assert [line["stage"] for line in history(folder)] == ["representation"] * 3 + ["transfer"] * 2
    assert last_state(folder, "adjustment") is None
    runs.resume(folder)
    assert_same_run(folder, finished.folder)


def interrupt_in_adjustment(folder: Path, call: int, **options: Any) -> None:
    runs.interrupt(folder, call, **options)
    state = last_state(folder, "adjustment")
    assert state is not None
    assert 0 < state["step"] < 10


@slow
def test_the_second_stage_stores_token_states_and_the_adjustment_reads_them(finished, tmp_path):
    folder = runs.without_stages(finished.folder, tmp_path / "copy", STAGES[1:])
    runs.interrupt(folder, 8, resume=True)
    assert last_state(folder, "transfer")["step"] < 8
    file = folder / "checkpoints" / "train-states.npy"
    states = np.load(file)
    assert (states.dtype, states.shape[1]) == (np.float16, 8)
    changed = shutil.copytree(folder, tmp_path / "changed")
    runs.resume(folder)
    assert_same_run(folder, finished.folder)
    np.save(changed / "checkpoints" / "train-states.npy", 0.5 * states)
    runs.resume(changed)
    weights = [last_params(each, "adjustment")["weights"] for each in (folder, changed)]
    assert np.any(weights[0] != weights[1])


@slow
@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
def test_a_resumed_adjustment_reads_the_token_states_again_or_computes_lost_ones(finished, tmp_path, tiny, lost):
    folder = runs.without_stages(finished.folder, tmp_path / "copy", ["adjustment"])
    interrupt_in_adjustment(folder, 10, resume=True)
    file = folder / "checkpoints" / "train-states.npy"
    assert np.load(file, mmap_mode="r").shape == (tiny.train.words.offsets[-1], 8)
    if lost:
        file.unlink()
    runs.resume(folder)
    assert not file.exists()
    assert_same_run(folder, finished.folder)


def no_free_space(folder: Path) -> SimpleNamespace:
    return SimpleNamespace(free=1)


@slow
def test_without_token_states_the_result_is_nearly_the_same_and_resumes(finished, folder, tmp_path, monkeypatch):
    again = shutil.copytree(folder, tmp_path / "again")
    options = {"stages": ("adjustment",), "adjust": {"cache_states": "no"}}
    runs.train(folder, **options)
    computed, stored = (last_params(each, "adjustment") for each in (folder, finished.folder))
    assert not np.array_equal(computed["weights"], stored["weights"])
    for name, value in computed.items():
        np.testing.assert_allclose(value, stored[name], rtol=0, atol=2e-3)
    for line, expected in zip(history(folder), history(finished.folder), strict=True):
        if line["stage"] == "adjustment":
            assert line["bce"] == pytest.approx(expected["bce"], rel=1e-4)
            assert line["validation"]["N@5"] == pytest.approx(expected["validation"]["N@5"], abs=2.0)
    interrupt_in_adjustment(again, 10, **options)
    assert not (again / "checkpoints" / "train-states.npy").exists()
    runs.resume(again)
    assert_same_run(again, folder)

    # Without free space a run continues as it began, also once there is space again.
    full = runs.without_stages(finished.folder, tmp_path / "full", STAGES[1:])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", no_free_space)
        interrupt_in_adjustment(full, 17, resume=True)
    runs.resume(full)
    assert_same_run(full, folder)


@slow
def test_token_states_that_must_be_kept_need_space(folder, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with pytest.raises(UserError, match=r"train-states\.npy: No space left .*--adjust.cache-states no"):
        runs.train(folder, stages=("adjustment",), adjust={"cache_states": "yes"})


@slow
def test_adjustment_with_dropout_runs_the_encoder_in_each_step(folder):
    adjust = {"encoder_dropout": True, "cache_states": "yes", "epochs": 1}
    runs.interrupt(folder, 3, stages=("adjustment",), adjust=adjust)
    assert last_state(folder, "adjustment")["step"] == 2
    assert not list((folder / "checkpoints").glob("*-states.npy"))


@slow
def test_a_moved_folder_resumes(finished, tmp_path):
    folder = runs.without_stages(finished.folder, tmp_path / "before", STAGES[1:])
    runs.interrupt(folder, 12, resume=True)
    moved = folder.rename(tmp_path / "after")
    assert last_state(moved, "adjustment") is None
    assert 0 < last_state(moved, "transfer")["step"] < 8
    runs.resume(moved)
    assert not folder.exists()
    assert_same_run(moved, finished.folder)


@slow
def test_a_run_resumes_after_its_folder_and_its_data_moved(tmp_path, finished):
    data = training_corpus.write(tmp_path / "data")
    folder = tmp_path / "before"
    runs.interrupt(folder, 9, training_corpus.run_config(data))
    assert 0 < last_state(folder, "representation")["step"] < 15
    moved, data = folder.rename(tmp_path / "after"), data.rename(tmp_path / "elsewhere")
    runs.train(moved, data_dir=str(data), resume=True)
    assert_same_run(moved, finished.folder)
    assert RunFolder(moved).read_config().data_dir == str(data)


@slow
def test_resuming_a_finished_run_changes_nothing(finished, folder):
    runs.resume(folder)
    assert_same_run(folder, finished.folder)
    names = ({path.relative_to(each) for path in runs.files(each)} for each in (folder, finished.folder))
    assert next(names) == next(names)


class Killed(BaseException):
    """Ends a run at once, as a kill does: nothing in the package handles it."""


# Five batches are collected, then the PVAE takes eight steps.
@slow
@pytest.mark.parametrize(
    ("call", "checkpoint", "features_lost"),
    [(3, False, False), (6, True, False), (6, True, True), (10, True, False)],
    ids=["collecting", "after the first checkpoint", "features lost", "in an epoch"],
)
def test_killed_in_the_second_stage_and_resumed_the_run_is_the_same(
    finished, tmp_path, call, checkpoint, features_lost
):
    folder = runs.without_stages(finished.folder, tmp_path / "killed", STAGES[1:])
    with runs.raised_at(call, Killed()), pytest.raises(Killed):
        runs.resume(folder)
    state, features = last_state(folder, "transfer"), folder / "checkpoints" / "features.npy"
    assert (state is not None) == features.exists() == checkpoint
    # A kill saves nothing: the checkpoint is the one before the first step.
    assert state is None or state["step"] == 0
    if features_lost:
        features.unlink()
    runs.resume(folder)
    assert_same_run(folder, finished.folder)
    assert not features.exists()


@slow
@pytest.mark.parametrize("removed", [STAGES[1:], STAGES[2:]], ids=["before the first checkpoint", "after the last"])
def test_features_that_a_killed_second_stage_left_are_not_read(finished, tmp_path, removed):
    folder = runs.without_stages(finished.folder, tmp_path / "killed", removed)
    content = json.loads((folder / "metrics.json").read_text())
    content.pop("pvae", None)
    (folder / "metrics.json").write_text(json.dumps(content))
    features = folder / "checkpoints" / "features.npy"
    np.save(features, np.full((81, 5), 7.0, np.float32))
    runs.resume(folder)
    assert_same_run(folder, finished.folder)
    assert not features.exists()


@slow
@pytest.mark.parametrize("init", ["pretrained", "scratch"])
def test_adjustment_starts_from_the_classifiers_of_the_first_stage_or_from_new_ones(finished, folder, init):
    adjust = {"init": init, "learning_rate": 1e-20, "epochs": 1}
    runs.train(folder, stages=("adjustment",), adjust=adjust)
    weights = last_params(folder, "adjustment")["weights"]
    best = last_params(finished.folder, "representation")["classifier"]["weights"]
    assert np.array_equal(weights, best) == (init == "pretrained")
    assert np.any(weights)


@slow
def test_a_later_stage_can_be_repeated_with_other_settings(finished, folder, tmp_path):
    adjust = {"augmented_weight": 5.0}
    runs.train(folder, stages=("adjustment",), adjust=adjust)
    new = tmp_path / "new"
    runs.train(new, finished.config, adjust=adjust)
    assert_same_run(folder, new)
    weights = [last_state(each, "adjustment")["best"]["weights"] for each in (folder, finished.folder)]
    assert np.any(weights[0] != weights[1])
    assert "augmented_weight = 5.0" in (folder / "config.toml").read_text()


@slow
def test_the_rate_of_labels_is_that_of_the_first_stage_alone(finished, folder):
    file = folder / "config.toml"
    file.write_text(file.read_text().replace('label_learning_rate = "same"', "label_learning_rate = 100.0"))
    assert RunFolder(folder).read_config().optimizer.label_learning_rate == 100.0
    runs.train(folder, stages=("adjustment",))
    assert_same_run(folder, finished.folder)


@slow
def test_another_threshold_of_head_and_tail_measures_all_groups_again(finished, folder, tmp_path):
    pvae = {"head_threshold": 7}
    runs.train(folder, stages=("transfer", "adjustment"), pvae=pvae)
    new = tmp_path / "new"
    runs.train(new, finished.config, pvae=pvae)
    # Of the stage that did not run again, head and tail were those of the other threshold.
    with_groups = {line["stage"] for line in history(folder) if "tail" in line.get("validation", {})}
    assert with_groups == {"adjustment"}
    for path in (folder, new):
        RunFolder(path).drop_groups()
    assert_same_run(folder, new)
    assert metrics(folder)["stages"]["representation"] != metrics(finished.folder)["stages"]["representation"]


@slow
def test_one_device_trains_as_four(finished, tmp_path):
    folder = tmp_path / "one"
    with training_corpus.one_device():
        runs.train(folder, finished.config)
    for line, expected in zip(history(folder), history(finished.folder), strict=True):
        assert (line["stage"], line["step"]) == (expected["stage"], expected["step"])
        for loss in ("bce", "psc", "negative_elbo", "kl", "augmented"):
            if loss in expected:
                assert line[loss] == pytest.approx(expected[loss], rel=1e-4, abs=1e-5), (line, expected)
    for stage in STAGES:
        states = (last_params(each, stage) for each in (folder, finished.folder))
        for (path, a), (_, b) in zip(*map(training_corpus.rows, states), strict=True):
            # Adam divides by the size of gradients, which magnifies rounding where a gradient is almost zero.
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * 0.02, err_msg=f"{stage} {path}")


@slow
def test_bfloat16_trains_near_float32_and_a_run_keeps_the_precision_that_auto_chose(finished, tmp_path, monkeypatch):
    folder, settings = tmp_path / "bfloat16", {"precision": "auto", "representation": {"epochs": 1}}
    monkeypatch.setattr(precision, "choose", lambda *_: "bfloat16")
    with training_corpus.one_device():
        runs.train(folder, finished.config, ("representation",), **settings)
    assert RunFolder(folder).read_config().precision == "bfloat16"
    before = runs.files(folder)[folder / "config.toml"]
    monkeypatch.setattr(precision, "choose", lambda *_: "float32")
    runs.train(folder, finished.config, ("representation",), resume=True, **settings)
    assert runs.files(folder)[folder / "config.toml"] == before
    params = last_params(folder, "representation")
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    losses = [history(each)[0]["bce"] for each in (folder, finished.folder)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("rows", [8, 1], ids=["per label", "shared"])
def test_classifiers_start_where_every_label_has_the_mean_frequency(tiny, rows):
    config = training_corpus.config(classifier={"bias": True, "bias_start": "prior"})
    classifier = {"weights": np.ones((rows, 5)), "bias": np.zeros(rows, np.float32)}
    start = prior.start(classifier, config, tiny)
    pairs = sum(len(document.labels) for document in training_corpus.documents()["train"])
    np.testing.assert_allclose(jax.nn.sigmoid(start["bias"]), np.full(rows, pairs / (36 * 8)), rtol=1e-6)
    assert start["weights"].min() == 1
    # Eq. 5 of the paper has no bias.
    without = {"weights": np.ones((rows, 5))}
    assert prior.start(without, training_corpus.config(), tiny) is without


@pytest.mark.parametrize("rows", [10, 8])
def test_classifiers_start_where_each_label_has_its_frequency(tiny, rows):
    """With one more document that has each label at the mean frequency; rows of padding are as of no document."""
    config = training_corpus.config(classifier={"bias": True, "bias_start": "frequency"})
    start = prior.start({"weights": np.ones((rows, 5)), "bias": np.zeros(rows, np.float32)}, config, tiny)
    train = training_corpus.documents()["train"]
    counts = np.array([sum(label in document.labels for document in train) for label in tiny.labels[:8]])
    expected = (np.pad(counts, (0, rows - 8)) + counts.sum() / (36 * 8)) / 37
    np.testing.assert_allclose(jax.nn.sigmoid(start["bias"]), expected, rtol=1e-5)


def test_classifiers_that_labels_share_start_at_the_mean_frequency(tiny):
    config = {"bias": True, "weights": "shared"}
    classifier = {"weights": np.ones((1, 5)), "bias": np.zeros(1, np.float32)}
    by_mean, by_label = (
        prior.start(classifier, training_corpus.config(classifier=config | {"bias_start": start}), tiny)["bias"]
        for start in ("prior", "frequency")
    )
    np.testing.assert_array_equal(by_mean, by_label)


def test_logit_adjustment_is_by_the_log_odds_of_the_labels_in_training(tiny, tmp_path):
    def offsets(**adjust: Any) -> Any:
        config = training_corpus.config(adjust=adjust)
        return Run(config, tiny, initial_encoder(config, tiny), RunFolder(tmp_path), math.inf)._logit_offsets()

    share = (tiny.label_counts + 0.5) / (36 + 1)
    actual = offsets(method="logit_adjustment", tau=0.7)
    np.testing.assert_allclose(actual, 0.7 * np.log(share / (1 - share)), rtol=1e-5)
    assert offsets(method="augment") is None


def test_settings_for_one_process_are_refused_in_a_job(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(UserError, match=r"--adjust\.cache-states yes: not with several processes"):
        run.train(training_corpus.config(adjust={"cache_states": "yes"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def numbers(tree: Any) -> list[float]:
    """Lists the numbers in nested dicts and lists."""
    return [value for value in jax.tree.leaves(tree) if not isinstance(value, str)]


@slow
def test_two_processes_killed_stopped_and_resumed_give_the_model_of_one(finished, tmp_path):
    folder, compiled = tmp_path / "job", tmp_path / "compiled"
    resumed = ("--output", folder, "--resume")
    # In the second epoch of stage 1.
    settings = ("--config", finished.folder / "config.toml", "--output", folder, "--save-every", 0)
    # All epochs fit into the time, which the processes agree about.
    settings = (*settings, "--time-limit", "1h")
    first, second = job.run(settings, compiled, call=14, signum=signal.SIGKILL)
    assert second.code == -signal.SIGKILL, second.err
    assert first.code not in (0, -signal.SIGKILL)
    assert "--time-limit: at most 3 epochs" in first.out
    assert "unhealthy (stopped sending heartbeats):\n1\n" in first.err
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"representation"}

    # In the first pass after stage 1.
    stopped = job.run((*resumed, "--save-every", 0), compiled, call=35, signum=signal.SIGTERM)
    assert [process.code for process in stopped] == [143, 143], stopped[0].err + stopped[1].err
    assert "representation epoch 1/3" in stopped[0].out
    assert "Interrupted, everything is saved" in stopped[0].out
    assert "transfer epoch" not in stopped[0].out

    ended = job.run(resumed, compiled)
    assert [process.code for process in ended] == [0, 0], ended[0].err + ended[1].err
    assert "representation epoch" not in ended[0].out
    assert all("epoch" not in process.out + process.err for process in (second, stopped[1], ended[1]))
    for content in (history, lambda path: metrics(path)["stages"]):
        actual, expected = (numbers(content(path)) for path in (folder, finished.folder))
        assert actual == pytest.approx(expected, rel=1e-4, abs=1e-5)
    actual, expected = (model_folder.read(path).params for path in (folder, finished.folder))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), actual, expected)
