"""Experiments: all plans with runs that are only pretended, and plans of all kinds with runs that train."""

import csv
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tomli_w

from lsfa_jax.cli import experiments as command
from lsfa_jax.data.load import load_corpus
from lsfa_jax.evaluation.groups import best_of_groups, head_and_tail
from lsfa_jax.experiments import execute, features, plan
from lsfa_jax.experiments.features import Drawn
from lsfa_jax.experiments.plan import Settings
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.util import console
from lsfa_jax.util.console import UserError
from lsfa_jax.util.interrupts import Interrupted
from tests import training_corpus
from tests.training import pretrained_folder

ONLY_LINEAR = ("tree", "svm", "fused")


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> list[str]:
    """The options for the tiny corpus, whose last one names the output folder."""
    folder = tmp_path_factory.mktemp("experiments")
    settings = {name: value for name, value in training_corpus.TINY.items() if name != "dataset"}
    (folder / "tiny.toml").write_text(tomli_w.dumps(settings))
    data = training_corpus.write(folder / "data")
    options = ["--corpora", "custom", "--preset", "full", "--data-dir", str(data)]
    return [*options, "--config", str(folder / "tiny.toml"), "--output"]


def run(words: list[str]) -> str:
    """Runs the command; returns the message of its error."""
    try:
        with console.quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of runs that fail
            command.experiments(command.parse(words))
    except (UserError, Interrupted) as error:
        return str(error)
    return ""


class Pretended:
    """Stands for `run.train`: writes the files of a run whose rankings are random; one call may raise an error."""

    def __init__(self, error_at: Callable[[int, Any], Exception | None] = lambda call, config: None) -> None:
        self.configs: list[Any] = []
        self._error_at = error_at

    def __call__(self, config: Any, path: Path, stages: Any, *rest: Any, on_ranked: Any, **options: Any) -> None:
        self.configs.append(config)
        if error := self._error_at(len(self.configs), config):
            raise error
        folder, corpus = RunFolder(path), load_corpus(config)
        is_head = corpus.label_counts >= config.pvae.head_threshold
        for name in ("representation", "adjusted")[: len(stages)]:
            random = np.random.default_rng([config.seed, len(self.configs)])
            listed = random.permuted(np.tile(np.arange(corpus.num_labels), (len(corpus.test), 1)), axis=1)
            on_ranked(name, best_of_groups(listed.astype(np.int32), head_and_tail(is_head), 5))
        for stage in stages:
            (folder.checkpoints(stage) / "1").mkdir(parents=True, exist_ok=True)
            (folder.checkpoints(stage) / "1" / "state").write_text(stage)
        folder.write_config(config)
        folder.write_metrics({"stages": {}})
        environment = {"devices": ["cpu"], "git_commit": "0123abc", "packages": {"jax": "0"}, "machine": "a machine"}
        for name, content in (("environment.json", environment), ("data.json", {}), ("history.jsonl", {})):
            (path / name).write_text(json.dumps(content | {"stage": "representation", "step": 1}) + "\n")


def drawn(first_stage: execute.FirstStage) -> Drawn:
    random = np.random.default_rng(0)
    points = [(f"label{i}", random.normal(size=(5, 2)), random.normal(size=(5, 2))) for i in range(3)]
    return Drawn(points, {"relative_mean_error": 0.1, "variance_ratio": 0.9})


@pytest.fixture(scope="module")
def all_plans(line, tmp_path_factory) -> tuple[list[Pretended], list[str], Path]:
    """The output of three commands: a signal ends the first, a run of the second fails, the third is undisturbed."""
    output = tmp_path_factory.mktemp("all plans") / "out"
    trainings = [
        Pretended(lambda call, config: Interrupted(15) if call == 3 else None),
        Pretended(lambda call, config: UserError("no room") if config.adjust.method == "crt" else None),
        Pretended(),
    ]
    errors = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "draw", drawn)
        for number, training in enumerate(trainings):
            patch.setattr(execute.run, "train", training)
            plans = ["rivals"] if number < 2 else ["all"]
            errors.append(run([*plans, "--seeds", "2", *line, str(output)]))
    return trainings, errors, output


