import json
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.data.reading.documents import ReadReport, read_documents
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.data.reading.splits import find_splits
from lsfa_jax.data.synthetic import SHAPES, Shape, check_shape, documents, write
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER
from lsfa_jax.util.console import UserError
from tests import word_counts

SMALL = Shape(3000, 500, 400, 4.0, 60.0, 80.0, 5000)


def generate(shape=SMALL, split="train", seed=0):
    return list(documents(shape, seed, split))


def counts_of(rows):
    return Counter(label for row in rows for label in row.labels)


def test_documents_have_the_shape_of_the_settings():
    train, test = generate(), generate(split="test")
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
    assert all(DEFAULT_TOKENIZER.words(word) == [word] for word in words)


def test_labels_are_long_tailed():
    counts = counts_of(generate())
    ranked = np.array([counts[f"label_{i}"] for i in range(400)])
    assert ranked[:10].mean() > 20 * ranked[-100:].mean()
    # Named by rank: each hundred is rarer than the one before.
    assert (np.diff(ranked.reshape(4, 100).mean(axis=1)) < 0).all()


@pytest.mark.parametrize("name", SHAPES)
def test_a_named_corpus_has_its_shape(name):
    shape = SHAPES[name]
    check_shape(shape)
    rows = list(islice(documents(shape, 0, "train"), 2048))
    if not shape.all_parents:
        assert counts_of(rows).total() / 2048 == pytest.approx(shape.labels_per_document, rel=0.05)
    assert np.mean([row.text.count(" ") + 1 for row in rows]) == pytest.approx(shape.train_length, rel=0.06)
    assert len(next(documents(shape, 0, "test")).labels) >= 1


def test_a_rare_label_often_brings_a_frequent_one_along():
    rows = [[int(label.removeprefix("label_")) for label in row.labels] for row in generate()]
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


def test_labels_can_be_predicted_from_words():
    shape = replace(SMALL, num_train=1000, num_labels=40)
    train, test = generate(shape), generate(shape, "test")
    assert word_counts.precision(train, test) > 0.9
    assert np.mean(["label_0" in row.labels for row in test]) < 0.6


def test_documents_follow_from_the_seed():
    assert generate() == generate() != generate(seed=1)
    assert generate(split="test")[:5] != generate()[:5]


@settings(deadline=None, max_examples=25)
@given(
    num_train=st.integers(1, 60),
    num_labels=st.integers(1, 90),
    labels_per_document=st.floats(1, 6),
    length=st.floats(4, 30),
    vocabulary=st.integers(1, 3000),
    all_parents=st.booleans(),
)
def test_any_possible_shape_can_be_generated(
    num_train, num_labels, labels_per_document, length, vocabulary, all_parents
):
    shape = Shape(num_train, 3, num_labels, labels_per_document, length, length, vocabulary, all_parents=all_parents)
    if num_labels > num_train * labels_per_document:
        with pytest.raises(UserError, match="cannot each occur"):
            check_shape(shape)
    train, test = generate(shape), generate(shape, "test")
    assert (len(train), len(test)) == (num_train, 3)
    assert len(counts_of(train)) == num_labels
    for row in [*train, *test]:
        assert 1 <= len(set(row.labels)) == len(row.labels) <= num_labels
        assert len(row.text.split()) >= 3


# --- the embedded corpus

EMBEDDED = SHAPES["synthetic"]


@pytest.fixture(scope="module")
def embedded():
    return generate(EMBEDDED)


def label_numbers(row):
    return {int(label.removeprefix("label_")) for label in row.labels}


def parts_of(row):
    """The words of a document outside and inside of its quotation."""
    words = row.text.split()
    assert words.count("quote") == words.count("unquote") == 1
    begin, end = words.index("quote"), words.index("unquote")
    return words[:begin] + words[end + 1 :], words[begin + 1 : end]


def words_of(words):
    """Words as ('label', label, position), ('angle', angle, position) or ('common', rank, 0)."""
    for number in (int(word[1:]) for word in words):
        if number < 720:
            yield "label", number // 12, number % 12
        elif number < 840:
            yield "angle", (number - 720) // 20, (number - 720) % 20
        else:
            yield "common", number - 840, 0


