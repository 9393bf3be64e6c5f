"""Ranking metrics of long-tailed multi-label classification: P@k, R@k, RP@k, nDCG@k, PSP@k, macro P@k, in percent.

Computed from top-k lists and sparse truth; no N x L array exists. Throughout:

- `top` is int32 [N, K]: each document's labels from the best down, none twice; -1 is no prediction (fewer labels than
  K), which never hits and counts as no prediction of any label. `hit` is bool [N, K], the result of `hits`.
- L counts every label. Those that training never saw come last, with training count 0 (`with_unseen_labels` adds
  them); they cannot be predicted and stay in every denominator.
- k is at most K; a larger one raises ValueError. Functions named _at_k return all of @1, ..., @k, float64 [k].
- A metric over nothing (no documents, no labels) is 0.0, never nan.

A new metric is one function and one entry of `METRICS`: metrics.json, bin/evaluate and its tables then hold it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsfa_jax.data.ragged import Ragged, offsets_of

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]

PLACES = (1, 3, 5)
"""Where rankings are cut off."""

MACRO_PLACE = 5
"""The place of macro-averaged precision."""


NUM_RANKED = max(*PLACES, MACRO_PLACE)
"""Labels of each ranking that these metrics use, the K of a scorer."""


class Propensity(NamedTuple):
    """A and B of the propensity model; by default those of the extreme classification repository for most corpora."""

    a: float = 0.55
    b: float = 1.5


USUAL = Propensity()
"""The constants of most corpora."""


class Rankings(NamedTuple):
    """Rankings of N documents with what metrics compare them to.

    Attributes:
        top: int32 [N, K].
        hit: bool [N, K].
        truth: the labels of the N documents.
        inverse_propensity: float64 [L].
    """

    top: Integers
    hit: Bools
    truth: Ragged
    inverse_propensity: Floats


class Metric(NamedTuple):
    """A ranking metric.

    Attributes:
        at_k: computes the metric in percent @1, ..., @k, float64 [k].
        needs_training_counts: whether it is left out where the labels' training documents are not known.
    """

    at_k: Callable[[Rankings, int], Floats]
    needs_training_counts: bool = False


METRICS: dict[str, Metric] = {
    "P": Metric(lambda r, k: precision_at_k(r.hit, k)),
    "R": Metric(lambda r, k: recall_at_k(r.hit, r.truth, k)),
    "RP": Metric(lambda r, k: r_precision_at_k(r.hit, r.truth, k)),
    "N": Metric(lambda r, k: ndcg_at_k(r.hit, r.truth, k)),
    "PSP": Metric(lambda r, k: psp_at_k(r.hit, r.top, r.truth, r.inverse_propensity, k), needs_training_counts=True),
}
"""The metrics by their names before the "@", in the order of results and tables."""


def without_training_counts(values: dict[str, float]) -> dict[str, float]:
    """Removes the metrics that need the labels' training documents from a result of `evaluate`."""
    return {
        name: value
        for name, value in values.items()
        if not (metric := METRICS.get(name.split("@")[0])) or not metric.needs_training_counts
    }


def documents_with_labels(truth: Ragged) -> Bools:
    """Computes which documents have at least one label, bool [N]."""
    return truth.sizes > 0


def restrict(truth: Ragged, keep: Bools) -> Ragged:
    """Computes the label sets without the labels where `keep`, bool [L], is false; all N documents stay.

    Raises:
        ValueError: `keep` does not cover every label of `truth`.
    """
    _check_covers(truth, len(keep))
    kept = keep[truth.values]
    return Ragged(truth.values[kept], offsets_of(kept)[truth.offsets])


def with_unseen_labels(label_counts: Integers, truth: Ragged) -> Integers:
    """Computes training counts int64 [L] that cover each label of `truth`, 0 for those that training never saw."""
    num_labels = max(len(label_counts), truth.values.max(initial=-1) + 1)
    return np.pad(np.asarray(label_counts, np.int64), (0, num_labels - len(label_counts)))


