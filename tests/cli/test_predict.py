import csv
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lsfa_jax.cli.predict import main
from lsfa_jax.evaluation.prediction_files import Irregularities, read_predictions
from lsfa_jax.serving.predictor import Predictor
from lsfa_jax.training import model_folder
from tests import training_corpus
from tests.fused_model import fused

WORDS = [f"word{i}" for i in range(20)]
LABELS = ["comma, and\ttab", "<script>", *(f"label {i}" for i in range(training_corpus.NUM_LABELS - 2))]
ROWS = [
    {"id": "first", "text": "word1 word2, word3!", "labels": ["x"]},
    {"text": "", "labels": []},
    {"id": "third", "text": "word4 " * 30, "labels": []},
    {"text": "word5\nword6", "labels": ["label 1"]},
]
TEXTS = [row["text"] for row in ROWS]


@pytest.fixture(scope="module")
def model():
    return training_corpus.trained_model(WORDS, LABELS, (8,), 0.75)


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model_folder.write(folder, model)
    return folder


@pytest.fixture(scope="module")
def expected(model):
    """All labels of each text, best first, with their probabilities."""
    predictions = Predictor(model).predict(TEXTS, top=len(LABELS))
    return [([LABELS[i] for i in label_ids], probabilities) for label_ids, probabilities in predictions]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@contextmanager
def standard_input(data):
    """Within it, the process reads these bytes as its standard input."""
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    before = os.dup(0)
    os.dup2(read, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(read)


def predict(run, *line):
    return main(["--run", str(run), *map(str, line)])


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def check(rows, expected, top, threshold=0.0):
    assert len(rows) == len(expected)
    for row, (labels, probabilities) in zip(rows, expected, strict=True):
        count = min(top, int(np.count_nonzero(probabilities >= threshold)))
        assert row["labels"] == labels[:count]
        np.testing.assert_allclose(row["probabilities"], probabilities[:count], rtol=1e-5)


@pytest.mark.parametrize(
    ("metrics", "warns"),
    [
        ({"split": {"test": 3}, "stages": {}}, True),
        ({"split": {"test": 3}, "kept": "representation"}, True),
        ({"split": {"test": 0}, "kept": "representation"}, False),
        ({"split": {"test": 3}, "kept": "representation", "test": {}}, False),
    ],
)
def test_the_model_of_a_run_that_is_not_finished_is_used_with_a_warning(run, texts, tmp_path, capfd, metrics, warns):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert predict(folder, texts) == 0
    out, err = capfd.readouterr()
    assert len(json_lines(out)) == len(ROWS)
    assert (f"{folder}: the run is not finished" in err.replace("\n", "")) == warns
    assert (f"finish it with: bin/train --output {folder} --resume" in err) == warns


def test_stdout_holds_the_predictions_and_stderr_the_notes(run, texts, expected, capfd):
    assert predict(run, texts) == 0
    out, err = capfd.readouterr()
    rows = json_lines(out)
    # A document without an id has its running number.
    assert [row["id"] for row in rows] == ["first", 2, "third", 4]
    check(rows, expected, top=5)
    assert "4 rows read, 4 kept; noted: 1 empty text (first" in err
    assert "4 documents predicted; " in err


def test_texts_from_standard_input_one_a_line_with_blank_ones(run, expected, capfd):
    with standard_input("\n".join(text.replace("\n", " ") for text in TEXTS).encode()):
        assert predict(run) == 0
    out, err = capfd.readouterr()
    check(json_lines(out), expected, top=5)
    assert "1 empty text (first standard input:2)" in err


def test_options_name_the_columns(run, tmp_path, expected, capfd):
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["key", "words", "text"], *([f"k{i}", t, "other"] for i, t in enumerate(TEXTS))])
    assert predict(run, tmp_path / "x.csv", "--text-field", "words", "--id-field", "key") == 0
    rows = json_lines(capfd.readouterr().out)
    assert [row["id"] for row in rows] == ["k0", "k1", "k2", "k3"]
    check(rows, expected, top=5)


