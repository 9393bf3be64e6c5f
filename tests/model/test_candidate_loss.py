import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax.model import attention, candidate_loss, label_loss
from lsfa_jax.model.contrastive import candidate_contrastive, prototypical_contrastive
from lsfa_jax.model.label_loss import LabelTables, Targets, TileSize, Tokens
from tests.reference import candidates as reference
from tests.reference import classifier as reference_classifier
from tests.reference import encoder as reference_encoder
from tests.reference.agreement import assert_agrees
from tests.reference.inputs import normal

TILE_SIZE = TileSize(3, 4)


def make(B, T, D, L, K, R, H=3, weights="per_label", bias=True, head=True):
    """Parameters and documents: the second has no tokens, the third no labels, the fourth no candidates.

    The last is padding where there is more than one.
    """
    random = np.random.default_rng([B, T, L, K])
    lengths = random.integers(1, T + 1, B)
    lengths[0], lengths[1:2] = T, 0
    rows, size = (L if weights == "per_label" else 1), (D if head else 2 * H)
    trained = {
        "states": normal(B, T, 2 * H) * (np.arange(T) < lengths[:, None])[..., None],
        "queries": normal(L, 2 * H, seed=1),
        "weights": normal(rows, size, seed=2),
    }
    trained |= {"bias": normal(rows, seed=3)} if bias else {}
    trained |= {"head": {"kernel": normal(2 * H, D, seed=4), "bias": normal(D, seed=5)}} if head else {}

    candidates = np.full((B, K), -1, np.int32)
    num_positive = np.zeros(B, np.int32)
    for document in set(range(B)) - {3}:
        number = random.integers(1, min(K, L) + 1)
        candidates[document, :number] = random.permutation(L)[:number]
        num_positive[document] = 0 if document == 2 else random.integers(1, number + 1)
    is_document = np.arange(B) < max(1, B - 1)
    labels = candidates, random.permutation(L)[:R].astype(np.int32), num_positive, is_document
    return trained, lengths, labels


def inputs(trained, lengths, dtype=jnp.float32):
    states, head = trained["states"], trained.get("head")
    mask = attention.token_mask(lengths, states.shape[1])
    tokens = Tokens(states, attention.project_tokens(states, head, dtype), mask)
    return tokens, head and head["bias"], LabelTables(trained["queries"], trained["weights"], trained.get("bias"))


def label_sets(candidates, num_positive, is_document):
    rows = zip(candidates, num_positive, is_document, strict=True)
    return [set(row[:number].tolist()) if real else None for row, number, real in rows]


def all_logits(trained, lengths):
    features = reference_encoder.label_features(trained["states"], lengths, trained["queries"], trained.get("head"))
    return reference_classifier.scores(features, trained["weights"], trained.get("bias"))


SHAPES = {
    "all cases": {"B": 5, "T": 3, "D": 2, "L": 7, "K": 3, "R": 3},
    "no bias, one in the sample": {"B": 5, "T": 2, "D": 2, "L": 5, "K": 2, "R": 1, "bias": False},
    "shared classifier": {"B": 4, "T": 2, "D": 2, "L": 5, "K": 3, "R": 2, "weights": "shared"},
    "shared classifier, no head": {"B": 3, "T": 3, "D": 2, "L": 5, "K": 2, "R": 4, "weights": "shared", "head": False},
    "fewer labels than candidates": {"B": 5, "T": 3, "D": 2, "L": 4, "K": 6, "R": 4, "head": False},
    "one of everything": {"B": 1, "T": 1, "D": 1, "L": 1, "K": 1, "R": 1},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_value_and_gradients_are_those_of_equations_2_to_6_with_weights(shape):
    trained, lengths, labels = make(**shape)
    candidates, sample, num_positive, is_document = labels
    sets = label_sets(candidates, num_positive, is_document)
    assert_agrees(
        lambda trained: candidate_loss.loss(*inputs(trained, lengths), *labels, TILE_SIZE)[0],
        lambda trained: np.array(
            reference.binary_cross_entropy(all_logits(trained, lengths), candidates, sets, sample)
        ),
        trained,
    )


def test_the_mean_over_all_samples_is_the_loss_over_all_labels():
    """Exactly: all samples are equally likely. The gradients, too."""
    trained, lengths, (candidates, _, num_positive, is_document) = make(B=5, T=3, D=2, L=6, K=3, R=2)
    samples = np.array(list(itertools.combinations(range(6), 2)), np.int32)

    def mean(trained):
        def estimate(sample):
            labels = candidates, sample, num_positive, is_document
            return candidate_loss.loss(*inputs(trained, lengths), *labels, TILE_SIZE)[0]

        return jnp.mean(jax.lax.map(estimate, samples))

    def exact(trained):
        mask = np.arange(3) < num_positive[:, None]
        targets = Targets(np.maximum(candidates, 0), mask, is_document)
        return label_loss.loss(*inputs(trained, lengths), targets, TILE_SIZE)

    value, gradients = jax.jit(jax.value_and_grad(mean))(trained)
    expected, expected_gradients = jax.jit(jax.value_and_grad(exact))(trained)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradients, expected_gradients)


