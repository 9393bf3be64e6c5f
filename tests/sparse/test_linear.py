import copy
import json
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from scipy.sparse import csr_matrix

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import FLOOR
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER
from lsfa_jax.sparse import linear, tf_idf, tree
from lsfa_jax.sparse.linear import LinearModel
from lsfa_jax.sparse.svm import Svm
from lsfa_jax.util.console import UserError
from tests import training_corpus
from tests.bag_features import features_of

KINDS = ("tree", "svm")
NO_MODEL = "no linear model|list of strings|do not fit"


@pytest.fixture(scope="module", params=KINDS)
def model(request, tiny) -> LinearModel:
    return linear.train(request.param, [tiny.train.bags], tiny.bag_terms, tiny.train.labels, tiny.num_labels)


@pytest.fixture(scope="module")
def features(model, tiny):
    return features_of(model, tiny.test.bags, tiny.bag_terms)


def train(kind, rows, labels, num_labels):
    """Trains on bags that are rows of a dense matrix; returns the model and the features of the same rows."""
    counts = csr_matrix(np.array(rows, np.int32))
    words = [f"w{column}" for column in range(counts.shape[1])]
    model = linear.train(kind, [counts], words, Ragged.from_rows(labels), num_labels)
    return model, features_of(model, counts, words)


def assert_same_lists(actual, expected):
    np.testing.assert_array_equal(actual.label_ids, expected.label_ids)
    np.testing.assert_array_equal(actual.logits, expected.logits)


def test_lists_have_the_best_labels_first_and_then_padding(model, features):
    ranked = model.rank(features)
    assert ranked.label_ids.dtype == np.int32
    assert ranked.logits.dtype == np.float32
    assert ranked.label_ids.shape == ranked.logits.shape == (features.shape[0], 8)
    assert np.all(np.diff(ranked.logits, axis=1) <= 0)
    assert np.all(ranked.logits >= FLOOR)
    for label_ids, logits in zip(*ranked, strict=True):
        listed = label_ids[label_ids >= 0]
        assert len(set(listed.tolist())) == len(listed)
        assert np.all(label_ids[len(listed) :] == -1)
        assert np.all(logits[len(listed) :] == FLOOR)


def test_the_lists_of_a_tree_have_the_logits_of_its_probabilities(model, features):
    if model.kind != "tree":
        pytest.skip("of trees")
    ranked = model.rank(features)
    for row, (label_ids, probabilities) in enumerate(model.trained.ranked(features, 8)):
        np.testing.assert_array_equal(ranked.label_ids[row, : len(label_ids)], label_ids)
        inside = np.clip(probabilities.astype(np.float64), 1e-9, 0.999)
        expected = np.maximum(np.log(inside / (1 - inside)), FLOOR)
        np.testing.assert_allclose(ranked.logits[row, : len(label_ids)], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [linear._ROWS, 5])
def test_the_lists_of_machines_have_their_decisions(model, features, rows, monkeypatch):
    if model.kind != "svm":
        pytest.skip("of machines")
    monkeypatch.setattr(linear, "_ROWS", rows)
    ranked, decisions = model.rank(features), model.trained.decisions(features)
    np.testing.assert_array_equal(np.take_along_axis(decisions, ranked.label_ids, axis=1), ranked.logits)
    assert np.sort(ranked.label_ids, axis=1).tolist() == [list(range(8))] * features.shape[0]


def test_texts_are_ranked_as_their_bags(model, features):
    texts = [document.text for document in training_corpus.documents()["test"]]
    ranked = model.rank_texts(texts, DEFAULT_TOKENIZER)
    of_bags = model.rank(features)
    np.testing.assert_array_equal(ranked.label_ids, of_bags.label_ids)
    np.testing.assert_allclose(ranked.logits, of_bags.logits, rtol=1e-6)


def test_each_document_of_a_tree_advances_the_progress(model, features):
    called = []
    model.rank(features, lambda: called.append(1))
    assert len(called) == (features.shape[0] if model.kind == "tree" else 0)


# --- files


def test_the_model_read_from_its_files_gives_the_same_lists_to_the_last_bit(model, features):
    files = model.files()
    again = linear.from_files(files)
    assert again.kind == model.kind
    assert_same_lists(again.rank(features), model.rank(features))
    assert {name: bytes(data) for name, data in again.files().items()} == files