def test_the_text_field_is_that_of_training(model, tmp_path, expected, capfd):
    data = model.config.data.model_copy(update={"text_field": "words"})
    model_folder.write(tmp_path, replace(model, config=model.config.model_copy(update={"data": data})))
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["words", "note"], *([text, "other"] for text in TEXTS)])
    assert predict(tmp_path, tmp_path / "x.csv") == 0
    check(json_lines(capfd.readouterr().out), expected, top=5)
    # Texts without columns are read as well.
    with standard_input("\n".join(text.replace("\n", " ") for text in TEXTS).encode()):
        assert predict(tmp_path) == 0
    check(json_lines(capfd.readouterr().out), expected, top=5)


@pytest.mark.parametrize(("threshold", "probability"), [("0.4", 0.4), ("auto", 0.75), ("1", 1.0), ("0", 0.0)])
def test_threshold_keeps_all_labels_that_reach_it(run, texts, expected, capfd, threshold, probability):
    assert predict(run, texts, "--threshold", threshold) == 0
    out, err = capfd.readouterr()
    check(json_lines(out), expected, top=100, threshold=probability)
    none = sum(probabilities[0] < probability for _, probabilities in expected)
    assert (f"predicted, {none} of them without a label;" in err) == (none > 0)
    assert "warning" not in err


def test_a_warning_counts_documents_whose_labels_top_cuts_off(run, texts, expected, capfd):
    assert predict(run, texts, "--threshold", "0", "--top", "2") == 0
    out, err = capfd.readouterr()
    check(json_lines(out), expected, top=2)
    assert "warning: 4 documents may have further labels that reach the threshold; raise --top" in err


@pytest.mark.parametrize(
    ("name", "delimiter"), [("out.csv", ","), ("out.TSV", "\t"), ("out.jsonl", None), ("out", None)]
)
def test_output_file_has_the_format_of_its_name(run, texts, expected, tmp_path, capfd, name, delimiter):
    assert predict(run, texts, "--output", tmp_path / name, "--top", "3") == 0
    assert capfd.readouterr().out == ""
    with (tmp_path / name).open(newline="") as file:
        if delimiter is None:
            check(json_lines(file.read()), expected, top=3)
            return
        rows = list(csv.reader(file, delimiter=delimiter))
    assert rows[0] == ["document", "rank", "label", "probability"]
    ids = ["first", "2", "third", "4"]
    assert [row[:2] for row in rows[1:]] == [[i, rank] for i in ids for rank in "123"]
    assert [row[2] for row in rows[1:]] == [label for labels, _ in expected for label in labels[:3]]
    np.testing.assert_allclose([float(row[3]) for row in rows[1:]], np.concatenate([p[:3] for _, p in expected]), 1e-5)


@pytest.mark.parametrize(("name", "delimiter"), [("out.csv", ","), ("out.tsv", "\t"), ("out", ",")])
def test_a_wide_table_has_a_row_for_each_document_and_a_column_for_each_label(
    run, texts, expected, tmp_path, capfd, name, delimiter
):
    assert predict(run, texts, "--output", tmp_path / name, "--layout", "wide") == 0
    assert "warning" not in capfd.readouterr().err
    with (tmp_path / name).open(newline="") as file:
        header, *rows = csv.reader(file, delimiter=delimiter)
    assert header == ["document", *LABELS]
    assert [row[0] for row in rows] == ["first", "2", "third", "4"]
    for row, (labels, probabilities) in zip(rows, expected, strict=True):
        in_order = [probabilities[labels.index(label)] for label in LABELS]
        np.testing.assert_allclose(list(map(float, row[1:])), in_order, rtol=1e-5)
    # bin/evaluate reads the same predictions from it as from the long table with all labels.
    assert predict(run, texts, "--output", tmp_path / "long.csv", "--top", len(LABELS)) == 0
    read = [read_predictions(tmp_path / file, Irregularities()) for file in (name, "long.csv")]
    assert read[0] == read[1]


