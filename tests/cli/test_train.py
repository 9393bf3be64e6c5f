import gc
import importlib.util
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
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from lsfa_jax.cli.train import main, parse, with_encoder
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.util import interrupts
from tests import training_corpus
from tests.training_corpus import arguments

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(compiled, shared_steps):
    """The environment of a process with one device that shares compiled programs with the other tests."""
    return os.environ | compiled | {"JAX_NUM_CPU_DEVICES": "1", "LSFA_PYTHON": sys.executable}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training_corpus.write(tmp_path_factory.mktemp("data"))


def long_run(data, folder):
    """Returns the tiny settings with an adjustment that is long enough to be stopped in its middle."""
    return arguments(data, folder, "--adjust.epochs", 10, "--adjust.patience", 10)


def has_checkpoint(folder, number=1):
    """Whether the checkpoint with this number, or a later one, is complete; with --save-every 0 a first step saves."""
    return any(path.name.isdigit() and int(path.name) >= number for path in folder.glob("*"))


class Command:
    """A process of bin/train, with the lines that it has printed so far."""

    def __init__(self, environment, *line):
        self.process = subprocess.Popen(
            [str(ROOT / "bin" / "train"), *map(str, line)],
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
        """Waits until the checkpoint with this number, or a later one, is complete."""
        while not has_checkpoint(folder, number):
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.005)

    def end(self):
        """Returns the exit code once the command has ended."""
        out, self.err = self.process.communicate()
        self.out += out
        assert "Traceback" not in self.err
        return self.process.returncode