def preferences(rows, label=None):
    """How often each angle uses each position of a label's words, [6, 12]."""
    table = np.zeros((6, 12))
    for row in rows:
        words = list(words_of(parts_of(row)[0]))
        angles = {which for kind, which, _ in words if kind == "angle"}
        for kind, which, position in words:
            if kind == "label" and label in (None, which):
                for angle in angles:
                    table[angle, position] += 1
    return table / table.sum(axis=1, keepdims=True)


def test_label_frequencies_of_the_embedded_corpus_follow_zipfs_law(embedded):
    counts = sorted(counts_of(embedded).values(), reverse=True)
    assert len(counts) == 60
    assert counts[0] > 40 * counts[-1]
    slope, _ = np.polyfit(np.log(np.arange(1, 61)), np.log(counts), 1)
    assert -1.6 < slope < -0.8


def test_embedded_documents_are_about_their_labels_from_one_angle(embedded):
    kinds = Counter()
    for row in embedded:
        outside, inside = (list(words_of(part)) for part in parts_of(row))
        words = outside + inside
        assert {which for kind, which, _ in outside if kind == "label"} <= label_numbers(row)
        assert len({which for kind, which, _ in words if kind == "angle"}) <= 1
        kinds.update(kind for kind, _, _ in words)
    assert kinds["label"] / kinds.total() == pytest.approx(0.35, abs=0.01)
    assert kinds["angle"] / kinds.total() == pytest.approx(0.25, abs=0.01)
    assert kinds.total() / len(embedded) == pytest.approx(40 - 2, abs=0.5)
    assert min(len(row.labels) for row in embedded) == 1
    assert 2.5 < np.mean([len(row.labels) for row in embedded]) < 3.0


def test_half_of_an_embedded_document_is_a_quotation_about_one_other_label(embedded):
    about_others = 0
    for row in embedded:
        outside, inside = parts_of(row)
        assert len(inside) == max(0, (len(inside) + len(outside) + 2) // 2 - 2)
        about = {which for kind, which, _ in words_of(inside) if kind == "label"}
        assert len(about) <= 1
        about_others += bool(about - label_numbers(row))
    assert about_others / len(embedded) > 0.8


def test_variation_within_a_label_is_its_angle_alike_in_every_label_and_split(embedded):
    table = preferences(embedded)

    def distance(second):
        return np.abs(table - second).sum(axis=1).max() / 2

    assert distance(preferences(generate(EMBEDDED, "test"))) < 0.1
    assert distance(preferences(embedded, label=0)) < 0.15
    assert distance(preferences(embedded, label=5)) < 0.25
    assert distance(table[[1, 2, 3, 4, 5, 0]]) > 0.5
    assert distance(preferences(generate(EMBEDDED, seed=5))) > 0.5


def test_embedded_splits_share_language_but_no_documents(embedded):
    test = generate(EMBEDDED, "test")
    assert not {row.text for row in embedded} & {row.text for row in test}
    train_words, test_words = ({word for row in part for word in row.text.split()} for part in (embedded, test))
    assert len(train_words & test_words) > 0.9 * len(train_words | test_words)


def test_a_rare_label_of_the_embedded_corpus_always_comes_with_its_parent(embedded):
    together = {}
    for row in embedded + generate(EMBEDDED, "test"):
        numbers = label_numbers(row)
        for label in numbers:
            if label >= 20:
                together.setdefault(label, []).append({number for number in numbers if number < 20})
    assert len(together) == 40
    parents = {label: set.intersection(*sets) for label, sets in together.items()}
    assert all(len(sets) >= 5 for sets in together.values())
    assert all(len(common) == 1 for common in parents.values())
    assert len(set().union(*parents.values())) > 5


# --- files


@pytest.mark.parametrize("compression", ["zst", "gz", "none"])
def test_written_documents_are_read_back(tmp_path, compression):
    files = write(replace(SMALL, num_train=300, num_labels=30), 2, tmp_path / "new", compression)
    splits = find_splits(tmp_path / "new")
    assert list(splits.values()) == files
    for split, path in splits.items():
        read = list(read_documents(path, options=ReadOptions(), report=ReadReport()))
        assert [(row.text, row.labels) for row in read] == [
            (row.text, row.labels) for row in generate(replace(SMALL, num_train=300, num_labels=30), split, 2)
        ]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in files)


def test_files_are_never_overwritten_and_follow_from_the_seed(tmp_path):
    shape = replace(SMALL, num_train=200, num_test=0)
    (path,) = write(shape, 0, tmp_path / "a", "gz")
    with pytest.raises(UserError, match=r"train\.jsonl\.gz: exists already"):
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
