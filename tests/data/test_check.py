import json

import pytest

from lsfa_jax.config import Data, usual_data
from lsfa_jax.data.check import check
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.util.console import UserError

OPTIONS = ReadOptions(bad_rows="skip")


def write(path, rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))


def row(text, *labels):
    return {"text": text, "labels": labels}


@pytest.fixture
def folder(tmp_path):
    train = [
        row("one two three", "x", "y"),
        row("one two three", "x"),
        row("", "x"),
        "{not json",
        row("four", "z", "z"),
        {"text": "no labels field"},
        row("five six"),
    ]
    write(tmp_path / "train.jsonl", train)
    write(tmp_path / "test.jsonl", [row("four", "x"), row("seven", "only_test", "x")])
    return tmp_path


def test_everything_is_counted(folder, capsys):
    reports = check(folder, OPTIONS)
    train, test = reports["train"], reports["test"]
    assert (train.rows.read, train.rows.kept, train.rows.skipped.total()) == (7, 5, 2)
    assert list(train.lengths) == [3, 3, 0, 1, 2]
    assert list(train.num_labels) == [2, 1, 1, 1, 0]
    assert train.labels == {"x": 3, "y": 1, "z": 1}
    assert (train.repeated, test.repeated) == (1, 0)
    out = capsys.readouterr().out
    assert f"1 not JSON (first {folder / 'train.jsonl'}:4)" in out
    assert f"1 no field 'labels' (first {folder / 'train.jsonl'}:6)" in out
    assert "read as jsonl, text from 'text', labels from 'labels'" in out
    assert "Labels of training: 3, the most frequent 'x' 3, 'y' 1, 'z' 1" in out
    assert "2 with one, 3 with 10 at most" in out
    assert "Labels of test that training lacks: 1 of 2 (e.g. 'only_test')" in out
    assert "warning: test documents with the text of a training document: 1 of 2" in out
    assert f"bin/train --data-dir {folder} --data.bad-rows skip\n" in out
    lines = {" ".join(line.split()) for line in out.splitlines()}
    assert "train 7 5 2 1" in lines
    assert "train, words 0 0 2 3 3 1.80" in lines
    assert "train, labels 0 0 1 2 2 1.00" in lines


def test_one_file(folder, capsys):
    assert list(check(folder / "test.jsonl", OPTIONS)) == ["train"]
    assert "only_test" in capsys.readouterr().out


def test_no_label_at_all_is_a_warning(tmp_path, capsys):
    write(tmp_path / "corpus.jsonl", [row("a"), row("b")])
    check(tmp_path / "corpus.jsonl", OPTIONS)
    out = capsys.readouterr().out
    assert "no training document has a label" in out
    assert "--data.labels-field" in out
    assert "Train on it" not in out


def test_nothing_usable_is_an_error(tmp_path):
    write(tmp_path / "corpus.jsonl", [{"text": 3, "labels": []}] * 2)
    with pytest.raises(UserError, match="holds no documents: all 2 rows were skipped"):
        check(tmp_path / "corpus.jsonl", OPTIONS)
    with pytest.raises(UserError, match="nowhere"):
        check(tmp_path / "nowhere", OPTIONS)


def test_rows_of_one_document_count_once(tmp_path, capsys):
    write(tmp_path / "corpus.jsonl", [row("one two", "x"), row("three", "z"), row("One two!", "y")])
    (report,) = check(tmp_path / "corpus.jsonl", OPTIONS).values()
    assert report.labels == {"x": 1, "y": 1, "z": 1}
    assert list(report.lengths) == [2, 1]
    assert list(report.num_labels) == [2, 1]
    assert "train: rows with the same text are merged: 3 rows, 2 documents" in capsys.readouterr().out


def test_what_the_settings_do_to_the_texts_is_printed_with_the_option(tmp_path, capsys):
    markup, chinese = "<p>one two</p> three", "图书目录更新玫瑰开花了根据报告请"
    write(tmp_path / "corpus.jsonl", [row(markup, "Heating"), row("four", "heating "), row(chinese, "x")])
    check(tmp_path / "corpus.jsonl", OPTIONS, Data(tokenizer="spaces", max_words=2))
    out = capsys.readouterr().out
    assert "warning: texts with HTML tags, which are read as words: 1 of 3 (33.3 %); --data.html strip" in out
    assert f"warning: texts of very long words (e.g. {chinese!r}): 1 of 3 (33.3 %)" in out
    assert "use --data.tokenizer words" in out
    assert "Texts longer than 2 words: 1 of 3 (33.3 %); 20.0 % of all words are not read (training with" in out
    assert "differ by case or white space only are different labels: 'Heating' 1 and 'heating' 1" in out
    assert "--data.tokenizer spaces --data.max-words 2" in out
    check(tmp_path / "corpus.jsonl", OPTIONS, Data(html="strip"))
    out = capsys.readouterr().out
    assert "HTML" not in out
    assert "very long words" not in out
    assert "not read" not in out


def test_texts_are_cut_where_training_cuts_them(tmp_path, capsys):
    write(tmp_path / "corpus.jsonl", [row("word " * 300, "x"), row("word " * 200 + "end", "y"), row("one", "x")])
    check(tmp_path / "corpus.jsonl", OPTIONS)
    out = capsys.readouterr().out
    assert "Texts longer than 200 words: 2 of 3" in out
    assert "--data.max-words" not in out.split("Train on it")[1]
    check(tmp_path / "corpus.jsonl", OPTIONS, usual_data().model_copy(update={"max_words": 500}))
    out = capsys.readouterr().out
    assert "Texts longer" not in out
    assert "--data.max-words 500" in out.split("Train on it")[1]


def test_labels_that_are_different_in_each_document_are_a_warning(tmp_path, capsys):
    rows = [{"text": f"text {day}", "date": f"2026-01-{day:02}"} for day in range(1, 13)]
    options = ReadOptions(bad_rows="skip", labels_field="date")
    write(tmp_path / "corpus.jsonl", rows)
    check(tmp_path / "corpus.jsonl", options)
    assert "every document has a label that no other has" in capsys.readouterr().out
    write(tmp_path / "corpus.jsonl", [*rows, rows[0] | {"text": "another"}])
    check(tmp_path / "corpus.jsonl", options)
    assert "that no other has" not in capsys.readouterr().out
