"""What LSFA predicts after labels of each form, and what scikit-learn does with it, by a model with initial weights."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import average_precision_score, get_scorer

from lsfa_jax import LSFA
from lsfa_jax.sklearn import classifier
from lsfa_jax.sklearn.label_formats import ParsedLabels
from tests import training_corpus

WORDS = ["boiler", "ferry", "quay", "valve"]
TEXTS = ["boiler valve", "ferry", "quay ferry", "valve quay boiler", "", "boiler"]


def estimator(y, **arguments):
    """Returns an estimator that is fitted to labels, but not trained."""
    labels = ParsedLabels.of(y)
    # In another order than classes_, as after training.
    model = training_corpus.trained_model(WORDS, labels.classes[::-1], (4,), 0.5)
    return LSFA(**arguments)._keep(model, labels)


def matrix(num_labels=5):
    """An indicator matrix in which each label occurs."""
    return (np.arange(len(TEXTS))[:, None] + np.arange(num_labels) ** 2) % 3 == 0


def lists(num_labels=5):
    return [[f"label{column}" for column in np.flatnonzero(row)] for row in matrix(num_labels)]


def test_dense_probabilities_are_those_of_all_labels_and_sparse_ones_the_best():
    dense = estimator(lists()).predict_proba(TEXTS)
    assert dense.shape == (6, 5)
    assert dense.dtype == np.float32
    assert np.all((dense > 0) & (dense < 1))
    best = estimator(lists(), proba="sparse", top_k=2).predict_proba(TEXTS)
    assert isinstance(best, sparse.csr_array)
    np.testing.assert_allclose(best.toarray(), np.where(dense >= np.sort(dense)[:, -2:-1], dense, 0))
    assert estimator(lists(), proba="dense", top_k=2).predict_proba([]).shape == (0, 5)


def test_many_probabilities_are_sparse_by_default(monkeypatch):
    monkeypatch.setattr(classifier, "_DENSE_ENTRIES", 29)
    assert sparse.issparse(estimator(lists()).predict_proba(TEXTS))
    assert isinstance(estimator(lists()).predict_proba(TEXTS[:5]), np.ndarray)
    assert isinstance(estimator(lists(), proba="dense").predict_proba(TEXTS), np.ndarray)


def test_probabilities_of_single_labels_sum_to_one():
    single = estimator(["a", "b", "c", "a", "b", "c"])
    probabilities = single.predict_proba(TEXTS)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(single.classes_[probabilities.argmax(axis=1)], single.predict(TEXTS))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_scikit_learns_scorers_take_predictions_of_matrices(form):
    fitted, truth = estimator(form(matrix().astype(int))), form(matrix().astype(int))
    assert 0 <= get_scorer("f1_micro")(fitted, TEXTS, truth) <= 1
    if not sparse.issparse(truth):
        score = get_scorer("average_precision")(fitted, TEXTS, truth)
        assert score == average_precision_score(truth, fitted.predict_proba(TEXTS))
        assert 0 <= get_scorer("roc_auc")(fitted, TEXTS, truth) <= 1


def test_scikit_learns_scorers_take_predictions_of_single_labels():
    two, three = [0, 1] * 3, ["a", "b", "c"] * 2
    for name in ("accuracy", "roc_auc", "average_precision", "neg_log_loss", "neg_brier_score"):
        assert np.isfinite(get_scorer(name)(estimator(two), TEXTS, np.array(two)))
    for name in ("accuracy", "roc_auc_ovr", "neg_log_loss"):
        assert np.isfinite(get_scorer(name)(estimator(three), TEXTS, np.array(three)))
    calibrated = CalibratedClassifierCV(FrozenEstimator(estimator(three)), cv=2).fit(TEXTS, np.array(three))
    np.testing.assert_allclose(calibrated.predict_proba(TEXTS).sum(axis=1), 1)


def test_after_integer_lists_integers_are_predicted():
    fitted = estimator([np.flatnonzero(row).tolist() for row in matrix()])
    assert fitted.classes_.tolist() == [0, 1, 2, 3, 4]
    assert all(type(label) is int for row in fitted.predict(TEXTS, top=2) for label in row)


def test_after_a_table_its_names_are_classes_and_a_matrix_is_predicted(tmp_path):
    pd = pytest.importorskip("pandas")
    names = ["e", "a", "d", "b", "c"]
    table = pd.DataFrame(matrix().astype(int), columns=names, index=range(10, 16))
    fitted = estimator(table)
    assert fitted.classes_.tolist() == names
    predicted = fitted.predict(pd.DataFrame({"text": TEXTS}))
    assert isinstance(predicted, np.ndarray)
    np.testing.assert_array_equal(predicted, fitted.predict_proba(TEXTS) >= fitted.threshold_)
    assert [list(row) for row in fitted.predict(TEXTS, top=5)] != [names] * 6
    assert 0 <= get_scorer("average_precision")(fitted, TEXTS, table) <= 1
    fitted.save(tmp_path)
    assert LSFA.load(tmp_path).classes_.tolist() == names
    np.testing.assert_array_equal(LSFA.load(tmp_path).predict(TEXTS), predicted)


def test_the_columns_of_a_matrix_without_names_are_those_of_classes():
    pd = pytest.importorskip("pandas")
    truth = matrix().astype(int)
    table = pd.DataFrame(truth, columns=[f"label{column}" for column in range(5)])
    fitted = estimator(table)
    expected = fitted.score(TEXTS, table)
    assert fitted.score(TEXTS, truth) == fitted.score(TEXTS, table.iloc[:, ::-1]) == expected
    assert fitted.score(TEXTS, lists()) == estimator(lists()).score(TEXTS, truth) == expected
    assert estimator(truth).score(TEXTS, table) == expected
    with pytest.raises(ValueError, match="y has 4 columns, expected 5"):
        fitted.score(TEXTS, truth[:, :4])


@pytest.mark.parametrize("top", [0, -1, "3", 3.0, True, 2**40])
def test_a_number_of_labels_that_is_none_is_refused(top):
    fitted = estimator(lists())
    with pytest.raises(ValueError, match=r"top=.*expected an integer from 1"):
        fitted.predict(TEXTS, top=top)
    with pytest.raises(ValueError, match=r"top_k=.*expected an integer from 1"):
        fitted.set_params(top_k=top, proba="sparse").predict_proba(TEXTS)


def test_texts_without_words_and_of_any_characters_are_predicted():
    predicted = estimator(lists()).predict(["", "  ", "!!!", "boiler \ud83d valve", "\N{FIRE} boiler"], top=1)
    assert [len(row) for row in predicted] == [1] * 5
