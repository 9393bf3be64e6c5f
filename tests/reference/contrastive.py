"""Eq. 7-9 in plain loops, float64."""

import numpy as np


def l2_normalize(v):
    norm = np.sqrt(np.sum(v**2))
    return v / norm if norm > 0 else v


def log_sum_exp(values):
    """log sum exp, relative to the maximum so that exp does not overflow."""
    maximum = max(values)
    return maximum + np.log(sum(np.exp(value - maximum) for value in values))


def supervised_contrastive(features, label_ids, mask, temperature, normalize):
    """Eq. 7-8."""
    v = [l2_normalize(x) if normalize else x for x in features]
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
    for feature, label, is_pair in zip(features, label_ids, mask, strict=True):
        if not is_pair or not present[label]:
            continue
        similarity = {
            j: (l2_normalize(feature) @ l2_normalize(p) if normalize else feature @ p) / temperature
            for j, p in enumerate(prototypes)
            if present[j]
        }
        terms = [s for j, s in similarity.items() if denominator != "exclude_positive" or j != label]
        if denominator == "double_positive":
            terms.append(similarity[label])
        if terms:
            total += log_sum_exp(terms) - similarity[label]
    return total
