"""The fused score and the objective of its fit, from the formulas at the head of lsfa_jax/sparse/fusion.py."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize


def fused(network: np.ndarray, linear: np.ndarray, a: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Computes a x network + c x linear + d, [B, L], of logits [B, L] and weights [L]."""
    return a * network + c * linear + d


def dense_lists(label_ids: np.ndarray, logits: np.ndarray, num_labels: int, floor: float) -> np.ndarray:
    """Returns the scores [B, L] of all labels from lists [B, W]; those of labels that are not listed are `floor`."""
    scores = np.full((len(label_ids), num_labels), floor, np.float64)
    for row, (ids, values) in enumerate(zip(label_ids, logits, strict=True)):
        for label, value in zip(ids, values, strict=True):
            if label >= 0:
                scores[row, label] = value
    return scores


class Pairs(NamedTuple):
    """Pairs of a document and a label, [C] each: bin, both logits, whether it is true, how many pairs it stands for."""

    bins: np.ndarray
    network: np.ndarray
    linear: np.ndarray
    true: np.ndarray
    weights: np.ndarray


class Shrinkage(NamedTuple):
    """Penalties on squared distances: of the bins' weights from the common ones, and of these from the usual [3]."""

    to_common: float
    to_usual: float
    usual: tuple[float, float, float]


def objective(weights: np.ndarray, pairs: Pairs, shrinkage: Shrinkage) -> float:
    """Computes the cross-entropy of the pairs + the smallest shrinkage that some common weights give.

    Args:
        weights: [bins, 3], a, c and d of each bin.
        pairs: which are fitted.
        shrinkage: the penalties. The best common weights are the mean of the bins' and of the usual ones, so weighed.
    """
    total = 0.0
    for b, network, linear, true, weight in zip(*pairs, strict=True):
        a, c, d = weights[b]
        score = a * network + c * linear + d
        # -log of the probability of what is true: of the label, or of its absence.
        total += weight * np.logaddexp(0, -score if true else score)
    to_common, to_usual, usual = shrinkage
    common = to_common * weights.sum(axis=0) + to_usual * np.array(usual)
    common = np.maximum(common / (to_common * len(weights) + to_usual), [0, 0, -np.inf])
    total += to_common * np.sum((weights - common) ** 2)
    return total + to_usual * np.sum((common - usual) ** 2)


def fit(pairs: Pairs, num_bins: int, shrinkage: Shrinkage) -> np.ndarray:
    """Minimises the objective over a, c >= 0 by sequential least squares with numerical gradients; [bins, 3]."""
    result = minimize(
        lambda flat: objective(flat.reshape(num_bins, 3), pairs, shrinkage),
        np.tile([0.3, 0.3, -0.3], num_bins),
        method="SLSQP",
        bounds=[(0, None), (0, None), (None, None)] * num_bins,
        options={"maxiter": 1000, "ftol": 1e-12},
    )
    assert result.success, result.message
    return result.x.reshape(num_bins, 3)
