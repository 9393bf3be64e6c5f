"""Losses from candidates and a sample of labels, in plain loops, float64."""

import numpy as np

from tests.reference.classifier import log_sigmoid
from tests.reference.contrastive import l2_normalize, log_sum_exp


def weight(label, candidates, sample, num_labels):
    """The weight of a label of one document in the sums."""
    if label in candidates:
        return 1.0
    return num_labels / len(sample) if label in sample else 0.0


def binary_cross_entropy(logits, candidates, label_sets, sample):
    """The estimate of Eq. 6 from logits of all labels; a label set that is None marks a padding document."""
    total = 0.0
    for row, listed, labels in zip(logits, candidates, label_sets, strict=True):
        for label, z in enumerate(row if labels is not None else []):
            term = -log_sigmoid(z) if label in labels else -log_sigmoid(-z)
            total += weight(label, listed, sample, len(row)) * term
    return total


def contrastive(features, candidates, label_sets, sample, prototypes, present, temperature, normalize, denominator):
    """The estimate of Eq. 9; the labels of a document are its first candidates, whose features are given."""
    total = 0.0
    for rows, listed, labels in zip(features, candidates, label_sets, strict=True):
        for feature, label in list(zip(rows, listed, strict=False))[: len(labels or ())]:
            if not present[label]:
                continue
            v = l2_normalize(feature) if normalize else feature
            terms, positive = [], None
            for other, p in enumerate(prototypes):
                similarity = v @ (l2_normalize(p) if normalize else p) / temperature
                if other == label:
                    positive = similarity
                    copies = {"all": 1, "exclude_positive": 0, "double_positive": 2}[denominator]
                else:
                    copies = weight(other, listed, sample, len(prototypes)) * present[other]
                if copies:
                    terms.append(similarity + np.log(copies))
            if terms:
                total += log_sum_exp(terms) - positive
    return total
