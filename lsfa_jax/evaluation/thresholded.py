"""Metrics of decisions, which labels each document is given: counts per label, precision, recall, F1, in percent.

A label is given where its probability reaches a threshold; nothing is ranked. Everything follows from three counts a
label, which add up over batches: no N x L array exists. Conventions, those of scikit-learn with zero_division=0:

- A label that is never given has precision 0, one that no document of the truth has recall 0; F1 = 2 TP / (2 TP + FP +
  FN), and 0 where nothing of it was given or true.
- Micro: the counts are added over labels first. Macro: the mean over labels. Labels without a document in the truth
  and those that training never saw stay in both; "macro_F1_tested" is the mean over the labels that the truth has.
- A document without labels has no true pair, and what it is given is false.
"""

from typing import NamedTuple

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation.ranking import Bools, Floats, Integers


class Outcomes(NamedTuple):
    """What became of each label over some documents; those of more documents are sums.

    Attributes:
        true_positives: int64 [L], documents that have the label and were given it.
        false_positives: int64 [L], documents that were given it and do not have it.
        false_negatives: int64 [L], documents that have it and were not given it.
    """

    true_positives: Integers
    false_positives: Integers
    false_negatives: Integers


def count(given: Ragged, truth: Ragged, num_labels: int) -> Outcomes:
    """Counts the outcomes of N documents, L = `num_labels`.

    Args:
        given: the labels that each document was given, none twice.
        truth: its labels.
        num_labels: more than the largest id of either.

    Raises:
        ValueError: `given` and `truth` differ in the number of documents.
    """
    if given.num_rows != truth.num_rows:
        raise ValueError(f"given lists {given.num_rows} documents, truth {truth.num_rows}")

    def pairs(sets: Ragged) -> Integers:
        return sets.row_ids * num_labels + sets.values

    right = np.intersect1d(pairs(given), pairs(truth), assume_unique=True) % max(num_labels, 1)
    return from_counts(*(np.bincount(ids, minlength=num_labels) for ids in (right, given.values, truth.values)))


def from_counts(right: Integers, given: Integers, true: Integers) -> Outcomes:
    """Makes outcomes of int [L] counts of pairs that are given and true, given, and true."""
    right = np.asarray(right, np.int64)
    return Outcomes(right, given - right, true - right)


def precision(outcomes: Outcomes) -> Floats:
    """Computes TP / (TP + FP) of each label, float64 [L]."""
    return _percent(outcomes.true_positives, outcomes.true_positives + outcomes.false_positives)


def recall(outcomes: Outcomes) -> Floats:
    """Computes TP / (TP + FN) of each label, float64 [L]."""
    return _percent(outcomes.true_positives, outcomes.true_positives + outcomes.false_negatives)


def f1(outcomes: Outcomes) -> Floats:
    """Computes 2 TP / (2 TP + FP + FN) of each label, float64 [L]."""
    right, wrong, missed = outcomes
    return _percent(2 * right, 2 * right + wrong + missed)


def summary(outcomes: Outcomes, group: Bools) -> dict[str, float]:
    """Computes averages over the labels of a group, bool [L].

    Returns:
        Percent: "micro_" and "macro_" of "precision", "recall" and "F1"; "macro_F1_tested".
    """
    own = Outcomes(*(counts[group] for counts in outcomes))
    total = Outcomes(*(counts.sum(keepdims=True) for counts in own))
    tested = own.true_positives + own.false_negatives > 0
    metrics = {"precision": precision, "recall": recall, "F1": f1}
    return (
        {f"micro_{name}": float(metric(total)[0]) for name, metric in metrics.items()}
        | {f"macro_{name}": _mean(metric(own)) for name, metric in metrics.items()}
        | {"macro_F1_tested": _mean(f1(own)[tested])}
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0


def _percent(part: Integers, whole: Integers) -> Floats:
    return 100 * np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
