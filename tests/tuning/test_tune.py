"""Searches whose trials are, but for one, only pretended: their metric follows from the settings."""

import csv
import json
import math
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from filelock import FileLock

from lsfa_jax.cli import tune as command
from lsfa_jax.config import Config
from lsfa_jax.training import encoder_choice, run, time_limit
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.tuning.study import Search
from lsfa_jax.util import interrupts
from lsfa_jax.util.interrupts import Interrupted
from tests import training_corpus
from tests.training import pretrained_folder, runs

SPACE = """
[optimizer]
learning_rate = { low = 1e-3, high = 1.0, log = true }
[adjust]
epochs = [1, 2, 3]
"""
BEST_RATE = 0.02
METRICS = ("P@1", "P@3", "P@5", "N@5", "PSP@5")


def value_of(config: Config) -> float:
    """Returns the metric of a pretended run: highest at a learning rate."""
    return 90 - 10 * abs(math.log10(config.optimizer.learning_rate / BEST_RATE)) + config.adjust.epochs / 10


class Pretended:
    """Stands for `run.train`: writes the files of a run of four epochs."""

    def __init__(self, at: Callable[[int, int], None] = lambda call, epoch: None, **metrics: Any) -> None:
        """Calls `at(call, epoch)`, which may raise an error, before each epoch; its runs have further metrics."""
        self.configs: list[Config] = []
        self.tested: list[Path] = []
        self._at, self._metrics = at, metrics

    def __call__(self, config: Config, path: Path, *, resume: bool, test: bool = True, **options: Any) -> dict:
        folder, value = RunFolder(path), value_of(config)
        assert options["linear"].name == "linear"
        assert resume == folder.config_file.is_file()
        if test:
            self.tested.append(path)
            assert (path / "checkpoints" / "state").is_file()
            folder.write_metrics(
                folder.read_metrics() | {"test": dict.fromkeys(("P@1", "P@3", "P@5", "N@5", "PSP@5"), 5)}
            )
            return {}
        assert {"optimizer.learning_rate", "adjust.epochs"} <= options["chosen"]
        self.configs.append(config)
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        for name in ("checkpoints/state", "weights.safetensors", "environment.json"):
            (path / name).write_text("")
        folder.write_config(config)
        begun = len((path / "history.jsonl").read_text().splitlines()) if resume else 0
        for epoch in range(begun + 1, 5):
            self._at(len(self.configs), epoch)
            with (path / "history.jsonl").open("a") as file:
                file.write(json.dumps({"stage": "representation", "epoch": epoch}) + "\n")
            options["on_validation"]("representation", float(epoch), {"N@5": value - 5 / epoch})
        options["on_validation"]("adjustment", 1.0, {"N@5": value})
        reached = {"representation": value - 1, "adjusted": value, "fused": 99.0}
        metrics = {"stages": {name: {"validation": {"N@5": score}} for name, score in reached.items()}} | self._metrics
        folder.write_metrics(metrics)
        return metrics


