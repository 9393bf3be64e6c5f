import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from lsfa_jax.cli.train import main
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.util import interrupts
from tests import training_corpus
from tests.training_corpus import arguments

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of a process that shares compiled programs with the other tests."""
    compiled = training_corpus.compile_into(tmp_path_factory.getbasetemp() / "compiled")
    with training_corpus.shared_steps():
        yield os.environ | compiled | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training_corpus.write(tmp_path_factory.mktemp("data"))


class Command:
    """`python -m lsfa_jax.train` with the lines that it has printed so far."""

    def __init__(self, environment, *line):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lsfa_jax.cli.train", *map(str, line)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out = ""

    def wait_for(self, text):
        """Reads until a line has the text."""
        for line in self.process.stdout:
            self.out += line
            if text in line:
                return
        raise AssertionError(f"ended without {text!r}:\n{self.out}\n{self.process.stderr.read()}")

    def wait_for_checkpoint(self, folder, number):
        """Waits until a checkpoint has the number, or a higher one."""
        while not any(path.name.isdigit() and int(path.name) >= number for path in folder.glob("*")):
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.005)

    def end(self):
        """Returns the exit code once the command has ended."""
        out, self.err = self.process.communicate(timeout=400)
        self.out += out
        assert "Traceback" not in self.err
        return self.process.returncode


@pytest.fixture(scope="module")
def whole(environment, data, tmp_path_factory):
    """The folder of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    command = Command(environment, *arguments(data, folder))
    assert command.end() == 0, command.err
    assert "Before and after augmentation" in command.out
    return folder


def results(folder):
    """metrics.json without the times."""
    return {k: v for k, v in json.loads((folder / "metrics.json").read_text()).items() if k != "seconds"}


def history(folder):
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith(("/s", "_wait"))} for line in lines]


def test_killed_and_stopped_by_signals_and_resumed_a_run_gives_the_same(environment, data, whole, tmp_path):
    folder = tmp_path / "run"
    # Saved after every step, so that a kill has a fair chance to come in the middle of a save.
    often = ("--save-every", 0)
    draw = random.Random(0)
    for line, checkpoint in ((arguments(data, folder), 2), (["--output", folder, "--resume"], 6)):
        command = Command(environment, *line, *often)
        command.wait_for_checkpoint(folder / "checkpoints" / "representation", checkpoint)
        time.sleep(draw.uniform(0, 0.15))
        command.process.kill()
        command.process.communicate()
        assert command.process.returncode == -signal.SIGKILL

    for signum, code, text in (
        (signal.SIGTERM, 143, "representation epoch 3"),
        (signal.SIGINT, 130, "transfer epoch 1"),
    ):
        command = Command(environment, "--output", folder, "--resume", *often)
        command.wait_for(text)
        command.process.send_signal(signum)
        assert command.end() == code
        assert f"Interrupted, all is saved. Go on with: bin/train --output {folder} --resume" in command.out
        assert command.err == ""

    command = Command(environment, "--output", folder, "--resume")
    assert command.end() == 0
    assert results(folder) == results(whole)
    assert history(folder) == history(whole)


def test_an_unknown_option_is_named_with_the_nearest(environment):
    command = Command(environment, "--adjust.epoch", 3)
    assert command.end() == 2
    assert "--adjust.epochs" in command.err


@pytest.fixture
def run(environment, capsys):
    """Runs the command in this process: exit code, output, errors. A traceback would be an exception here."""

    def run(*line):
        capsys.readouterr()
        code = main([str(word) for word in line])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


def refused(outcome, *texts):
    code, _, err = outcome
    assert code == 2
    assert err.startswith("error: ")
    for text in texts:
        assert text in err


def test_a_folder_with_a_run_is_not_written_over(run, data, whole):
    before = (whole / "metrics.json").read_bytes()
    refused(run(*arguments(data, whole)), f"{whole}: holds another run", "--resume", "another --output")
    assert (whole / "metrics.json").read_bytes() == before


