"""Groups of labels (all, head, tail, bins of training counts) and every metric of a system's output within each.

Shapes: N documents, L labels, G groups, K labels kept of each ranking.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lsfa_jax.config import Report
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import calibration, ranking, thresholded
from lsfa_jax.evaluation.ranking import Bools, Floats, Integers, Propensity
from lsfa_jax.evaluation.thresholded import ConfusionCounts

BINS = (1, 10, 50, 100, 500, 1000)
"""Training counts at which a bin of labels begins, besides 0."""

GroupMetrics = dict[str, dict[str, float]]
"""Name of a group -> name of a metric -> percent; "labels" and "documents" are numbers."""

Metrics = dict[str, Any]
"""Name of a metric of all labels -> percent; "head" and "tail" -> a dict of those of the group, where measured."""


class Groups(NamedTuple):
    """Groups of labels, each measured separately.

    Attributes:
        names: "all" first; "head" and "tail" where there is a threshold; bins such as "10-49" and "1000+".
        members: bool [G, L].
    """

    names: list[str]
    members: Bools

    def only(self, name: str) -> Bools:
        """Returns which labels are in a group, bool [L]."""
        return self.members[self.names.index(name)]


class Scores(NamedTuple):
    """A system's output for N documents, as far as metrics need it.

    Attributes:
        top: int32 [G, N, K], the best labels within each group, best first; -1 where it lists no more.
        confusion: how each label was predicted at a threshold; None where the output has no probabilities.
        histogram: int64 [2, 100], what `thresholded.best_threshold` chooses a threshold from; None where the output has
            no probabilities of all labels.
        probabilities: float32 [N, K], of the best labels of the first group; None where the output has none.
    """

    top: Integers
    confusion: ConfusionCounts | None
    histogram: Integers | None = None
    probabilities: Floats | None = None


class TrainingCounts(NamedTuple):
    """What metrics need of the training documents.

    Attributes:
        label_counts: int64 [L], the documents of each label, 0 for labels that only other documents have.
        num_documents: how many there are.
    """

    label_counts: Integers
    num_documents: int


def make_groups(
    num_labels: int, training: TrainingCounts | None, head_threshold: int = 0, bins: Sequence[int] = ()
) -> Groups:
    """Groups labels by their number of training documents; without training counts there is one group, all.

    Args:
        num_labels: L.
        training: counts of the L labels.
        head_threshold: N_t, labels with fewer are the tail; 0 for no head and tail.
        bins: increasing counts at which bins begin; one from 0 comes before them. Bins without a label are left out.
    """
    groups = {"all": np.ones(num_labels, bool)}
    if training is None:
        return Groups(list(groups), np.stack(list(groups.values())))
    counts = training.label_counts
    if head_threshold:
        groups |= {"head": counts >= head_threshold, "tail": counts < head_threshold}
    edges = [0, *(edge for edge in bins if edge > 0)] if bins else []
    for low, high in zip(edges, [*edges, None][1:], strict=True):
        inside = (counts >= low) & (counts < high) if high is not None else counts >= low
        if inside.any():
            name = f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}-{high - 1}"
            groups[name] = inside
    return Groups(list(groups), np.stack(list(groups.values())))


def without_excluded(listed: Integers, excluded: Ragged | None) -> Integers:
    """Returns lists int32[N, W] with -1 in place of each document's excluded labels."""
    if excluded is None:
        return listed
    listed = np.array(listed)
    for document in np.flatnonzero(excluded.sizes).tolist():
        listed[document, np.isin(listed[document], excluded.row(document))] = -1
    return listed


def best_of_groups(listed: Integers, members: Bools, num_ranked: int) -> Integers:
    """Ranks the labels of each group by removing all other labels from the documents' lists.

    Args:
        listed: int32 [N, W], each document's labels from the best down, -1 where there is none.
        members: bool [G, L].
        num_ranked: K.

    Returns:
        int32 [G, N, K]; -1 where a list has no more labels of the group.
    """
    top = np.full((len(members), len(listed), num_ranked), -1, np.int32)
    for group, inside in enumerate(members):
        kept = (listed >= 0) & inside[listed]
        first = np.argsort(~kept, axis=1, kind="stable")[:, :num_ranked]
        labels = np.where(np.take_along_axis(kept, first, axis=1), np.take_along_axis(listed, first, axis=1), -1)
        top[group, :, : labels.shape[1]] = labels
    return top