@pytest.fixture(scope="module")
def uninterrupted(environment, data, tmp_path_factory):
    """The folder of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    command = Command(environment, *long_run(data, folder))
    assert command.end() == 0, command.err
    assert "is the model that predicts" in command.out
    assert command.out.endswith(f"Next: bin/predict --run {folder} FILE\n")
    return folder


def results(folder):
    """Returns metrics.json without the times."""
    return {k: v for k, v in json.loads((folder / "metrics.json").read_text()).items() if k != "seconds"}


def history(folder):
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.endswith(("/s", "_wait", "time"))} for line in lines
    ]


def test_a_run_that_was_killed_stopped_and_resumed_gives_the_same_results(environment, data, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    # Saved as often as possible, so that a kill may come during a save.
    often = ("--save-every", 0)
    draw = random.Random(0)
    for line, checkpoint in ((long_run(data, folder), 1), (["--output", folder, "--resume"], 2)):
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
        assert f"Interrupted, everything is saved. Continue with: bin/train --output {folder} --resume" in command.out
        assert command.err == ""

    command = Command(environment, "--output", folder, "--resume")
    assert command.end() == 0
    assert results(folder) == results(uninterrupted)
    assert history(folder) == history(uninterrupted)


def test_the_second_signal_ends_a_run_at_once_and_the_resumed_run_gives_the_same_results(
    environment, data, uninterrupted, tmp_path, run
):
    folder = tmp_path / "run"
    line = long_run(data, folder)
    resume = f"bin/train --output {folder} --resume"
    for text, first, second, code in (
        ("Devices", signal.SIGINT, signal.SIGINT, 130),  # while programs are compiled
        ("representation epoch 2", signal.SIGTERM, signal.SIGTERM, 143),
        ("representation: waited", signal.SIGINT, signal.SIGTERM, 143),  # in the test or the collection
        ("adjustment epoch 2", signal.SIGTERM, signal.SIGINT, 130),
    ):
        command = Command(environment, *line, "--save-every", 0)
        command.wait_for(text)
        if text == "Devices":
            assert_user_error(run("--output", folder, "--resume"), f"in use by process {command.process.pid} on this")
        command.process.send_signal(first)
        command.wait_for("a second signal")
        start = time.monotonic()
        command.process.send_signal(second)
        assert command.end() == code
        assert time.monotonic() - start < 2
        assert command.err.startswith("error: interrupted. ")
        assert command.err.endswith(f"{resume}\n")
        assert ("no checkpoint yet" in command.err) == (text == "Devices")
        line = ["--output", folder, "--resume"]
    assert Command(environment, *line).end() == 0
    assert results(folder) == results(uninterrupted)
    assert history(folder) == history(uninterrupted)


def test_signals_while_the_process_ends_print_no_traceback(environment, data, tmp_path):
    command = Command(environment, *long_run(data, tmp_path / "run"), "--save-every", 0)
    command.wait_for("representation epoch 1")
    command.process.send_signal(signal.SIGINT)
    command.wait_for("Interrupted, everything is saved")
    time.sleep(0.05)  # until the run itself is over: in it, a second signal ends the process
    while command.process.poll() is None:
        command.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert command.end() == 130
    assert "Traceback" not in command.err
    assert command.err.count("\n") <= 1


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_data_is_read_leaves_a_run_as_it_was(environment, data, uninterrupted, tmp_path, signum, code):
    vectors = tmp_path / "vectors.txt"
    os.mkfifo(vectors)  # is read until something is written
    command = Command(environment, *long_run(data, tmp_path / "run"), "--vectors", vectors)
    command.wait_for("test.jsonl: 12 rows read")
    assert command.process.poll() is None
    time.sleep(0.2)
    command.process.send_signal(signum)
    assert command.end() == code
    assert command.err == "error: interrupted before there was anything to save\n"
    assert not (tmp_path / "run").exists()


def test_an_error_names_the_option_nearest_to_an_unknown_one(environment):
    command = Command(environment, "--adjust.epoch", 3)
    assert command.end() == 2
    assert "--adjust.epochs" in command.err


@pytest.fixture
def run(environment, one_device, capsys):
    """Runs the command in this process, on one device: exit code, output, errors.

    An unexpected error is an exception of the test.
    """

    def run(*line):
        capsys.readouterr()
        code = main([str(word) for word in line])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


def assert_user_error(outcome, *texts):
    code, _, err = outcome
    assert code == 2
    assert err.startswith("error: ")
    for text in texts:
        assert text in err


def test_event_files_need_their_package(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["--log", "tensorboard", "--output", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert "bin/train --log tensorboard needs the packages of the extra watch, of which tensorboardX cannot" in message
    assert f"{sys.executable} -m pip install tensorboardX" in message
    assert not (tmp_path / "run").exists()


def test_the_folder_of_another_run_is_not_overwritten(run, data, uninterrupted):
    before = (uninterrupted / "metrics.json").read_bytes()
    assert_user_error(
        run(*arguments(data, uninterrupted)), f"{uninterrupted}: holds another run", "--resume", "another --output"
    )
    assert (uninterrupted / "metrics.json").read_bytes() == before


def test_a_folder_that_is_not_a_run_is_not_changed(run, data, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear all")
    assert_user_error(
        run(*arguments(data, tmp_path)), f"{tmp_path}: exists and is not a run folder", "another --output"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("options", [("--resume",), ("--stages", "adjustment")])
def test_resuming_needs_a_run(run, data, tmp_path, options):
    folder = tmp_path / "none"
    assert_user_error(run(*arguments(data, folder), *options), f"{folder}: no run")
    assert_user_error(run("--data-dir", data, *options), "--output DIR")
    assert not folder.exists()


def test_stages_must_be_consecutive(run, data, tmp_path):
    line = (*arguments(data, tmp_path / "run"), "--stages", "representation", "adjustment")
    assert_user_error(run(*line), "--stages representation adjustment: expected one stage, or consecutive ones")


def test_the_labels_are_split_over_a_divisor_of_the_devices(run, data, tmp_path):
    line = (*arguments(data, tmp_path / "run"), "--devices.labels", 3)
    assert_user_error(run(*line), "--devices.labels 3: expected a divisor of the number of devices, 1\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("below", ["file", "file/run"])
def test_an_output_that_cannot_be_written_is_an_error(run, data, tmp_path, below):
    (tmp_path / "file").write_text("")
    assert_user_error(run(*arguments(data, tmp_path / below)), str(tmp_path / below), "another --output")


def assert_complete(outcome, folder, *texts):
    """Asserts that a run completed with all metrics, and returns them."""
    code, out, err = outcome
    assert (code, err) == (0, "")
    for text in texts:
        assert text in out
    measured = results(folder)
    for stage in measured["stages"].values():
        metrics = {k: v for k, v in stage["test"].items() if k not in ("head", "tail")}
        assert len(metrics) == 17
        assert all(0 <= value <= 100 + 1e-9 for value in metrics.values())
    return measured


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (1000, "warning: no label has N_t = 1000 training documents: the PVAE is not trained"),
        (1, "warning: every label has N_t = 1 training documents: no label is rare"),
    ],
    ids=["no head", "no tail"],
)
def test_without_head_or_tail_labels_training_goes_on_without_augmentation(run, data, tmp_path, threshold, message):
    folder = tmp_path / "run"
    measured = assert_complete(run(*arguments(data, folder), "--pvae.head-threshold", threshold), folder, message)
    assert "pvae" not in measured
    assert set(measured["stages"]) == {"representation", "adjusted"}
    group = "head" if threshold == 1000 else "tail"
    assert set(measured["test"][group].values()) == {0.0}
    adjustment = [line for line in history(folder) if line["stage"] == "adjustment"]
    assert len(adjustment) == 2
    assert all("augmented" not in line for line in adjustment)
    assert not [line for line in history(folder) if line["stage"] == "transfer"]


def test_documents_without_labels_are_trained_on_and_counted(run, tmp_path):
    splits = training_corpus.documents()
    for rows in splits.values():
        frequent = [i for i, row in enumerate(rows) if set(row.labels) <= {"label0", "label1"}]
        for i in frequent[:2]:
            rows[i] = rows[i]._replace(labels=())
    data, folder = training_corpus.write(tmp_path / "data", splits), tmp_path / "run"
    measured = assert_complete(run(*arguments(data, folder)), folder, "2 no labels")
    assert measured["split"] == training_corpus.SIZES


def test_a_label_that_only_test_documents_have_is_counted_and_never_predicted(run, data, uninterrupted, tmp_path):
    splits = training_corpus.documents()
    splits["test"] = [row._replace(labels=(*row.labels, "unheard of")) for row in splits["test"]]
    data, folder = training_corpus.write(tmp_path / "data", splits), tmp_path / "run"
    measured = assert_complete(run(*long_run(data, folder)), folder, "1 (e.g. 'unheard of')")
    assert measured["num_labels"] == 8
    assert len((folder / "labels").read_text().splitlines()) == 9
    before = results(uninterrupted)["test"]
    assert measured["test"]["P@5"] == before["P@5"]
    assert measured["test"]["N@5"] < before["N@5"]
    assert measured["test"]["macro_P@5"] == pytest.approx(before["macro_P@5"] * 8 / 9)


def test_training_when_every_document_has_every_label(run, tmp_path):
    splits = training_corpus.documents()
    names = tuple(sorted({label for row in splits["train"] for label in row.labels}))
    splits = {name: [row._replace(labels=names) for row in rows] for name, rows in splits.items()}
    data, folder = training_corpus.write(tmp_path / "data", splits), tmp_path / "run"
    measured = assert_complete(run(*arguments(data, folder)), folder, "no label is rare")
    assert measured["test"]["P@5"] == 100.0


def test_without_validation_documents_every_epoch_runs_and_the_last_weights_are_kept(run, tmp_path):
    splits = training_corpus.documents()
    del splits["validation"]
    data, folder = training_corpus.write(tmp_path / "data", splits), tmp_path / "run"
    line = (*arguments(data, folder), "--data.validation-fraction", 0, "--representation.patience", 1)
    measured = assert_complete(run(*line), folder, "warning: no validation documents: every epoch runs")
    assert measured["split"] == {"train": 36, "validation": 0, "test": 12}
    assert [line["step"] for line in history(folder)] == [5, 10, 15, 4, 8, 5, 10]
    assert all("validation" not in line for line in history(folder))


def last_state(folder, stage):
    steps = [int(path.name) for path in (folder / "checkpoints" / stage).glob("*") if path.name.isdigit()]
    return ocp.StandardCheckpointer().restore(folder / "checkpoints" / stage / str(max(steps)) / "state")


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoints(run, data, tmp_path):
    folder = tmp_path / "run"
    line = (*arguments(data, folder), "--optimizer.learning-rate", 1e30, "--save-every", 0)
    assert_user_error(run(*line), "representation: ", "at step", "Lower the learning rate", "kept")
    state = last_state(folder, "representation")
    assert int(state["step"]) >= 1
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state["params"]))
    assert not (folder / "checkpoints" / "adjustment").exists()


@contextmanager
def stopped_in(stage, folder):
    """Sends SIGTERM to this process before the first step that finds a checkpoint of the stage."""
    check, sent = interrupts.check, []

    def stop_and_check():
        if not sent and has_checkpoint(folder / "checkpoints" / stage):
            sent.append(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        check()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interrupts, "check", stop_and_check)
        yield


@contextmanager
def full_disk():
    """Files are limited to 4,990 bytes: each checkpoint has a larger one, the history before adjustment has 4,825."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4990, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


