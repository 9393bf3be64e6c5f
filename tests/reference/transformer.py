"""A transformer of the BERT family in plain loops, float64: one document, one window, one head at a time."""

import math

import numpy as np

from tests.reference.encoder import softmax

erf = np.vectorize(math.erf, otypes=[np.float64])


def layer_norm(params, x, epsilon):
    out = np.zeros_like(x)
    for i, row in enumerate(x):
        variance = np.mean((row - np.mean(row)) ** 2)
        out[i] = (row - np.mean(row)) / np.sqrt(variance + epsilon) * params["scale"] + params["bias"]
    return out


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def activate(z, name):
    if name == "relu":
        return np.maximum(z, 0.0)
    if name == "gelu_tanh":
        return 0.5 * z * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (z + 0.044715 * z**3)))
    return 0.5 * z * (1.0 + erf(z / np.sqrt(2.0)))


def self_attention(params, x, num_heads):
    q, k, v = np.split(dense(params["qkv"], x), 3, axis=1)
    size = x.shape[1] // num_heads
    out = np.zeros_like(x)
    for head in range(num_heads):
        columns = slice(head * size, (head + 1) * size)
        for t in range(len(x)):
            alpha = softmax(np.array([q[t, columns] @ k[s, columns] for s in range(len(x))]) / np.sqrt(size))
            for s in range(len(x)):
                out[t, columns] += alpha[s] * v[s, columns]
    return dense(params["output"], out)


def window_states(params, ids, architecture):
    """The states of the tokens of one window, without those of the first and last token that are put around it."""
    ids = [architecture.first_id, *ids, architecture.last_id]
    embedding, epsilon = params["embedding"], architecture.norm_epsilon
    x = layer_norm(embedding["norm"], embedding["words"][ids] + embedding["positions"][: len(ids)], epsilon)
    for i in range(architecture.num_layers):
        attention, feed_forward = params[f"layer_{i:02d}"]["attention"], params[f"layer_{i:02d}"]["feed_forward"]
        attended = x + self_attention(attention, x, architecture.num_heads)
        x = layer_norm(attention["norm"], attended, epsilon)
        hidden = activate(dense(feed_forward["inner"], x), architecture.activation)
        x = layer_norm(feed_forward["norm"], x + dense(feed_forward["output"], hidden), epsilon)
    return x[1:-1]


def windows(length, largest):
    """First and last + 1 token of each window of a text; neighbours share a quarter of the largest window."""
    if length <= largest:
        return [(0, length)]
    out = [(0, largest)]
    while out[-1][1] < length:
        start = out[-1][0] + largest - largest // 4
        out.append((start, min(start + largest, length)))
    return out


def windows_of_tokens(spans):
    """The window in which each token of a text is farthest from where the text is cut; of two, the later."""
    length = spans[-1][1]

    def distance(t, start, end):
        before = np.inf if start == 0 else t - start
        after = np.inf if end == length else end - 1 - t
        return min(before, after)

    out = []
    for t in range(length):
        holds = [i for i, (start, end) in enumerate(spans) if start <= t < end]
        out.append(max(holds, key=lambda i: (distance(t, *spans[i]), i)))
    return out


def document_states(params, ids, architecture, largest):
    """The state of each token from the window in which it is farthest from where the text is cut."""
    spans = windows(len(ids), largest)
    states = [window_states(params, ids[start:end], architecture) for start, end in spans]
    out = np.zeros((len(ids), architecture.hidden_size))
    for t, window in enumerate(windows_of_tokens(spans)):
        out[t] = states[window][t - spans[window][0]]
    return out


def transformer(params, token_ids, lengths, architecture, window):
    """Eq. 1; states beyond the length are zero."""
    largest = min(window, architecture.num_positions) - 2
    out = np.zeros((*token_ids.shape, architecture.hidden_size))
    for b, length in enumerate(lengths):
        if length:
            out[b, :length] = document_states(params, list(token_ids[b, :length]), architecture, largest)
    return out
