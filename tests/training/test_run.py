import errno
import json
import math
import os
import shutil
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from lsfa_jax.cli import train as command
from lsfa_jax.training import loop, model_folder, run
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.stages import adjustment, transfer
from lsfa_jax.util import interrupts
from lsfa_jax.util.console import UserError
from lsfa_jax.util.interrupts import Interrupted
from tests import training_corpus
from tests.reference.agreement import assert_equal

pytestmark = pytest.mark.usefixtures("shared_steps")

STAGES = ("representation", "transfer", "adjustment")


def train(*line):
    return command.train(command.parse([str(word) for word in line]))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training_corpus.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory, shared_steps):
    """A run of all stages, and what it returned; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    metrics = train(*training_corpus.arguments(data, folder))
    return SimpleNamespace(folder=folder, metrics=metrics)


def copied(whole, tmp_path):
    return shutil.copytree(whole.folder, tmp_path / "copy")


def last_state(folder, stage):
    """A stage's last checkpoint as plain arrays; None without one."""
    steps = [int(path.name) for path in (folder / "checkpoints" / stage).glob("*") if path.name.isdigit()]
    if not steps:
        return None
    state = ocp.StandardCheckpointer().restore(folder / "checkpoints" / stage / str(max(steps)) / "state")

    def plain(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)

    return jax.tree.map(plain, state)


def history(folder):
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith(("/s", "_wait"))} for line in lines]


def results(folder):
    """metrics.json without the times."""
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics.pop("seconds")) == set(STAGES)
    return metrics


def assert_same_run(ours, theirs):
    """The same weights, the same figures and the same history, to the last bit."""
    for stage in STAGES:
        assert_equal(last_state(ours, stage), last_state(theirs, stage))
    assert history(ours) == history(theirs)
    assert results(ours) == results(theirs)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


RANKING = {f"{name}@{k}" for name in ("P", "N", "PSP") for k in (1, 3, 5)} | {"macro_P@5"}


def test_the_run_folder_is_as_promised(whole, tiny):
    folder = whole.folder
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.toml", "environment.json", "metrics.json", "history.jsonl", "checkpoints", "vocabulary", "labels",
        "model.json", "weights.safetensors"
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

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == whole.metrics
    assert set(metrics) == {"dataset", "split", "num_labels", "stages", "test", "pvae", "seconds"}
    assert metrics["dataset"] == "custom"
    assert metrics["split"] == {"train": 36, "validation": 12, "test": 12}
    assert metrics["num_labels"] == 8
    assert set(metrics["stages"]) == {"representation", "adjusted"}
    assert metrics["test"] == metrics["stages"]["adjusted"]["test"]
    assert set(metrics["pvae"]) == {"relative_mean_error", "variance_ratio"}
    assert all(seconds > 0 for seconds in metrics["seconds"].values())
    for stage in metrics["stages"].values():
        for split in ("validation", "test"):
            for group in (stage[split], stage[split]["head"], stage[split]["tail"]):
                assert set(group) >= RANKING
                assert all(0 <= group[name] <= 100 + 1e-9 for name in RANKING)
        assert len(stage["macro_P@5_bins"]) == 1

    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    steps = {"representation": [5, 10, 15], "transfer": [4, 8], "adjustment": [5, 10]}
    assert [(line["stage"], line["step"]) for line in lines] == [(s, n) for s in STAGES for n in steps[s]]
    unit = {"representation": "documents/s", "transfer": "features/s", "adjustment": "documents/s"}
    losses = {
        "representation": {"bce", "psc"}, "transfer": {"negative_elbo", "kl"}, "adjustment": {"bce", "augmented"}
    }  # fmt: skip
    for line in lines:
        validated = {"validation"} if line["stage"] != "transfer" else set()
        assert (
            set(line)
            == {"stage", "step", "epoch", "input_wait", unit[line["stage"]]} | losses[line["stage"]] | validated
        )
        assert all(np.isfinite(line[name]) for name in losses[line["stage"]])
        assert line[unit[line["stage"]]] > 0
        assert 0 <= line["input_wait"] <= 1


