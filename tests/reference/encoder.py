"""Eq. 1-4 in plain loops, float64."""

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def lstm(projected, w_hidden, h0, c0):
    """One document: [T, 4H] -> [T, H], with gates in the order input, forget, cell, output."""
    hidden_size = len(h0)
    h, c = h0, c0
    states = np.zeros((len(projected), hidden_size))
    for t in range(len(projected)):
        z = projected[t] + h @ w_hidden
        i = sigmoid(z[:hidden_size])
        f = sigmoid(z[hidden_size : 2 * hidden_size])
        g = np.tanh(z[2 * hidden_size : 3 * hidden_size])
        o = sigmoid(z[3 * hidden_size :])
        c = f * c + i * g
        h = o * np.tanh(c)
        states[t] = h
    return states


def bilstm(params, x, lengths):
    """Eq. 1: each document, cut at its length, from both directions; states beyond the length are zero."""
    hidden_size = len(params["forward"]["h0"])
    out = np.zeros((x.shape[0], x.shape[1], 2 * hidden_size))
    for b, length in enumerate(lengths):
        tokens = x[b, :length]
        for direction, order in (("forward", slice(None)), ("backward", slice(None, None, -1))):
            p = params[direction]
            states = lstm(tokens[order] @ p["w_input"] + p["bias"], p["w_hidden"], p["h0"], p["c0"])[order]
            first = 0 if direction == "forward" else hidden_size
            out[b, :length, first : first + hidden_size] = states
    return out


def convolution(tokens, kernel, bias):
    """One document: [T, E] -> [T, F], by filters of K words of which (K - 1) // 2 are before the token."""
    z = np.tile(bias, (len(tokens), 1))
    for t in range(len(tokens)):
        for k in range(len(kernel)):
            position = t + k - (len(kernel) - 1) // 2
            if 0 <= position < len(tokens):
                z[t] += tokens[position] @ kernel[k]
    return z


def cnn(params, x, lengths):
    """Eq. 1: each document, cut at its length, by convolution and residual blocks; 0 beyond the length."""
    out = np.zeros((*x.shape[:2], len(params["convolution"]["bias"])))
    for b, length in enumerate(lengths):
        states = np.tanh(convolution(x[b, :length], **params["convolution"]))
        for i in range((len(params) - 1) // 2):
            inner = np.tanh(convolution(states, **params[f"block_{i}_inner"]))
            states = np.tanh(states + convolution(inner, **params[f"block_{i}_outer"]))
        out[b, :length] = states
    return out


def xml_cnn(params, x, lengths, num_parts):
    """XML-CNN's pooled filters, width by width and part by part, [B, 1, p x widths x F]."""
    rows = []
    for document, length in zip(x, lengths, strict=True):
        parts = [[] for _ in range(num_parts)]
        for part in range(num_parts):
            for name in sorted(params):
                kernel, bias = params[name]["kernel"], params[name]["bias"]
                best = np.zeros(len(bias))
                for t in range(length):
                    if t * num_parts // length != part:
                        continue
                    z = bias.copy()
                    for k in range(len(kernel)):
                        place = t + k - (len(kernel) - 1) // 2
                        if 0 <= place < length:
                            z = z + document[place] @ kernel[k]
                    best = np.maximum(best, z)
                parts[part].append(best)
        rows.append(np.concatenate([np.concatenate(part) for part in parts]))
    return np.stack(rows)[:, None]


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / np.sum(e)


def label_attention(states, lengths, queries):
    """Eq. 4; queries [L, 2H], the same labels for all documents, or [B, K, 2H]."""
    num_documents, num_tokens, _ = states.shape
    num_queries = queries.shape[-2]
    alpha = np.zeros((num_documents, num_queries, num_tokens))
    for b, length in enumerate(lengths):
        for k in range(num_queries):
            e = queries[k] if queries.ndim == 2 else queries[b, k]
            if length:
                alpha[b, k, :length] = softmax(np.array([e @ states[b, t] for t in range(length)]))
    return alpha


def label_features(states, lengths, queries, head):
    """Eq. 2-3, v = alpha . x, then the feature head: relu(v W + b)."""
    alpha = label_attention(states, lengths, queries)
    features = []
    for b in range(len(states)):
        for k in range(alpha.shape[1]):
            v = np.zeros(states.shape[2])
            for t in range(states.shape[1]):
                v += alpha[b, k, t] * states[b, t]
            features.append(v if head is None else np.maximum(v @ head["kernel"] + head["bias"], 0.0))
    return np.stack(features).reshape(len(states), alpha.shape[1], -1)