def test_a_folder_with_other_things_is_left_alone(run, data, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear all")
    refused(run(*arguments(data, tmp_path)), f"{tmp_path}: exists and is not a run folder", "another --output")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("options", [("--resume",), ("--stages", "adjustment")])
def test_there_must_be_a_run_to_go_on_with(run, data, tmp_path, options):
    folder = tmp_path / "none"
    refused(run(*arguments(data, folder), *options), f"{folder}: no run here to go on with")
    refused(run("--data-dir", data, *options), "--output DIR")
    assert not folder.exists()


def test_a_baseline_stands_beside_the_model_in_the_end(run, data, whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole, tmp_path / "copy")
    line = ("--output", folder, "--resume", "--baseline")
    code, out, err = run(*line, "svm")
    assert (code, err) == (0, "")
    tables = out[out.index("Before and after augmentation") :]
    assert "all: model   all: svm" in tables
    measured = json.loads((whole / "metrics.json").read_text())["test"]["P@1"]
    shown = next(line.split() for line in tables[tables.index("all: model") :].splitlines() if " P@1 " in line)
    assert shown[1] == f"{measured:.2f}"
    monkeypatch.setitem(sys.modules, "omikuji", None)
    refused(run(*line, "tree"), "pip install 'lsfa_jax[baseline]'")


def test_stages_must_be_neighbours(run, data, tmp_path):
    line = (*arguments(data, tmp_path / "run"), "--stages", "representation", "adjustment")
    refused(run(*line), "--stages representation adjustment: expected one or more neighbours")


@pytest.mark.parametrize("below", ["file", "file/run"])
def test_an_output_that_cannot_be_written_is_an_error(run, data, tmp_path, below):
    (tmp_path / "file").write_text("")
    refused(run(*arguments(data, tmp_path / below)), str(tmp_path / below), "another --output")


def ends_well(outcome, folder, *texts):
    """Asserts that a run came to its end with all figures, and returns them."""
    code, out, err = outcome
    assert (code, err) == (0, "")
    for text in texts:
        assert text in out
    found = results(folder)
    for stage in found["stages"].values():
        figures = {k: v for k, v in stage["test"].items() if k not in ("head", "tail")}
        assert len(figures) == 13
        assert all(0 <= value <= 100 + 1e-9 for value in figures.values())
    return found


@pytest.mark.parametrize(
    ("threshold", "told"),
    [
        (1000, "warning: no label has N_t = 1000 training documents: the PVAE cannot be trained"),
        (1, "warning: every label has N_t = 1 training documents: there is no tail"),
    ],
    ids=["no head", "no tail"],
)
def test_without_head_or_tail_labels_training_goes_on_without_augmentation(run, data, tmp_path, threshold, told):
    folder = tmp_path / "run"
    found = ends_well(run(*arguments(data, folder), "--pvae.head-threshold", threshold), folder, told)
    assert "pvae" not in found
    assert set(found["stages"]) == {"representation", "adjusted"}
    group = "head" if threshold == 1000 else "tail"
    assert set(found["test"][group].values()) == {0.0}
    own = [line for line in history(folder) if line["stage"] == "adjustment"]
    assert len(own) == 2
    assert all("augmented" not in line for line in own)
    assert not [line for line in history(folder) if line["stage"] == "transfer"]


def test_documents_without_labels_are_trained_on_and_counted(run, tmp_path):
    splits = training_corpus.documents()
    for rows in splits.values():
        frequent = [i for i, row in enumerate(rows) if set(row.labels) <= {"label0", "label1"}]
        for i in frequent[:2]:
            rows[i] = replace(rows[i], labels=())
    data, folder = training_corpus.write(tmp_path / "data", splits), tmp_path / "run"
    found = ends_well(run(*arguments(data, folder)), folder, "2 no labels")
    assert found["split"] == training_corpus.SIZES


def test_a_label_of_test_documents_alone_is_counted_and_never_predicted(run, data, whole, tmp_path):
    splits = training_corpus.documents()
    splits["test"] = [replace(row, labels=(*row.labels, "unheard of")) for row in splits["test"]]
    data, folder = training_corpus.write(tmp_path / "data", splits), tmp_path / "run"
    found = ends_well(run(*arguments(data, folder)), folder, "1 (e.g. 'unheard of')")
    assert found["num_labels"] == 8
    assert len((folder / "labels").read_text().splitlines()) == 9
    before = results(whole)["test"]
    assert found["test"]["P@5"] == before["P@5"]
    assert found["test"]["N@5"] < before["N@5"]
    assert found["test"]["macro_P@5"] == pytest.approx(before["macro_P@5"] * 8 / 9)


def test_every_label_in_every_document(run, tmp_path):
    splits = training_corpus.documents()
    names = tuple(sorted({label for row in splits["train"] for label in row.labels}))
    splits = {name: [replace(row, labels=names) for row in rows] for name, rows in splits.items()}
    data, folder = training_corpus.write(tmp_path / "data", splits), tmp_path / "run"
    found = ends_well(run(*arguments(data, folder)), folder, "there is no tail to augment")
    assert found["test"]["P@5"] == 100.0


def test_without_validation_documents_every_epoch_runs_and_the_last_weights_count(run, tmp_path):
    splits = training_corpus.documents()
    del splits["validation"]
    data, folder = training_corpus.write(tmp_path / "data", splits), tmp_path / "run"
    line = (*arguments(data, folder), "--data.validation-fraction", 0, "--representation.patience", 1)
    found = ends_well(run(*line), folder, "warning: no validation documents: every epoch runs")
    assert found["split"] == {"train": 36, "validation": 0, "test": 12}
    assert [line["step"] for line in history(folder)] == [5, 10, 15, 4, 8, 5, 10]
    assert all("validation" not in line for line in history(folder))


def last_state(folder, stage):
    steps = [int(path.name) for path in (folder / "checkpoints" / stage).glob("*") if path.name.isdigit()]
    return ocp.StandardCheckpointer().restore(folder / "checkpoints" / stage / str(max(steps)) / "state")


def test_a_loss_that_is_not_a_number_stops_the_run_and_spares_the_checkpoints(run, data, tmp_path):
    folder = tmp_path / "run"
    line = (*arguments(data, folder), "--optimizer.learning-rate", 1e30, "--save-every", 0)
    refused(run(*line), "representation: ", "at step", "Lower the learning rate", "start anew", "kept")
    state = last_state(folder, "representation")
    assert int(state["step"]) >= 1
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state["params"]))
    assert not (folder / "checkpoints" / "adjustment").exists()


