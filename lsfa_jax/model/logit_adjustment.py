"""A rival to generated features: the logit-adjusted loss (Menon et al., ICLR 2021).

The loss sees logits that are shifted towards the frequency of each label, prediction does not: rare labels are ranked
higher by as much. Menon et al. have one softmax over classes, shifted by tau log pi_y. A one-versus-rest classifier
decides between two classes, so its logit is shifted by the difference of both, tau log(pi_l / (1 - pi_l)).
"""

import numpy as np

from lsfa_jax.types import HostArray


def offsets(counts: HostArray, num_documents: int, tau: float) -> HostArray:
    """Computes tau log(pi_l / (1 - pi_l)), float32[L].

    Args:
        counts: int[L], training documents of each label.
        num_documents: N. With half a document more that has each label and half a one that has not, no frequency
            is 0 or 1.
        tau: the weight of the frequency.
    """
    with_label = counts.astype(np.float64) + 0.5
    return (tau * (np.log(with_label) - np.log(num_documents + 1.0 - with_label))).astype(np.float32)
