"""Eq. 10 in plain loops, float64."""

import numpy as np


def prototypes(features, label_ids, mask, num_labels):
    """Eq. 10: the mean of each label's features; 0 for a label without features."""
    means = np.zeros((num_labels, features.shape[1]))
    for label in range(num_labels):
        of_label = features[mask & (label_ids == label)]
        if len(of_label):
            means[label] = sum(of_label) / len(of_label)
    return means


def variances(features, label_ids, mask, num_labels):
    """The unbiased variance of each label's features, summed over dimensions; 0 below two features."""
    sums = np.zeros(num_labels)
    for label in range(num_labels):
        of_label = features[mask & (label_ids == label)]
        if len(of_label) > 1:
            sums[label] = np.sum(np.var(of_label, axis=0, ddof=1))
    return sums