def test_a_run_that_fails_does_not_stop_the_others_and_none_is_repeated(all_plans):
    (interrupted, failing, last), errors, _ = all_plans
    assert [len(interrupted.configs), errors[0]] == [3, "SIGTERM"]
    assert errors[1].startswith("2 runs failed, the others are on the pages: custom, seed 0, base: ")
    assert errors[1].endswith("no room")
    assert errors[2] == ""
    # An encoder, and stages 2 and 3 of each row but the one that reports stage 1.
    assert len(interrupted.configs) - 1 + len(failing.configs) - 2 == 2 * (1 + 10) - 2
    # Those that failed; the encoders and further stages of the ablation; the encoders of the baselines; the sweep.
    assert len(last.configs) == 2 * (1 + 5 + 3 + 9)
    assert {config.seed for config in last.configs} == {0, 1}


@pytest.mark.parametrize("name", plan.names())
def test_each_plan_has_a_page_with_its_table_its_plot_and_its_claims(all_plans, name):
    read, folder = plan.read(name), all_plans[2] / name
    markdown, html = ((folder / f"index.{kind}").read_text() for kind in ("md", "html"))
    assert f"# {read.title}; the same on custom\n" in markdown
    assert read.title in html
    assert "<script" not in html
    assert "://" not in html
    rows = (folder / "custom.csv").read_text().splitlines()[1:]
    shown = {key: value for key, value in read.all_variants().items() if value.result not in ONLY_LINEAR}
    assert len(rows) == (3 if read.show == "counts" else len(shown))
    if read.show != "counts":
        assert "2 seeds; commit 0123abc, jax 0, 1 x cpu, a machine." in markdown
    if read.show != "table":
        assert 'src="custom.svg"' in html
        assert all((folder / f"custom.{kind}").stat().st_size > 5_000 for kind in ("svg", "png"))
    claims = json.loads((folder / "claims.json").read_text())
    decidable = [claim for claim in read.claims if {claim.better, claim.worse} <= set(shown)]
    assert len(claims) == sum(len(claim.metrics) for claim in decidable)
    for claim in claims:
        assert claim["low"] <= claim["high"]
        assert claim["text"] in markdown
    index = (all_plans[2] / "index.md").read_text()
    section = index.split(f"## {read.title}; the same on custom\n")[1].split("\n## ")[0]
    # A row for each claim has every metric in the column of its verdict.
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    columns = {"holds": 2, "undecided": 3, "does not hold": 4}
    for claim in claims:
        (cells,) = (row for row in rows if row[0] == claim["text"])
        assert f"{claim['metric']} {claim['difference']:+.2f}" in cells[columns[claim["verdict"]]].split(", ")


def test_variants_with_equal_settings_share_a_run(tmp_path):
    base, read = execute.Base(tmp_path), plan.read("table4")
    runs = list(execute.runs_of(read, base, ["eurlex4k"], seeds=2))
    assert [run.settings for run in runs] == [None, Settings({}, {}, {})] * 2
    assert [run.first_stage.seed for run in runs] == [0, 0, 1, 1]
    assert not any(run.is_done for run in runs)


def test_the_counts_of_labels_grow_by_pairs_or_by_documents(all_plans, tiny):
    rows = [line.split(",") for line in (all_plans[2] / "augmentation" / "custom.csv").read_text().splitlines()]
    head, counts, copies = tiny.label_counts >= 13, tiny.label_counts, np.zeros(8)
    for document in range(len(tiny.train)):
        labels = tiny.train.labels.row(document)
        copies[labels] += sum(3 / counts[label] for label in labels if not head[label])
    figures = {row[0]: [int(row[1]), int(row[2])] for row in rows[1:]}
    assert figures["original"] == [counts[head].sum(), counts[~head].sum()]
    assert figures["augmented pairs"] == [counts[head].sum(), counts[~head].sum() + 3 * (~head).sum()]
    expected = [(counts + copies)[head].sum(), (counts + copies)[~head].sum()]
    assert figures["augmented documents"] == [round(value) for value in expected]


