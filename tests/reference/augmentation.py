"""Eq. 19 in plain loops, float64. (Eq. 18 is the decoder of pvae.py on random latents.)"""

from tests.reference.classifier import log_sigmoid


def augmented_loss(features, weights, bias, mask):
    """Eq. 19 without gamma, with its minus sign: feature i stands before the classifier in row i."""
    total = 0.0
    for i in range(len(features)):
        if mask[i]:
            total -= log_sigmoid(weights[i] @ features[i] + (0.0 if bias is None else bias[i]))
    return total
