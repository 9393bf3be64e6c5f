import sys

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import baselines, ranking, thresholded
from lsfa_jax.evaluation.groups import best_of_groups
from lsfa_jax.sparse import tree as tree_model
from lsfa_jax.sparse.tf_idf import tf_idf
from lsfa_jax.util.console import UserError
from tests import training_corpus

NUM_RANKED = 5


def label_sets(documents, label_ids):
    indices = np.array([label_ids[label] for document in documents for label in document.labels], np.int32)
    return Ragged(indices, np.cumsum([0, *(len(document.labels) for document in documents)]))


@pytest.fixture(scope="module")
def problem():
    """Features, labels and groups of the tiny corpus; label 8 is in every training document, 9 in none."""
    splits = training_corpus.documents()
    label_ids = {f"label{number}": number for number in range(10)}
    labels = [label_sets(splits[name], label_ids) for name in ("train", "test")]
    dense = [_dense(sets, 10) for sets in labels]
    dense[0][:, 8] = dense[1][0, 9] = True
    train, test = tf_idf(*([document.text for document in splits[name]] for name in ("train", "test")))
    sets = [Ragged(rows.indices, rows.indptr.astype(np.int64)) for rows in map(csr_matrix, dense)]
    members = np.stack([np.ones(10, bool), np.arange(10) < 3, np.arange(10) >= 3])
    return train, sets[0], test, sets[1], members, dense


def _dense(labels, num_labels):
    rows = np.zeros((labels.num_rows, num_labels), bool)
    rows[labels.row_ids, labels.values] = True
    return rows


# Of the twelve test documents; 9 is the label of no training document.
EXCLUDED = [[0, 8], [], [1], [9], [3, 4, 5], *([] for _ in range(6)), [7]]


@pytest.mark.parametrize("excluded", [None, EXCLUDED], ids=["all labels", "excluded labels"])
@pytest.mark.parametrize("block", [3, 64])
def test_svm_is_one_versus_rest_by_scikit_learn(problem, block, excluded):
    train, labels, test, truth, members, dense = problem
    rows = excluded and Ragged.from_rows(excluded)
    scores = baselines.svm(train, labels, test, truth, members, NUM_RANKED, block, excluded=rows)

    machines = OneVsRestClassifier(LinearSVC(C=1.0, random_state=0)).fit(train, dense[0][:, :8].astype(int))
    decided = np.full((test.shape[0], 10), -np.inf)
    decided[:, :8] = machines.decision_function(test)
    decided[:, 8] = 1
    for row, ids in enumerate(excluded or ()):
        decided[row, ids] = -np.inf
    listed = np.argsort(-decided, axis=1, kind="stable").astype(np.int32)
    listed[np.isinf(np.take_along_axis(decided, listed, axis=1))] = -1
    np.testing.assert_array_equal(scores.top, best_of_groups(listed, members, NUM_RANKED))
    predicted = csr_matrix(decided > 0)
    expected = thresholded.count(Ragged(predicted.indices, predicted.indptr.astype(np.int64)), truth, 10)
    for counts, reference in zip(scores.confusion, expected, strict=True):
        np.testing.assert_array_equal(counts, reference)
    assert scores.confusion.false_negatives[9] == 1
    assert 9 not in scores.top


def test_tree_predicts_labels_from_words(problem, capfd):
    train, labels, test, truth, members, _ = problem
    scores = baselines.tree(train, labels, test, truth, members, NUM_RANKED)
    assert scores.top.shape == (3, test.shape[0], NUM_RANKED)
    # Label 8, which all training documents have, comes first or second, or the tree has learned nothing.
    assert (scores.top[0, :, :2] == 8).any(axis=1).mean() > 0.8
    assert set(scores.top[1].ravel().tolist()) <= {-1, 0, 1, 2}
    assert set(scores.top[2].ravel().tolist()) <= {-1, *range(3, 10)}
    hit = ranking.hits(scores.top[1], ranking.restrict(truth, members[1]))
    assert ranking.precision_at_k(hit, 1)[0] > 50
    confusion = scores.confusion
    np.testing.assert_array_equal(
        confusion.true_positives + confusion.false_negatives, np.bincount(truth.values, minlength=10)
    )
    assert confusion.true_positives.sum() > 0
    # The library's lines and progress bars are not shown beside the package's.
    captured = capfd.readouterr()
    assert "omikuji" not in captured.out + captured.err


def test_a_tree_predicts_no_excluded_label(problem, monkeypatch):
    train, labels, test, truth, members, _ = problem
    # The library draws trees at random.
    model = tree_model.train([train], labels, 10)
    monkeypatch.setattr(tree_model, "train", lambda *_: model)
    rows = Ragged.from_rows(EXCLUDED)
    scores = baselines.tree(train, labels, test, truth, members, NUM_RANKED, excluded=rows)
    ranked = [(ids, ids[probabilities >= 0.5]) for ids, probabilities in model.ranked(test, 10)]
    kept = [[ids[~np.isin(ids, out)] for ids in of_document] for of_document, out in zip(ranked, EXCLUDED, strict=True)]
    listed = np.full((len(kept), 10), -1, np.int32)
    for row, (ids, _) in zip(listed, kept, strict=True):
        row[: len(ids)] = ids
    np.testing.assert_array_equal(scores.top, best_of_groups(listed, members, NUM_RANKED))
    expected = thresholded.count(Ragged.from_rows([ids for _, ids in kept]), truth, 10)
    for counts, reference in zip(scores.confusion, expected, strict=True):
        np.testing.assert_array_equal(counts, reference)
    assert sum(len(all_ids) - len(ids) for (_, all_ids), (_, ids) in zip(ranked, kept, strict=True)) > 0


def test_a_missing_library_is_named_for_the_baseline_that_needs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "omikuji", None)
    with pytest.raises(UserError, match=r"pip install omikuji"):
        baselines.check("tree")
    baselines.check("svm")
