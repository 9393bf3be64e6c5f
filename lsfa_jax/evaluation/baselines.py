"""The linear baselines of `--baseline`: which there are, when each predicts a label, and their scores within groups.

Training documents are the published training split, held-out validation documents included. Shapes: N test documents, L
labels, G groups, K labels kept of each ranking.
"""

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import thresholded
from lsfa_jax.evaluation.groups import Scores, best_of_groups
from lsfa_jax.evaluation.ranking import Bools, Floats, Integers
from lsfa_jax.sparse import svm as svm_model
from lsfa_jax.sparse import tree as tree_model
from lsfa_jax.sparse.linear import Kind
from lsfa_jax.util.console import progress

_TREE_THRESHOLD = 0.5

RULES: dict[Kind, str] = {
    "tree": f"where its score is at least {_TREE_THRESHOLD}",
    "svm": "where the decision of its machine is positive",
}
"""When a label is predicted."""


def check(baseline: Kind) -> None:
    """Checks that the baseline's library is installed.

    Raises:
        UserError: it is not; the message has the command that installs it.
    """
    if baseline == "tree":
        tree_model.check()


def tree(
    train: csr_matrix,
    labels: Ragged,
    test: csr_matrix,
    truth: Ragged,
    members: Bools,
    num_ranked: int,
    *,
    excluded: Ragged | None = None,
) -> Scores:
    """Trains a label tree and scores the test documents.

    It ranks the labels that its beam reaches; those of a group are ranked among them.

    Args:
        train: features of the training documents, float32 [documents, terms].
        labels: their labels.
        test: features of the N test documents.
        truth: their labels.
        members: bool [G, L], the groups of labels.
        num_ranked: K.
        excluded: labels that are not predicted for each test document.
    """
    num_labels = members.shape[1]
    model = tree_model.train([train], labels, num_labels)
    top = np.full((len(members), test.shape[0], num_ranked), -1, np.int32)
    predicted: list[np.ndarray] = []
    with progress("label tree: predicting", test.shape[0], "documents") as advance:
        for row, (ids, scores) in enumerate(model.ranked(test, num_labels)):
            if excluded is not None:
                kept = ~np.isin(ids, excluded.row(row))
                ids, scores = ids[kept], scores[kept]
            top[:, row] = best_of_groups(ids[None], members, num_ranked)[:, 0]
            predicted.append(ids[scores >= _TREE_THRESHOLD])
            advance()
    return Scores(top, thresholded.count(Ragged.from_rows(predicted), truth, num_labels))


def svm(
    train: csr_matrix,
    labels: Ragged,
    test: csr_matrix,
    truth: Ragged,
    members: Bools,
    num_ranked: int,
    block: int = 64,
    *,
    excluded: Ragged | None = None,
) -> Scores:
    """Trains a linear support vector machine for each label and scores the test documents.

    Arguments are those of `tree`; memory holds the decisions of `block` labels, not of all. A label that no training
    document has is never predicted and never ranked.
    """
    num_labels = members.shape[1]
    with_label = svm_model.documents_of_labels(truth, num_labels)
    best = np.full((len(members), test.shape[0], num_ranked), -np.inf, np.float32)
    top = np.full(best.shape, -1, np.int32)
    predicted, right = np.zeros((2, num_labels), np.int64)
    for ids, decisions in svm_model.decisions(train, labels, test, num_labels, block):
        if excluded is not None:
            inside = np.isin(excluded.values, ids)
            decisions[excluded.row_ids[inside], np.searchsorted(ids, excluded.values[inside])] = -np.inf
        for label, column in zip(ids, decisions.T, strict=True):
            predicted[label], right[label] = (column > 0).sum(), (column[with_label.row(label)] > 0).sum()
        for group, inside in enumerate(members):
            _merge(best[group], top[group], decisions[:, inside[ids]], ids[inside[ids]])
    return Scores(top, thresholded.from_counts(right, predicted, with_label.sizes))


METHODS: dict[Kind, Callable[..., Scores]] = {
    "tree": tree,
    "svm": svm,
}


def _merge(best: Floats, top: Integers, scores: Floats, labels: Integers) -> None:
    """Merges a block of labels' scores, float32[N, block], into the rankings `best` and `top`, [N, K], in place."""
    all_scores = np.concatenate([best, scores], axis=1)
    all_labels = np.concatenate([top, np.broadcast_to(labels, scores.shape)], axis=1)
    order = np.argsort(-all_scores, axis=1, kind="stable")[:, : best.shape[1]]
    best[:] = np.take_along_axis(all_scores, order, axis=1)
    top[:] = np.take_along_axis(all_labels, order, axis=1)
