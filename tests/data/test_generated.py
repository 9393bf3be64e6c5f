import json
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.svm import LinearSVC

from lsfa_jax.data import generated
from lsfa_jax.data.generated import SHAPES, Shape, documents, write
from lsfa_jax.data.reading.detect import ReadOptions
from lsfa_jax.data.reading.documents import ReadReport, read_documents
from lsfa_jax.data.reading.splits import find_splits
from lsfa_jax.data.vocabulary import tokenize
from lsfa_jax.util.console import UserError

SMALL = Shape(3000, 500, 400, 4.0, 60.0, 80.0, 5000)


def made(shape=SMALL, split="train", seed=0):
    return list(documents(shape, seed, split))


def counts_of(rows):
    return Counter(label for row in rows for label in row.labels)


def test_the_shape_is_the_one_asked_for():
    train, test = made(), made(split="test")
    assert (len(train), len(test)) == (3000, 500)
    counts = counts_of(train)
    assert set(counts) == {f"label_{i}" for i in range(400)}  # each occurs in training
    assert counts.total() / 3000 == pytest.approx(4.0, rel=0.03)
    assert set(counts_of(test)) <= set(counts)
    for rows, mean in ((train, 60), (test, 80)):
        lengths = np.array([len(row.text.split(" ")) for row in rows])
        assert lengths.mean() == pytest.approx(mean, rel=0.05)
        assert np.log(lengths).std() == pytest.approx(0.5, rel=0.1)
    words = Counter(word for row in train for word in row.text.split())
    assert 0.8 * 5000 < len(words) <= 5000
    assert all(tokenize(word) == [word] for word in words)


def test_labels_are_long_tailed():
    counts = counts_of(made())
    ranked = np.array([counts[f"label_{i}"] for i in range(400)])
    assert ranked[:10].mean() > 20 * ranked[-100:].mean()
    # Named by rank: each hundred is rarer than the one before.
    assert (np.diff(ranked.reshape(4, 100).mean(axis=1)) < 0).all()


@pytest.mark.parametrize("name", SHAPES)
def test_the_papers_corpora(name):
    shape = SHAPES[name]
    generated.check_shape(shape)
    rows = list(islice(documents(shape, 0, "train"), 2048))
    assert counts_of(rows).total() / 2048 == pytest.approx(shape.labels_per_document, rel=0.05)
    assert np.mean([row.text.count(" ") + 1 for row in rows]) == pytest.approx(shape.train_length, rel=0.06)
    assert len(next(documents(shape, 0, "test")).labels) >= 1


def test_a_rare_label_often_brings_a_frequent_one_along():
    rows = [[int(label.removeprefix("label_")) for label in row.labels] for row in made()]
    counts = np.bincount(np.concatenate(rows), minlength=400)
    together = np.zeros((400, 400))
    for row in rows:
        together[np.ix_(row, row)] += 1
    # Of a rare label's documents, those with its most usual frequent companion, and how many chance would give.
    rare = counts[200:, None]
    best = together[200:, :133].argmax(axis=1)
    share = (together[np.arange(200, 400), best] / rare[:, 0]).mean()
    by_chance = (counts[best] / 3000).mean()
    assert share > 0.3
    assert share > 3 * by_chance


def test_words_tell_the_labels():
    shape = replace(SMALL, num_train=1000, num_labels=40)
    train, test = made(shape), made(shape, "test")
    words = TfidfVectorizer(min_df=2).fit([row.text for row in train])
    names = MultiLabelBinarizer().fit([row.labels for row in train])
    model = OneVsRestClassifier(LinearSVC()).fit(
        words.transform([row.text for row in train]), names.transform([row.labels for row in train])
    )
    best = model.decision_function(words.transform([row.text for row in test])).argmax(axis=1)
    precision = np.mean([names.classes_[label] in row.labels for label, row in zip(best, test, strict=True)])
    assert precision > 0.9
    assert np.mean(["label_0" in row.labels for row in test]) < 0.6


def test_documents_follow_from_the_seed():
    assert made() == made() != made(seed=1)
    assert made(split="test")[:5] != made()[:5]


@settings(deadline=None, max_examples=25)
@given(
    num_train=st.integers(1, 60),
    num_labels=st.integers(1, 90),
    labels_per_document=st.floats(1, 6),
    length=st.floats(4, 30),
    vocabulary=st.integers(1, 3000),
)
def test_any_shape_can_be_made(num_train, num_labels, labels_per_document, length, vocabulary):
    shape = Shape(num_train, 3, num_labels, labels_per_document, length, length, vocabulary)
    if num_labels > num_train * labels_per_document:
        with pytest.raises(UserError, match="cannot each occur"):
            generated.check_shape(shape)
    train, test = made(shape), made(shape, "test")
    assert (len(train), len(test)) == (num_train, 3)
    assert len(counts_of(train)) == num_labels
    for row in [*train, *test]:
        assert 1 <= len(set(row.labels)) == len(row.labels) <= num_labels
        assert len(row.text.split()) >= 3


@pytest.mark.parametrize("compression", ["zst", "gz", "none"])
def test_written_documents_are_read_again(tmp_path, compression):
    files = write(replace(SMALL, num_train=300, num_labels=30), 2, tmp_path / "new", compression)
    splits = find_splits(tmp_path / "new")
    assert list(splits.values()) == files
    for split, path in splits.items():
        read = list(read_documents(path, options=ReadOptions(), report=ReadReport()))
        assert [(row.text, row.labels) for row in read] == [
            (row.text, row.labels) for row in made(replace(SMALL, num_train=300, num_labels=30), split, 2)
        ]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in files)


def test_files_are_never_overwritten_and_the_same_each_time(tmp_path):
    shape = replace(SMALL, num_train=200, num_test=0)
    (path,) = write(shape, 0, tmp_path / "a", "gz")
    with pytest.raises(UserError, match=r"train\.jsonl\.gz: is there already"):
        write(shape, 0, tmp_path / "a", "zst")
    assert path.read_bytes() == write(shape, 0, tmp_path / "b", "gz")[0].read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write(shape, 0, tmp_path / "file", "none")
    with pytest.raises(UserError, match="900 labels cannot each occur in 200 documents"):
        write(replace(shape, num_labels=900), 0, tmp_path / "c", "none")


def test_rows_are_json(tmp_path):
    write(replace(SMALL, num_train=150, num_labels=20, num_test=0), 0, tmp_path, "none")
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 150
    assert set(rows[0]) == {"labels", "text"}