def test_the_figures_are_those_of_the_weights_that_were_best_on_validation(whole, tiny):
    # The settings of any corpus of one's own have a bias.
    model = training_corpus.make_model(training_corpus.config(classifier={"bias": True}))
    encoder = last_state(whole.folder, "representation")["best"]
    adjusted = encoder | {"classifier": last_state(whole.folder, "adjustment")["best"]}
    assert np.any(encoder["classifier"]["weights"] != adjusted["classifier"]["weights"])
    for name, params in (("representation", encoder), ("adjusted", adjusted)):
        for split in ("validation", "test"):
            documents = getattr(tiny, split)
            batch = training_corpus.batches(documents, 12).gather(np.arange(12))
            order = np.argsort(-np.asarray(model.apply({"params": params}, batch.words, batch.lengths)), axis=1)
            offsets, gains, first = documents.labels.offsets, [], []
            for i in range(12):
                own = documents.labels.values[offsets[i] : offsets[i + 1]]
                first.append(order[i, 0] in own)
                found = sum(1 / math.log2(j + 2) for j, label in enumerate(order[i, :5]) if label in own)
                gains.append(found / sum(1 / math.log2(j + 2) for j in range(min(5, len(own)))))
            measured = whole.metrics["stages"][name][split]
            assert measured["P@1"] == pytest.approx(100 * np.mean(first))
            assert measured["N@5"] == pytest.approx(100 * np.mean(gains))
    best = {
        stage: max(x["validation"]["N@5"] for x in history(whole.folder) if x["stage"] == stage)
        for stage in STAGES[::2]
    }
    assert whole.metrics["stages"]["representation"]["validation"]["N@5"] == best["representation"]
    assert whole.metrics["stages"]["adjusted"]["validation"]["N@5"] == best["adjustment"]


def test_weights_were_averaged_and_prototypes_collected(whole):
    state = last_state(whole.folder, "representation")
    # Every second step of epochs 2 and 3, five steps each: 6, 8, 10, 12, 14.
    assert state["num_averaged"] == 5
    assert state["extra"]["present"].all()
    assert np.any(state["average"]["head_kernel"] != state["params"]["head_kernel"])
    # The padding's word vector is zero from the start, and no text moves it.
    assert not np.any(state["params"]["embedding"][0])
    assert np.all(np.any(state["params"]["embedding"][2:], axis=1))
    assert set(last_state(whole.folder, "adjustment")["params"]) == {"weights", "bias"}


def test_settings_file_of_a_run_repeats_it(whole, tmp_path):
    train("--config", whole.folder / "config.toml", "--output", tmp_path / "again")
    assert_same_run(tmp_path / "again", whole.folder)


class Signal:
    """Stands in for `interrupts.check`: a signal comes when the named function asks for the n-th time."""

    def __init__(self, function, number):
        self.function, self.left = function, number

    def __call__(self):
        self.left -= sys._getframe(1).f_code.co_name == self.function
        if not self.left:
            raise Interrupted(15)


# Where a signal comes in each run after the one before, and what then has been done: an epoch of the first and the last
# stage has 5 steps, of the second 4. The loop is `run`; validation and test batches are asked for by `over_split`.
MOMENTS = [
    ("run", 3, "representation", 2, "in an epoch"),
    ("run", 4, "representation", 5, "at an epoch's end"),
    ("collect_features", 2, "representation", 5, "in a collection of prototypes"),
    ("run", 4, "representation", 8, "in an epoch with the average begun"),
    ("over_split", 2, "representation", 10, "in a validation"),
    ("over_split", 9, "representation", 15, "in the test after the stage"),
    ("collect_features", 3, "representation", 15, "in the collection of features"),
    ("run", 3, "transfer", 2, "in an epoch of the PVAE"),
    ("run", 3, "transfer", 4, "at an epoch's end of the PVAE"),
    ("run", 7, "adjustment", 2, "in an epoch of adjustment"),
    ("run", 4, "adjustment", 5, "at an epoch's end of adjustment"),
    ("over_split", 1, "adjustment", 10, "in a validation of adjustment"),
    ("over_split", 7, "adjustment", 10, "in the last test"),
]


