"""The fused score: a calibrated logistic of the network's logit and the linear model's.

    score = a_b x network + c_b x linear + d_b     a_b, c_b >= 0

for the bin b of a label's training count. They are fitted on validation documents, which neither model was trained on.
The weights of all bins are shrunk towards common ones, so that a bin with few documents follows the others, and the
common ones towards usual ones, which without documents are the result.

Shapes: N documents, L labels, W listed labels, C cells (pairs of a document and a label).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lsfa_jax.data.ranked import FLOOR, Ranked
from lsfa_jax.sparse.linear import TITLES, Kind
from lsfa_jax.types import AnyArray, Array


def alone(kind: Kind) -> str:
    """Says in two lines that a linear model ranks labels alone, and what the user may do about it."""
    return (
        f"The {TITLES[kind]} ranks labels alone, since the network adds nothing on validation documents.\n"
        "With more documents it may; bin/train --fusion none ranks labels by the network."
    )


# Training counts at which a bin begins, besides 0.
_EDGES = (3, 10, 30, 100, 300, 1000)

# The penalty on the squared distance of a bin's weights from the common ones, and of these from the usual ones. On
# samples of AAPD and EURLEX57K, fitted on 40 to 300 documents, 100 is as good as or better than 3 to 10,000.
_TO_COMMON, _TO_USUAL = 100.0, 10.0

USUAL: dict[Kind, tuple[float, float, float]] = {"tree": (0.5, 0.3, 0.3), "svm": (0.3, 2.5, 0.2)}
"""a, c, d on samples of AAPD and EURLEX57K with BiLSTM and MiniLM, rounded."""

# Best labels of a document, on which probabilities are calibrated.
_CALIBRATED = 5

# Cells of a document: the labels that each model ranks highest, and those that stand for all others.
_BEST, _DRAWN = 128, 64


class Fusion(NamedTuple):
    """The weights of each label's score; those of a bin's labels are equal."""

    network: AnyArray
    """float32[L], a."""
    linear: AnyArray
    """float32[L], c."""
    offset: AnyArray
    """float32[L], d."""

    @property
    def leaves_network_out(self) -> bool:
        """Whether the linear model decides alone."""
        return not np.any(self.network)

    @property
    def for_scoring(self) -> "Fusion | LinearAlone":
        """The weights as the scorer takes them, which computes no network where they leave it out."""
        return LinearAlone(self.linear, self.offset) if self.leaves_network_out else self

    def __call__(self, logits: Array, ranked: Ranked) -> Array:
        """Computes the fused logits float32[B, L] from the network's, float32[B, L], and the linear model's lists."""
        scores = self.network * logits + self.linear * FLOOR + self.offset
        # Padding gets an index out of bounds, which is dropped.
        label_ids = jnp.where(ranked.label_ids < 0, logits.shape[1], ranked.label_ids)
        above = self.linear.at[label_ids].get(mode="fill", fill_value=0) * (ranked.logits - FLOOR)
        rows = jnp.arange(logits.shape[0])[:, None]
        return scores.at[rows, label_ids].add(above, mode="drop")

    def of_candidates(self, label_ids: Array, logits: Array, ranked: Ranked) -> tuple[Array, Array]:
        """Computes the fused logits of some labels of each document, and of those that the linear model lists.

        Args:
            label_ids: int32[B, K], different labels of each document, -1 where there are fewer.
            logits: float32[B, K], the network's. For the listed labels that are not among these, it counts as `FLOOR`.
            ranked: the lists of W labels.

        Returns:
            int32[B, K + W], different labels of each document, -1 where there are fewer; float32[B, K + W].
        """
        # The lists are short: comparing all pairs takes less time than a table of B x L.
        is_listed = (label_ids[:, :, None] == ranked.label_ids[:, None]) & (label_ids >= 0)[:, :, None]
        linear = FLOOR + jnp.sum(jnp.where(is_listed, ranked.logits[:, None] - FLOOR, 0.0), axis=2)
        others = jnp.where(jnp.any(is_listed, axis=1), -1, ranked.label_ids)
        label_ids = jnp.concatenate([label_ids, others], axis=1)
        network = jnp.concatenate([logits, jnp.full(others.shape, FLOOR)], axis=1)
        linear = jnp.concatenate([linear, ranked.logits], axis=1)
        return label_ids, self.network[label_ids] * network + self.linear[label_ids] * linear + self.offset[label_ids]


class LinearAlone(NamedTuple):
    """The weights where the linear model decides alone: only listed labels have a score, and lists keep their order.

    With scores of all labels, those that a list lacks would be equal, and so would some whose logits are clipped.
    """

    linear: AnyArray
    """float32[L], c."""
    offset: AnyArray
    """float32[L], d."""

    def __call__(self, ranked: Ranked) -> Array:
        """Computes the logits of the listed labels, float32[B, W]; where a list is shorter, they mean nothing."""
        return self.linear[ranked.label_ids] * ranked.logits + self.offset[ranked.label_ids]


class Cells(NamedTuple):
    """C pairs of a document and a label, and what is known of them."""

    documents: np.ndarray
    """int64[C]."""
    label_ids: np.ndarray
    """int64[C]."""
    network: np.ndarray
    """float64[C], logits."""
    linear: np.ndarray
    """float64[C], logits."""
    true: np.ndarray
    """float64[C], 1 where the document has the label."""
    weights: np.ndarray
    """float64[C], how many cells each stands for."""


def bins(counts: np.ndarray) -> np.ndarray:
    """Returns int64[L], the bin of each label, from its training count."""
    return np.digitize(counts, _EDGES)


def chosen_cells(
    documents: np.ndarray, logits: np.ndarray, ranked: Ranked, truth: Sequence[np.ndarray], random: np.random.Generator
) -> Cells:
    """Chooses the pairs that the weights are fitted on.

    All that a document has or either model lists; of all others, which are rarely true, a sample stands for the rest.

    Args:
        documents: int[B], their numbers.
        logits: float32[B, L], the network's; -inf where a label is excluded for a document, which is then left out.
        ranked: the linear model's lists of the documents.
        truth: the labels of each; ids from L on are left out.
        random: draws the sample.
    """
    num_labels = logits.shape[1]
    parts = []
    for document, scores, ids, values, labels in zip(documents, logits, *ranked, truth, strict=True):
        labels = labels[labels < num_labels]
        linear = np.full(num_labels, FLOOR)
        listed = ids[ids >= 0]
        linear[listed] = values[: len(listed)]
        chosen = np.zeros(num_labels, bool)
        chosen[listed[:_BEST]] = chosen[labels] = True
        most = min(num_labels, _BEST)
        chosen[np.argpartition(-scores, most - 1)[:most]] = True
        kept = scores > -np.inf
        chosen, rest = chosen & kept, np.flatnonzero(~chosen & kept)
        drawn = rest if len(rest) <= _DRAWN else random.choice(rest, _DRAWN, replace=False)
        label_ids = np.concatenate([np.flatnonzero(chosen), drawn])
        weights = np.ones(len(label_ids))
        weights[len(label_ids) - len(drawn) :] = len(rest) / max(1, len(drawn))
        numbers = np.full(len(label_ids), document, np.int64)
        true = np.isin(label_ids, labels).astype(np.float64)
        parts.append(Cells(numbers, label_ids, scores[label_ids].astype(np.float64), linear[label_ids], true, weights))
    return concatenate(parts)


def candidate_cells(
    documents: np.ndarray, label_ids: np.ndarray, logits: np.ndarray, ranked: Ranked, truth: Sequence[np.ndarray]
) -> Cells:
    """Returns the pairs of documents and the candidates that the network has scored.

    Args:
        documents: int[B], their numbers.
        label_ids: int32[B, C], the candidates.
        logits: float32[B, C], the network's; -inf where a document has fewer.
        ranked: the linear model's lists of the documents.
        truth: the labels of each.
    """
    parts = []
    for document, ids, scores, listed, values, labels in zip(documents, label_ids, logits, *ranked, truth, strict=True):
        linear = dict(zip(listed.tolist(), values.tolist(), strict=True))
        kept = scores > -np.inf
        ids = ids[kept].astype(np.int64)
        numbers, ones = np.full(len(ids), document, np.int64), np.ones(len(ids))
        of_linear = np.array([linear.get(label, FLOOR) for label in ids.tolist()])
        true = np.isin(ids, labels).astype(np.float64)
        parts.append(Cells(numbers, ids, scores[kept].astype(np.float64), of_linear, true, ones))
    return concatenate(parts)


def concatenate(parts: Sequence[Cells]) -> Cells:
    """Joins cells."""
    if not parts:
        return Cells(*np.zeros((2, 0), np.int64), *np.zeros((4, 0)))
    return Cells(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def fit(cells: Cells, counts: np.ndarray, kind: Kind) -> Fusion:
    """Fits the weights: minimises the cross-entropy of the cells plus the shrinkage penalty.

    Args:
        cells: of validation documents.
        counts: int64[L], the training count of each label.
        kind: of the linear model.
    """
    from scipy.optimize import minimize

    bin_of_label = bins(counts)
    num_bins = int(bin_of_label.max(initial=0)) + 1
    bin_of_cell = bin_of_label[cells.label_ids]
    inputs = np.stack([cells.network, cells.linear, np.ones(len(cells.true))], axis=1)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        common, each = flat[:3], flat[3:].reshape(num_bins, 3)
        scores = np.sum(inputs * each[bin_of_cell], axis=1)
        losses = np.logaddexp(0, scores) - cells.true * scores
        residuals = cells.weights * (1 / (1 + np.exp(-np.clip(scores, -500, 500))) - cells.true)
        gradient = np.stack([np.bincount(bin_of_cell, residuals * column, num_bins) for column in inputs.T], axis=1)
        shrunk = each - common
        unusual = common - np.array(USUAL[kind])
        penalty = _TO_COMMON * np.sum(shrunk**2) + _TO_USUAL * np.sum(unusual**2)
        pull = 2 * _TO_COMMON * shrunk
        of_common = 2 * _TO_USUAL * unusual - pull.sum(axis=0)
        return float(cells.weights @ losses + penalty), np.concatenate([of_common, (gradient + pull).ravel()])

    start = np.tile(USUAL[kind], num_bins + 1)
    bounds = [(0, None), (0, None), (None, None)] * (num_bins + 1)
    result = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500})
    weights = result.x[3:].reshape(num_bins, 3)[bin_of_label].astype(np.float32)
    return Fusion(*weights.T)


def fit_linear(cells: Cells, counts: np.ndarray, kind: Kind) -> Fusion:
    """Fits weights that leave the network out, and are the same for all labels: they keep the linear model's order."""
    fitted = fit(cells._replace(network=np.zeros_like(cells.network)), np.zeros_like(counts), kind)
    return fitted._replace(network=np.zeros_like(fitted.network))


