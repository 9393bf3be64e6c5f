"""LSAN (Xiao et al. 2019) in plain loops, float64."""

import numpy as np

from tests.reference.encoder import softmax


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def fused(states, lengths, rows, lsan):
    """M, [B, L, 2H]; rows [L, A + H] of W_2 and C."""
    half, size = states.shape[-1] // 2, lsan["kernel"].shape[1]
    out = np.zeros((len(states), len(rows), 2 * half))
    for b, length in enumerate(lengths):
        if not length:
            continue
        h = states[b, :length]
        for label, row in enumerate(rows):
            by_self = softmax(np.tanh(h @ lsan["kernel"]) @ row[:size]) @ h
            forward, backward = h[:, :half], h[:, half:]
            by_label = np.concatenate([(forward @ row[size:]) @ forward, (backward @ row[size:]) @ backward])
            alpha, beta = sigmoid(by_self @ lsan["self"]), sigmoid(by_label @ lsan["label"])
            out[b, label] = (alpha * by_self + beta * by_label) / (alpha + beta)
    return out


def label_features(states, lengths, labels):
    """relu(W_5 M^T + b), [B, L, D]; M without a head."""
    attended, head = fused(states, lengths, labels["queries"], labels["lsan"]), labels.get("head")
    return attended if head is None else np.maximum(attended @ head["kernel"] + head["bias"], 0)
