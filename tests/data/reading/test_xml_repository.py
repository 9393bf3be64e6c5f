"""Raw text files and filter files of the Extreme Classification Repository."""

import gzip
import io
import json

import numpy as np
import pytest

from lsfa_jax.config import Config
from lsfa_jax.data.load import load_corpus, read_split
from lsfa_jax.data.reading.splits import Files, find_splits
from lsfa_jax.data.reading.xml_repository import read_filter
from lsfa_jax.training import content
from lsfa_jax.util.console import UserError
from tests.data.reading.files import read

NAMES = ["heating", "library", "traffic"]
LABELS = [[0, 2], [1], [], [2, 1], [0], [0, 1]]
TEXTS = [f"the old pump in place {number} was noted" for number in range(len(LABELS))]


def write_sparse(folder):
    for split in ("trn", "tst"):
        (folder / f"{split}_X.txt").write_text("".join(f"{text}\n" for text in TEXTS))
        rows = [" ".join(f"{label}:1.0" for label in labels) for labels in LABELS]
        rows[4] += " 1:0.0"
        (folder / f"{split}_X_Y.txt").write_text("\n".join([f"{len(LABELS)} {len(NAMES)}", *rows]) + "\n")
    return folder


def write_json(folder):
    for split in ("trn", "tst"):
        lines = [
            json.dumps({"uid": f"u{i}", "title": "", "content": text, "target_ind": labels, "target_rel": [1.0]})
            for i, (text, labels) in enumerate(zip(TEXTS, LABELS, strict=True))
        ]
        (folder / f"{split}.json.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    titles = "\n".join(json.dumps({"uid": name, "title": name}) for name in NAMES)
    (folder / "lbl.json.gz").write_bytes(gzip.compress(titles.encode()))
    return folder


def labels_of(source):
    return [document.labels for document in read(source)[0]]


def test_texts_and_sparse_labels_are_read_line_by_line(tmp_path):
    splits = find_splits(write_sparse(tmp_path))
    assert splits["test"] == Files((tmp_path / "tst_X.txt",), tmp_path / "tst_X_Y.txt")
    documents, _ = read(splits["train"])
    assert [document.text for document in documents] == TEXTS
    assert [document.labels for document in documents] == [tuple(map(str, labels)) for labels in LABELS]
    (tmp_path / "Y.txt").write_text("".join(f"{name}\n" for name in NAMES))
    named = [tuple(NAMES[label] for label in labels) for labels in LABELS]
    assert labels_of(find_splits(tmp_path)["train"]) == named


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0:1.0\n", r"trn_X_Y.txt:1: expected the numbers of documents and labels, got b'0:1.0'"),
        ("6 3\n0:1.0 3:1.0\n", r"trn_X_Y.txt:2: expected label:value with labels below 3, got b'3:1.0'"),
        ("6 3\n0:x\n", r"trn_X_Y.txt:2: expected label:value"),
        ("6 3\n0:1\n", r"different numbers of texts and of rows"),
    ],
)
def test_a_wrong_label_file_is_an_error_that_names_the_line(tmp_path, content, message):
    (write_sparse(tmp_path) / "trn_X_Y.txt").write_text(content)
    with pytest.raises(UserError, match=message):
        labels_of(find_splits(tmp_path)["train"])


def test_a_filter_file_is_pairs_of_document_and_label(tmp_path):
    path = tmp_path / "filter_labels_test.txt"
    path.write_text("4 1\n0 2\n\n4.0\t0.0\n")
    rows = read_filter(path)
    assert [rows.row(i).tolist() for i in range(rows.num_rows)] == [[2], [], [], [], [1, 0]]
    path.write_text("")
    assert read_filter(path).num_rows == 0
    path.write_text("0 1\n0:1\n")
    with pytest.raises(UserError, match=r"filter_labels_test.txt:2: expected the numbers of a document and of a label"):
        read_filter(path)


@pytest.mark.parametrize("name", ["filter_labels_test.txt", "tst_filter_labels.txt"])
@pytest.mark.parametrize("write", [write_sparse, write_json])
def test_filtered_labels_of_test_documents_are_excluded(tmp_path, write, name):
    write(tmp_path)
    (tmp_path / name).write_text("0 0\n3 0\n5 1\n5 2\n")
    (tmp_path / "filter_labels_train.txt").write_text("0 0\n")
    splits = find_splits(tmp_path)
    names = NAMES if write is write_json else "012"
    assert labels_of(splits["train"])[0] == (names[0], names[2])
    documents, report = read(splits["test"])
    assert "duplicate labels" not in report.notes
    assert documents[0].labels == (names[2],)
    assert [document.excluded for document in documents] == [
        (names[0],), (), (), (names[0],), (), (names[1], names[2])
    ]  # fmt: skip


def test_a_filter_file_of_other_documents_is_an_error(tmp_path):
    write_json(tmp_path)
    (tmp_path / "filter_labels_test.txt").write_text("6 0\n")
    with pytest.raises(UserError, match=r"filter_labels_test.txt: has pairs of document 6, and there are only 6"):
        read(find_splits(tmp_path)["test"])
    (tmp_path / "filter_labels_test.txt").write_text("0 9\n")
    with pytest.raises(UserError, match=r"filter_labels_test.txt, document 0: .* a number from 0 to 2"):
        read(find_splits(tmp_path)["test"])


def test_excluded_labels_are_part_of_the_corpus_and_of_its_content(tmp_path, capsys):
    write_json(tmp_path)
    config = Config(dataset="custom", data_dir=str(tmp_path), data={"validation_fraction": 0.0})
    without = load_corpus(config)
    assert without.test.excluded is None
    (tmp_path / "filter_labels_test.txt").write_text("0 0\n5 1\n5 2\n")
    corpus = load_corpus(config)
    assert "its filter file excludes 3 labels of documents" in capsys.readouterr().out
    excluded = [{corpus.labels[label] for label in corpus.test.excluded.row(row)} for row in range(6)]
    assert excluded == [{"heating"}, set(), set(), set(), set(), {"library", "traffic"}]
    assert corpus.train.excluded is None
    taken = corpus.test.take(np.array([5, 1]))
    assert taken.excluded.sizes.tolist() == [2, 0]
    assert next(document.excluded for document in read_split(config, "test")) == ("heating",)
    labels = [content._digest(content._arrays(each.test.labels)) for each in (without, corpus)]
    assert labels[0] != labels[1]


def test_standard_input_has_no_filter():
    line = json.dumps({"text": "the old pump was noted", "labels": ["a"]})
    assert read(io.BytesIO(line.encode()))[0][0].excluded == ()