@pytest.mark.parametrize("num_positive", [0, 2], ids=["no labels", "two labels"])
def test_a_document_with_all_labels_as_candidates_needs_no_sample(num_positive):
    trained, lengths, _ = make(B=1, T=3, D=2, L=4, K=6, R=1)
    candidates = np.array([[2, 0, 3, 1, -1, -1]], np.int32)
    mask = np.arange(6)[None] < num_positive
    targets = Targets(np.maximum(candidates, 0), mask, np.array([True]))
    labels = candidates, np.array([3, 0]), np.array([num_positive]), np.array([True])

    @jax.jit
    def losses(trained, lengths, targets, labels):
        tokens = inputs(trained, lengths)
        return candidate_loss.loss(*tokens, *labels, TILE_SIZE)[0], label_loss.loss(*tokens, targets, TILE_SIZE)

    actual, expected = losses(trained, lengths, targets, labels)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_scores_and_features_are_those_of_all_labels():
    trained, lengths, (candidates, *_) = make(B=5, T=4, D=2, L=7, K=3, R=2)
    features, logits = candidate_loss.scores(*inputs(trained, lengths), candidates)
    expected = reference_encoder.label_features(trained["states"], lengths, trained["queries"], trained["head"])
    for document, label in np.argwhere(candidates >= 0):
        column = candidates[document, label]
        np.testing.assert_allclose(features[document, label], expected[document, column], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            logits[document, label], all_logits(trained, lengths)[document, column], rtol=1e-5, atol=1e-6
        )


def test_bfloat16_products_are_near_float32():
    trained, lengths, labels = make(B=5, T=3, D=2, L=7, K=3, R=3)

    def loss(trained, dtype):
        return candidate_loss.loss(*inputs(trained, lengths, dtype), *labels, TILE_SIZE, dtype)[0]

    gradient = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    (value, gradients), (expected, expected_gradients) = (gradient(trained, x) for x in (jnp.bfloat16, jnp.float32))
    np.testing.assert_allclose(value, expected, rtol=0.02)
    assert value != expected
    for actual, exact in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
        assert np.linalg.norm(actual - exact) < 0.05 * np.linalg.norm(exact)


CONTRASTIVE = [
    (2.0, False, "all"),
    (0.1, True, "all"),
    (0.5, True, "exclude_positive"),
    (2.0, False, "double_positive"),
]


@pytest.mark.parametrize(("temperature", "normalize", "denominator"), CONTRASTIVE)
def test_the_contrastive_loss_is_equation_9_with_weights(temperature, normalize, denominator):
    _, _, (candidates, sample, num_positive, is_document) = make(B=6, T=2, D=2, L=7, K=4, R=3)
    prototypes, present = jnp.asarray(normal(7, 2)), jnp.arange(7) != candidates[0, 0]
    mask = (np.arange(3) < num_positive[:, None]) & is_document[:, None]
    sets = [set(row[:3][real].tolist()) for row, real in zip(candidates, mask, strict=True)]
    weights = candidate_loss.sample_weights(candidates, sample, 7)
    options = temperature, normalize, denominator
    assert_agrees(
        lambda features: candidate_contrastive(
            features, mask, prototypes, present, candidates, sample, weights, *options
        ),
        lambda features: np.array(
            reference.contrastive(
                features, candidates, sets, sample, np.asarray(prototypes, np.float64), np.asarray(present), *options
            )
        ),
        normal(6, 3, 2, seed=1),
    )


def test_the_contrastive_loss_with_all_labels_as_candidates_is_that_over_all_labels():
    random, L = np.random.default_rng(0), 6
    candidates = np.array([random.permutation(L) for _ in range(4)], np.int32)
    features, mask = normal(4, 2, 3), random.random((4, 2)) < 0.7
    prototypes, present = jnp.asarray(normal(L, 3)), jnp.arange(L) != 3
    weights = candidate_loss.sample_weights(candidates, np.array([1, 4]), L)
    over_candidates, over_all = (
        jax.jit(f, static_argnums=n) for f, n in ((candidate_contrastive, 7), (prototypical_contrastive, 5))
    )
    actual = over_candidates(features, mask, prototypes, present, candidates, np.array([1, 4]), weights, 0.3)
    pairs = features.reshape(-1, 3), candidates[:, :2].reshape(-1), mask.reshape(-1)
    np.testing.assert_allclose(actual, over_all(*pairs, prototypes, present, 0.3), rtol=1e-5)


def test_a_label_of_a_document_is_no_negative_of_it_although_it_is_in_the_sample():
    candidates, sample = np.array([[1, 4, -1]], np.int32), np.array([4, 0], np.int32)
    np.testing.assert_array_equal(candidate_loss.sample_weights(candidates, sample, 8), [[0.0, 4.0]])