class StopAt:
    """Stands in for `interrupts.check`: a signal comes at a step of the loop."""

    def __init__(self, call):
        self.left = call

    def __call__(self):
        self.left -= sys._getframe(1).f_code.co_name == "run"
        if not self.left:
            raise interrupts.Interrupted(signal.SIGTERM)


@contextmanager
def full_disk():
    """No file may grow beyond 6,000 bytes: enough for small ones, not for most checkpoints."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (3, "checkpoints/representation: the checkpoint could not be written"),
        (20, "checkpoints/transfer: the checkpoint could not be written"),
        (26, "checkpoints/adjustment: the checkpoint could not be written"),
    ],
    ids=["representation", "transfer", "adjustment"],
)
def test_a_full_disk_stops_the_run_and_it_can_be_gone_on_with(run, data, whole, tmp_path, monkeypatch, call, told):
    # What fails in the background stays silent for the rest of a process.
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(interrupts, "check", StopAt(call))
        assert run(*arguments(data, folder))[0] == 143
    with full_disk():
        outcome = run("--output", folder, "--resume", "--save-every", 0)
    refused(outcome, told, "File too large", "ake room")
    assert run("--output", folder, "--resume")[0] == 0
    assert results(folder) == results(whole)
    assert history(folder) == history(whole)


def test_a_folder_left_by_a_kill_at_the_very_start_can_be_gone_on_with(run, data, whole, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(whole / "config.toml", folder)
    ends_well(run("--output", folder, "--resume"), folder)
    assert results(folder) == results(whole)


@pytest.mark.parametrize("documents", [1, 36], ids=["one document", "one label"])
def test_one_label_and_one_document(run, tmp_path, documents):
    splits = training_corpus.documents()
    splits = {name: [Document(row.text, ("only",)) for row in rows] for name, rows in splits.items()}
    splits["train"] = splits["train"][:documents]
    data, folder = training_corpus.write(tmp_path / "data", splits), tmp_path / "run"
    with training_corpus.compiled_fast():
        outcome = run(*arguments(data, folder), "--psc.start-epoch", 1)
    found = ends_well(outcome, folder, "1 labels")
    assert found["num_labels"] == 1
    assert found["split"]["train"] == documents
    assert found["test"]["P@1"] == 100.0
    assert found["test"]["P@5"] == 20.0
