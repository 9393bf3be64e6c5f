import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lsfa_jax.cli import data
from lsfa_jax.config import Config, layered, validated
from lsfa_jax.data import build_corpus, named
from lsfa_jax.data.load import load_corpus
from lsfa_jax.data.synthetic import Shape, documents
from lsfa_jax.util.console import UserError
from tests.training import pretrained_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    rows = [{"text": f"word{i} shared text", "labels": [f"l{i % 3}", "all"]} for i in range(60)]
    for name, part in (("train", rows[:40]), ("test", rows[40:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    return tmp_path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LSFA_DATA", str(path))
    return path


def run(*argv):
    return data.main(list(map(str, argv)))


def lines(text):
    """The lines, with one space between words."""
    return {" ".join(line.split()) for line in text.splitlines()}


def test_list_names_every_corpus_and_what_is_prepared(folder, cache, capsys):
    assert run("list") == 0
    before = capsys.readouterr().out
    assert all(len(line) <= 100 for line in before.splitlines()[:-1])  # but the folder's name
    for name in named.CATALOGUE:
        assert any(line.startswith(f"{name} ") for line in lines(before))
    assert "eurlex57k 45,000 + 6,000 4,271 nlp.cs.aueb.gr CC BY-SA 4.0 -" in lines(before)
    assert any(line.startswith("synthetic ") and line.endswith(" not needed") for line in lines(before))
    assert run("prepare", "eurlex57k", "--data-dir", folder, "--vectors", "none") == 0
    (cache / "prepared" / f"synthetic-rcv1-{'0' * 16}").mkdir()
    capsys.readouterr()
    assert run("list") == 0
    assert "eurlex57k 45,000 + 6,000 4,271 nlp.cs.aueb.gr CC BY-SA 4.0 1 x, 0 MB" in lines(
        out := capsys.readouterr().out
    )
    assert [line.split()[0] for line in lines(out) if line.endswith(" 1 x, 0 MB")].count("synthetic") == 0
    assert any(line.startswith("synthetic-rcv1 ") and line.endswith(" 1 x, 0 MB") for line in lines(out))


def test_describe_prints_the_row_beside_the_papers_and_draws_the_curve(folder, tmp_path, capsys):
    png = tmp_path / "curve.png"
    assert run("describe", "aapd", "--data-dir", folder, "--preset", "full", "--png", png) == 0
    out = capsys.readouterr().out
    assert "N_trn N_tst D_vocab L L_avg N_avg W_trn W_tst" in lines(out)
    assert "this 40 20 40 4 2.00 20.00 3.00 3.00" in lines(out)
    assert "paper 54,840 1,000 69,399 54 2.41 2,444.04 163.42 171.65" in lines(out)
    assert "D_vocab: words of the vocabulary, at most data.max_vocabulary = " in " ".join(out.split())
    assert "N_t 1,000" in out
    assert "•" in out
    assert png.read_bytes().startswith(b"\x89PNG")


def test_words_are_not_counted_where_the_encoder_reads_word_pieces(folder, tmp_path, capsys):
    encoder = pretrained_folder.write(tmp_path / "encoder")
    assert run("describe", "aapd", "--data-dir", folder, "--encoder", encoder) == 0
    out = capsys.readouterr().out
    assert "this 40 20 - 4 2.00 20.00 3.00 3.00" in lines(out)
    assert "D_vocab is of words, and the encoder reads word pieces." in " ".join(out.split())


def test_describe_without_a_name_describes_custom_files(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("describe", "--data-dir", folder / "train.jsonl", "--data.test-fraction", "0.5") == 0
    out = capsys.readouterr().out
    assert "paper" not in [line.split()[0] for line in lines(out) if line]
    assert "No test split: 20 of 40" in out
    # As in training: the mean number of documents a label has.
    assert re.search(r"\b1 labels have at least N_t = 9 training documents \(head\) and 3 have fewer", out)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".png"] == []


def test_training_starts_from_the_prepared_corpus(folder, cache, capsys):
    def prepared():
        return [(path.name, path.stat().st_ino) for path in (cache / "prepared").iterdir()]

    assert run("prepare", "eurlex57k", "--data-dir", folder, "--preset", "quick", "--vectors", "none") == 0
    assert "34 training, 6 validation and 20 test documents, 4 labels" in capsys.readouterr().out
    before = prepared()
    values = layered("eurlex57k", "quick", "paper") | {"data_dir": str(folder)}
    assert len(load_corpus(validated(values, "test")).train) == 34
    assert prepared() == before
    assert len(before) == 1


def test_prepare_of_the_embedded_corpus_writes_nothing(capsys, cache):
    assert run("prepare", "synthetic") == 0
    assert "2,160 training, 240 validation and 2,000 test documents" in capsys.readouterr().out
    assert list(cache.iterdir()) == []


def test_prepare_generates_a_corpus_of_any_size(tmp_path, cache, capsys):
    shape = ["--num-labels", 40, "--num-documents", 90, "--labels-per-document", 3, "--mean-length", 20]
    output = tmp_path / "generated"
    assert run("prepare", "synthetic", *shape, "--vocabulary", 500, "--output", output, "--seed", 4) == 0
    assert f"bin/train --data-dir {output}" in capsys.readouterr().out
    assert sorted(path.name for path in output.iterdir()) == ["test.jsonl.zst", "train.jsonl.zst"]
    assert list(cache.iterdir()) == []
    corpus = load_corpus(Config(dataset="custom", data_dir=str(output)))
    assert (corpus.published_documents, len(corpus.test), corpus.num_labels) == (90, 9, 40)
    assert corpus.published_words / 90 == pytest.approx(20, rel=0.2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["synthetic", "--num-labels", "9"], "--output DIR: name a folder"),
        (["synthetic-aapd", "--num-labels", "9", "--output", "x"], "--num-labels: for synthetic only"),
        (["rcv1", "--output", "x"], "--output: rcv1 is not a generated corpus"),
        (["synthetic", "--num-labels", "999999", "--output", "x"], "999,999 labels cannot each occur"),
    ],
)
def test_a_corpus_that_cannot_be_generated_is_an_error(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("prepare", *argv) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_generated_corpus_is_prepared_by_its_name(monkeypatch, capsys):
    shape = Shape(200, 50, 20, 2.0, 30.0, 30.0, 500)
    monkeypatch.setitem(named.CATALOGUE, "synthetic-aapd", replace(named.CATALOGUE["synthetic-aapd"], shape=shape))
    for seed in (0, 0, 1):
        assert run("prepare", "synthetic-aapd", "--preset", "full", "--seed", seed) == 0
        assert "190 training, 10 validation and 50 test documents, 20 labels" in capsys.readouterr().out
    assert run("list") == 0
    entry = named.CATALOGUE["synthetic-aapd"]
    row = f"synthetic-aapd {entry.documents} {entry.labels} {entry.origin} {entry.licence} 2 x, 0 MB"
    assert row in lines(capsys.readouterr().out)
    config = Config(dataset="synthetic-aapd", seed=1)
    built = build_corpus.build(
        "synthetic-aapd",
        documents(shape, 1, "train"),
        documents(shape, 1, "test"),
        None,
        max_words=500,
        max_vocabulary=500_000,
        validation_fraction=0.05,
        seed=1,
    )
    np.testing.assert_array_equal(load_corpus(config).train.words.values, built.train.words.values)


def test_check(folder, capsys):
    assert run("check", folder) == 0
    assert "train 40 40 0 0" in lines(capsys.readouterr().out)
    (folder / "mine.csv").write_text('words,tags\n"a b","x;y"\nbad\nc,x\n')
    options = ("--data.text-field", "words", "--data.label-separator", ";")
    assert run("check", folder / "mine.csv", *options) == 0
    out = capsys.readouterr().out
    assert "stops at the first of the skipped rows" in out
    assert f"bin/train --data-dir {folder / 'mine.csv'} --data.text-field words --data.label-separator ';'" in out
    (folder / "train.jsonl").write_text('{"text": 1, "labels": []}\n')
    assert run("check", folder) == 2
    assert "holds no documents" in capsys.readouterr().err
    assert run("check", folder / "test.jsonl", "--data.format", "cvs") == 2
    assert "--data.format cvs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("aapd", ["text_train", "label_train", "lancopku/SGM"]),
        ("eurlex57k", ["nlp.cs.aueb.gr", "archive.org", "train, dev and test"]),
        ("eurlex4k", ["train_texts.txt", "train_labels.txt", "AttentionXML", "extreme classification repository"]),
        ("custom", ["train.jsonl", ".csv"]),
    ],
)
def test_a_corpus_without_its_files_lists_them_and_their_source(name, parts, capsys):
    assert run("describe", name) == 2
    message = capsys.readouterr().err
    for part in ["--data-dir", *parts]:
        assert part in message


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["describe", "rvc1"], "did you mean rcv1?"),
        (["describe", "--seed", "1", "rcv1"], "the name comes first"),
        (["prepare", "rcv1", "--data-dir", "x"], "rcv1 brings its"),
        (["check", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_user_errors_tell_what_to_do(argv, message, capsys):
    assert run(*argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message", "verb"),
    [
        ("", "expected a verb, one of list, describe, prepare, check", ""),
        ("tell", "tell: expected one of list, describe, prepare, check", ""),
        ("lst", "lst: expected one of list, describe, prepare, check (did you mean list?)", ""),
        ("list x", "x: unexpected argument", " list"),
        ("check", "PATH is missing. A folder with train, test and perhaps validation files, or one file", " check"),
        ("describe rcv1 --preset small", "--preset small: expected full or quick", " describe"),
        ("describe rcv1 --seed -1", "--seed -1: expected an integer from 0 to 4,294,967,295", " describe"),
        ("prepare synthetic --num-labels 0", "--num-labels 0: expected an integer of at least 1", " prepare"),
    ],
)
def test_a_wrong_line_is_one_line(argv, message, verb, capsys):
    assert run(*argv.split()) == 2
    assert capsys.readouterr() == ("", f"error: {message}; see bin/data{verb} --help\n")


def test_a_picture_that_cannot_be_written_is_noticed_before_the_corpus_is_read(folder, capsys):
    for png, message in (
        (folder / "none" / "x.png", f"there is no folder {folder / 'none'}; create it, or choose another"),
        (folder, "is a folder; name a file in it"),
        (folder / "train.jsonl", "the command or the run needs that file; choose another"),
    ):
        assert run("describe", "custom", "--data-dir", folder, "--png", png) == 2
        assert capsys.readouterr() == ("", f"error: --png {png}: {message}\n")
    names = folder / "names.txt"
    names.touch()
    line = ("--data-dir", folder, "--data.label-names", names, "--png", names)
    assert run("describe", "custom", *line) == 2
    assert "the command or the run needs that file; choose another" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", "list", "describe", "prepare", "check"])
def test_help_has_an_example(command, capsys):
    code = 0
    try:
        code = run(*command.split(), "--help")
    except SystemExit as stop:
        code = stop.code
    assert code == 0
    assert f"bin/data {command}" in capsys.readouterr().out.replace("usage: bin/data", "")


def test_settings_are_those_of_training():
    arguments = data.parse(["prepare", "rcv1", "--preset", "quick", "--data.max-words", "7", "--seed", "3"])
    expected = layered("rcv1", "quick", "paper")
    expected = expected | {"seed": 3, "data": expected["data"] | {"max_words": 7}}
    assert arguments.settings() == Config.model_validate(expected)


def test_bin_data(cache):
    environment = os.environ | {"LSFA_DATA": str(cache), "LSFA_PYTHON": sys.executable}
    done = subprocess.run(
        [ROOT / "bin" / "data", "describe", "aapd"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --dataset aapd needs --data-dir")
    assert "Traceback" not in done.stderr


def test_unknown_names_are_errors_before_anything_is_downloaded(cache):
    with pytest.raises(UserError, match="expected one of aapd"):
        data.parse(["describe", "nothing"])
    assert list(cache.iterdir()) == []