PLAN = """
title = "A plan"
corpora = ["custom"]
metrics = ["P@5", "N@5", "tail PSP@5", "tail macro_P@5"]
paper = "5"

[variants.first]
result = "representation"

[variants.LSFA]

[variants."real features, lower threshold"]
settings.transfer.method = "resample"
settings.pvae.head_threshold = 8

[variants."logit adjustment"]
settings.adjust.method = "logit_adjustment"
"""


CURVE = """
title = "A curve"
corpora = ["custom"]
show = "curve"
metrics = ["N@5", "tail PSP@5"]

[sweep]
"adjust.num_augmented" = [0, 1]
"""


@pytest.fixture
def pretended(tmp_path, monkeypatch) -> Pretended:
    training = Pretended()
    monkeypatch.setattr(execute.run, "train", training)
    (tmp_path / "curve.toml").write_text(CURVE.replace("[0, 1]", "[0, 2]"))
    return training


def test_a_sweep_needs_no_run_with_the_usual_value(line, tmp_path, pretended):
    assert run([str(tmp_path / "curve.toml"), "--seeds", "1", *line, str(tmp_path / "out")]) == ""
    assert (tmp_path / "out" / "curve" / "custom.svg").is_file()


def test_runs_of_another_folder_of_documents_are_not_taken_for_those_of_this_one(line, tmp_path, pretended):
    words, other = [str(tmp_path / "curve.toml"), "--seeds", "1", *line, str(tmp_path / "out")], tmp_path / "other"
    assert run(words) == ""
    place = words.index("--data-dir") + 1
    shutil.copytree(words[place], other)
    moved = [*words[:place], str(other), *words[place + 1 :]]
    for more in ([], ["--report"]):
        error = run([*moved, *more])
        assert error.startswith(f"--data-dir {other}: {tmp_path / 'out'}")
        assert error.endswith(f"is of {words[place]}; choose another --output")
    assert run([*words, "--report"]) == run([*words[: place - 1], *words[place + 1 :], "--report"]) == ""
    assert len(pretended.configs) == 3


def test_runs_of_another_encoder_of_the_same_name_are_not_taken_for_those_of_this_one(line, tmp_path, pretended):
    for folder in ("a", "b"):
        pretrained_folder.write(tmp_path / folder / "encoder")
    settings = tmp_path / "small.toml"
    settings.write_text("[encoder]\nattention_size = 4\n")
    words = [str(tmp_path / "curve.toml"), "--seeds", "1", *line, str(tmp_path / "out")]
    words[words.index("--config") + 1] = str(settings)
    assert run([*words, "--encoder", str(tmp_path / "a" / "encoder")]) == ""
    error = run([*words, "--encoder", str(tmp_path / "b" / "encoder")])
    assert f"is of {tmp_path / 'a' / 'encoder'}; choose another --output" in error


class Trained(NamedTuple):
    """A command with plans of all kinds whose runs trained."""

    words: list[str]
    output: Path

    def read(self, name: str) -> plan.Plan:
        return plan.read(next(word for word in self.words if Path(word).stem == name))

    def runs(self, name: str) -> Iterator[tuple[str, plan.Variant, execute.Needed]]:
        read, base = self.read(name), command.base(command.parse(self.words))
        for variant, settings in read.all_variants().items():
            yield variant, settings, execute.run_of(read, settings, base, "custom", 0)

    def table(self, name: str) -> tuple[list[str], dict[str, list[str]]]:
        header, *rows = csv.reader((self.output / name / "custom.csv").read_text().splitlines())
        return header[1:], {row: figures for row, *figures in rows}


@pytest.fixture(scope="module")
def trained(line, tmp_path_factory, shared_steps) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    for name, content in (("small", PLAN), ("curve", CURVE)):
        (folder / f"{name}.toml").write_text(content)
    files = [str(folder / f"{name}.toml") for name in ("small", "curve")]
    plans = [*files, "ablation", "baselines", "bins", "features", "augmentation"]
    words = [*plans, "--seeds", "1", *line, str(folder / "out")]
    with training_corpus.one_device():
        assert run(words) == ""
    return Trained(words, folder / "out")