def group_metrics(
    scores: Scores,
    truth: Ragged,
    groups: Groups,
    training: TrainingCounts | None,
    places: Sequence[int] = ranking.PLACES,
    propensity: Propensity = ranking.USUAL,
) -> GroupMetrics:
    """Computes every metric of every group, in percent.

    Args:
        scores: a system's output for the N documents of `truth`; K at least 5 and `max(places)`.
        truth: the documents' labels, ids below L.
        groups: of the L labels.
        training: counts of the L labels; without them there are no metrics that need them, such as PSP.
        places: where rankings are cut off.
        propensity: A and B of PSP.

    Returns:
        For each group the keys of `ranking.evaluate`, those of `thresholded.summary` where `scores` has confusion
        counts, and "labels" and "documents", the numbers of the group's labels and of the documents with one of them.
        "all" has "ECE", the expected calibration error, where `scores` has probabilities.
    """
    counts = training.label_counts if training else np.zeros(groups.members.shape[1], np.int64)
    number = training.num_documents if training else 0
    top_of_all = scores.top[groups.names.index("all")]
    result: GroupMetrics = {}
    for name, group, top in zip(groups.names, groups.members, scores.top, strict=True):
        if name == "all":
            values = ranking.evaluate(top, truth, counts, number, places, propensity)
        else:
            values = ranking.evaluate_group(top_of_all, top, truth, group, counts, number, places, propensity)
        if training is None:
            values = ranking.without_training_counts(values)
        documents = ranking.documents_with_labels(ranking.restrict(truth, group))
        result[name] = {"labels": float(group.sum()), "documents": float(documents.sum())} | values
        if scores.confusion is not None:
            result[name] |= thresholded.summary(scores.confusion, group)
        if name == "all" and scores.probabilities is not None:
            result[name]["ECE"] = calibration.expected_calibration_error(top, scores.probabilities, truth)
    return result


def head_and_tail(is_head: Bools) -> Bools:
    """Returns the groups that training measures, bool[3, L]: all labels, head, tail."""
    return np.stack([np.ones_like(is_head), is_head, ~is_head])


def head_of_all_labels(corpus: Corpus, is_head: Bools) -> Bools:
    """Extends bool[L] to bool[all labels of the corpus]: labels that training never saw belong to the tail."""
    return np.pad(is_head, (0, len(corpus.published_counts) - corpus.num_labels))


def measure(top: Integers, truth: Ragged, corpus: Corpus, report: Report, is_head: Bools | None = None) -> Metrics:
    """Computes the ranking metrics of a corpus's documents in percent, as metrics.json holds them.

    Args:
        top: int32 [G, N, 5], rankings within the groups of `head_and_tail`; the first is enough without `is_head`.
        truth: the labels of the N documents.
        corpus: propensities are those of its published training split.
        report: A and B of PSP.
        is_head: bool[L]; with it, the result also holds the metrics of "head" and "tail".
    """
    counts, number = corpus.published_counts, corpus.published_documents
    propensity = ranking.Propensity(report.propensity_a, report.propensity_b)
    result: Metrics = ranking.evaluate(top[0], truth, counts, number, propensity=propensity)
    if is_head is not None:
        head = head_of_all_labels(corpus, is_head)
        for name, group, group_top in (("head", head, top[1]), ("tail", ~head, top[2])):
            result[name] = ranking.evaluate_group(
                top[0], group_top, truth, group, counts, number, propensity=propensity
            )
    return result


def macro_precision_bins(top: Integers, truth: Ragged, corpus: Corpus, bin_size: int) -> list[float]:
    """Computes `ranking.macro_precision_bins` for documents of a corpus, as metrics.json holds them."""
    return [float(value) for value in ranking.macro_precision_bins(top, truth, corpus.published_counts, bin_size)]