@pytest.mark.parametrize("stage", ["representation", "transfer", "adjustment"])
def test_a_run_that_a_full_disk_stopped_can_be_resumed(run, data, uninterrupted, tmp_path, monkeypatch, stage):
    # An exception in a background thread would stay silent for the rest of the process.
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    folder = tmp_path / "run"
    with stopped_in(stage, folder):
        assert run(*long_run(data, folder), "--save-every", 0)[0] == 143
    with full_disk():
        outcome = run("--output", folder, "--resume", "--save-every", 0)
    message = f"checkpoints/{stage}: the checkpoint could not be written"
    assert_user_error(outcome, message, "File too large")
    # Orbax's failed tasks are logged when they are collected. In Python 3.11 the parser, which tyro uses, fails if that
    # happens in the middle of its work.
    gc.collect()
    assert run("--output", folder, "--resume")[0] == 0
    assert results(folder) == results(uninterrupted)
    assert history(folder) == history(uninterrupted)


def test_a_run_that_was_killed_at_its_start_can_be_resumed(run, data, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(uninterrupted / "config.toml", folder)
    assert_complete(run("--output", folder, "--resume"), folder)
    assert results(folder) == results(uninterrupted)


def test_one_document_is_an_error_and_no_test_documents_a_warning(run, tmp_path):
    splits = {"train": training_corpus.documents()["train"][:1]}
    data, folder = training_corpus.write(tmp_path / "one", splits), tmp_path / "run"
    line = ("--data.validation-fraction", 0, "--data.test-fraction", 0)
    assert_user_error(run(*arguments(data, folder), *line), "1 training, 0 validation and 0 test documents", "more")
    assert not folder.exists()
    splits = {"train": training_corpus.documents()["train"]}
    outcome = run(*arguments(training_corpus.write(tmp_path / "all", splits), folder), *line, "--psc.start-epoch", 1)
    assert outcome[0] == 0
    assert "warning: 36 training, 0 validation and 0 test documents: no result can be measured" in outcome[1]


@pytest.mark.parametrize("documents", [1, 36], ids=["one document", "one label"])
def test_training_with_one_label_or_one_document(run, tmp_path, documents):
    splits = training_corpus.documents()
    splits = {name: [Document(row.text, ("only",)) for row in rows] for name, rows in splits.items()}
    splits["train"] = splits["train"][:documents]
    data, folder = training_corpus.write(tmp_path / "data", splits), tmp_path / "run"
    outcome = run(*arguments(data, folder), "--psc.start-epoch", 1)
    measured = assert_complete(outcome, folder, "1 label (")
    assert measured["num_labels"] == 1
    assert measured["split"]["train"] == documents
    assert measured["test"]["P@1"] == 100.0
    assert measured["test"]["P@5"] == 20.0


def test_options_win_over_what_the_encoder_that_suits_the_corpus_brings(monkeypatch):
    brought = {"encoder.kind": "cnn", "representation.epochs": 3}
    monkeypatch.setattr("lsfa_jax.data.load.load_corpus", lambda config, prints: None)
    monkeypatch.setattr("lsfa_jax.training.encoder_choice.settings", lambda corpus, seconds: brought)
    for argv, epochs in (([], 3), (["--representation.epochs", "7"], 7)):
        arguments = parse(with_encoder(parse(argv), argv))
        assert (arguments.encoder.kind, arguments.representation.epochs) == ("cnn", epochs)


def test_the_choice_of_an_encoder_does_not_print_what_was_read(data, capsys):
    argv = ["--data-dir", str(data)]
    assert with_encoder(parse(argv), argv) == argv
    lines = capsys.readouterr().out
    assert "--encoder auto: bilstm" in lines
    assert "rows read" not in lines
