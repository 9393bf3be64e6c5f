"""Compiled sums of the model, training and evaluation against NumPy in float64, at sizes around vectors and blocks.

A compiler can get a sum wrong at some sizes only, and then often in the last rows: values are compared element by
element, and losses, which are sums over rows, once more with all rows but the last masked; gradients along all rows,
and along the last one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax.data.batches import Batch
from lsfa_jax.evaluation import scorer
from lsfa_jax.evaluation.thresholded import GRID
from lsfa_jax.model import (
    attention,
    augmentation,
    classifier,
    contrastive,
    label_loss,
    prototypes,
    pvae,
    shortlist,
)
from lsfa_jax.model.encoders import bilstm
from lsfa_jax.training import optimizer
from tests import training_corpus
from tests.reference.agreement import optimized_jit
from tests.reference.inputs import normal

SIZES = [33, 32_769]
D, L, T, Z = 5, 3, 2, 4


def last(n):
    return np.arange(n) == n - 1


def masks(n):
    """All rows; the last row alone."""
    return [np.ones(n, bool), last(n)]


def label_ids(n):
    return (np.arange(n) % L).astype(np.int32)


def softplus(x):
    return np.logaddexp(0.0, x)


def log_sum_exp(x, axis):
    return np.logaddexp.reduce(x, axis=axis)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def scores(n):
    def reference(features, weights, bias):
        return np.einsum("nld,ld->nl", features, weights) + bias

    return classifier.scores, reference, (normal(n, L, D), normal(L, D), normal(L))


def scores_of_one_document(n):
    """One document, n labels."""
    return (
        lambda f, w: classifier.scores(f, w),
        lambda f, w: np.einsum("bld,ld->bl", f, w),
        (normal(1, n, D), normal(n, D, seed=1)),
    )


def cross_entropy(n):
    ids, is_label = label_ids(n)[:, None], (np.arange(n) % 2 == 0)[:, None]

    def function(logits):
        return jnp.stack([classifier.binary_cross_entropy(logits, ids, is_label, mask) for mask in masks(n)])

    def reference(logits):
        rows = softplus(logits).sum(axis=1) - np.take_along_axis(logits, ids, axis=1)[:, 0] * is_label[:, 0]
        return [rows[mask].sum() for mask in masks(n)]

    return function, reference, (normal(n, L),)


def tiled_loss(n):
    """Eq. 2-6 of two documents and n labels, in blocks."""
    ids = np.array([[n - 1], [0]], np.int32)
    targets = label_loss.Targets(ids, np.ones((2, 1), bool), np.ones(2, bool))
    weights = [np.ones(n, np.float32), last(n).astype(np.float32)]

    def function(states, values, queries, rows):
        tokens = label_loss.Tokens(states, values, np.ones((2, T), bool))
        tables = label_loss.LabelTables(queries, rows, None)
        size = label_loss.TileSize(4096, 0)
        return jnp.stack([label_loss.loss(tokens, None, tables, targets, size, label_weights=w) for w in weights])

    def reference(states, values, queries, rows):
        alpha = softmax(np.einsum("bth,lh->blt", states, queries))
        logits = np.einsum("blt,btd,ld->bl", alpha, values, rows)
        terms = softplus(logits) - logits * (ids == np.arange(n))
        return [(terms * w).sum() for w in weights]

    return function, reference, (normal(2, T, Z), normal(2, T, D), normal(n, Z), normal(n, D))


def generated_loss(n):
    def function(features, weights, bias):
        return jnp.stack([augmentation.augmented_loss(features, weights, bias, mask) for mask in masks(n)])

    def reference(features, weights, bias):
        rows = softplus(-np.sum(features * weights, axis=1) - bias)
        return [rows[mask].sum() for mask in masks(n)]

    return function, reference, (normal(n, D), normal(n, D, seed=1), normal(n))


def normalized(n):
    return contrastive.l2_normalize, unit, (normal(n, D),)


def psc(features, centres, ids):
    similarity = unit(features) @ unit(centres).T / 0.5
    return log_sum_exp(similarity, axis=1) - np.take_along_axis(similarity, ids[:, None], axis=1)[:, 0]


def prototypical(n):
    ids, centres = jnp.asarray(label_ids(n)), normal(L, D, seed=2)

    def function(features):
        def loss(features, ids, mask):
            return contrastive.prototypical_contrastive(features, ids, mask, centres, jnp.ones(L, bool), 0.5)

        plain = [loss(features, ids, jnp.asarray(mask)) for mask in masks(n)]
        return jnp.stack([*plain, contrastive.sum_over_pairs(loss, features, ids, jnp.ones(n, bool))])

    def reference(features):
        rows = psc(features, np.float64(centres), label_ids(n))
        return [rows.sum(), rows[-1], rows.sum()]

    return function, reference, (normal(n, D),)


def prototypical_of_many_labels(n):
    """One pair, n labels."""
    centres, ids = normal(n, D, seed=2), np.array([n - 1], np.int32)

    def function(features):
        return contrastive.prototypical_contrastive(features, ids, np.ones(1, bool), centres, np.ones(n, bool), 0.5)

    return function, lambda features: psc(features, np.float64(centres), ids)[0], (normal(1, D),)


def supervised(n):
    # Its time and memory grow with n^2.
    n = min(n, 1000)
    ids = label_ids(n)

    def function(features):
        return contrastive.supervised_contrastive(features, ids, np.ones(n, bool), 0.5)

    def reference(features):
        similarity = unit(features) @ unit(features).T / 0.5
        np.fill_diagonal(similarity, -1e30)
        log_softmax = similarity - log_sum_exp(similarity, axis=1)[:, None]
        positive = (ids[:, None] == ids) & ~np.eye(n, dtype=bool)
        return -(np.where(positive, log_softmax, 0).sum(axis=1) / np.maximum(positive.sum(axis=1), 1)).sum()

    return function, reference, (normal(n, D),)


def kl_divergences(n):
    def reference(mu, log_variance):
        return 0.5 * (np.exp(log_variance) + mu**2 - 1 - log_variance).sum(axis=1)

    return pvae.kl_divergence, reference, (normal(n, Z), normal(n, Z, seed=1))


def elbo(n):
    def function(*arrays):
        return jnp.stack([pvae.negative_elbo(*arrays, mask) for mask in masks(n)])

    def reference(features, reconstruction, mu, log_variance):
        errors = ((features - reconstruction) ** 2).mean(axis=1)
        kl = 0.5 * (np.exp(log_variance) + mu**2 - 1 - log_variance).sum(axis=1)
        return [D / 2 * np.log(errors[mask].mean() + 1e-8) + kl[mask].mean() for mask in masks(n)]

    return function, reference, (normal(n, D), normal(n, D, seed=1), normal(n, Z), normal(n, Z, seed=1))


def attended(documents, tokens, labels):
    """Eq. 2-4."""

    def function(states, queries, values):
        alpha = attention.label_attention(states, np.ones(states.shape[:2], bool), queries)
        return attention.label_features(alpha, values, None)

    def reference(states, queries, values):
        return np.einsum("blt,btd->bld", softmax(np.einsum("bth,lh->blt", states, queries)), values)

    return function, reference, (normal(documents, tokens, Z), normal(labels, Z), normal(documents, tokens, D))


def sums_by_label(n):
    def function(features):
        out = []
        for mask in masks(n):
            sums = prototypes.feature_sums(features, label_ids(n), mask, L)
            out += [*sums, prototypes.prototypes(sums), prototypes.variances(sums)]
        return jnp.concatenate([jnp.ravel(x).astype(jnp.float32) for x in out])

    def reference(features):
        out = []
        for mask in masks(n):
            members = [features[mask & (label_ids(n) == label)] for label in range(L)]
            counts = np.array([len(rows) for rows in members])
            totals = np.array([rows.sum(axis=0) for rows in members])
            squares = np.array([(rows**2).sum() for rows in members])
            means = totals / np.maximum(counts, 1)[:, None]
            variances = [np.var(rows, axis=0, ddof=1).sum() if len(rows) > 1 else 0.0 for rows in members]
            out += [totals, counts, squares, means, variances]
        return np.concatenate([np.ravel(x) for x in out])

    return function, reference, (normal(n, D),)


def clipped(n):
    """The second of two gradients, which is clipped at half the norm of the first."""

    def function(w, b):
        clip = optimizer.clip_by_running_norm(0.5)
        small = {"w": w / n, "b": b / n}
        _, state = clip.update(small, clip.init(small))
        # The infinite norm of the start leaves the window after five steps.
        for _ in range(4):
            _, state = clip.update(small, state)
        updates, state = clip.update({"w": w, "b": b}, state)
        return jnp.concatenate([jnp.ravel(updates["w"]), updates["b"], state.norms])

    def reference(w, b):
        norm = np.sqrt((w**2).sum() + (b**2).sum())
        small = min(norm / n, 1.0)
        scale = min(1.0, 0.5 * small / (norm + 1e-6))
        return np.concatenate([scale * w.ravel(), scale * b, [small, min(norm, 2 * small, 1.0), *[small] * 3]])

    return function, reference, (normal(n, D), normal(n))


def label_hardness(n):
    """Sums over n documents, then of n labels."""

    def function(logits):
        by_label = [shortlist.hardness(logits, mask) for mask in masks(n)]
        return jnp.concatenate([*by_label, shortlist.hardness(logits.T, np.ones(L, bool))])

    def reference(logits):
        return np.concatenate(
            [*(softplus(logits[mask]).sum(axis=0) for mask in masks(n)), softplus(logits).sum(axis=1)]
        )

    return function, reference, (normal(n, L),)


def recurrent(n):
    """Eq. 1 of n documents: the gradients of shared parameters are sums over documents."""

    def function(x, w_input, w_hidden, bias):
        direction = {"w_input": w_input, "w_hidden": w_hidden, "bias": bias, "h0": jnp.zeros(L), "c0": jnp.zeros(L)}
        return bilstm.bilstm({"forward": direction, "backward": direction}, x, np.full(n, T, np.int32))

    def reference(x, w_input, w_hidden, bias):
        def sigmoid(z):
            return 1 / (1 + np.exp(-z))

        def states(tokens):
            h = c = np.zeros((n, L))
            for token in tokens:
                i, f, g, o = np.split(token @ w_input + h @ w_hidden + bias, 4, axis=1)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
                yield h

        tokens = list(x.swapaxes(0, 1))
        both = np.stack(list(states(tokens))), np.stack(list(states(tokens[::-1])))[::-1]
        return np.concatenate(both, axis=-1).swapaxes(0, 1)

    return function, reference, (normal(n, T, D), normal(D, 4 * L), normal(L, 4 * L), normal(4 * L))


CASES = {
    "scores": scores,
    "scores of one document": scores_of_one_document,
    "cross-entropy": cross_entropy,
    "cross-entropy in tiles": tiled_loss,
    "generated features": generated_loss,
    "normalization": normalized,
    "PSC": prototypical,
    "PSC of many labels": prototypical_of_many_labels,
    "SC": supervised,
    "KL divergence": kl_divergences,
    "ELBO": elbo,
    "hardness": label_hardness,
    "BiLSTM": recurrent,
    "attention, documents": lambda n: attended(n, T, L),
    "attention, tokens": lambda n: attended(1, n, L),
    "attention, labels": lambda n: attended(2, T, n),
    # Batches of products with a constant factor, which the gradient of a sum has.
    "attention, squares": lambda n: attended(5, min(n, 60), min(n, 60)),
}


def assert_close(actual, expected):
    # Relative to each element: one wrong element is seen beside larger ones.
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=2e-4, atol=2e-5)


def directions(arrays, n):
    """Directions for derivatives: all elements, and those of the last of n rows."""
    everywhere = [np.float64(normal(*x.shape, seed=3)) for x in arrays]
    yield everywhere
    if any(n in x.shape for x in arrays):
        index = [tuple(-1 if size == n else slice(None) for size in x.shape) for x in arrays]
        in_last = [np.zeros_like(x) for x in everywhere]
        for zeros, x, where in zip(in_last, everywhere, index, strict=True):
            if n in x.shape:
                zeros[where] = x[where]
        yield in_last


def assert_gradients(gradients, reference, arrays, n):
    """Asserts that the gradients of the sum of `reference` are right in some directions, by central differences."""
    step = 1e-5
    for direction in directions(arrays, n):
        above, below = (
            np.concatenate([np.ravel(x) for x in np.atleast_1d(reference(*moved))])
            for moved in ([x + sign * step * d for x, d in zip(arrays, direction, strict=True)] for sign in (1, -1))
        )
        terms = np.concatenate([np.ravel(np.float64(g) * d) for g, d in zip(gradients, direction, strict=True)])
        expected = np.sum(above - below) / (2 * step)
        np.testing.assert_allclose(terms.sum(), expected, rtol=0, atol=2e-4 * np.abs(terms).sum() + 1e-6)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_compiled_sums_and_gradients_are_those_of_numpy(case, n):
    function, reference, arrays = CASES[case](n)

    exact = [np.asarray(x, np.float64) for x in arrays]
    # Two programs: in one, values that gradients need are stored, and sums are compiled otherwise.
    assert_close(optimized_jit(function)(*arrays), reference(*exact))
    gradients = optimized_jit(jax.grad(lambda arrays: jnp.sum(function(*arrays))))(arrays)
    assert_gradients(gradients, reference, exact, n)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("case", [sums_by_label, clipped])
def test_compiled_sums_without_gradients_are_those_of_numpy(case, n):
    function, reference, arrays = case(n)
    assert_close(optimized_jit(function)(*arrays), reference(*(np.asarray(x, np.float64) for x in arrays)))


@pytest.mark.parametrize("n", SIZES)
def test_compiled_scores_counts_and_histogram_of_documents(n):
    model = training_corpus.make_model(training_corpus.config(), num_labels=L)
    params = training_corpus.init_params(model)
    ids, mask = label_ids(n)[:, None], np.ones((n, 1), bool)
    states = normal(n, T, model.encoder.state_size)
    batch = Batch(None, np.full(n, T, np.int32), ids, mask, np.ones(n, bool), np.arange(n, dtype=np.int32), states)
    score = optimized_jit(lambda *arguments: scorer.score_batch(model, L, *arguments))
    scored = score(params, batch, np.ones((1, L), bool), 0.5)
    top, best = np.asarray(scored.top[0]), np.asarray(scored.probabilities)
    probabilities = np.zeros((n, L), np.float32)
    np.put_along_axis(probabilities, top, best, axis=1)
    logits = optimized_jit(lambda s: model.apply({"params": params}, s, batch.lengths, method="scores"))(states)
    np.testing.assert_array_equal(top, np.argsort(-np.asarray(logits), axis=1, kind="stable"))

    reached = np.searchsorted(GRID, probabilities, side="right")
    true = np.take_along_axis(reached, ids, axis=1)
    expected = [np.bincount(x.ravel(), minlength=len(GRID) + 1) for x in (reached, true)]
    np.testing.assert_array_equal(scored.histogram, expected)
    right = np.bincount(ids[np.take_along_axis(probabilities, ids, axis=1) >= 0.5], minlength=L)
    np.testing.assert_array_equal(scored.counts, [(probabilities >= 0.5).sum(axis=0), right])