@pytest.mark.slow
def test_runs_share_an_encoder_and_keep_what_is_small(trained):
    assert len(list(trained.output.glob("runs/custom-*/seed-0/*"))) == 6
    (encoder,) = trained.output.glob("runs/custom-*/seed-0/base")
    results = {folder.name: folder for folder in (encoder / "results").iterdir()}
    assert set(results) == {
        "base", "adjust.method=logit_adjustment", "pvae.head_threshold=8,transfer.method=resample",
        "adjust.num_augmented.times=0.0",
    }  # fmt: skip
    # Runs with equal settings of stage 2 share it. Nothing large is kept but the encoder's run and stage 2.
    assert {folder.name for folder in (encoder / "transfer").iterdir()} == {
        "base", "pvae.head_threshold=8,transfer.method=resample"
    }  # fmt: skip
    assert not list((encoder / "work").iterdir())
    assert not (encoder / "encoder" / "states").exists()
    kept = {"metrics.json", "config.toml", "environment.json", "history.jsonl", "rankings", "done.json"}
    assert all({path.name for path in folder.iterdir()} == kept for folder in results.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "curve", "ablation", "baselines", "bins"])
def test_figures_are_those_of_the_runs(trained, name):
    metrics, rows = trained.table(name)
    if name == "small":
        assert [rows.pop(f"paper: {model}")[0] for model in ("LSAN", "HTTN", "LSFA")] == ["53.67", "55.68", "58.95"]
    shown = [each for each in trained.runs(name) if each[1].result not in ONLY_LINEAR]
    assert list(rows) == [variant for variant, _, _ in shown]
    for variant, settings, needed in shown:
        folder = needed.first_stage.run if needed.settings is None else needed.first_stage.result(needed.settings)
        of_run = RunFolder(folder).read_metrics()["stages"][settings.result]["test"]
        expected = of_run | {f"tail {m}": v for m, v in of_run["tail"].items()}
        expected |= {f"head {m}": v for m, v in of_run["head"].items()}
        values = [expected[metric] for metric in metrics]
        # Figures have two decimals.
        np.testing.assert_allclose(list(map(float, rows[variant])), values, rtol=0, atol=0.00501, err_msg=variant)
    if name == "small":
        assert len({tuple(figures) for figures in rows.values()}) > 1


@pytest.mark.slow
def test_the_figures_beside_the_pictures_of_features_are_those_of_stage_2(trained):
    """A and B of the ablation train the same two encoders, and run stage 2 on them."""
    header, rows = trained.table("features")
    of_ablation = {variant: needed for variant, _, needed in trained.runs("ablation")}
    for figures, variant in zip(rows.values(), ("B", "A"), strict=True):
        needed = of_ablation[variant]
        metrics = RunFolder(needed.first_stage.result(needed.settings)).read_metrics()["pvae"]
        expected = [metrics[name.replace(" ", "_")] for name in header]
        np.testing.assert_allclose(list(map(float, figures)), expected, rtol=0, atol=0.0011)


@pytest.mark.slow
def test_what_is_done_is_not_trained_again(trained):
    with pytest.MonkeyPatch.context() as patch:
        training = Pretended()
        patch.setattr(execute.run, "train", training)
        assert run([word for word in trained.words if word != "features"]) == ""
        assert not training.configs


@pytest.mark.slow
def test_features_are_those_of_the_chosen_labels(trained, tiny):
    _, _, needed = next(trained.runs("features"))
    with training_corpus.one_device(), console.quiet():
        labels = features.draw(needed.first_stage).labels
    # The head label with the fewest features and the two tail labels with the most.
    names = {count: label for label, count in zip(tiny.labels, tiny.label_counts, strict=True)}
    assert [name for name, _, _ in labels] == [f"{names[count]} ({count})" for count in (13, 8, 7)]
    assert [real.shape for _, real, _ in labels] == [(13, 2), (8, 2), (7, 2)]
    assert [generated.shape for _, _, generated in labels] == [(13, 2), (8, 2), (7, 2)]