def test_a_wide_table_of_chosen_labels_with_empty_cells_for_those_left_out(run, texts, expected, capfd):
    line = ("--layout", "wide", "--threshold", "0.5", "--labels", f'{LABELS[2]}, "{LABELS[0]}"')
    assert predict(run, texts, *line) == 0
    header, *rows = csv.reader(capfd.readouterr().out.splitlines())
    assert header == ["document", LABELS[2], LABELS[0]]
    for row, (labels, probabilities) in zip(rows, expected, strict=True):
        for cell, label in zip(row[1:], header[1:], strict=True):
            probability = probabilities[labels.index(label)]
            assert (cell == "") == (probability < 0.5)
            assert cell == "" or float(cell) == pytest.approx(float(probability), rel=1e-5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--layout", "wide", "--output-format", "jsonl"], "--layout wide: for CSV and TSV; give --output NAME.csv"),
        (["--layout", "wide", "--labels", "label 10"], "--labels label 10: the model has no such label (did you mean "),
        (["--labels", "label 1"], "--labels: for --layout wide"),
        (["--layout", "wide", "--explain", "why.html"], "--explain: with --layout wide, limit the labels"),
        (["--top", "0"], "--top 0: expected auto or an integer of at least 1; see bin/predict --help"),
        (["--threshold", "2"], "--threshold 2: expected none, auto or a number from 0 to 1; see bin/predict --help"),
        (["--output", "none/x.csv"], "there is no folder "),
        (["--explain", "none/x.html"], "there is no folder "),
        (["--explain", "."], "--explain .: is a folder; name a file in it"),
        (["--output", "x.csv", "--explain", "x.csv"], "--explain x.csv: the same file as of --output"),
    ],
)
def test_wrong_options_are_noticed_before_the_work(run, texts, tmp_path, monkeypatch, capfd, line, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert predict(run, texts, *line) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_the_model_is_not_overwritten(run, texts, capfd):
    before = (run / "labels").read_bytes()
    assert predict(run, texts, "--output", run / "labels") == 2
    assert "the command or the run needs that file; choose another" in capfd.readouterr().err
    assert (run / "labels").read_bytes() == before


def test_a_wide_table_of_very_many_labels_is_warned_of(tmp_path, capfd):
    labels = [f"label {i}" for i in range(2001)]
    model_folder.write(tmp_path, training_corpus.trained_model(WORDS, labels, (8,), 0.75))
    with standard_input(b"word1\n"):
        assert predict(tmp_path, "--layout", "wide") == 0
    out, err = capfd.readouterr()
    assert "warning: --layout wide: 2,001 columns, about 24 kB for each document; --labels A,B limits them" in err
    assert len(out.splitlines()[1].split(",")) == 2002


def test_a_table_on_request(run, texts, expected, capfd):
    assert predict(run, texts, "--output-format", "table", "--top", "1") == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["first", "2", "third", "4"]
    assert [line.split()[-1] for line in lines[2:]] == [f"{probabilities[0]:.2f}" for _, probabilities in expected]


@pytest.mark.slow
def test_pages_show_what_was_predicted(run, texts, expected, tmp_path, capfd):
    page = tmp_path / "why.html"
    assert predict(run, texts, "--explain", page, "--explain-documents", "3", "--top", "2") == 0
    out, err = capfd.readouterr()
    check(json_lines(out), expected, top=2)
    assert f"{page}: 2 pages with the words" in err
    first, second = page.read_text(), (tmp_path / "why-2.html").read_text()
    assert first.count("<article") == 3
    assert second.count("<article") == 1
    assert "Document <bdi>4</bdi>" in second
    best = expected[3][0][0].replace("<", "&lt;").replace(">", "&gt;")
    assert f"<bdi>{best}</bdi>" in second
    # 30 words, of which the model reads 16.
    assert f"<s> {'word4 ' * 14}".rstrip() + "</s>" in first
    assert "first 16 words" in first
    # The model is not fused.
    assert "votes" not in out + first.split("</style>")[1]


def test_a_page_of_labelled_texts_marks_what_is_true(run, texts, expected, tmp_path, capfd):
    page, best = tmp_path / "why.html", expected[3][0][0]
    line = (texts, "--explain", page, "--top", "2", "--output-format", "jsonl")
    assert predict(run, *line) == 0
    labelled, out = page.read_text(), capfd.readouterr().out
    # Of the first row's label, the model does not know the name.
    assert '<span class="group missed">missed</span> and not listed: <bdi>x</bdi>' in labelled
    rows = [*ROWS[:3], ROWS[3] | {"labels": [best]}]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert predict(run, *line, "--threshold", "0.01") == 0
    # In the explanation of the marks, of "x", and of a label that is best and below the threshold.
    assert page.read_text().count('<span class="group missed">') == 3
    assert page.read_text().count("and not listed") == 1
    assert capfd.readouterr().out == out
    # Labels that the model does not know are not taken for true ones.
    texts.write_text("".join(json.dumps(row | {"labels": ["y"]}) + "\n" for row in ROWS))
    assert predict(run, *line) == 0
    assert "missed" not in page.read_text().split("</style>")[1]


@pytest.fixture(scope="module")
def fused_run(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fused")
    training = [f"word{i} word{(i + 1) % 8}" for i in range(8)]
    model_folder.write(folder, fused(model, training, [[i] for i in range(8)]))
    return folder


@pytest.mark.slow
def test_explained_predictions_of_a_fused_model_have_its_votes(fused_run, texts, tmp_path, capfd):
    out, page = tmp_path / "out.jsonl", tmp_path / "why.html"
    assert predict(fused_run, texts, "--explain", page, "--output", out, "--top", 3) == 0
    rows = json_lines(out.read_text())
    explanations = list(Predictor(model_folder.read(fused_run)).explain(TEXTS, top=3))
    for row, explanation in zip(rows, explanations, strict=True):
        assert row["labels"] == [LABELS[i] for i in explanation.label_ids]
        assert row["votes"] == [[[word, round(vote, 4)] for word, vote in votes] for votes in explanation.votes]
    word, vote = explanations[0].votes[0][0]
    assert f"<bdi>{word}</bdi> {vote:+.2f}</span>" in page.read_text()
    # The file can be measured and read as any other.
    assert [document.labels for _, document in zip(rows, read_predictions(out, Irregularities()), strict=True)] == [
        row["labels"] for row in rows
    ]
    assert predict(fused_run, texts, "--explain", page, "--top", 3, "--output-format", "table") == 0
    assert f"votes: {word}" in capfd.readouterr().out
    # A label that the threshold leaves out takes its votes with it.
    assert predict(fused_run, texts, "--explain", page, "--top", 3, "--threshold", 1) == 0
    assert [row["votes"] for row in json_lines(capfd.readouterr().out)] == [[]] * len(ROWS)


def test_a_bad_row_stops_and_leaves_no_file_or_is_skipped_and_counted(run, texts, tmp_path, capfd):
    texts.write_text(texts.read_text() + '{"text": 5}\n' + json.dumps(ROWS[1]) + "\n")
    output, page = tmp_path / "out.jsonl", tmp_path / "why.html"
    output.write_text("earlier")
    line = (texts, "--output", output, "--explain", page)
    assert predict(run, *line) == 2
    assert f"error: {texts}:5: " in capfd.readouterr().err
    assert output.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "texts.jsonl"]

    assert predict(run, *line, "--bad-rows", "skip") == 0
    assert "6 rows read, 5 kept; skipped: 1 " in capfd.readouterr().err
    # Numbers are of rows, so that predictions are joined to the right ones.
    assert [row["id"] for row in json_lines(output.read_text())] == ["first", 2, "third", 4, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "texts.jsonl", "why.html"]


def test_a_file_name_of_an_unknown_format_is_refused(run, texts, tmp_path, capfd):
    assert predict(run, texts, "--output", tmp_path / "out.parquet") == 2
    assert "expected .csv, .tsv or .jsonl" in capfd.readouterr().err


@pytest.mark.parametrize("option", ["--output", "--explain"])
def test_the_texts_are_not_overwritten(run, texts, capfd, option):
    before = texts.read_text()
    assert predict(run, texts, option, texts) == 2
    assert f"error: {option} {texts}: the command or the run needs that file; choose another" in capfd.readouterr().err
    assert texts.read_text() == before


def test_the_names_of_labels_are_not_overwritten(model, texts, tmp_path, capfd):
    names = tmp_path / "names.txt"
    names.write_text("a\nb\n")
    data = model.config.data.model_copy(update={"label_names": str(names)})
    run = tmp_path / "run"
    model_folder.write(run, replace(model, config=model.config.model_copy(update={"data": data})))
    for line in (("--output", names, "--label-names", names), ("--explain", names)):
        assert predict(run, texts, *line) == 2
        assert f"{names}: the command or the run needs that file; choose another" in capfd.readouterr().err
    assert names.read_text() == "a\nb\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["missing.jsonl"], "missing.jsonl: cannot be opened"),
        (["--output", "/dev/full"], "the predictions cannot be written (No space left on device)"),
        (["--format", "excel"], "--format excel: expected auto, "),
    ],
)
def test_user_errors_have_no_traceback(run, capfd, line, message):
    with standard_input(b"word1\n"):
        assert predict(run, *line) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_folder_without_a_model_is_reported(tmp_path, texts, capfd):
    assert predict(tmp_path, texts) == 2
    assert "no model" in capfd.readouterr().err