def test_the_model_can_be_pickled_and_copied_before_and_after_it_predicts(model, features):
    expected = model.rank(features)
    for other in (linear.from_files(model.files()), model):
        for again in (pickle.loads(pickle.dumps(other)), copy.deepcopy(other)):
            assert_same_lists(again.rank(features), expected)


def test_a_missing_or_truncated_file_is_an_error(model):
    files = model.files()
    for name in ("words", "model.safetensors"):
        for changed in (None, b"", files[name][: len(files[name]) // 2], b"\x00" + files[name], b"[" * 100_000):
            others = {other: data for other, data in files.items() if other != name}
            with pytest.raises(ValueError, match=NO_MODEL):
                linear.from_files(others if changed is None else others | {name: changed})
    with pytest.raises(ValueError, match=NO_MODEL):
        linear.from_files({})


def changed_words(model, words):
    return model.files() | {"words": json.dumps(words).encode()}


def changed_arrays(model, **arrays):
    data = safetensors.numpy.load(model.files()["model.safetensors"]) | arrays
    kept = {name: np.ascontiguousarray(array) for name, array in data.items() if array is not None}
    return model.files() | {"model.safetensors": safetensors.numpy.save(kept)}


NOT_NUMBERS = {
    "words": (["a"], {"a": 1}, 3, None, [1, 2]),
    "idf": (None, np.ones(3, "f"), np.ones(3), np.nan),
    "num_labels": (None, np.array([], np.int64), np.array([0])),
}


@pytest.mark.parametrize("name", NOT_NUMBERS)
def test_words_and_weights_that_do_not_go_together_are_an_error(model, name):
    for value in NOT_NUMBERS[name]:
        value = model.features.idf * np.float32(np.nan) if value is np.nan else value
        files = changed_words(model, value) if name == "words" else changed_arrays(model, **{name: value})
        with pytest.raises(ValueError, match=NO_MODEL):
            linear.from_files(files)


def test_a_word_that_is_listed_twice_is_an_error(model):
    words = model.features.terms
    with pytest.raises(ValueError, match="listed twice"):
        linear.from_files(changed_words(model, [*words[1:], words[1]]))


def test_arrays_that_are_no_machines_are_an_error(tiny):
    model = linear.train("svm", [tiny.train.bags], tiny.bag_terms, tiny.train.labels, tiny.num_labels)
    ids, weights, intercepts = model.trained
    for wrong in (
        {"label_ids": ids + 1},
        {"label_ids": ids - 1},
        {"label_ids": ids[1:]},
        {"label_ids": ids.astype(np.float32)},
        {"label_ids": np.zeros_like(ids)},
        {"weights": weights[:, 1:]},
        {"weights": weights * np.float32(np.inf)},
        {"weights": None},
        {"intercepts": intercepts[:, None]},
    ):
        with pytest.raises(ValueError, match=NO_MODEL):
            linear.from_files(changed_arrays(model, **wrong))


def test_a_damaged_file_of_a_tree_is_reported_when_it_is_first_used(model, features):
    if model.kind != "tree":
        pytest.skip("of trees")
    for name in ("tree/settings.json", "tree/tree0.cbor"):
        files = model.files()
        files[name] = files[name][: len(files[name]) // 2]
        with pytest.raises(UserError, match="label tree are damaged"):
            linear.from_files(files).rank(features)


def test_a_tree_without_the_library_says_what_to_install(model, features, monkeypatch):
    if model.kind != "tree":
        pytest.skip("of trees")
    again = linear.from_files(model.files())
    monkeypatch.setitem(sys.modules, "omikuji", None)
    with pytest.raises(UserError, match="pip install omikuji"):
        again.rank(features)
    with pytest.raises(UserError, match="pip install omikuji"):
        train("tree", [[1], [1]], [[0], [0]], 1)


# --- unusual corpora


@pytest.mark.parametrize("kind", KINDS)
def test_documents_without_a_feature_or_without_a_label_are_trained_on_and_ranked(kind):
    rows = [[1, 0, 0], [2, 0, 0], [0, 3, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]]
    labels = [[0], [0], [1], [1], [0], [], [], [1]]
    model, features = train(kind, rows, labels, 2)
    assert features.shape == (8, 2)
    assert features[[4, 5, 7]].nnz == 0
    ranked = model.rank(features)
    assert ranked.label_ids[:4, 0].tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(ranked.label_ids[4], ranked.label_ids[5])
    assert np.isfinite(ranked.logits).all()


@pytest.mark.parametrize("kind", KINDS)
def test_one_label(kind):
    model, features = train(kind, [[1, 0], [1, 0], [0, 1], [0, 1]], [[0], [0], [], []], 1)
    ranked = model.rank(features)
    assert ranked.label_ids.tolist() == [[0]] * 4
    assert ranked.logits[:2].min() > ranked.logits[2:].max()


@pytest.mark.parametrize("kind", KINDS)
def test_one_label_that_all_documents_have(kind):
    model, features = train(kind, [[1, 0], [1, 0], [0, 1], [0, 1]], [[0]] * 4, 1)
    ranked = model.rank(features)
    assert ranked.label_ids.tolist() == [[0]] * 4
    assert np.all(ranked.logits > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_that_all_documents_have_comes_first_and_one_that_none_has_is_not_listed_high(kind):
    rows = [[1 + i % 2, 1, 0] if i % 2 else [0, 1, 1] for i in range(20)]
    model, features = train(kind, rows, [[0, 1] if i % 2 else [0] for i in range(20)], 3)
    ranked = model.rank(features)
    assert np.all((ranked.label_ids[:, :2] == 0).any(axis=1))
    assert np.all(ranked.logits[ranked.label_ids == 0] > 0)
    assert not np.any(ranked.label_ids[ranked.logits > FLOOR] == 2)


@pytest.mark.parametrize("kind", KINDS)
def test_of_more_labels_than_a_list_holds_the_best_are_listed(kind):
    num_labels = linear.MOST_LISTED + 88
    rows = csr_matrix(
        (np.ones(2 * num_labels, np.int32), np.arange(2 * num_labels) % num_labels, np.arange(2 * num_labels + 1))
    )
    words = [f"w{column}" for column in range(num_labels)]
    labels = Ragged.from_rows([[column] for column in rows.indices])
    model = linear.train(kind, [rows], words, labels, num_labels)
    ranked = model.rank(features_of(model, rows[:num_labels], words))
    assert ranked.label_ids.shape == (num_labels, linear.MOST_LISTED)
    assert np.mean(ranked.label_ids[:, 0] == np.arange(num_labels)) > 0.95
    assert ranked.label_ids.max() == num_labels - 1
    if kind == "svm":
        assert np.all(ranked.label_ids >= 0)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_word_of_two_documents_nothing_is_trained(kind):
    with pytest.raises(UserError, match="no word is in two of its training texts"):
        train(kind, [[1, 0], [0, 1]], [[0], [1]], 2)


def test_words_of_one_training_document_are_no_features():
    """A model that is trained without the validation documents has fewer words than the corpus."""
    model, features = train("svm", [[1, 1, 0], [1, 0, 2], [0, 0, 1]], [[0], [1], [1]], 2)
    assert model.features.terms == ["w0", "w2"]
    expected, kept = tf_idf.fit([csr_matrix([[1, 1, 0], [1, 0, 2], [0, 0, 1]])], ["w0", "w1", "w2"])
    assert kept.tolist() == [0, 2]
    np.testing.assert_array_equal(expected.idf, model.features.idf)
    assert features.shape == (3, 2)


def test_machines_are_the_same_in_every_training(tiny):
    first, second = (
        linear.train("svm", [tiny.train.bags], tiny.bag_terms, tiny.train.labels, tiny.num_labels) for _ in range(2)
    )
    for actual, expected in zip(first.trained, second.trained, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_labels_that_are_not_listed_are_padding():
    model = LinearModel(
        tf_idf.TfIdf(["a"], np.ones(1, np.float32)), 3, Svm(np.array([2]), np.ones((1, 1), "f"), np.zeros(1, "f"))
    )
    ranked = model.rank(csr_matrix(np.array([[1.0]], np.float32)))
    assert ranked.label_ids.tolist() == [[2, -1, -1]]
    assert ranked.logits.tolist() == [[1, FLOOR, FLOOR]]
    assert replace(model, num_labels=600).rank(csr_matrix(np.array([[1.0]], np.float32))).label_ids.shape == (1, 512)


def test_models_that_take_long_are_not_affordable(monkeypatch):
    assert linear.affordable(1000, 10_000, 100) == ["tree", "svm"]
    assert linear.affordable(100_000, 10_000, 100) == ["tree"]
    assert linear.affordable(1000, 1_000_000, 100) == ["tree"]
    monkeypatch.setattr(tree, "is_installed", lambda: False)
    assert linear.affordable(1000, 10_000, 100) == ["svm"]
    assert linear.affordable(100_000, 10_000, 100) == []
