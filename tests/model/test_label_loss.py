import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.model import classifier, encoder
from lsfa_jax.model.label_loss import Labels, Targets, label_loss
from tests.reference import classifier as reference_classifier
from tests.reference import encoder as reference_encoder
from tests.reference.agreement import assert_agrees


def make(B, T, D, L, K=3, H=3, weights="per_label", bias=True, head=True, weighted=False, seed=0):
    """Inputs with a document without words, one without labels and one that is padding, where there is room."""
    random = np.random.default_rng([seed, B, T, L])

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)

    lengths = random.integers(0, T + 1, B)
    lengths[0] = T
    lengths[1:2] = 0
    rows = L if weights == "per_label" else 1
    trained = {
        "states": normal(B, T, 2 * H) * (np.arange(T) < lengths[:, None])[..., None],
        "queries": normal(L, 2 * H),
        "weights": normal(rows, D if head else 2 * H),
    }
    trained |= {"bias": normal(rows)} if bias else {}
    trained |= {"head": {"kernel": normal(2 * H, D), "bias": normal(D)}} if head else {}
    label_ids = np.stack([random.permutation(max(L, K))[:K] for _ in range(B)])
    label_mask = (label_ids < L) & (random.random((B, K)) < 0.7)
    label_mask[2:3] = False
    targets = Targets(
        np.where(label_mask, label_ids, 0).astype(np.int32),
        label_mask,
        np.arange(B) < max(1, B - 1),
        random.uniform(0.0, 3.0, L).astype(np.float32) if weighted else None,
    )
    return trained, lengths, targets


def ours(trained, lengths, targets, block, dtype=jnp.float32):
    states, head = trained["states"], trained.get("head")
    return label_loss(
        states,
        encoder.project_words(states, head, dtype),
        encoder.word_mask(lengths, states.shape[1]),
        head and head["bias"],
        Labels(trained["queries"], trained["weights"], trained.get("bias")),
        targets,
        block,
        dtype,
    )


def reference(trained, lengths, targets):
    features = reference_encoder.label_features(trained["states"], lengths, trained["queries"], trained.get("head"))
    logits = reference_classifier.scores(features, trained["weights"], trained.get("bias"))
    rows = zip(targets.label_ids, targets.label_mask, targets.document_mask, strict=True)
    sets = [set(ids[mask].tolist()) if real else None for ids, mask, real in rows]
    return reference_classifier.binary_cross_entropy(logits, sets, targets.label_weights)


def dense(trained, lengths, targets):
    """The same of whole arrays, by automatic differentiation."""
    states, head = trained["states"], trained.get("head")
    words, mask = encoder.project_words(states, head), encoder.word_mask(lengths, states.shape[1])
    features = encoder.label_features(states, words, mask, trained["queries"], head)
    logits = classifier.scores(features, trained["weights"], trained.get("bias"))
    right = jnp.zeros(logits.shape).at[np.arange(len(states))[:, None], targets.label_ids].max(targets.label_mask)
    counts = targets.document_mask[:, None] * (1.0 if targets.label_weights is None else targets.label_weights)
    return jnp.sum(counts * (jax.nn.softplus(logits) - right * logits))


@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ({"B": 4, "T": 3, "D": 2, "L": 5}, 2),
        ({"B": 4, "T": 3, "D": 2, "L": 5, "weighted": True, "bias": False}, 3),
        ({"B": 3, "T": 2, "D": 2, "L": 4, "weights": "shared"}, 2),
        ({"B": 3, "T": 2, "D": 2, "L": 4, "weights": "shared", "bias": False, "head": False}, 3),
        ({"B": 2, "T": 3, "D": 2, "L": 3, "head": False}, 8),
        ({"B": 1, "T": 1, "D": 1, "L": 1}, 4),
    ],
    ids=["blocks", "weighted", "shared", "shared, no head", "no head, one block", "one of everything"],
)
def test_value_and_gradients_are_equations_2_to_6(shape, block):
    trained, lengths, targets = make(**shape)
    assert_agrees(
        lambda trained: ours(trained, lengths, targets, block),
        lambda trained: np.array(reference(trained, lengths, targets)),
        trained,
    )


@settings(max_examples=25, deadline=None)
@given(
    B=st.integers(1, 5), T=st.integers(1, 6), D=st.integers(1, 5), L=st.integers(1, 9), K=st.integers(1, 4),
    block=st.integers(1, 10), weights=st.sampled_from(["per_label", "shared"]), bias=st.booleans(), head=st.booleans(),
    weighted=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_blocks_give_what_whole_arrays_give(B, T, D, L, K, block, weights, bias, head, weighted, seed):
    trained, lengths, targets = make(B, T, D, L, K, 3, weights, bias, head, weighted, seed)
    value, gradients = jax.value_and_grad(ours)(trained, lengths, targets, block)
    expected, expected_gradients = jax.value_and_grad(dense)(trained, lengths, targets)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradients, expected_gradients)
    # Without gradients the sum is the same.
    np.testing.assert_allclose(ours(trained, lengths, targets, block), value, rtol=1e-6)


@pytest.mark.parametrize("name", ["states", "queries", "weights", "bias", "head"])
def test_what_alone_is_trained_has_the_same_gradient(name):
    trained, lengths, targets = make(4, 3, 2, 5)

    def alone(one):
        return ours(trained | {name: one}, lengths, targets, 2)

    expected = jax.grad(ours)(trained, lengths, targets, 2)[name]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), jax.grad(alone)(trained[name]), expected)


def work(trained, lengths, targets, *names):
    """Floating-point operations of the loss with the gradients of the named inputs."""

    def loss(chosen):
        return ours(trained | chosen, lengths, targets, 8)

    compiled = jax.jit(jax.grad(loss)).lower({name: trained[name] for name in names}).compile()
    return compiled.cost_analysis()["flops"]


def test_classifiers_alone_cost_no_gradient_of_the_encoder():
    shape = make(4, 32, 16, 64, H=16)
    # Two products of the size B T L are left of six.
    assert work(*shape, "weights") < 0.45 * work(*shape, "weights", "queries", "states", "head")


def test_memory_holds_blocks_and_not_all_labels():
    trained, lengths, targets = make(4, 64, 16, 4096, H=16)

    def temporary(loss):
        lowered = jax.jit(jax.value_and_grad(loss)).lower(trained, lengths, targets)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(lambda *inputs: ours(*inputs, 256)) < temporary(dense) / 6


def test_bfloat16_products_stay_close():
    trained, lengths, targets = make(4, 8, 8, 16, H=8)
    exact, rounded = (jax.value_and_grad(ours)(trained, lengths, targets, 4, x) for x in (jnp.float32, jnp.bfloat16))
    np.testing.assert_allclose(rounded[0], exact[0], rtol=0.01)

    def close(a, b):
        assert a.dtype == b.dtype == jnp.float32
        assert 0 < np.linalg.norm(np.asarray(a) - b) < 0.03 * np.linalg.norm(b)

    jax.tree.map(close, rounded[1], exact[1])


def test_extreme_logits_stay_finite():
    trained, lengths, targets = make(4, 3, 2, 5)
    trained["bias"] = np.array([1e4, -1e4, 1e30, -1e30, 0], np.float32)
    value, gradients = jax.value_and_grad(ours)(trained, lengths, targets, 2)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradients))
