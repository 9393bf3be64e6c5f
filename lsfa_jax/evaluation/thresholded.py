"""Metrics of thresholded predictions: confusion counts of each label, precision, recall, F1; the best threshold.

A label is predicted where its probability reaches a threshold; nothing is ranked. Everything follows from three counts
of each label, which add up over batches: no N x L array exists. Conventions are those of scikit-learn with
zero_division=0:

- A label that is never predicted has precision 0, one without a document recall 0; F1 = 2 TP / (2 TP + FP + FN), and 0
  where the label is neither predicted nor true.
- Micro: the counts are added over labels first. Macro: the mean over labels. Labels without a document in the truth
  and those that training never saw stay in both; "macro_F1_tested" is the mean over the labels that the truth has.
- A document without labels has no true pair, and whatever is predicted for it is false.

Shapes: L labels.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation.ranking import Bools, Floats, Integers

DEFAULT_THRESHOLD = 0.5
"""The threshold where there are no validation documents to choose it on."""

GRID = np.linspace(0.01, 0.99, 99).astype(np.float32)
"""float32[99], the thresholds that `best_threshold` chooses from, increasing."""


class ConfusionCounts(NamedTuple):
    """How often each label was predicted rightly, wrongly, and missed; counts of two sets of documents add up.

    Attributes:
        true_positives: int64 [L], documents that have the label and for which it was predicted.
        false_positives: int64 [L], documents without the label for which it was predicted.
        false_negatives: int64 [L], documents that have the label and for which it was not predicted.
    """

    true_positives: Integers
    false_positives: Integers
    false_negatives: Integers


def count(predicted: Ragged, truth: Ragged, num_labels: int) -> ConfusionCounts:
    """Counts predictions of N documents.

    Args:
        predicted: the predicted labels of each document, none twice.
        truth: the labels of each document.
        num_labels: L, more than the largest id of either.

    Raises:
        ValueError: `predicted` and `truth` differ in the number of documents.
    """
    if predicted.num_rows != truth.num_rows:
        raise ValueError(f"predicted lists {predicted.num_rows} documents, truth {truth.num_rows}")

    def pairs(labels: Ragged) -> Integers:
        return labels.row_ids * num_labels + labels.values

    right = np.intersect1d(pairs(predicted), pairs(truth), assume_unique=True) % max(num_labels, 1)
    return from_counts(*(np.bincount(ids, minlength=num_labels) for ids in (right, predicted.values, truth.values)))


def from_counts(right: Integers, predicted: Integers, true: Integers) -> ConfusionCounts:
    """Returns confusion counts from int [L] numbers of documents: predicted and true, predicted, true."""
    right = np.asarray(right, np.int64)
    return ConfusionCounts(right, predicted - right, true - right)


def precision(counts: ConfusionCounts) -> Floats:
    """Computes TP / (TP + FP) of each label in percent, float64 [L]."""
    return _percent(counts.true_positives, counts.true_positives + counts.false_positives)


def recall(counts: ConfusionCounts) -> Floats:
    """Computes TP / (TP + FN) of each label in percent, float64 [L]."""
    return _percent(counts.true_positives, counts.true_positives + counts.false_negatives)


def f1(counts: ConfusionCounts) -> Floats:
    """Computes 2 TP / (2 TP + FP + FN) of each label in percent, float64 [L]."""
    right, wrong, missed = counts
    return _percent(2 * right, 2 * right + wrong + missed)


METRICS: dict[str, Callable[[ConfusionCounts], Floats]] = {"precision": precision, "recall": recall, "F1": f1}
"""Name of a metric -> the function that computes it for each label; `summary` has "micro_" and "macro_" of each."""


def summary(counts: ConfusionCounts, group: Bools) -> dict[str, float]:
    """Computes averages over the labels of a group, bool [L].

    Returns:
        Percent: "micro_" and "macro_" of each of `METRICS`; "macro_F1_tested".
    """
    inside = ConfusionCounts(*(each[group] for each in counts))
    total = ConfusionCounts(*(each.sum(keepdims=True) for each in inside))
    tested = inside.true_positives + inside.false_negatives > 0
    return (
        {f"micro_{name}": float(metric(total)[0]) for name, metric in METRICS.items()}
        | {f"macro_{name}": _mean(metric(inside)) for name, metric in METRICS.items()}
        | {"macro_F1_tested": _mean(f1(inside)[tested])}
    )


def histogram(probabilities: Floats, true: Bools) -> Integers:
    """Counts how many probabilities reach 0, 1, ..., 99 of the thresholds of `GRID`: all, and the true ones.

    Args:
        probabilities: float32, of pairs of a document and a label.
        true: bool, whether the document has the label.

    Returns:
        int64 [2, 100], as `best_threshold` takes it.
    """
    reached = np.searchsorted(GRID, probabilities, side="right")
    return np.stack([np.bincount(places, minlength=len(GRID) + 1) for places in (reached, reached[true])])


def best_threshold(histogram: Integers, positives: int) -> float:
    """Returns the threshold of `GRID` with the largest micro F1 over all documents and labels.

    Exact: labels that training never saw have no probability and are missed at every threshold.

    Args:
        histogram: int64 [2, 100], how many probabilities reach 0, 1, ..., 99 of the thresholds: of all pairs of a
            document and a label, and of the true ones. `scorer.score_split` computes it.
        positives: true pairs, with those of labels that training never saw.

    Returns:
        Of equally good thresholds the nearest to 0.5; 0.5 where no document has a label or none is ever predicted.
    """
    predicted, right = np.asarray(histogram)[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    score = 2 * right / np.maximum(predicted + positives, 1)
    if not score.any():
        return DEFAULT_THRESHOLD
    best = GRID[score == score.max()]
    return float(best[np.argmin(np.abs(best - DEFAULT_THRESHOLD))])


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0


def _percent(part: Integers, total: Integers) -> Floats:
    return 100 * np.divide(part, total, out=np.zeros(len(total)), where=total > 0)
