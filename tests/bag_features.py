"""Features of documents by a linear model."""

from scipy.sparse import csr_matrix, vstack

from lsfa_jax.sparse import linear


def features_of(model: linear.LinearModel, counts: csr_matrix, terms: list[str]) -> csr_matrix:
    """Returns the features of all documents: what `linear.feature_blocks` yields."""
    return vstack(list(linear.feature_blocks(model, counts, terms)), format="csr")