def hits(top: Integers, truth: Ragged) -> Bools:
    """Computes which predictions are right, bool [N, K].

    Raises:
        ValueError: `top` and `truth` differ in the number of documents.
    """
    sizes = truth.sizes
    if len(top) != len(sizes):
        raise ValueError(f"top lists {len(top)} documents, truth {len(sizes)}")
    hit = np.zeros(top.shape, bool)
    document = np.repeat(np.arange(len(sizes)), sizes)
    for place, labels in enumerate(top.T):
        hit[document[labels[document] == truth.values], place] = True
    return hit


def precision_at_k(hit: Bools, k: int) -> Floats:
    """Computes P@k: the mean over documents of the hits in the top k, divided by k.

    The divisor is k however few labels a document has; a document without labels stays in the mean and scores 0.
    """
    _check_k(hit, k)
    return 100 * _ratio(np.cumsum(hit[:, :k].sum(axis=0)), len(hit) * np.arange(1, k + 1))


def recall_at_k(hit: Bools, truth: Ragged, k: int) -> Floats:
    """Computes R@k: the mean over documents of the hits in the top k, divided by the document's number of labels.

    A document with more than k labels cannot reach 100; one without labels stays in the mean and scores 0.
    """
    _check_k(hit, k)
    sizes = truth.sizes[:, None]
    return 100 * _ratio(_ratio(np.cumsum(hit[:, :k], axis=1), sizes).sum(axis=0), np.full(k, len(hit)))


def recall(listed: Integers, truth: Ragged) -> float:
    """Computes the share of all true labels that the documents' lists, int32[N, W], have, in percent."""
    pairs = truth.row_ids
    right = (listed[pairs] == truth.values[:, None]).any(axis=1)
    return 100 * float(right.mean()) if len(right) else 0.0


def r_precision_at_k(hit: Bools, truth: Ragged, k: int) -> Floats:
    """Computes RP@k: the mean over documents of the hits in the top k, divided by min(k, number of labels).

    Of R@k and P@k the one that can reach 100, document by document (Chalkidis et al., ACL 2019, on EURLEX57K). A
    document without labels stays in the mean and scores 0.
    """
    return 100 * _ratio(document_r_precision(hit, truth, k).sum(axis=0), np.full(k, len(hit)))


def document_r_precision(hit: Bools, truth: Ragged, k: int) -> Floats:
    """Computes RP@1, ..., RP@k of each document as shares, float64[N, k]."""
    _check_k(hit, k)
    return _ratio(np.cumsum(hit[:, :k], axis=1), np.minimum(truth.sizes[:, None], np.arange(1, k + 1)))


def ndcg_at_k(hit: Bools, truth: Ragged, k: int) -> Floats:
    """Computes nDCG@k, the paper's N@k: the mean over documents of DCG@k / its largest attainable value.

    DCG@k = sum_{j<=k} y_{r_j} / log2(j + 1), r_j the label at place j; attainable is the sum up to j = min(k, |y|).
    A document without labels stays in the mean and scores 0.
    """
    return 100 * _ratio(document_ndcg(hit, truth, k).sum(axis=0), np.full(k, len(hit)))


def document_ndcg(hit: Bools, truth: Ragged, k: int) -> Floats:
    """Computes DCG@1, ..., DCG@k of each document as shares of their largest attainable values, float64[N, k]."""
    _check_k(hit, k)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    attainable = np.concatenate([[0.0], np.cumsum(discounts)])
    places = np.minimum(truth.sizes[:, None], np.arange(1, k + 1))
    return _ratio(np.cumsum(hit[:, :k] * discounts, axis=1), attainable[places])


def inverse_propensity(label_counts: Integers, num_documents: int, a: float = 0.55, b: float = 1.5) -> Floats:
    """Computes q_l = 1 + C (N_l + b)^(-a), C = (ln N - 1) (b + 1)^a (Jain, Prabhu and Varma, KDD 2016), float64 [L].

    N is `num_documents` and N_l `label_counts`, both of the training split. A label that training never saw (N_l = 0)
    gets the formula's value, the largest of all. For N < e the formula's C is negative and would give rare labels
    the smaller weight; it is clipped at 0, so that every q_l is 1 there.
    """
    scale = max(0.0, math.log(max(num_documents, 1)) - 1) * (b + 1) ** a
    return 1 + scale * (np.asarray(label_counts, np.float64) + b) ** -a


