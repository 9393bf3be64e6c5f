"""All figures of a system's output: rankings and decisions, over all labels, head, tail and bins of training counts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import ranking, thresholded
from lsfa_jax.evaluation.ranking import Bools, Integers, Propensity
from lsfa_jax.evaluation.thresholded import Outcomes

BINS = (1, 10, 50, 100, 500, 1000)
"""Training counts at which a bin of labels begins, besides 0."""

GroupMetrics = dict[str, dict[str, float]]
"""Name of a group -> name of a metric -> percent; "labels" and "documents" are numbers."""


class Groups(NamedTuple):
    """Groups of labels, each measured by itself.

    Attributes:
        names: "all" first; "head" and "tail" where there is a threshold; bins such as "10-49" and "1000+".
        members: bool [G, L].
    """

    names: list[str]
    members: Bools

    def only(self, name: str) -> Bools:
        """Returns which labels are in a group, bool [L]."""
        return self.members[self.names.index(name)]


class Scored(NamedTuple):
    """What a system said about N documents.

    Attributes:
        top: int32 [G, N, K], the best labels within each group, best first; -1 where it names no more.
        outcomes: what became of each label at a threshold; None where the output has no probabilities.
    """

    top: Integers
    outcomes: Outcomes | None


class Training(NamedTuple):
    """What the figures need of the training documents.

    Attributes:
        label_counts: int64 [L], the documents of each label, 0 for labels that only others have.
        num_documents: how many there are.
    """

    label_counts: Integers
    num_documents: int


def make_groups(
    num_labels: int, training: Training | None, head_threshold: int = 0, bins: Sequence[int] = ()
) -> Groups:
    """Groups labels by their number of training documents; without these there is one group, all.

    Args:
        num_labels: L.
        training: counts of the L labels.
        head_threshold: N_t, labels with fewer are the tail; 0 makes no head and tail.
        bins: increasing counts at which bins begin; one from 0 comes before them. Bins without a label are left out.
    """
    groups = {"all": np.ones(num_labels, bool)}
    if training is None:
        return Groups(list(groups), np.stack(list(groups.values())))
    counts = training.label_counts
    if head_threshold:
        groups |= {"head": counts >= head_threshold, "tail": counts < head_threshold}
    edges = [0, *(edge for edge in bins if edge > 0)] if bins else []
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        own = (counts >= low) & (counts < high) if high is not None else counts >= low
        if own.any():
            name = f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}-{high - 1}"
            groups[name] = own
    return Groups(list(groups), np.stack(list(groups.values())))


def best_of_groups(listed: Integers, members: Bools, num_ranked: int) -> Integers:
    """Ranks the labels of each group by leaving those of others out of the documents' lists.

    Args:
        listed: int32 [N, W], each document's labels from the best down, -1 beyond them.
        members: bool [G, L].
        num_ranked: K.

    Returns:
        int32 [G, N, K]; -1 where a list has no more labels of the group.
    """
    top = np.full((len(members), len(listed), num_ranked), -1, np.int32)
    for group, own in enumerate(members):
        kept = (listed >= 0) & own[listed]
        first = np.argsort(~kept, axis=1, kind="stable")[:, :num_ranked]
        labels = np.where(np.take_along_axis(kept, first, axis=1), np.take_along_axis(listed, first, axis=1), -1)
        top[group, :, : labels.shape[1]] = labels
    return top


def group_metrics(
    scored: Scored,
    truth: Ragged,
    groups: Groups,
    training: Training | None,
    places: Sequence[int] = ranking.PLACES,
    propensity: Propensity = ranking.USUAL,
) -> GroupMetrics:
    """Computes every figure of every group.

    Args:
        scored: a system's output for the N documents of `truth`; K at least 5 and `max(places)`.
        truth: the documents' labels, ids below L.
        groups: of the L labels.
        training: counts of the L labels; without them there is no PSP.
        places: where rankings are cut off.
        propensity: A and B of PSP.

    Returns:
        For each group the keys of `ranking.evaluate`, those of `thresholded.summary` where `scored` has outcomes, and
        "labels" and "documents", those of the group and those that have one of them.
    """
    counts = training.label_counts if training else np.zeros(groups.members.shape[1], np.int64)
    number = training.num_documents if training else 0
    everything = scored.top[groups.names.index("all")]
    result: GroupMetrics = {}
    for name, group, own in zip(groups.names, groups.members, scored.top, strict=True):
        if name == "all":
            values = ranking.evaluate(own, truth, counts, number, places, propensity)
        else:
            values = ranking.evaluate_group(everything, own, truth, group, counts, number, places, propensity)
        if training is None:
            values = {metric: value for metric, value in values.items() if not metric.startswith("PSP")}
        documents = ranking.documents_with_labels(ranking.restrict(truth, group))
        result[name] = {"labels": float(group.sum()), "documents": float(documents.sum())} | values
        if scored.outcomes is not None:
            result[name] |= thresholded.summary(scored.outcomes, group)
    return result
