import napkinxc.metrics as napkinxc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.metrics import multilabel_confusion_matrix, precision_recall_fscore_support

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import thresholded


def sparse(matrix):
    rows = csr_matrix(matrix)
    return Ragged(rows.indices, rows.indptr.astype(np.int64))


@st.composite
def problems(draw):
    """Predictions and truth, bool[N, L], among them documents and labels with neither."""
    shape = draw(st.integers(0, 7)), draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [random.random(shape) < draw(st.sampled_from([0.0, 0.2, 0.6, 1.0])) for _ in range(2)]


@given(problems())
def test_agrees_with_scikit_learn(problem):
    predicted, truth = problem
    num_labels = truth.shape[1]
    confusion = thresholded.count(sparse(predicted), sparse(truth), num_labels)
    summary = thresholded.summary(confusion, np.ones(num_labels, bool))
    if not len(truth):
        assert set(summary.values()) == {0.0}
        return
    # With one label scikit-learn takes the columns for a binary problem; an empty second label changes no count.
    truth, predicted = (np.pad(x, ((0, 0), (0, 1))) for x in (truth, predicted))
    matrices = multilabel_confusion_matrix(truth, predicted)[:num_labels]
    np.testing.assert_array_equal(confusion.true_positives, matrices[:, 1, 1])
    np.testing.assert_array_equal(confusion.false_positives, matrices[:, 0, 1])
    np.testing.assert_array_equal(confusion.false_negatives, matrices[:, 1, 0])

    def expected(average, labels):
        return precision_recall_fscore_support(truth, predicted, average=average, labels=labels, zero_division=0)[:3]

    every = list(range(num_labels))
    per_label = (thresholded.precision(confusion), thresholded.recall(confusion), thresholded.f1(confusion))
    np.testing.assert_allclose(per_label, 100 * np.array(expected(None, every)))
    for average in ("micro", "macro"):
        measured = [summary[f"{average}_{name}"] for name in ("precision", "recall", "F1")]
        np.testing.assert_allclose(measured, 100 * np.array(expected(average, every)), err_msg=average)
    tested = np.flatnonzero(truth.any(axis=0))
    f1 = expected("macro", list(tested))[2] if len(tested) else 0.0
    assert summary["macro_F1_tested"] == pytest.approx(100 * f1)


def test_agrees_with_napkinxc():
    random = np.random.default_rng(3)
    truth = random.random((60, 20)) < 0.15
    predicted = truth ^ (random.random((60, 20)) < 0.1)
    truth[:, 17], predicted[:, 18], truth[:5] = False, False, False
    truth[:, 16] = predicted[:, 16] = False  # not the last label: napkinXC counts labels up to the last that occurs
    summary = thresholded.summary(thresholded.count(sparse(predicted), sparse(truth), 20), np.ones(20, bool))
    matrices = csr_matrix(truth.astype(float)), csr_matrix(predicted.astype(float))
    assert summary["micro_F1"] == pytest.approx(100 * napkinxc.micro_f1_measure(*matrices))
    assert summary["macro_F1"] == pytest.approx(100 * napkinxc.macro_f1_measure(*matrices, zero_division=0))
    assert summary["macro_F1"] < summary["macro_F1_tested"]


@given(problems(), st.data())
def test_counts_of_parts_add_up_and_groups_are_parts(problem, data):
    predicted, truth = problem
    num_labels = truth.shape[1]
    total = thresholded.count(sparse(predicted), sparse(truth), num_labels)
    cut = data.draw(st.integers(0, len(truth)))
    parts = [
        thresholded.count(sparse(predicted[part]), sparse(truth[part]), num_labels)
        for part in (slice(cut), slice(cut, None))
    ]
    for added, expected in zip(map(sum, zip(*parts, strict=True)), total, strict=True):
        np.testing.assert_array_equal(added, expected)
    group = np.array([data.draw(st.booleans()) for _ in range(num_labels)], bool)
    alone = thresholded.count(sparse(predicted[:, group]), sparse(truth[:, group]), int(group.sum()))
    assert thresholded.summary(total, group) == thresholded.summary(alone, np.ones(int(group.sum()), bool))


def test_by_hand():
    # Label 0 is right once and wrong once; label 1 is missed; label 2 is neither predicted nor true; label 3 is not in
    # training, and two documents have it.
    predicted = Ragged(np.array([0, 0]), np.array([0, 1, 2, 2]))
    truth = Ragged(np.array([1, 0, 3, 3]), np.array([0, 2, 3, 4]))
    confusion = thresholded.count(predicted, truth, 4)
    assert [counts.tolist() for counts in confusion] == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 2]]
    summary = thresholded.summary(confusion, np.ones(4, bool))
    assert summary["micro_precision"] == 50
    assert summary["micro_recall"] == 25
    assert summary["micro_F1"] == pytest.approx(100 * 2 / (2 + 1 + 3))
    assert summary["macro_F1"] == pytest.approx(100 * (2 / 3) / 4)
    assert summary["macro_F1_tested"] == pytest.approx(100 * (2 / 3) / 3)


def test_different_numbers_of_documents_raise():
    one, two = Ragged(np.array([0]), np.array([0, 1])), Ragged(np.array([0]), np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="predicted lists 1 documents, truth 2"):
        thresholded.count(one, two, 1)
