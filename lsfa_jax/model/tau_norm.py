"""A rival to generated features: tau-normalised classifiers (Kang et al., ICLR 2020, "Decoupling").

Classifiers of frequent labels have larger weights, which ranks these labels higher. No training: the weights are
divided by a power of their norm.
"""

import jax.numpy as jnp

from lsfa_jax.types import Array


def tau_normalised(classifier: dict[str, Array], tau: float | Array) -> dict[str, Array]:
    """Divides the logit of each label by |w_l|^tau, in units of the labels' geometric mean norm.

    Kang et al. have no bias. With one, weights and bias are divided alike: the decision of each classifier stays the
    same, and the order of labels changes. The unit keeps the scale of the logits, and with it the probabilities.

    Args:
        classifier: `weights` float32[L, D], with rows of zeros at padding, and perhaps `bias` float32[L].
        tau: 0 changes nothing, with 1 all labels have the same norm.

    Returns:
        The classifier with the same shapes.
    """
    norms = jnp.linalg.norm(classifier["weights"], axis=1)
    is_label = norms > 0
    logarithms = jnp.where(is_label, jnp.log(jnp.where(is_label, norms, 1.0)), 0.0)
    mean = jnp.sum(logarithms) / jnp.maximum(jnp.sum(is_label), 1)
    scale = jnp.where(is_label, jnp.exp(tau * (mean - logarithms)), 1.0)
    return {name: table * (scale[:, None] if table.ndim > 1 else scale) for name, table in classifier.items()}
