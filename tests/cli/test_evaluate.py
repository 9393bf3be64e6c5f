import csv
import json
import re
import shutil
import sys
import tempfile
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lsfa_jax.cli import compared
from lsfa_jax.cli.evaluate import EvaluateArguments, evaluate, main
from lsfa_jax.data.load import load_corpus
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import Ranked
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER
from lsfa_jax.evaluation import ranking
from lsfa_jax.evaluation.document_store import DocumentStore
from lsfa_jax.evaluation.groups import make_groups
from lsfa_jax.serving.predictor import Predictor
from lsfa_jax.training import model_folder
from tests import training_corpus
from tests.fused_model import fused
from tests.reference import metrics as reference

THRESHOLD = 0.6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The tiny corpus; one test document has a label that training never saw, one has none."""
    splits = training_corpus.documents()
    first, second, *others = splits["test"]
    splits["test"] = [first._replace(labels=(*first.labels, "unseen")), second._replace(labels=()), *others]
    return training_corpus.write(tmp_path_factory.mktemp("data"), splits)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A folder with a model whose weights are drawn at random."""
    config = training_corpus.config(data_dir=str(data))
    corpus = load_corpus(config)
    params = training_corpus.init_params(training_corpus.make_model(config, corpus.vocabulary_size))
    model = model_folder.TrainedModel(
        config=config,
        words=corpus.words,
        labels=corpus.labels[: corpus.num_labels],
        label_counts=corpus.published_counts[: corpus.num_labels],
        num_documents=corpus.published_documents,
        threshold=THRESHOLD,
        params=jax.tree.map(np.asarray, params),
    )
    folder = tmp_path_factory.mktemp("run")
    model_folder.write(folder, model)
    return folder


@pytest.fixture(scope="module")
def report(run):
    return evaluate(EvaluateArguments(run=str(run), k=(1, 2, 5), bins=(1, 5, 10)))


@pytest.fixture
def command(capsys):
    """Runs the command in this process: exit code, output, errors."""

    def run(*line):
        capsys.readouterr()
        code = main([str(word) for word in line])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def assert_equal(measured, expected):
    """Compares metrics of groups; a calibration error differs where programs round probabilities differently."""
    assert measured.keys() == expected.keys()
    for group, metrics in expected.items():
        assert measured[group] == pytest.approx(metrics, abs=1e-4), group


@pytest.mark.slow
def test_metrics_of_a_model_are_those_of_its_probabilities(report, run, data):
    model = model_folder.read(run)
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    every = list(Predictor(model).predict([row["text"] for row in rows], len(model.labels)))
    label_ids = {label: number for number, label in enumerate([*model.labels, "unseen"])}
    sizes = [len(row["labels"]) for row in rows]
    indices = np.array([label_ids[label] for row in rows for label in row["labels"]])
    truth = Ragged(indices, np.cumsum([0, *sizes]))
    top = np.array([one.label_ids[:5] for one in every])
    counts, number = model.label_counts, model.num_documents
    measured = report["systems"]["model"]
    expected = ranking.evaluate(top, truth, counts, number, (1, 2, 5))
    assert {name: measured["all"][name] for name in expected} == pytest.approx(expected)

    head = np.append(counts, 0) >= model.config.pvae.head_threshold
    for name, group in (("head", head), ("tail", ~head)):
        ranked = [[label for label in one.label_ids if group[label]][:5] for one in every]
        group_top = np.array([row + [-1] * (5 - len(row)) for row in ranked])
        expected = ranking.evaluate_group(top, group_top, truth, group, counts, number, (1, 2, 5))
        assert {metric: measured[name][metric] for metric in expected} == pytest.approx(expected)

    right = predicted = 0
    for one, row in zip(every, rows, strict=True):
        labels = {model.labels[label] for label in one.label_ids[one.probabilities >= np.float32(THRESHOLD)]}
        predicted += len(labels)
        right += len(labels & set(row["labels"]))
    assert predicted > right > 0
    assert measured["all"]["micro_F1"] == pytest.approx(100 * 2 * right / (predicted + sum(sizes)))
    assert report["threshold"] == THRESHOLD
    assert (report["documents"], report["labels"], report["labels_without_training"]) == (12, 9, 1)
    assert measured["0"] == measured["0"] | {"labels": 1, "documents": 1, "P@1": 0, "micro_recall": 0}
    assert [name for name in measured if "-" in name or "+" in name] == ["1-4", "5-9", "10+"]


