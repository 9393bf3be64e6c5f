"""The terms by which a linear model voted for a label: what the label's logit loses when a term is left out.

A term is a word or a pair of adjacent words (`data.bags`).

    vote of a term for a label = logit(text) - logit(text without the term)

The features of the remaining terms are scaled to length 1 again, as those of any text are: a vote is what changes when
the term is deleted wherever it stands. (The tree's library scales its input itself, so that the tree has no other
votes.) A vote is positive where the term speaks for the label.

Shapes: V terms of the model, W terms that are left out in turn, K labels, R rows.
"""

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.data.ranked import FLOOR
from lsfa_jax.sparse.linear import LinearModel
from lsfa_jax.sparse.svm import Svm

Vote = tuple[str, float]
"""A term and its vote."""

# 5 ms a text for a tree of 54 labels on a core; all terms of a law would be hundreds of predictions.
_MOST_TERMS, _NAMED = 30, 5
# Less is rounding, or nothing beside the strongest term of the label.
_LEAST, _LEAST_SHARE = 0.005, 0.05


def strongest(model: LinearModel, features: csr_matrix, label_ids: np.ndarray) -> list[list[Vote]]:
    """Names the five terms with the largest positive votes for each label.

    Args:
        model: the linear model.
        features: float32[1, V], of the text.
        label_ids: int[K].

    Returns:
        Of each of the K labels at most five terms, the strongest first, without those that are faint beside it; none
        where no single term decides, as where the tree is certain of a label or does not list it.
    """
    places = heaviest(features)
    terms = [model.features.terms[column] for column in features.indices[places]]
    named = []
    for of_terms in votes(model, features, places, label_ids):
        least = max(_LEAST, _LEAST_SHARE * of_terms.max(initial=0))
        order = np.argsort(-of_terms, kind="stable")[:_NAMED]
        named.append([(terms[term], float(of_terms[term])) for term in order if of_terms[term] >= least])
    return named


def heaviest(features: csr_matrix) -> np.ndarray:
    """Returns the places of the text's 30 terms with the largest features, int64[W], the largest first."""
    return np.argsort(-features.data, kind="stable")[:_MOST_TERMS]


def votes(model: LinearModel, features: csr_matrix, places: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
    """Computes the votes of terms, float64[K, W].

    Args:
        model: the linear model. Of the tree, each of the W + 1 texts is ranked; the SVM has a closed form.
        features: float32[1, V], of the text.
        places: int[W], which of the text's terms, in the order in which `features` stores them.
        label_ids: int[K].
    """
    if isinstance(model.trained, Svm):
        return _svm_votes(model.trained, features, places, label_ids)
    ranked = model.rank(_without_each(features, places))
    # Padding, -1, fills the column behind the last label.
    logits = np.full((len(ranked.label_ids), model.num_labels + 1), FLOOR)
    np.put_along_axis(logits, ranked.label_ids, ranked.logits, axis=1)
    logits = logits[:, label_ids].T
    return np.asarray(logits[:, :1] - logits[:, 1:])


def _svm_votes(svm: Svm, features: csr_matrix, places: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
    """Computes w.x - (w.x - w_j x_j) / |x without j|: the intercepts cancel. Labels without a machine have votes 0."""
    row = features.data.astype(np.float64)
    machines = np.searchsorted(svm.label_ids, label_ids)
    trained = np.isin(label_ids, svm.label_ids)
    products = np.zeros((len(label_ids), len(row)))
    products[trained] = svm.weights[machines[trained]][:, features.indices] * row
    score = products.sum(axis=1, keepdims=True)
    return np.asarray(score - (score - products[:, places]) / _lengths_without(row, places))


def _without_each(features: csr_matrix, places: np.ndarray) -> csr_matrix:
    """Returns the text, and the text without each of the terms: float32[W + 1, V], rows of length 1."""
    row, rows = features.data.astype(np.float64), np.arange(len(places) + 1)
    kept = np.ones((len(rows), len(row)), bool)
    kept[rows[1:], places] = False
    lengths = np.append(1.0, _lengths_without(row, places))
    scaled = row / lengths[:, None]
    columns = np.broadcast_to(features.indices, kept.shape)
    offsets = np.append(0, np.cumsum(kept.sum(axis=1)))
    return csr_matrix((scaled[kept].astype(np.float32), columns[kept], offsets), (len(rows), features.shape[1]))


def _lengths_without(row: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Computes the length of the features without each of the terms, float64[W]; 1 where none remains."""
    squares = row**2
    # The difference is exact enough in float64, of features in float32, and exactly 0 for a text of one term.
    rest = np.sqrt(np.maximum(squares.sum() - squares[places], 0))
    return np.where(rest > 0, rest, 1.0)