class Searched:
    """Runs bin/tune on the tiny corpus, in one folder."""

    def __init__(self, folder: Path, data: Path) -> None:
        settings = {name: value for name, value in training_corpus.TINY.items() if name != "dataset"}
        (folder / "tiny.toml").write_text(tomli_w.dumps(settings))
        (folder / "space.toml").write_text(SPACE)
        self.output = folder / "out"
        self.line = ["--data-dir", str(data), "--config", str(folder / "tiny.toml"), "--output", str(self.output)]
        self.line += ["--space", str(folder / "space.toml")]

    def __call__(self, training: Pretended, *more: object) -> int:
        """Returns the exit code."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "train", training)
            return command.main([*self.line, *map(str, more)])

    def trials(self) -> list[dict[str, str]]:
        """Returns the rows of trials.csv without times."""
        with (self.output / "trials.csv").open() as file:
            return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return training_corpus.write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def searched(tmp_path, data) -> Searched:
    return Searched(tmp_path, data)


@pytest.fixture(scope="module")
def complete(tmp_path_factory, data) -> tuple[Searched, Pretended]:
    """A search of 10 trials."""
    searched, training = Searched(tmp_path_factory.mktemp("search"), data), Pretended()
    assert searched(training, "--trials", 10) == 0
    return searched, training


def test_the_best_trial_alone_keeps_its_model_and_is_measured_on_test_documents(complete):
    searched, training = complete
    rows = searched.trials()
    assert [row["trial"] for row in rows] == [str(number) for number in range(10)]
    assert {row["state"] for row in rows} == {"complete", "pruned"}
    by_value = sorted((row for row in rows if row["state"] == "complete"), key=lambda row: -float(row["N@5"]))
    best = searched.output / "trials" / f"{int(by_value[0]['trial']):04d}"
    assert training.tested == [best]
    kept = {path.parent.parent.name for path in (searched.output / "trials").glob("*/checkpoints/state")}
    assert (
        kept == {path.parent.name for path in (searched.output / "trials").glob("*/weights.safetensors")} == {best.name}
    )
    settings = tomllib.loads((searched.output / "best.toml").read_text())
    assert settings["optimizer"]["learning_rate"] == float(by_value[0]["optimizer.learning_rate"])
    assert value_of(Config.model_validate(settings)) == pytest.approx(float(by_value[0]["N@5"]), abs=0.01)
    assert 0.5 < settings["optimizer"]["learning_rate"] / BEST_RATE < 3


def test_the_first_trial_has_the_settings_of_a_run_and_poor_trials_are_pruned(complete):
    searched, training = complete
    first = training.configs[0]
    assert (first.optimizer.learning_rate, first.adjust.epochs) == (0.2, 2)
    assert first.encoder.hidden_size == training_corpus.TINY["encoder"]["hidden_size"]
    pruned = [row for row in searched.trials() if row["state"] == "pruned"]
    assert all(3 <= float(row["epochs"]) < 5 for row in pruned)
    assert all(float(row["N@5"]) < 85 for row in pruned)


def test_the_page_has_all_trials_and_the_importance_of_the_settings(complete):
    searched, _ = complete
    markdown, html = ((searched.output / f"index.{kind}").read_text() for kind in ("md", "html"))
    assert "<script" not in html
    assert "importance.svg" in html
    assert (searched.output / "importance.png").stat().st_size > 5_000
    shares = {
        row[0]: row[-1] for row in (line.strip("| ").split(" | ") for line in markdown.splitlines()) if "." in row[0]
    }
    assert int(shares["optimizer.learning_rate"].rstrip(" %")) > 50
    assert markdown.count("| complete |") + markdown.count("| pruned |") == 10


def test_the_same_command_repeats_nothing_and_other_settings_are_an_error(complete, capsys):
    searched, _ = complete
    training = Pretended()
    assert searched(training, "--trials", 10) == 0
    assert (training.configs, training.tested) == ([], [])
    assert searched(training, "--trials", 10, "--psc.weight", 0.5) == 2
    assert "has other settings (psc.weight); use the same, or choose another --output" in capsys.readouterr().err


def test_a_search_that_was_interrupted_continues_its_trial_and_ends_as_an_undisturbed_one(complete, searched):
    def stop(call: int, epoch: int) -> None:
        if (call, epoch) == (6, 3):
            raise Interrupted(2)

    first, second = Pretended(stop), Pretended()
    assert searched(first, "--trials", 10) == 130
    assert not (searched.output / "trials.csv").exists()
    assert (searched.output / "best.toml").is_file()
    assert searched(second, "--trials", 10) == 0
    assert first.configs[5] == second.configs[0]
    assert len(first.configs) + len(second.configs) == 11
    assert searched.trials() == complete[0].trials()


def test_a_trial_of_another_command_is_left_to_it(searched, capsys):
    def stop(call: int, epoch: int) -> None:
        if call == 2:
            raise Interrupted(15)

    assert searched(Pretended(stop), "--trials", 3) == 143
    training = Pretended()
    with FileLock(searched.output / "trials" / "0001.lock", is_singleton=False):
        assert searched(training, "--trials", 3) == 0
        assert "Another command still runs trials" in capsys.readouterr().out
    assert [len(training.configs), training.tested] == [1, []]
    assert [row["state"] for row in searched.trials()] == ["complete", "not done", "complete"]
    assert searched(training, "--trials", 3) == 0
    assert [len(training.configs), len(training.tested)] == [2, 1]


def test_a_trial_that_fails_does_not_end_the_search_and_three_do(searched, capsys):
    def fail(call: int, epoch: int) -> None:
        if call == 2 or call > 4:
            raise ValueError("too large")

    assert searched(Pretended(fail), "--trials", 4) == 0
    assert [(row["state"], row["error"]) for row in searched.trials()][1] == (
        "failed",
        "too large",
    )
    training = Pretended(fail)
    training.configs = [Config()] * 4
    assert searched(training, "--trials", 20) == 2
    assert "the last 3 trials failed, so the search ends: too large" in capsys.readouterr().err
    assert len(training.configs) == 7


def test_a_time_limit_stops_a_trial_which_the_next_command_continues(searched, capsys, monkeypatch):
    seconds = [1000.0]
    monkeypatch.setattr(Search, "left", lambda search: seconds[-1])

    def wait(call: int, epoch: int) -> None:
        while (call, epoch) == (2, 3):
            seconds.append(0.0)
            time.sleep(0.05)
            interrupts.check()

    assert searched(Pretended(wait), "--time-limit", "1h") == 0
    seconds.append(1000.0)
    lines = capsys.readouterr().out
    assert "--time-limit: a trial may take 8 min, an eighth of it" in lines
    assert "Trial 1 is stopped, as the time is over" in lines
    assert [row["state"] for row in searched.trials()] == ["complete", "not done"]
    training = Pretended()
    assert searched(training, "--trials", 2) == 0
    assert "not done" not in {row["state"] for row in searched.trials()}
    assert len(training.configs) == 1


@pytest.mark.slow
def test_a_trial_of_which_a_time_limit_planned_fewer_epochs_than_were_chosen_continues(searched, monkeypatch):
    monkeypatch.setattr(time_limit, "fitted_epochs", lambda *_: 1)
    with runs.raised_at(4, Interrupted(15)):
        assert searched(run.train, "--trials", 1, "--time-limit", "1h") == 143
    trial = RunFolder(searched.output / "trials" / "0000")
    assert trial.read_config().representation.epochs == 1 < training_corpus.TINY["representation"]["epochs"]
    assert searched(run.train, "--trials", 1) == 0
    assert [(row["state"], row["error"], row["epochs"]) for row in searched.trials()] == [("complete", "", "1")]


def test_the_same_command_continues_with_the_encoder_that_was_chosen_within_a_time_limit(
    tmp_path, data, monkeypatch, capsys
):
    folder = str(pretrained_folder.write(tmp_path / "encoder"))
    encoder = {"encoder.kind": "transformer", "encoder.pretrained": folder, "encoder.train": "1"}
    monkeypatch.setattr(encoder_choice, "PRETRAINED", folder)
    monkeypatch.setattr(encoder_choice, "_choose", lambda *_: ({**encoder, "representation.epochs": 4}, "it fits"))
    monkeypatch.setattr(run, "train", Pretended())
    (tmp_path / "space.toml").write_text(SPACE)
    line = ["--data-dir", str(data), "--output", str(tmp_path / "out"), "--space", str(tmp_path / "space.toml")]
    for number in range(1, 3):
        assert command.main([*line, "--time-limit", "1h", "--trials", str(number)]) == 0
    assert command.main([*line, "--trials", "3"]) == 0
    assert capsys.readouterr().out.count("--encoder auto: ") == 1


def test_values_of_a_list_are_not_rounded(searched):
    Path(searched.line[-1]).write_text("[optimizer]\nlearning_rate = [0.12345]\n[adjust]\nepochs = [1]\n")
    training = Pretended()
    assert searched(training, "--trials", 1) == 0
    assert training.configs[0].optimizer.learning_rate == 0.12345
    assert [row["optimizer.learning_rate"] for row in searched.trials()] == ["0.12345"]


NOTHING_GAINED = "No trial is better than trial 0, which has the settings of bin/train"
NO_PART = "the network has no part in the fused score"


def test_a_search_that_gained_nothing_says_so(searched, complete, capsys):
    assert searched(Pretended(evidence={"linear": "tree", "network": False}), "--trials", 1) == 0
    for text in (capsys.readouterr().out, (searched.output / "index.html").read_text()):
        assert NOTHING_GAINED in text
        assert NO_PART in text
        assert "The label tree ranks labels alone" in text
    page = (complete[0].output / "index.html").read_text()
    assert NOTHING_GAINED not in page
    assert NO_PART not in page


def test_a_folder_with_other_files_and_a_missing_package_are_errors(searched, capsys, monkeypatch):
    searched.output.mkdir()
    (searched.output / "notes.txt").write_text("")
    assert searched(Pretended(), "--trials", 1) == 2
    assert "has files of something else (notes.txt); choose another --output" in capsys.readouterr().err
    (searched.output / "notes.txt").unlink()
    (searched.output / "study.db").write_text("something else entirely, longer than the header of a database" * 3)
    assert searched(Pretended(), "--trials", 1) == 2
    assert f"{searched.output / 'study.db'}: not a database of bin/tune, or damaged" in capsys.readouterr().err
    monkeypatch.setattr(command, "_PACKAGES", {"no_such_module": "optuna"})
    assert searched(Pretended(), "--trials", 1) == 2
    assert (
        "bin/tune needs the packages of the extra tune, of which optuna cannot be imported" in capsys.readouterr().err
    )
