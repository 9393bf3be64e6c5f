"""The metrics of a ranking in plain loops over documents and labels, in float64, from their definitions.

`tops` holds the ranked label ids of each document (-1: no prediction), `truths` the set of its labels. Metrics are
percentages.
"""

import numpy as np


def precision_at_k(tops, truths, k):
    total = np.float64(0)
    for top, truth in zip(tops, truths, strict=True):
        total += sum(1 for label in top[:k] if label in truth) / k
    return 100 * total / len(tops) if len(tops) else 0.0


def recall_at_k(tops, truths, k):
    total = np.float64(0)
    for top, truth in zip(tops, truths, strict=True):
        if truth:
            total += sum(1 for label in top[:k] if label in truth) / len(truth)
    return 100 * total / len(tops) if len(tops) else 0.0


def r_precision_at_k(tops, truths, k):
    total = np.float64(0)
    for top, truth in zip(tops, truths, strict=True):
        if truth:
            total += len(set(top[:k]) & set(truth)) / min(k, len(truth))
    return 100 * total / len(tops) if len(tops) else 0.0


def ndcg_at_k(tops, truths, k):
    total = np.float64(0)
    for top, truth in zip(tops, truths, strict=True):
        gain = best = np.float64(0)
        for j in range(1, k + 1):
            if top[j - 1] in truth:
                gain += 1 / np.log2(j + 1)
        for j in range(1, min(k, len(truth)) + 1):
            best += 1 / np.log2(j + 1)
        if best > 0:
            total += gain / best
    return 100 * total / len(tops) if len(tops) else 0.0


def inverse_propensity(counts, num_documents, a, b):
    c = (np.log(num_documents) - 1) * (b + 1) ** a if num_documents > np.e else 0.0
    return [1 + c / np.float64(count + b) ** a for count in counts]


def psp_at_k(tops, truths, q, k):
    attained = attainable = np.float64(0)
    for top, truth in zip(tops, truths, strict=True):
        attained += sum(q[label] for label in top[:k] if label in truth)
        attainable += sum(sorted((q[label] for label in truth), reverse=True)[:k])
    return 100 * attained / attainable if attainable > 0 else 0.0


def macro_precision_at_k(tops, truths, num_labels, k):
    precisions = []
    for label in range(num_labels):
        correct = predicted = 0
        for top, truth in zip(tops, truths, strict=True):
            if label in top[:k]:
                predicted += 1
                correct += label in truth
        precisions.append(100 * correct / predicted if predicted else 0.0)
    return np.array(precisions)


def expected_calibration_error(tops, probabilities, truths, places=5, num_bins=15):
    rights, sums = [[] for _ in range(num_bins)], [[] for _ in range(num_bins)]
    for top, listed, truth in zip(tops, probabilities, truths, strict=True):
        for label, probability in list(zip(top, listed, strict=True))[:places]:
            if label >= 0:
                place = 0
                while place < num_bins - 1 and probability > np.float32((place + 1) / num_bins):
                    place += 1
                rights[place].append(label in truth)
                sums[place].append(np.float64(probability))
    total = sum(map(len, rights))
    error = np.float64(0)
    for right, each in zip(rights, sums, strict=True):
        if right:
            error += len(right) / total * abs(np.mean(right) - np.mean(each))
    return 100 * error


def bin_means(per_label, counts, bin_size):
    order = sorted(range(len(counts)), key=lambda label: (-counts[label], label))
    means = []
    while order:
        labels, order = order[:bin_size], order[bin_size:]
        means.append(sum(per_label[label] for label in labels) / len(labels))
    return np.array(means)


def evaluate(tops, truths, counts, num_documents, a=0.55, b=1.5):
    """All metrics; `counts` holds the training documents of every label, 0 for labels that are not in training."""
    values = {}
    for k in (1, 3, 5):
        values[f"P@{k}"] = precision_at_k(tops, truths, k)
        values[f"N@{k}"] = ndcg_at_k(tops, truths, k)
        values[f"R@{k}"] = recall_at_k(tops, truths, k)
        values[f"RP@{k}"] = r_precision_at_k(tops, truths, k)
        values[f"PSP@{k}"] = psp_at_k(tops, truths, inverse_propensity(counts, num_documents, a, b), k)
    per_label = macro_precision_at_k(tops, truths, len(counts), 5)
    values["macro_P@5"] = per_label.mean() if len(counts) else 0.0
    return values


def evaluate_group(tops, group_tops, truths, group, counts, num_documents):
    """All metrics of the labels in the set `group`, over documents that have one of them."""
    kept = [(top, truth & group) for top, truth in zip(group_tops, truths, strict=True) if truth & group]
    values = evaluate([top for top, _ in kept], [truth for _, truth in kept], counts, num_documents)
    per_label = macro_precision_at_k(tops, truths, len(counts), 5)
    values["macro_P@5"] = np.mean([per_label[label] for label in sorted(group)]) if group else 0.0
    return values
