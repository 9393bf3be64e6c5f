"""A rival to generated features: HTTN (Xiao et al., AAAI 2021), a linear map from prototypes to classifiers.

It is learned from the head labels, which have both from many documents, and applied to the prototypes of tail labels.
HTTN draws a few documents of a head label for its prototype, again and again, and fits the map by gradient descent;
here the prototypes are of all documents and the fit is ridge regression, whose penalty stands for that noise. HTTN's
prototypes are of documents, ours of the labels' features, in which LSFA's classifiers work.
"""

import jax
import jax.numpy as jnp

from lsfa_jax.types import Array


def transferred(
    classifier: dict[str, Array], prototypes: Array, is_head: Array, is_tail: Array, ridge: float | Array
) -> dict[str, Array]:
    """Replaces the weights of tail labels by w_l = W p_l, where W minimises

        sum over head labels of |w_l - W p_l|^2 + ridge x (mean of |p_l|^2 over head labels) x |W|^2.

    Args:
        classifier: `weights` float32[L, D], and perhaps `bias` float32[L], which stays.
        prototypes: float32[L, D], p.
        is_head: bool[L], labels to learn from; at least one.
        is_tail: bool[L], labels whose weights are replaced.
        ridge: the penalty.

    Returns:
        The classifier with the same shapes.
    """
    weights = classifier["weights"]
    heads = jnp.where(is_head[:, None], prototypes, 0.0)
    penalty = ridge * jnp.sum(heads * heads) / jnp.sum(is_head)
    gram = heads.T @ heads + penalty * jnp.eye(heads.shape[1])
    mapping = jax.scipy.linalg.solve(gram, heads.T @ weights, assume_a="pos")
    return classifier | {"weights": jnp.where(is_tail[:, None], prototypes @ mapping, weights)}
