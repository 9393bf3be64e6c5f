"""Eq. 19 in plain loops, float64. (Eq. 18 is the decoder of pvae.py on normal latents.)"""

from tests.reference.classifier import log_sigmoid


def augmented_loss(features, weights, bias, mask):
    """Eq. 19 without gamma, with its minus sign; row i of `weights` is the classifier of feature i's label."""
    total = 0.0
    for i in range(len(features)):
        if mask[i]:
            total -= log_sigmoid(weights[i] @ features[i] + (0.0 if bias is None else bias[i]))
    return total


def negative_loss(features, weights, bias, label_ids, mask):
    """Each feature as a negative of the classifiers of the other labels; the mean over these classifiers."""
    total = 0.0
    for i in range(len(features)):
        losses = [
            -log_sigmoid(-(weights[j] @ features[i] + (0.0 if bias is None else bias[j])))
            for j in range(len(features))
            if mask[i] and mask[j] and label_ids[j] != label_ids[i]
        ]
        if losses:
            total += sum(losses) / len(losses)
    return total
