"""Eq. 5-6 in plain loops, float64."""

import numpy as np


def scores(features, weights, bias=None):
    """Eq. 5 before the sigmoid, [B, L, D] -> [B, L]; a single row of weights (or a single bias) serves all labels."""
    logits = np.zeros(features.shape[:2])
    for b in range(features.shape[0]):
        for label in range(features.shape[1]):
            logits[b, label] = features[b, label] @ weights[label % len(weights)]
            if bias is not None:
                logits[b, label] += bias[label % len(bias)]
    return logits


def log_sigmoid(z):
    return -np.logaddexp(0.0, -z)


def binary_cross_entropy(logits, label_sets, label_weights=None):
    """Eq. 6 with its minus sign, summed over documents; a set that is None marks a padding document."""
    total = 0.0
    for row, labels in zip(logits, label_sets, strict=True):
        if labels is None:
            continue
        for label, z in enumerate(row):
            y = float(label in labels)
            weight = 1.0 if label_weights is None else label_weights[label]
            # 1 - sigmoid(z) = sigmoid(-z)
            total -= weight * (y * log_sigmoid(z) + (1 - y) * log_sigmoid(-z))
    return total