def test_plots_by_label_frequency_have_the_figures_of_the_report(run, report, data, tmp_path, capsys):
    arguments = EvaluateArguments(run=str(run), k=(1, 2, 5), bins=(1, 5, 10), plots=str(tmp_path / "new" / "plots"))
    metrics = evaluate(arguments)["systems"]["model"]
    assert_equal(metrics, report["systems"]["model"])
    folder = tmp_path / "new" / "plots"
    # A folder that LSFA.save writes, as this one, has no run.
    assert {path.name for path in folder.iterdir()} == {f"by-frequency.{kind}" for kind in ("svg", "png", "csv")}
    with (folder / "by-frequency.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["training documents"] for row in rows] == ["0", "1-4", "5-9", "10+"]
    for row in rows:
        expected = metrics[row["training documents"]]
        assert (row["system"], float(row["documents"])) == ("model", expected["documents"])
        assert all(float(row[name]) == pytest.approx(expected[name], abs=0.0051) for name in ("PSP@5", "micro_F1"))
    drawn = (folder / "by-frequency.svg").read_text()
    assert "Date" not in drawn
    assert (folder / "by-frequency.png").read_bytes().startswith(b"\x89PNG")
    assert f"By label frequency: {folder / 'by-frequency.svg'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--plots: labels are sorted by their training documents: give --run DIR or --train FILE"),
        (["--train", "x", "--plots", "{file}/plots"], "/plots: cannot be written (Not a directory); choose another"),
    ],
)
def test_plots_need_training_counts_and_a_folder(command, data, tmp_path, options, message):
    file = tmp_path / "file"
    file.touch()
    options = [option.format(file=file) for option in options]
    code, _, err = command(file, "--predictions", file, "--plots", tmp_path, *options)
    assert code == 2
    assert message in err


