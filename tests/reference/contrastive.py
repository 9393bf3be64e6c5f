"""Eq. 7-9 in plain loops, float64."""

import numpy as np


def unit(v):
    length = np.sqrt(np.sum(v**2))
    return v / length if length > 0 else v


def log_sum_exp(values):
    """The logarithm of the sum of exp; taken from the largest, so that exp does not overflow."""
    top = max(values)
    return top + np.log(sum(np.exp(value - top) for value in values))


def supervised_contrastive(features, label_ids, mask, temperature, normalize):
    """Eq. 7-8."""
    v = [unit(x) if normalize else x for x in features]
    pairs = [i for i in range(len(features)) if mask[i]]
    total = 0.0
    for i in pairs:
        positives = [j for j in pairs if j != i and label_ids[j] == label_ids[i]]
        for j in positives:
            denominator = log_sum_exp([v[i] @ v[k] / temperature for k in pairs if k != i])
            total += -1 / len(positives) * (v[i] @ v[j] / temperature - denominator)
    return total


def prototypical_contrastive(features, label_ids, mask, prototypes, present, temperature, normalize, denominator):
    """Eq. 9 without alpha, with its minus sign."""
    total = 0.0
    for feature, label, real in zip(features, label_ids, mask, strict=True):
        if not real or not present[label]:
            continue
        similarity = {
            j: (unit(feature) @ unit(p) if normalize else feature @ p) / temperature
            for j, p in enumerate(prototypes)
            if present[j]
        }
        among = [s for j, s in similarity.items() if denominator != "exclude_positive" or j != label]
        if denominator == "double_positive":
            among.append(similarity[label])
        if among:
            total += log_sum_exp(among) - similarity[label]
    return total
