"""Eq. 10 in plain loops, float64."""

import numpy as np


def prototypes(features, label_ids, mask, num_labels):
    """Eq. 10: the mean of each label's features, 0 for a label without any."""
    means = np.zeros((num_labels, features.shape[1]))
    for label in range(num_labels):
        own = [v for v, y, real in zip(features, label_ids, mask, strict=True) if real and y == label]
        if own:
            means[label] = sum(own) / len(own)
    return means


def variances(features, label_ids, mask, num_labels):
    """The unbiased variance of each dimension within a label, added over dimensions; 0 below two features."""
    spread = np.zeros(num_labels)
    for label in range(num_labels):
        own = [v for v, y, real in zip(features, label_ids, mask, strict=True) if real and y == label]
        if len(own) > 1:
            spread[label] = np.sum(np.var(own, axis=0, ddof=1))
    return spread