def psp_at_k(hit: Bools, top: Integers, truth: Ragged, inverse_propensity: Floats, k: int) -> Floats:
    """Computes PSP@k, propensity-scored precision / its largest attainable value (Jain, Prabhu and Varma, KDD 2016).

    PSP@k = sum_i sum_{j<=k} q_{r_ij} y_{i,r_ij} / sum_i (the same sum when document i's labels come in the best
    order): a ratio of sums over documents, not a mean of ratios. q is `inverse_propensity`, float64 [L].

    Raises:
        ValueError: `inverse_propensity` does not cover every label of `truth`.
    """
    attained, attainable = document_psp(hit, top, truth, inverse_propensity, k)
    return 100 * _ratio(attained.sum(axis=0), attainable.sum(axis=0))


def document_psp(hit: Bools, top: Integers, truth: Ragged, inverse_propensity: Floats, k: int) -> tuple[Floats, Floats]:
    """Computes the sums of PSP@1, ..., PSP@k of each document, and their largest attainable values: float64[N, k] each.

    Raises:
        ValueError: `inverse_propensity` does not cover every label of `truth`.
    """
    _check_k(hit, k)
    num_labels = len(inverse_propensity)
    _check_covers(truth, num_labels)
    hit, top = hit[:, :k], top[:, :k]
    attained, attainable = np.zeros(hit.shape), np.zeros(hit.shape)
    attained[hit] = inverse_propensity[top[hit]]

    # Sorting integers (document, rank of the label's weight) is several times faster than a lexsort of the weights.
    heaviest_first = np.argsort(-inverse_propensity)
    rank = np.argsort(heaviest_first)
    rows = truth.row_ids
    start = rows * num_labels
    ranks = np.sort(start + rank[truth.values]) - start
    place = np.arange(len(ranks)) - truth.offsets[rows]
    in_top = place < k
    attainable[rows[in_top], place[in_top]] = inverse_propensity[heaviest_first[ranks[in_top]]]
    return np.cumsum(attained, axis=1), np.cumsum(attainable, axis=1)


def macro_precision_at_k(hit: Bools, top: Integers, num_labels: int, k: int) -> Floats:
    """Computes each label's precision in the top k, its hits / how often it is predicted there: float64 [L], @k only.

    A label that is never predicted has precision 0. The mean over labels is macro-averaged P@k.

    Raises:
        ValueError: `top` names a label outside the L = `num_labels`.
    """
    _check_k(hit, k)
    hit, top = hit[:, :k], top[:, :k]
    if top.max(initial=-1) >= num_labels:
        raise ValueError(f"top names label {top.max()}, but there are {num_labels} labels, numbered from 0")
    predicted = np.bincount(top[top >= 0], minlength=num_labels)
    return 100 * _ratio(np.bincount(top[hit], minlength=num_labels), predicted)


def macro_precision_bins(top: Integers, truth: Ragged, label_counts: Integers, bin_size: int) -> Floats:
    """Computes macro-averaged P@5 over bins of `bin_size` labels from the most frequent down (Fig. 1b), in percent.

    Args:
        top: int32 [N, 5], rankings of all labels.
        truth: the labels of the N documents.
        label_counts: int [L], training documents of each label.
        bin_size: labels of a bin.
    """
    per_label = macro_precision_at_k(hits(top, truth), top, len(label_counts), MACRO_PLACE)
    return bin_means(per_label, label_counts, bin_size)


def bin_means(per_label: Floats, label_counts: Integers, bin_size: int = 400) -> Floats:
    """Computes means of a per-label metric over bins of labels, the most frequent in training first (Fig. 1b).

    Args:
        per_label: float64 [L].
        label_counts: int [L]; labels of equal count are ordered by id.
        bin_size: labels a bin, at least 1; the last bin holds what is left.

    Returns:
        float64 [ceil(L / bin_size)], in the unit of `per_label`.
    """
    ordered = per_label[np.argsort(-label_counts, kind="stable")]
    return np.array([ordered[start : start + bin_size].mean() for start in range(0, len(ordered), bin_size)])