def test_plots_without_a_run_have_no_page_of_the_current_folder(command, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text(12 * '{"labels": ["label0"], "probabilities": [0.5]}\n')
    line = data / "test.jsonl", "--predictions", predictions, "--train", data / "train.jsonl"
    assert command(*line, "--plots", "plots")[0] == 0
    assert {path.suffix for path in (tmp_path / "plots").iterdir()} == {".svg", ".png", ".csv"}


def test_the_stages_of_a_run_stand_beside_its_model_as_it_measured_them(run, report, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "run")
    test = {"P@1": 12.5, "PSP@5": 25.0, "head": {"P@1": 50.0}, "tail": {"P@1": 75.0}}
    stages = {"representation": {"test": test}, "fused": {"test": test}}
    (folder / "metrics.json").write_text(json.dumps({"split": {"test": 12}, "stages": stages}))
    arguments = EvaluateArguments(run=str(folder), k=(1, 2, 5), bins=(1, 5, 10), plots=str(tmp_path))
    systems = evaluate(arguments)["systems"]
    assert_equal(systems["model"], report["systems"]["model"])
    assert systems["representation"] == {"all": {"P@1": 12.5, "PSP@5": 25.0}}
    assert list(systems) == ["model", "representation"]
    out = capsys.readouterr().out
    assert "representation: the network after each stage, as bin/train measured it" in out
    assert re.search(r"P@1 .*12\.50", out)
    assert re.search(r"F1 +\d.* +-", out)
    assert "Run <bdi>run</bdi>" in (tmp_path / "report.html").read_text()
    # With other constants, PSP is not that of the run.
    assert list(evaluate(arguments.model_copy(update={"propensity_a": 0.6}))["systems"]) == ["model"]


def fused_probabilities(model, both, data):
    """The fused probabilities of the test documents in NumPy, [N, L], and the labels of each as numbers."""
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    texts, num_labels = [row["text"] for row in rows], len(model.labels)
    logits = np.full((2, len(rows), num_labels), -7.0)
    for row, one in enumerate(Predictor(model).predict(texts, num_labels)):
        logits[0, row, one.label_ids] = np.log(one.probabilities) - np.log1p(-one.probabilities)
    features = both.linear.features.of_texts(texts, DEFAULT_TOKENIZER)
    logits[1][:, both.linear.trained.label_ids] = both.linear.trained.decisions(features)
    weights = both.fusion
    numbers = {label: number for number, label in enumerate([*model.labels, "unseen"])}
    fused_logits = weights.network * logits[0] + weights.linear * logits[1] + weights.offset
    return 1 / (1 + np.exp(-fused_logits)), [{numbers[label] for label in row["labels"]} for row in rows]


@pytest.mark.slow
def test_a_fused_model_is_measured_beside_its_network_and_its_linear_model(run, report, data, tmp_path, capsys):
    model, rows = model_folder.read(run), [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    labels = [sorted(model.labels.index(label) for label in row["labels"]) for row in rows]
    both = fused(model, [row["text"] for row in rows], labels)
    model_folder.write(tmp_path / "fused", both)
    arguments = EvaluateArguments(
        run=str(tmp_path / "fused"),
        k=(1, 2, 5),
        bins=(1, 5, 10),
        baseline="svm",
        per_label=str(tmp_path / "labels.tsv"),
    )
    systems = evaluate(arguments)["systems"]
    assert list(systems) == ["fused", "network", "svm", "baseline svm"]
    assert_equal(systems["network"], report["systems"]["model"])
    # The machines were trained on the same documents, as those of --baseline.
    assert_equal(systems["svm"], systems["baseline svm"])
    probabilities, truths = fused_probabilities(model, both, data)
    tops = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    first = [100 * (top[0] in truth) for top, truth in zip(tops, truths, strict=True)]
    assert systems["fused"]["all"]["P@1"] == pytest.approx(np.mean(first))
    expected = reference.expected_calibration_error(tops, np.take_along_axis(probabilities, tops, 1), truths)
    assert systems["fused"]["all"]["ECE"] == pytest.approx(expected, abs=1e-4)
    assert "ECE" in systems["network"]["all"]
    assert "ECE" not in systems["svm"]["all"]
    assert systems["fused"] != systems["network"]
    columns = (tmp_path / "labels.tsv").read_text().splitlines()[0].split("\t")
    assert {"F1", "network F1", "svm F1"} <= set(columns)
    assert "all: network" in capsys.readouterr().out


def predictions(run, data, path, ids=None, shuffled=False):
    """Writes the model's probabilities of all labels as a file of predictions."""
    model = model_folder.read(run)
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    lines = []
    for number, one in enumerate(Predictor(model).predict([row["text"] for row in rows], len(model.labels))):
        line = {"labels": [model.labels[label] for label in one.label_ids], "probabilities": one.probabilities.tolist()}
        lines.append(json.dumps(({"id": ids[number]} if ids else {}) | line) + "\n")
    path.write_text("".join(reversed(lines) if shuffled else lines))
    return path


@pytest.mark.slow
def test_predictions_of_all_labels_have_the_metrics_of_the_model(report, run, data, tmp_path):
    path = predictions(run, data, tmp_path / "predictions.jsonl")
    arguments = EvaluateArguments(
        file=str(data / "test.jsonl"), predictions=str(path), run=str(run), k=(1, 2, 5), bins=(1, 5, 10)
    )
    measured = evaluate(arguments)
    assert_equal(measured["systems"]["predictions"], report["systems"]["model"])
    # The counts of --train are the run's; N_t and the threshold are not known without the run.
    train = EvaluateArguments(
        file=arguments.file,
        predictions=str(path),
        train=str(data),
        k=(1, 2, 5),
        bins=(1, 5, 10),
        head_threshold=13,
        threshold=THRESHOLD,
    )
    alone = evaluate(train)
    assert_equal(alone["systems"]["predictions"], report["systems"]["model"])


def test_documents_are_matched_by_id(report, run, data, tmp_path):
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    ids = [f"document {number}" for number in range(len(rows))]
    truth = tmp_path / "truth.jsonl"
    truth.write_text("".join(json.dumps(row | {"id": name}) + "\n" for row, name in zip(rows, ids, strict=True)))
    path = predictions(run, data, tmp_path / "predictions.jsonl", ids, shuffled=True)
    arguments = EvaluateArguments(file=str(truth), predictions=str(path), run=str(run), k=(1, 2, 5), bins=(1, 5, 10))
    assert_equal(evaluate(arguments)["systems"]["predictions"], report["systems"]["model"])


def test_predictions_without_training_counts_or_probabilities(data, command, tmp_path):
    path = tmp_path / "predictions.tsv"
    rows = "".join(f"{number}\tlabel{number % 3}\n{number}\tno such label\n" for number in range(12))
    path.write_text("document\tlabel\n" + rows)
    output = tmp_path / "metrics.json"
    code, out, err = command(data / "test.jsonl", "--predictions", path, "--output", output, "--k", 1, 3)
    assert (code, err) == (0, "")
    for text in (
        "1 predicted label that no document has, counted as wrong (e.g. 'no such label')",
        "12 documents with fewer than 5 predictions",
        "no PSP, no head and tail, no bins",
        "no F1",
    ):
        assert text in out
    measured = json.loads(output.read_text())["systems"]["predictions"]
    truth = [json.loads(line)["labels"] for line in (data / "test.jsonl").read_text().splitlines()]
    hits = sum(f"label{number % 3}" in labels for number, labels in enumerate(truth))
    assert 0 < hits < 12
    assert measured["all"]["P@1"] == pytest.approx(100 * hits / 12)
    assert measured["all"]["P@3"] == pytest.approx(100 * hits / 36)
    assert list(measured) == ["all"]
    assert not {"PSP@1", "micro_F1"} & measured["all"].keys()
    code, _, err = command(data / "test.jsonl", "--predictions", path, "--per-label", tmp_path / "labels.tsv")
    assert code == 2
    assert "no probabilities" in err


def check_label(row, prefix=""):
    """Checks a label's precision, recall and F1, rounded to two decimals, against its counts."""
    right, wrong, missed = (int(row[f"{prefix}{name}"]) for name in ("TP", "FP", "FN"))
    assert right + missed == int(row["test"])
    for name, part, of in (
        ("precision", right, right + wrong),
        ("recall", right, right + missed),
        ("F1", 2 * right, 2 * right + wrong + missed),
    ):
        assert row[f"{prefix}{name}"] == f"{100 * part / of if of else 0:.2f}"


@pytest.mark.slow
def test_counts_per_label_add_up(run, data, command, tmp_path):
    path, output = tmp_path / "labels.tsv", tmp_path / "metrics.json"
    code, out, _ = command("--run", run, data / "test.jsonl", "--per-label", path, "--output", output)
    assert code == 0
    assert "Labels that training never saw, never predicted, in every denominator: 1 (1 of" in out
    assert "probability 0.6, chosen on the run's validation documents" in out
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    model = model_folder.read(run)
    assert [row["label"] for row in rows] == [*model.labels, "unseen"]
    assert [int(row["training"]) for row in rows] == [*model.label_counts, 0]
    right, wrong, missed = (sum(int(row[name]) for row in rows) for name in ("TP", "FP", "FN"))
    measured = json.loads(output.read_text())["systems"]["model"]["all"]
    assert measured["micro_F1"] == pytest.approx(100 * 2 * right / (2 * right + wrong + missed))
    for row in rows:
        check_label(row)
    assert rows[-1] == rows[-1] | {"test": "1", "TP": "0", "FP": "0", "FN": "1"}


@pytest.mark.parametrize("baseline", ["tree", "svm"])
def test_a_baseline_is_measured_beside_the_model(run, report, command, tmp_path, baseline):
    output = tmp_path / "metrics.json"
    line = ("--run", run, "--baseline", baseline, "--output", output, "--k", 1, 2, 5, "--bins", 1, 5, 10)
    code, out, err = command(*line, "--per-label", tmp_path / "labels.tsv")
    assert (code, err) == (0, "")
    measured = json.loads(output.read_text())
    assert measured["systems"]["model"] == report["systems"]["model"]
    of_baseline = measured["systems"][baseline]
    assert of_baseline.keys() == report["systems"]["model"].keys()
    assert of_baseline["all"]["P@1"] > report["systems"]["model"]["all"]["P@1"]  # whose weights are drawn at random
    assert f"all: {baseline}" in out
    assert "36 training documents" in out
    with (tmp_path / "labels.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        check_label(row)
        check_label(row, f"{baseline} ")
    right, wrong, missed = (sum(int(row[f"{baseline} {name}"]) for row in rows) for name in ("TP", "FP", "FN"))
    assert of_baseline["all"]["micro_F1"] == pytest.approx(100 * 2 * right / (2 * right + wrong + missed))


def test_a_baseline_needs_no_model(data, tmp_path):
    arguments = EvaluateArguments(file=str(data / "test.jsonl"), train=str(data / "train.jsonl"), baseline="svm")
    measured = evaluate(arguments)
    assert list(measured["systems"]) == ["svm"]
    assert measured["training_documents"] == 36
    assert measured["systems"]["svm"]["all"]["P@1"] > 50


def test_files_are_read_with_the_runs_settings(run, data, report, tmp_path):
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    lines = (json.dumps({"words": row["text"], "about": "/".join(row["labels"]), "text": "no"}) + "\n" for row in rows)
    (tmp_path / "test.jsonl").write_text("".join(lines))
    model = model_folder.read(run)
    settings = model.config.data.model_copy(
        update={"text_field": "words", "labels_field": "about", "label_separator": "/"}
    )
    configured = replace(model, config=model.config.model_copy(update={"data": settings}))
    model_folder.write(tmp_path / "run", configured)
    arguments = EvaluateArguments(
        run=str(tmp_path / "run"), file=str(tmp_path / "test.jsonl"), k=(1, 2, 5), bins=(1, 5, 10)
    )
    assert evaluate(arguments)["systems"] == report["systems"]


def test_constants_and_threshold_can_be_chosen(run, report):
    changed = evaluate(
        EvaluateArguments(run=str(run), k=(1, 2, 5), bins=(1, 5, 10), propensity_a=0.6, propensity_b=2.6, threshold=0.1)
    )
    assert changed["propensity"] == {"a": 0.6, "b": 2.6}
    after, before = (one["systems"]["model"]["all"] for one in (changed, report))
    assert after["PSP@5"] != before["PSP@5"]
    assert after["P@5"] == before["P@5"]
    assert after["micro_recall"] > before["micro_recall"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ((), "nothing to measure: give --run DIR"),
        (("{data}/test.jsonl",), "nothing to measure: give --run DIR"),
        (("--predictions", "x"), "FILE: give documents with labels"),
        (("{data}/test.jsonl", "--baseline", "svm"), "--train FILE, the documents to train it on"),
        (("{data}/nothing.jsonl", "--run", "{run}"), "nothing.jsonl"),
        (("--run", "{data}"), "no model"),
        (("--run", "{run}", "--bins", "5", "5"), "expected increasing counts"),
        (("--run", "{run}", "--k"), "--k"),
        (("--run", "{run}", "--k", "0"), "--k 0: expected an integer of at least 1; see bin/evaluate --help"),
        (("--run", "{run}", "--threshold", "2"), "--threshold 2: expected auto or a number from 0 to 1"),
        (("--run", "{run}", "--output", "{data}"), "{data}: is a folder; name a file in it"),
        (("--run", "{run}", "--output", "{data}/test.jsonl"), "test.jsonl: the command or the run needs that file"),
        (("--run", "{run}", "--per-label", "{run}/labels"), "labels: the command or the run needs that file"),
        (
            (
                *("{data}/test.jsonl", "--run", "{run}", "--label-names", "{data}/short.jsonl"),
                *("--per-label", "{data}/short.jsonl"),
            ),
            "short.jsonl: the command or the run needs that file",
        ),
        (("--run", "{run}", "--output", "{data}/x", "--per-label", "{data}/x"), "the same file as of --output"),
        (("--run", "{run}", "--output", "{data}/none/metrics.json"), "none; create it"),
        (("{data}/test.jsonl", "--predictions", "{data}/missing.jsonl"), "missing.jsonl"),
        (("{data}/test.jsonl", "--predictions", "{data}/short.jsonl"), "1 document with predictions, but 12"),
    ],
)
def test_user_errors_are_one_line(run, data, command, line, what):
    (data / "short.jsonl").write_text('{"labels": ["label0"]}\n')
    code, _, err = command(*(word.format(run=run, data=data) for word in line))
    assert code == 2
    assert what.format(run=run, data=data) in err
    assert "Traceback" not in err


def test_no_output_replaces_a_file_of_the_run(run, data, command):
    file = run / "history.jsonl"
    file.write_text("kept")
    try:
        code, _, err = command(f"{data}/test.jsonl", "--run", run, "--output", file)
        assert (code, file.read_text()) == (2, "kept")
        assert f"{file}: the command or the run needs that file" in err
    finally:
        file.unlink()


def test_a_model_predicts_no_excluded_label(run, data):
    model = model_folder.read(run)
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    every = list(Predictor(model).predict([row["text"] for row in rows], len(model.labels)))
    label_ids = {label: number for number, label in enumerate([*model.labels, "unseen"])}
    # Of every second document its best label, and one that the model does not know.
    excluded = [[int(one.label_ids[0]), label_ids["unseen"]] if i % 2 else [] for i, one in enumerate(every)]
    problem = compared.Problem(
        documents=DocumentStore([Document(row["text"], tuple(row["labels"])) for row in rows]),
        train=None,
        truth=Ragged.from_rows([[label_ids[label] for label in row["labels"]] for row in rows]),
        excluded=Ragged.from_rows(excluded),
        label_ids=label_ids,
        training=None,
        groups=make_groups(9, None),
        num_ranked=5,
        threshold=THRESHOLD,
    )
    scores = compared.score_model(model, problem, run, 0, all_labels=False)["model"]
    kept = [np.isin(one.label_ids, out, invert=True) for one, out in zip(every, excluded, strict=True)]
    listed = [one.label_ids[inside] for one, inside in zip(every, kept, strict=True)]
    assert scores.top[0].tolist() == [ids[:5].tolist() for ids in listed]
    reached = [
        one.label_ids[inside & (one.probabilities >= np.float32(THRESHOLD))]
        for one, inside in zip(every, kept, strict=True)
    ]
    predicted = scores.confusion.true_positives + scores.confusion.false_positives
    np.testing.assert_array_equal(predicted, np.bincount(np.concatenate(reached), minlength=9))


def test_probabilities_stay_beside_their_labels_where_labels_are_excluded():
    problem = compared.Problem(
        documents=None,
        train=None,
        truth=Ragged.from_rows([[1], [2]]),
        excluded=Ragged.from_rows([[0, 3], []]),
        label_ids={f"label{i}": i for i in range(4)},
        training=None,
        groups=make_groups(4, None),
        num_ranked=3,
        threshold=0.5,
    )
    lists = Ranked(np.array([[0, 1, 3, 2], [2, 3, 1, -1]], np.int32), np.array([[3, 2, 1, -2.0]] * 2, np.float32))
    scores = compared._score_lists(lists, SimpleNamespace(kind="tree"), problem, 0.5)
    np.testing.assert_array_equal(scores.top[0], [[1, 2, -1], [2, 3, 1]])
    expected = 1 / (1 + np.exp(-np.array([[2, -2], [3, 2]])))
    np.testing.assert_allclose(scores.probabilities[:, :2], expected, rtol=1e-6)
    np.testing.assert_array_equal(scores.confusion.true_positives + scores.confusion.false_positives, [0, 2, 1, 1])


@pytest.mark.parametrize(("name", "content"), [("x.csv", "text,x\na b,1\nc d,2\n"), ("x.txt", "a b\nc d\n")])
def test_texts_without_labels_cannot_be_measured(run, command, tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    code, out, err = command("--run", run, path)
    assert (code, out) == (2, "")
    assert err.startswith(
        f"error: {path}: holds texts, and no labels are recognised, which bin/evaluate needs (bin/predict"
    )
    # A file that bin/predict cannot read either has only the reader's error.
    path.write_text("")
    code, _, err = command("--run", run, path)
    assert code == 2
    assert "bin/predict" not in err


def test_a_missing_corpus_is_reported(run, tmp_path, command):
    model = model_folder.read(run)
    moved = replace(model, config=model.config.model_copy(update={"data_dir": str(tmp_path / "gone")}))
    model_folder.write(tmp_path / "run", moved)
    code, _, err = command("--run", tmp_path / "run")
    assert code == 2
    assert "gone" in err
    assert "give FILE, documents with labels" in err


@pytest.mark.slow
def test_the_test_documents_of_a_corpus_without_a_test_split_are_drawn_again(run, tmp_path, command):
    rows = [Document(f"common word{number}", (f"label{number % 8}",)) for number in range(60)]
    data = training_corpus.write(tmp_path / "data", {"train": rows})
    config = training_corpus.config(data_dir=str(data), data=training_corpus.TINY["data"] | {"test_fraction": 0.2})
    corpus = load_corpus(config)
    model = replace(model_folder.read(run), config=config)
    model_folder.write(tmp_path / "run", model)
    measured = evaluate(
        EvaluateArguments(run=str(tmp_path / "run"), baseline="svm", per_label=str(tmp_path / "labels"))
    )
    assert measured["documents"] == len(corpus.test) == 12
    with (tmp_path / "labels").open(newline="") as file:
        tested = {row["label"]: int(row["test"]) for row in csv.DictReader(file, delimiter="\t")}
    drawn = np.bincount(corpus.test.labels.values, minlength=len(corpus.labels))
    assert {label: number for label, number in tested.items() if number} == {
        label: number for label, number in zip(corpus.labels, drawn.tolist(), strict=True) if number
    }


def test_a_missing_library_stops_before_anything_is_read(run, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "omikuji", None)
    code, out, err = command("--run", run, "--baseline", "tree")
    assert (code, out) == (2, "")
    assert "pip install omikuji" in err


def test_memory_does_not_grow_with_the_texts(run, data, tmp_path, report):
    """Documents with long texts, of which the model reads the first 16 words, are measured as the short ones are."""
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    padding = " then" * 200_000
    path = tmp_path / "long.jsonl"
    with path.open("w") as file:
        for row in rows:
            words = (row["text"] + " common0" * 16).split()[:16]
            file.write(json.dumps(row | {"text": " ".join(words) + padding}) + "\n")
    tracemalloc.start()
    try:
        evaluate(EvaluateArguments(run=str(run), file=str(path), k=(1, 2, 5), bins=(1, 5, 10)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 12_000_000
    assert peak < path.stat().st_size


def test_without_room_for_temporary_files_the_folder_is_named(run, data, command, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    code, _, err = command("--run", run, data / "test.jsonl")
    assert code == 2
    assert f"{tmp_path / 'gone'}: a temporary file cannot be written" in err


def test_labels_of_which_the_model_knows_none_are_an_error(run, command, tmp_path, data):
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps(row | {"labels": [x.upper() for x in row["labels"]]}) + "\n" for row in rows))
    code, _, err = command("--run", run, path)
    assert code == 2
    assert "the model knows none of the" in err
    assert "by case only" in err