def test_interrupted_again_and_again_and_resumed_the_run_is_the_uninterrupted_one(
    whole, data, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "interrupted"
    line = training_corpus.arguments(data, folder)
    for function, number, stage, step, where in MOMENTS:
        monkeypatch.setattr(interrupts, "check", Signal(function, number))
        with pytest.raises(Interrupted):
            train(*line)
        reached = {name: last_state(folder, name) for name in STAGES}
        last = [name for name in STAGES if reached[name] is not None][-1]
        assert (last, int(reached[last]["step"])) == (stage, step), where
        assert f"Go on with: bin/train --output {folder} --resume" in capsys.readouterr().out
        line = ("--output", folder, "--resume")
    monkeypatch.setattr(interrupts, "check", lambda: None)
    train(*line)
    assert_same_run(folder, whole.folder)


def test_stages_one_by_one_are_the_whole_run(whole, data, tmp_path):
    folder = tmp_path / "parts"
    metrics = train(*training_corpus.arguments(data, folder), "--stages", "representation")
    assert set(metrics["stages"]) == {"representation"}
    assert metrics["test"] == whole.metrics["stages"]["representation"]["test"]
    assert last_state(folder, "transfer") is None
    metrics = train("--output", folder, "--stages", "transfer")
    assert metrics["pvae"] == whole.metrics["pvae"]
    assert last_state(folder, "adjustment") is None
    train("--output", folder, "--stages", "adjustment")
    assert_same_run(folder, whole.folder)
    # A stage that is done again takes what came after it along.
    assert "adjusted" not in train("--output", folder, "--stages", "transfer")["stages"]
    assert [line["stage"] for line in history(folder)] == ["representation"] * 3 + ["transfer"] * 2
    assert last_state(folder, "adjustment") is None
    train("--output", folder, "--resume")
    assert_same_run(folder, whole.folder)


def forgotten(whole, tmp_path, *stages):
    """A copy of the run from which the given last stages are gone, as if they had never begun."""
    folder = copied(whole, tmp_path)
    for stage in stages:
        shutil.rmtree(folder / "checkpoints" / stage)
    lines = (folder / "history.jsonl").read_text().splitlines()
    (folder / "history.jsonl").write_text(
        "".join(line + "\n" for line in lines if json.loads(line)["stage"] not in stages)
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics = metrics | {"stages": {"representation": metrics["stages"]["representation"]}}
    if "transfer" in stages:
        del metrics["pvae"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def interrupted_in_adjustment(monkeypatch, *line, steps_before=0):
    """Trains until a signal comes at the third step of the adjustment, the earlier stages having so many to do."""
    with monkeypatch.context() as patch:
        patch.setattr(interrupts, "check", Signal("run", steps_before + 3))
        with pytest.raises(Interrupted):
            train(*line)


def no_room(folder):
    return SimpleNamespace(free=1)


def test_the_adjustment_reads_token_states_that_stage_two_left(whole, tmp_path, monkeypatch):
    folder, seen = forgotten(whole, tmp_path, *STAGES[1:]), []
    make_stage = adjustment.make_stage
    monkeypatch.setattr(
        adjustment, "make_stage", lambda *parts: seen.append(parts[2].split.words.values) or make_stage(*parts)
    )
    train("--output", folder, "--resume")
    (words,) = seen
    assert (words.dtype, words.shape[1]) == (np.float16, 8)
    assert_same_run(folder, whole.folder)


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
def test_token_states_are_found_again_or_made_again(whole, tmp_path, monkeypatch, lost):
    folder = forgotten(whole, tmp_path, "adjustment")
    interrupted_in_adjustment(monkeypatch, "--output", folder, "--resume")
    states = folder / "checkpoints" / "train-states.npy"
    words = int(training_corpus.build().train.words.offsets[-1])
    assert np.load(states, mmap_mode="r").shape == (words, 8)
    if lost:
        states.unlink()
    collected = []
    collect = transfer.collect_features
    monkeypatch.setattr(transfer, "collect_features", lambda *parts: collected.append(1) or collect(*parts))
    train("--output", folder, "--resume")
    assert len(collected) == lost
    assert not states.exists()
    assert_same_run(folder, whole.folder)


def test_without_token_states_the_result_is_nearly_the_same_and_resumes(whole, tmp_path, monkeypatch):
    folder, again = (copied(whole, tmp_path / name) for name in ("one", "two"))
    line = ("--stages", "adjustment", "--adjust.cache-states", "no")
    train("--output", folder, *line)
    ours, theirs = (last_state(one, "adjustment")["params"] for one in (folder, whole.folder))
    assert not np.array_equal(ours["weights"], theirs["weights"])
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=2e-3)
    for one, other in zip(history(folder), history(whole.folder), strict=True):
        if one["stage"] == "adjustment":
            assert one["bce"] == pytest.approx(other["bce"], rel=1e-4)
            assert one["validation"]["N@5"] == pytest.approx(other["validation"]["N@5"], abs=2.0)
    interrupted_in_adjustment(monkeypatch, "--output", again, *line)
    assert not (again / "checkpoints" / "train-states.npy").exists()
    train("--output", again, "--resume")
    assert_same_run(again, folder)

    # Where there is no room for them, the run goes on as it began, also when room has come.
    full = forgotten(whole, tmp_path, *STAGES[1:])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", no_room)
        interrupted_in_adjustment(patch, "--output", full, "--resume", steps_before=8)
    train("--output", full, "--resume")
    assert_same_run(full, folder)


def test_token_states_that_must_be_kept_need_room(whole, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = copied(whole, tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with pytest.raises(UserError, match=r"train-states\.npy: No space left .*--adjust.cache-states no"):
        train("--output", folder, "--stages", "adjustment", "--adjust.cache-states", "yes")


def test_dropout_in_adjustment_needs_the_encoder_in_each_step(whole, tmp_path, monkeypatch):
    seen = []
    make_stage = adjustment.make_stage
    monkeypatch.setattr(
        adjustment, "make_stage", lambda *parts: seen.append(parts[2].split.words.values.dtype) or make_stage(*parts)
    )
    line = ("--adjust.encoder-dropout", "--adjust.cache-states", "yes", "--adjust.epochs", 1)
    train("--output", copied(whole, tmp_path), "--stages", "adjustment", *line)
    assert seen == [np.int32]


def test_a_moved_folder_resumes(whole, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(interrupts, "check", Signal("run", 22))
        with pytest.raises(Interrupted):
            train(*training_corpus.arguments(data, tmp_path / "here"))
    moved = (tmp_path / "here").rename(tmp_path / "there")
    assert last_state(moved, "adjustment") is None
    assert last_state(moved, "transfer")["step"] == 6
    train("--output", moved, "--resume")
    assert not (tmp_path / "here").exists()
    assert_same_run(moved, whole.folder)


def test_resuming_a_finished_run_changes_nothing(whole, tmp_path):
    folder = copied(whole, tmp_path)
    train("--output", folder, "--resume")
    assert_same_run(folder, whole.folder)
    assert {path for path in folder.rglob("*") if path.is_file()} == {
        folder / path.relative_to(whole.folder) for path in whole.folder.rglob("*") if path.is_file()
    }


class Killed(BaseException):
    """What no code gets to see."""


@pytest.mark.parametrize(
    ("module", "function", "features_lost"),
    [
        (transfer, "collect_features", False),
        (run.Checkpoints, "save", False),
        (loop, "run", False),
        (loop, "run", True),
        (transfer, "diagnose", False),
    ],
    ids=["collecting", "before the first checkpoint", "after it", "after it, features lost", "after the last"],
)
def test_killed_around_the_pvaes_training_and_resumed_the_run_is_the_same(
    whole, tmp_path, monkeypatch, module, function, features_lost
):
    folder = shutil.copytree(whole.folder, tmp_path / "killed")
    for stage in STAGES[1:]:
        shutil.rmtree(folder / "checkpoints" / stage)
    keep = folder / "history.jsonl"
    keep.write_text("".join(line + "\n" for line in keep.read_text().splitlines()[:3]))
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics = metrics | {"stages": {"representation": metrics["stages"]["representation"]}}
    (folder / "metrics.json").write_text(json.dumps({k: v for k, v in metrics.items() if k != "pvae"}))

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, function, kill)
        with pytest.raises(Killed):
            train("--output", folder, "--resume")
    features = folder / "checkpoints" / "features.npy"
    if features_lost:
        features.unlink(missing_ok=True)
    train("--output", folder, "--resume")
    assert_same_run(folder, whole.folder)
    assert not features.exists()


@pytest.mark.parametrize("init", ["pretrained", "scratch"])
def test_adjustment_starts_from_the_first_stages_classifiers_or_anew(whole, tmp_path, init):
    folder = copied(whole, tmp_path)
    still = ("--adjust.learning-rate", 1e-20, "--adjust.epochs", 1)
    train("--output", folder, "--stages", "adjustment", "--adjust.init", init, *still)
    ours = last_state(folder, "adjustment")["params"]["weights"]
    best = last_state(whole.folder, "representation")["best"]["classifier"]["weights"]
    assert np.array_equal(ours, best) == (init == "pretrained")
    assert np.any(ours)


def test_a_later_stage_can_be_repeated_with_other_settings(whole, data, tmp_path):
    folder = copied(whole, tmp_path)
    train("--output", folder, "--stages", "adjustment", "--adjust.augmented-weight", 5)
    other = tmp_path / "other"
    train(*training_corpus.arguments(data, other), "--adjust.augmented-weight", 5)
    assert_same_run(folder, other)
    assert np.any(
        last_state(folder, "adjustment")["best"]["weights"] != last_state(whole.folder, "adjustment")["best"]["weights"]
    )
    assert "augmented_weight = 5.0" in (folder / "config.toml").read_text()


def test_another_threshold_of_head_and_tail_groups_all_results_anew(whole, data, tmp_path):
    folder = copied(whole, tmp_path)
    train("--output", folder, "--stages", "transfer", "adjustment", "--pvae.head-threshold", 7)
    other = tmp_path / "other"
    train(*training_corpus.arguments(data, other), "--pvae.head-threshold", 7)
    assert_same_run(folder, other)
    assert results(folder)["stages"]["representation"] != results(whole.folder)["stages"]["representation"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--stages", "adjustment", "--encoder.hidden-size", 5), "encoder.hidden_size"),
        (("--stages", "adjustment", "--pvae.epochs", 5), "pvae.epochs"),
        (("--stages", "transfer", "--seed", 5), "seed"),
        (("--resume", "--adjust.epochs", 5), "adjust.epochs"),
    ],
)
def test_settings_of_stages_that_are_done_stay_as_they_are(whole, tmp_path, options, named):
    folder = copied(whole, tmp_path)
    before = contents(folder)
    with pytest.raises(UserError, match=rf"copy: the run there has other settings \({named}\)"):
        train("--output", folder, *options)
    assert contents(folder) == before


@pytest.mark.parametrize("options", [("--resume",), ("--stages", "adjustment")])
def test_a_run_does_not_go_on_with_another_corpus(whole, data, tmp_path, options):
    folder = copied(whole, tmp_path)
    elsewhere = shutil.copytree(data, tmp_path / "elsewhere")
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace(str(data), str(elsewhere)))
    before = contents(folder)
    rows = (elsewhere / "train.jsonl").read_text()
    (elsewhere / "train.jsonl").write_text(rows.replace('"label3"', '"another"'))
    with pytest.raises(
        UserError, match=r"labels: the corpus has another labels|labels: .* than this run was trained on"
    ):
        train("--output", folder, *options)
    assert contents(folder) == before


def test_one_device_gives_what_four_give(whole, data, tmp_path):
    folder = tmp_path / "one"
    with training_corpus.compiled_fast():
        train(*training_corpus.arguments(data, folder))
    for ours, theirs in zip(history(folder), history(whole.folder), strict=True):
        assert (ours["stage"], ours["step"]) == (theirs["stage"], theirs["step"])
        for loss in ("bce", "psc", "negative_elbo", "kl", "augmented"):
            if loss in theirs:
                assert ours[loss] == pytest.approx(theirs[loss], rel=1e-4, abs=1e-5), (ours, theirs)
    for stage in STAGES:
        ours, theirs = last_state(folder, stage), last_state(whole.folder, stage)
        for (path, a), (_, b) in zip(
            training_corpus.rows(ours["params"]), training_corpus.rows(theirs["params"]), strict=True
        ):
            # Adam divides by gradients' size, so a rounding grows where a gradient is next to nothing.
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * 0.02, err_msg=f"{stage} {path}")


def test_bfloat16_trains_near_float32(whole, data, tmp_path):
    folder = tmp_path / "bfloat16"
    short = ("--stages", "representation", "--representation.epochs", 1)
    with training_corpus.compiled_fast():
        train(*training_corpus.arguments(data, folder), "--precision", "bfloat16", *short)
    state = last_state(folder, "representation")
    assert {x.dtype for x in jax.tree.leaves(state["params"])} == {np.dtype(np.float32)}
    ours, theirs = (history(one)[0]["bce"] for one in (folder, whole.folder))
    assert ours != theirs
    assert ours == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize("weights", ["per_label", "shared"])
def test_classifiers_start_where_every_label_has_the_mean_frequency(tiny, tmp_path, weights):
    settings = training_corpus.config(classifier={"weights": weights, "bias": True, "bias_start": "prior"})
    pipeline = run.Pipeline(settings, tiny, np.zeros((tiny.vocabulary_size, 3)), RunFolder(tmp_path), 60)
    rows = 8 if weights == "per_label" else 1
    start = pipeline._at_prior({"weights": np.ones((rows, 5)), "bias": jnp.zeros(rows)})
    pairs = sum(len(document.labels) for document in training_corpus.documents()["train"])
    np.testing.assert_allclose(jax.nn.sigmoid(start["bias"]), np.full(rows, pairs / (36 * 8)), rtol=1e-6)
    assert start["weights"].min() == 1
    # With the paper's Eq. 5 there is nothing to start.
    run.config = training_corpus.config()
    assert set(run._at_prior({"weights": np.ones((rows, 5))})) == {"weights"}