def evaluate(
    top: Integers,
    truth: Ragged,
    label_counts: Integers,
    num_documents: int,
    places: Sequence[int] = PLACES,
    propensity: Propensity = USUAL,
) -> dict[str, float]:
    """Computes every metric over all labels.

    Args:
        top: int32 [N, K], K at least 5.
        truth: labels of the same N documents; ids past the end of `label_counts` are labels training never saw.
        label_counts: int [number of the model's labels], the training documents of each.
        num_documents: how many training documents there are.
        places: where rankings are cut off, each at most K.
        propensity: A and B of PSP.

    Returns:
        Percent: "P@k", "R@k", "RP@k", "N@k" and "PSP@k" (each of `METRICS`) for k in `places`; "macro_P@5".

    Raises:
        ValueError: the shapes do not match.
    """
    label_counts = with_unseen_labels(label_counts, truth)
    weights = inverse_propensity(label_counts, num_documents, *propensity)
    every_label = np.ones(len(label_counts), bool)
    return _at_places(top, truth, weights, places) | {"macro_P@5": _macro_precision(top, truth, every_label)}


def evaluate_group(
    top: Integers,
    group_top: Integers,
    truth: Ragged,
    group: Bools,
    label_counts: Integers,
    num_documents: int,
    places: Sequence[int] = PLACES,
    propensity: Propensity = USUAL,
) -> dict[str, float]:
    """Computes every metric over a group of labels, such as the head or the tail.

    P, R, RP, N and PSP rank the group's labels alone, against truth restricted to the group, over the documents that
    have a label of it. macro_P@5 is the mean over the group's labels of their precision in the top 5 among all labels.

    Args:
        top: as in `evaluate`, from all labels.
        group_top: int32 [N, K], the same from the group's labels alone.
        truth: as in `evaluate`, not restricted.
        group: bool [L]; the tail is `with_unseen_labels(label_counts, truth) < head_threshold`.
        label_counts: as in `evaluate`.
        num_documents: as in `evaluate`.
        places: as in `evaluate`.
        propensity: as in `evaluate`.

    Returns:
        The keys of `evaluate`.

    Raises:
        ValueError: the shapes do not match, or `group` does not cover every label of `truth`.
    """
    restricted = restrict(truth, group)
    documents = documents_with_labels(restricted)
    if len(group_top) != len(documents):
        raise ValueError(f"group_top lists {len(group_top)} documents, truth {len(documents)}")
    restricted = restricted.take(documents)
    weights = inverse_propensity(with_unseen_labels(label_counts, truth), num_documents, *propensity)
    values = _at_places(group_top[documents], restricted, weights, places)
    return values | {"macro_P@5": _macro_precision(top, truth, group)}


def _at_places(top: Integers, truth: Ragged, weights: Floats, places: Sequence[int]) -> dict[str, float]:
    rankings, k = Rankings(top, hits(top, truth), truth, weights), max(places)
    curves = {name: metric.at_k(rankings, k) for name, metric in METRICS.items()}
    return {f"{name}@{place}": float(curve[place - 1]) for name, curve in curves.items() for place in places}


def _macro_precision(top: Integers, truth: Ragged, group: Bools) -> float:
    per_label = macro_precision_at_k(hits(top, truth), top, len(group), MACRO_PLACE)
    return float(per_label[group].mean()) if group.any() else 0.0


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator != 0)


def _check_k(hit: Bools, k: int) -> None:
    if k > hit.shape[1]:
        raise ValueError(f"the top lists hold {hit.shape[1]} labels a document, too few for k = {k}")


def _check_covers(truth: Ragged, num_labels: int) -> None:
    largest = truth.values.max(initial=-1)
    if largest >= num_labels:
        raise ValueError(
            f"truth names label {largest}, but only {num_labels} labels are covered; "
            "with_unseen_labels adds those that training never saw"
        )