@pytest.fixture(scope="module")
def command(run, compiled):
    """The command line, and the environment of a process that shares compiled programs with the other tests."""
    environment = os.environ | compiled | {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "80"}
    return {"args": [sys.executable, "-m", "lsfa_jax.cli.predict", "--run", str(run)], "env": environment}


@pytest.mark.slow
def test_typed_texts_are_answered_one_by_one_until_ctrl_c(command):
    terminal, side = pty.openpty()
    process = subprocess.Popen(**command, stdin=side, stdout=side, stderr=side, start_new_session=True)
    os.close(side)
    shown = ""

    def wait_for(text):
        nonlocal shown
        while text not in shown:
            assert select.select([terminal], [], [], 180)[0], shown
            shown += os.read(terminal, 4096).decode()

    wait_for("Type a text and press Enter")
    for number, text in enumerate(["word1 word2", "word3"], start=1):
        os.write(terminal, f"{text}\n".encode())
        wait_for(f"\r\n{number}  ")
        assert text in shown.split(f"\r\n{number}  ")[1]
    process.send_signal(signal.SIGINT)
    assert process.wait(180) == 130
    while select.select([terminal], [], [], 0)[0]:
        try:
            shown += os.read(terminal, 4096).decode()
        except OSError:
            break
    os.close(terminal)
    assert "Traceback" not in shown
    assert "error" not in shown.lower()


@pytest.mark.slow
def test_endless_texts_are_predicted_until_the_reader_is_gone(command, tmp_path):
    endless = subprocess.Popen(["yes", "word1 word2"], stdout=subprocess.PIPE)
    line = [*command["args"], "--batch-size", "8", "--explain", str(tmp_path / "why.html")]
    process = subprocess.Popen(
        line, env=command["env"], stdin=endless.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    endless.stdout.close()
    rows = [json.loads(process.stdout.readline()) for _ in range(300)]
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(180) == 141
    endless.wait(180)
    assert [row["id"] for row in rows] == list(range(1, 301))
    assert err == "standard input: read as txt, one document a line\n"
    assert list(tmp_path.iterdir()) == []
