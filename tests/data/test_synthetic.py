from collections import Counter

import numpy as np
import pytest

from lsfa_jax.data import synthetic


def make(number=2400, **settings):
    return list(synthetic.documents(number, **settings))


@pytest.fixture(scope="module")
def default():
    return make()


def test_follows_from_its_arguments_alone(default):
    assert make() == default
    assert make(50) == default[:50]
    for other in ({"seed": 1}, {"split": 1}):
        assert not {document.text for document in make(200, **other)} & {document.text for document in default}
        lengths = [[len(document.text.split()) for document in part] for part in (make(50, **other), default[:50])]
        assert lengths[0] != lengths[1]


def test_labels_are_long_tailed(default):
    counts = Counter(label for document in default for label in document.labels)
    frequent = [n for label, n in counts.items() if label.startswith("frequent")]
    rare = [n for label, n in counts.items() if label.startswith("rare")]
    assert len(counts) == 60
    assert len(frequent) == 20
    assert max(frequent) > 20 * np.median(rare)
    assert max(counts.values()) > 40 * min(counts.values())
    # Zipf's law: log count over log rank falls in a line of about the exponent 1.1, parents above it.
    ranks = np.arange(1, 61)
    slope, _ = np.polyfit(np.log(ranks), np.log(sorted(counts.values(), reverse=True)), 1)
    assert -1.6 < slope < -0.8


def test_a_rare_label_always_comes_with_one_frequent_parent(default):
    together = {}
    for document in default + make(2000, split=1):
        frequent = {label for label in document.labels if label.startswith("frequent")}
        for label in document.labels:
            if label.startswith("rare"):
                together.setdefault(label, []).append(frequent)
    assert len(together) == 40
    parents = {label: set.intersection(*sets) for label, sets in together.items()}
    assert all(len(sets) >= 5 for sets in together.values())
    assert all(len(own) == 1 for own in parents.values())
    assert len({next(iter(own)) for own in parents.values()}) > 5  # not one parent for all


def test_splits_share_language_but_no_documents(default):
    other = make(2000, split=1)
    assert not {document.text for document in default} & {document.text for document in other}
    words, other_words = ({w for d in part for w in d.text.split()} for part in (default, other))
    assert len(words & other_words) > 0.9 * len(words | other_words)
    assert {label for d in default for label in d.labels} == {label for d in other for label in d.labels}


def preferences(documents, labels="label"):
    """How often each angle uses each of the words about a label, [angles, words]."""
    table = np.zeros((6, 12))
    for document in documents:
        words = document.text.split()
        angles = {int(word[5]) for word in words if word.startswith("angle")}
        for word in words:
            if word.startswith(labels):
                for angle in angles:
                    table[angle, int(word.split("w")[1])] += 1
    return table / table.sum(axis=1, keepdims=True)


def test_what_varies_within_a_label_is_the_angle_the_same_way_in_every_label_and_split(default):
    table = preferences(default)

    def distance(other):
        return np.abs(table - other).sum(axis=1).max() / 2

    assert distance(preferences(make(2000, split=1))) < 0.1
    assert distance(preferences(default, "label0w")) < 0.15
    assert distance(preferences(default, "label5w")) < 0.25
    assert distance(table[[1, 2, 3, 4, 5, 0]]) > 0.5
    assert distance(preferences(make(2000, seed=5))) > 0.5


def test_a_document_speaks_of_its_labels_from_one_angle(default):
    shares = Counter()
    for document in default:
        words = document.text.split()
        own = {label.split("_")[1] for label in document.labels}
        about = [word for word in words if word.startswith("label")]
        assert {word.removeprefix("label").split("w")[0] for word in about} <= own
        assert len({word.split("w")[0] for word in words if word.startswith("angle")}) <= 1
        shares.update("common" if word.startswith("common") else word[:5] for word in words)
    total = shares.total()
    assert shares["label"] / total == pytest.approx(0.35, abs=0.01)
    assert shares["angle"] / total == pytest.approx(0.25, abs=0.01)
    assert total / len(default) == pytest.approx(40, abs=0.5)
    labels = [len(document.labels) for document in default]
    assert min(labels) == 1
    assert 2.5 < np.mean(labels) < 3.0


@pytest.mark.parametrize("num_labels", [1, 2, 3, 500])
def test_any_number_of_labels(num_labels):
    documents = make(100, num_labels=num_labels, mean_length=8)
    labels = {label for document in documents for label in document.labels}
    assert labels <= {f"{'frequent' if i < max(1, num_labels // 3) else 'rare'}_{i}" for i in range(num_labels)}
    assert all(len(document.text.split()) == 8 for document in documents)
    assert all(len(set(document.labels)) == len(document.labels) >= 1 for document in documents)