def calibrated(fusion: Fusion, cells: Cells, num_documents: int) -> Fusion:
    """Returns weights with k x score + b in place of the score, fitted on the best cells of each document (Platt 1999).

    `fit` weighs all labels, most of which are never predicted; these are the ones whose probabilities are read. The
    order of a document's labels stays the same, because k and b are common to all.
    """
    from scipy.optimize import minimize

    scores = score(fusion, cells)
    best_labels = best(scores, cells, num_documents, _CALIBRATED)
    is_best = (best_labels[cells.documents] == cells.label_ids[:, None]).any(axis=1)
    scores, true = scores[is_best], cells.true[is_best]

    def objective(scale: np.ndarray) -> float:
        changed = scale[0] * scores + scale[1]
        return float(np.sum(np.logaddexp(0, changed) - true * changed) + _TO_USUAL * np.sum((scale - [1, 0]) ** 2))

    k, b = minimize(objective, [1.0, 0.0], method="L-BFGS-B", bounds=[(0.1, None), (None, None)]).x
    network, linear, offset = (np.float32(k) * np.asarray(weights) for weights in fusion)
    return Fusion(network, linear, offset + np.float32(b))


def score(fusion: Fusion, cells: Cells) -> np.ndarray:
    """Computes the fused logits of cells, float64[C]."""
    network, linear, offset = (weights[cells.label_ids] for weights in fusion)
    return network * cells.network + linear * cells.linear + offset


def best(scores: np.ndarray, cells: Cells, num_documents: int, num_ranked: int) -> np.ndarray:
    """Ranks the cells of each document: int32[N, K], the best labels, -1 where it has fewer."""
    order = np.lexsort((-scores, cells.documents))
    documents = cells.documents[order]
    places = np.arange(len(order)) - np.searchsorted(documents, documents)
    kept = places < num_ranked
    top = np.full((num_documents, num_ranked), -1, np.int32)
    top[documents[kept], places[kept]] = cells.label_ids[order][kept]
    return top
