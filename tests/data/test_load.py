import dataclasses
import gzip
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from lsfa_jax.config import Config
from lsfa_jax.data import build_corpus, download, load
from lsfa_jax.data.load import load_corpus, read_split
from lsfa_jax.data.named import CATALOGUE
from lsfa_jax.data.reading.documents import ReadReport, read_documents
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.data.reading.splits import find_splits
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER
from lsfa_jax.data.vocabulary import Words
from lsfa_jax.util import console
from lsfa_jax.util.cache_dir import cache_dir
from lsfa_jax.util.console import UserError

AAPD = Path(__file__).parents[3] / "shared" / "data" / "aapd"
RCV1_FILES = [cache_dir() / "rcv1" / member.name for member in download.RCV1.members]

ROWS = {
    "train.jsonl": [("cats purr", ["animal", "pet"]), ("dogs bark", ["animal"]), ("", ["animal"]), ("votes", [])],
    "test.jsonl.gz": [("cats bark at lions", ["animal", "lion"]), ("", [])],
    "dev.jsonl": [("dogs purr", ["pet"])],
}


def jsonl(rows):
    return "\n".join(json.dumps({"text": text, "labels": labels}) for text, labels in rows).encode()


@pytest.fixture
def folder(tmp_path):
    """A custom corpus, its test file compressed."""
    for name, rows in ROWS.items():
        content = jsonl(rows)
        (tmp_path / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    return tmp_path


def custom(folder, **settings):
    return Config(dataset="custom", data_dir=str(folder), **settings)


# --- custom files


def test_folder_with_three_splits(folder, capsys):
    corpus = load_corpus(custom(folder))
    assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (3, 1, 2)
    assert corpus.labels == ["animal", "pet", "lion"]
    assert corpus.num_labels == 2
    assert corpus.words == ["cats", "purr", "dogs", "bark", "votes"]
    assert corpus.test.words.values.tolist() == [2, 5, 1, 1]
    assert corpus.name == folder.name
    printed = capsys.readouterr().out
    assert "1 training documents have no word" in printed
    assert f"{folder / 'train.jsonl'}: 4 rows read, 4 kept; noted: " in printed
    assert f"1 empty text (first {folder / 'train.jsonl'}:3)" in printed
    assert f"1 no labels (first {folder / 'train.jsonl'}:4)" in printed
    assert f"{folder / 'test.jsonl.gz'}: 2 rows read, 2 kept" in printed
    assert f"{folder / 'dev.jsonl'}: 1 row read, 1 kept" in printed


def test_folder_without_validation_holds_documents_out(folder, capsys):
    (folder / "dev.jsonl").unlink()
    rows = [(f"word{i}", ["x"]) for i in range(40)]
    (folder / "train.jsonl").write_bytes(jsonl(rows))
    first, again, reseeded = (
        load_corpus(custom(folder, seed=seed, data={"validation_fraction": 0.25})) for seed in (0, 0, 1)
    )
    assert (len(first.train), len(first.validation)) == (30, 10)
    assert first.words == again.words != reseeded.words
    assert "dev.jsonl" not in capsys.readouterr().out


def test_settings_reach_the_corpus(folder, capsys):
    corpus = load_corpus(custom(folder, data={"max_words": 1, "max_vocabulary": 2}))
    assert corpus.words == ["cats", "dogs"]
    assert max(corpus.train.lengths) == 1

    (folder / "dev.jsonl").write_bytes(b'{"text": "a", "labels": ["x"]}\n{"text": 3}')
    with pytest.raises(UserError, match=r"dev\.jsonl:2: 'text' is not text"):
        load_corpus(custom(folder))
    capsys.readouterr()
    load_corpus(custom(folder, data={"bad_rows": "skip"}))
    assert "dev.jsonl: 2 rows read, 1 kept; skipped: 1 'text' is not text" in capsys.readouterr().out


def test_a_command_that_prepares_a_file_twice_prints_once_how_it_is_read(folder, capsys):
    with console.once():
        for max_words in (1, 2):
            load_corpus(custom(folder, data={"max_words": max_words}))
    printed = capsys.readouterr().out
    assert printed.count("train.jsonl: read as jsonl") == printed.count("first document: 'cats purr'") == 1
    assert printed.count("train.jsonl: 4 rows read") == 2


def test_a_named_corpus_is_read_from_its_folder(folder):
    assert load_corpus(Config(dataset="aapd", data_dir=str(folder))).name == "aapd"


@pytest.mark.parametrize("dataset", ["custom", "aapd", "eurlex4k", "eurlex57k"])
def test_a_corpus_that_needs_a_folder_names_its_contents(dataset):
    with pytest.raises(UserError) as error:
        load_corpus(Config(dataset=dataset))
    assert str(error.value).startswith(f"--dataset {dataset} needs --data-dir, a folder with ")
    row = str(error.value).partition("rows are ")[2].partition(";")[0].replace(", ...]", "]").replace("...", "words")
    assert set(json.loads(row)) == {"labels", "text"}


@pytest.mark.parametrize("dataset", ["synthetic", "rcv1"])
def test_a_corpus_with_documents_refuses_a_folder(dataset, folder):
    with pytest.raises(UserError, match=f"--data-dir: {dataset} brings its documents with it; use --dataset custom"):
        load_corpus(Config(dataset=dataset, data_dir=str(folder)))


def test_missing_folder_or_file(folder):
    with pytest.raises(UserError, match=r"nowhere: there is neither a file nor a folder"):
        load_corpus(custom(folder / "nowhere"))
    (folder / "train.jsonl").unlink()
    with pytest.raises(UserError, match=r"no file for the train split"):
        load_corpus(custom(folder))


# --- one file, or no test split


def test_one_file_is_a_corpus(tmp_path, capsys):
    path = tmp_path / "corpus.csv"
    path.write_text("text,labels\n" + "".join(f"word{i} shared,x;y\n" for i in range(40)))
    corpus = load_corpus(custom(path, data={"test_fraction": 0.2, "validation_fraction": 0.25}))
    assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (24, 8, 8)
    assert corpus.labels == ["x", "y"]
    printed = capsys.readouterr().out
    assert "No test split: 8 of 40 documents are held out as test, at random" in printed
    assert f"{path}: 40 rows read, 40 kept" in printed


def test_folder_without_a_test_split(folder, capsys):
    (folder / "test.jsonl.gz").unlink()
    corpus = load_corpus(custom(folder, data={"test_fraction": 0.5}))
    # The fourth has no word.
    assert len(corpus.train) + len(corpus.test) in (3, 4)
    assert len(corpus.test) == 2
    assert len(corpus.validation) == 1
    assert "No test split: 2 of 4 documents" in capsys.readouterr().out


@pytest.mark.parametrize("rows_a_document", [1, 2])
@pytest.mark.parametrize("with_test", [False, True])
def test_texts_that_are_read_again_are_those_of_the_corpus(tmp_path, rows_a_document, with_test):
    """Merged rows and drawn documents included, in the same order."""
    rows = [
        (f"word{i // 3 if i < 12 else i} shared", ["x", f"y{i % 3}"][:: 2 - i % 2])
        for i in np.random.default_rng(0).permutation(60)
    ]
    if rows_a_document == 2:
        rows = [(text, [label]) for text, labels in rows for label in labels]
    (tmp_path / "train.jsonl").write_bytes(jsonl(rows))
    if with_test:
        (tmp_path / "test.jsonl").write_bytes(jsonl(rows[:20]))
    config = custom(tmp_path, data={"test_fraction": 0.3, "validation_fraction": 0.0})
    corpus = load_corpus(config)
    for split, arrays in (("train", corpus.train), ("test", corpus.test)):
        documents = list(read_split(config, split))
        read_labels = [set(document.labels) for document in documents]
        assert read_labels == [{corpus.labels[i] for i in arrays.labels.row(n)} for n in range(len(arrays))]
        vocabulary = Words(corpus.words, DEFAULT_TOKENIZER, 500)
        for n, document in enumerate(documents):
            np.testing.assert_array_equal(vocabulary.encode(document.text), arrays.words.row(n))


def test_fields_and_separator_that_are_named(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("a,b\n" + "x+y,several words each\n" * 20)
    named = {"text_field": "b", "labels_field": "a", "label_separator": "+", "format": "csv"}
    assert load_corpus(custom(path, data=named)).labels == ["x", "y"]
    with pytest.raises(UserError, match=r"--data\.format cvs"):
        load_corpus(custom(path, data={"format": "cvs"}))


# --- prepared once


def arrays(corpus):
    for split in (corpus.train, corpus.validation, corpus.test):
        yield from (*split.words, *split.labels)
    yield corpus.published_counts


def assert_same(first, second):
    for a, b in zip(arrays(first), arrays(second), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
    for field in dataclasses.fields(first):
        if isinstance(getattr(first, field.name), list | int | str):
            assert getattr(first, field.name) == getattr(second, field.name)


def is_of_reading(line):
    return ": read as " in line or line.startswith("  first document: ")


def reads_files(capsys):
    """Whether files were read since the last call: reading prints their format."""
    return ": read as " in capsys.readouterr().out


def test_the_second_start_reads_no_document_and_prints_the_same(folder, capsys):
    (folder / "dev.jsonl").unlink()
    settings = {"max_words": 3, "validation_fraction": 0.4}
    first = load_corpus(custom(folder, data=settings))
    printed = [line for line in capsys.readouterr().out.splitlines() if not is_of_reading(line)]
    read = {
        split: list(read_documents(find_splits(folder)[split], options=ReadOptions(), report=ReadReport()))
        for split in ("train", "test")
    }
    built = build_corpus.build(
        first.name, read["train"], read["test"], None, max_vocabulary=500_000, seed=0, **settings
    )
    capsys.readouterr()
    second = load_corpus(custom(folder, data=settings))
    assert capsys.readouterr().out.splitlines() == printed
    assert_same(first, second)
    assert_same(built, second)


def test_only_settings_and_files_that_decide_the_arrays_cause_another_reading(folder, capsys):
    def reads(**settings):
        capsys.readouterr()
        load_corpus(custom(folder, **settings))
        return reads_files(capsys)

    reads()
    assert not reads()
    # All three splits are there: no document is drawn, and batches are made later.
    assert not reads(seed=5, data={"validation_fraction": 0.3, "test_fraction": 0.3, "length_buckets": (7,)})
    assert not reads(data={"verify": "full"})
    assert reads(data={"max_words": 7})
    assert reads(data={"max_vocabulary": 7})
    assert reads(data={"format": "jsonl"})
    assert reads(data={"bad_rows": "skip"})
    assert reads(data={"tokenizer": "spaces"})
    assert reads(data={"html": "strip"})
    (folder / "dev.jsonl").write_bytes(jsonl([("dogs purr!", ["pet"])]))
    assert reads()
    assert not reads()
    (folder / "dev.jsonl").unlink()
    assert reads()
    assert reads(seed=5)
    assert reads(data={"validation_fraction": 0.3})
    assert not reads(data={"test_fraction": 0.3})


def test_a_version_of_unicode_that_may_have_more_letters_causes_another_reading(folder, monkeypatch, capsys):
    corpus = load_corpus(custom(folder))
    capsys.readouterr()
    monkeypatch.setattr(unicodedata, "unidata_version", "99.0.0")
    assert_same(load_corpus(custom(folder)), corpus)
    assert reads_files(capsys)
    load_corpus(custom(folder))
    assert not reads_files(capsys)


def test_equal_content_with_another_time_of_modification_is_not_read_again(folder, capsys):
    load_corpus(custom(folder))
    for name in ROWS:
        os.utime(folder / name, (0, 1e9))
    capsys.readouterr()
    load_corpus(custom(folder))
    assert not reads_files(capsys)


def test_a_change_between_the_samples_that_keeps_the_size_is_noticed_by_the_full_check(folder, capsys):
    rows = jsonl([("cats purr " * 50, ["animal"])] * 4000)
    (folder / "train.jsonl").write_bytes(rows)
    assert len(rows) > 2 * 2**20
    first = load_corpus(custom(folder))
    assert "dogs" not in first.words[:2]
    changed = rows.find(b"cats", 30_000)
    (folder / "train.jsonl").write_bytes(rows[:changed] + b"eels" + rows[changed + 4 :])
    capsys.readouterr()
    assert "eels" not in load_corpus(custom(folder)).words
    assert not reads_files(capsys)
    assert "eels" in load_corpus(custom(folder, data={"verify": "full"})).words
    assert "its source files have changed; it is written again" in capsys.readouterr().out
    assert "eels" in load_corpus(custom(folder)).words
    assert not reads_files(capsys)


def test_a_folder_that_moved_is_not_read_again_and_its_new_path_is_printed(folder, tmp_path, capsys):
    first = load_corpus(custom(folder))
    new = tmp_path / "new"
    new.mkdir()
    for name in ROWS:
        (folder / name).rename(new / name)
    capsys.readouterr()
    assert_same(dataclasses.replace(first, name="new"), load_corpus(custom(new)))
    printed = capsys.readouterr().out
    assert ": read as " not in printed
    assert f"1 no labels (first {new / 'train.jsonl'}:4)" in printed


def test_a_damaged_prepared_folder_is_read_again(folder, capsys):
    first = load_corpus(custom(folder))
    words = load.prepared_folder(custom(folder)) / "train" / "words.npy"
    content = bytearray(words.read_bytes())
    content[-1] ^= 1
    words.unlink()  # the first corpus still looks at it
    words.write_bytes(content)
    assert_same(first, load_corpus(custom(folder)))
    assert "train/words.npy is not as it was written; it is written again" in capsys.readouterr().out


def test_a_bad_row_leaves_nothing_behind(folder):
    (folder / "dev.jsonl").write_text('{"text": "a", "labels": ["x"]}\n{"text": 3}\n')
    with pytest.raises(UserError, match=r"dev\.jsonl:2"):
        load_corpus(custom(folder))
    assert not load.prepared_folder(custom(folder)).exists()


# --- corpora that need no files


def test_the_synthetic_corpus_is_complete(capsys):
    corpus = load_corpus(Config(dataset="synthetic"))
    assert (corpus.published_documents, len(corpus.test)) == (2400, 2000)
    assert corpus.num_labels == len(corpus.labels) == 60
    assert (len(corpus.train), len(corpus.validation)) == (2280, 120)
    assert (np.diff(corpus.published_counts) <= 0).all()
    assert (corpus.label_counts * 2 >= corpus.published_counts).all()
    train, validation, test = (
        {tuple(split.words.row(i)) for i in range(len(split))}
        for split in (corpus.train, corpus.validation, corpus.test)
    )
    assert not train & test
    assert not train & validation
    assert capsys.readouterr().out == ""


def test_synthetic_corpus_follows_from_the_seed(monkeypatch):
    entry = CATALOGUE["synthetic"]
    small = dataclasses.replace(entry, shape=dataclasses.replace(entry.shape, num_train=100, num_test=50))
    monkeypatch.setitem(CATALOGUE, "synthetic", small)
    first, again, reseeded = (load_corpus(Config(dataset="synthetic", seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.train.words.values, again.train.words.values)
    np.testing.assert_array_equal(first.test.words.values, again.test.words.values)
    assert first.words == again.words != reseeded.words


@pytest.mark.skipif(not all(path.exists() for path in RCV1_FILES), reason="RCV1 is not in the cache")
def test_rcv1_is_the_published_split():
    corpus = load_corpus(Config(dataset="rcv1", data={"max_words": 20}))
    assert (corpus.published_documents, len(corpus.test), corpus.num_labels) == (23_149, 7_965, 101)
    assert len(corpus.train) + len(corpus.validation) == 23_149
    assert len(corpus.validation) == round(0.05 * 23_149)
    assert corpus.published_counts.sum() / 23_149 == pytest.approx(3.18, abs=0.005)
    assert (corpus.label_counts * 2 >= corpus.published_counts[:101]).all()


def test_a_fetched_corpus_of_another_size_is_refused(folder, monkeypatch):
    files = {"train": [folder / "a.jsonl", folder / "b.jsonl"], "test": [folder / "c.jsonl"]}
    for path in [*files["train"], *files["test"]]:
        path.write_text('{"doc_token": ["word"], "doc_label": ["x"]}')
    monkeypatch.setitem(CATALOGUE, "rcv1", dataclasses.replace(CATALOGUE["rcv1"], fetch=lambda: files))
    with pytest.raises(UserError, match=r"rcv1: has 2 training and 1 test documents and 1 labels, expected 23,149"):
        load_corpus(Config(dataset="rcv1"))


@pytest.mark.skipif(not AAPD.is_dir(), reason="the AAPD files are not beside the repository")
def test_aapd_test_split_has_the_documented_counts(capsys):
    splits = find_splits(AAPD)
    assert set(splits) == {"train", "test"}
    report = ReadReport()
    documents = list(read_documents(splits["test"], options=ReadOptions(), report=report))
    assert len(documents) == report.read == 1000
    labels = [label for document in documents for label in document.labels]
    assert len(set(labels)) == 54
    assert len(labels) == 2421
    assert min(len(document.text.split()) for document in documents) > 5


def test_names_of_labels_are_part_of_the_data(tmp_path):
    rows = "".join(f'{{"text": "word{i} and", "labels": [{i % 3}]}}\n' for i in range(30))
    (tmp_path / "train.jsonl").write_text(rows)
    names = tmp_path / "names.txt"
    names.write_text("heating\nlibrary\ntraffic\n")
    data = {"label_names": str(names)}
    assert sorted(load_corpus(custom(tmp_path, data=data)).labels) == ["heating", "library", "traffic"]
    names.write_text("heating\nlibrary\nrail\n")
    assert sorted(load_corpus(custom(tmp_path, data=data)).labels) == ["heating", "library", "rail"]
    names.write_text("heating\n")
    with pytest.raises(UserError, match=r"train.jsonl:2: a label's number has no name: expected a number from 0 to 0"):
        load_corpus(custom(tmp_path, data=data))
    with pytest.raises(UserError, match=r"nowhere: cannot be read"):
        load_corpus(custom(tmp_path, data={"label_names": str(tmp_path / "nowhere")}))
