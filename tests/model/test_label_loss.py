import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.model import attention, classifier
from lsfa_jax.model.label_loss import Labels, Targets, Tile, Words, loss, scores
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
    label_ids = np.where(label_mask, label_ids, 0).astype(np.int32)
    targets = Targets(label_ids, label_mask, np.arange(B) < max(1, B - 1))
    return trained, lengths, targets, random.uniform(0.0, 3.0, L).astype(np.float32) if weighted else None


def inputs(trained, lengths, dtype):
    states, head = trained["states"], trained.get("head")
    words = Words(states, attention.project_tokens(states, head, dtype), attention.token_mask(lengths, states.shape[1]))
    return words, head and head["bias"], Labels(trained["queries"], trained["weights"], trained.get("bias"))


def ours(trained, lengths, targets, label_weights, tile, dtype=jnp.float32):
    return loss(*inputs(trained, lengths, dtype), targets, tile, dtype, label_weights)


def reference(trained, lengths, targets, label_weights):
    features = reference_encoder.label_features(trained["states"], lengths, trained["queries"], trained.get("head"))
    logits = reference_classifier.scores(features, trained["weights"], trained.get("bias"))
    rows = zip(targets.label_ids, targets.label_mask, targets.document_mask, strict=True)
    sets = [set(ids[mask].tolist()) if real else None for ids, mask, real in rows]
    return reference_classifier.binary_cross_entropy(logits, sets, label_weights)


def dense_scores(trained, lengths):
    """The same of whole arrays."""
    words, head_bias, (queries, weights, bias) = inputs(trained, lengths, jnp.float32)
    alpha = attention.label_attention(words.states, words.mask, queries)
    return classifier.scores(attention.label_features(alpha, words.values, head_bias), weights, bias)


def dense(trained, lengths, targets, label_weights):
    """The same of whole arrays, by automatic differentiation."""
    logits = dense_scores(trained, lengths)
    right = jnp.zeros(logits.shape).at[np.arange(len(lengths))[:, None], targets.label_ids].max(targets.label_mask)
    counts = targets.document_mask[:, None] * (1.0 if label_weights is None else label_weights)
    return jnp.sum(counts * (jax.nn.softplus(logits) - right * logits))


@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        ({"B": 4, "T": 3, "D": 2, "L": 5}, Tile(2, 6)),
        ({"B": 4, "T": 3, "D": 2, "L": 5, "weighted": True, "bias": False}, Tile(3, 1)),
        ({"B": 3, "T": 2, "D": 2, "L": 4, "weights": "shared"}, Tile(2, 0)),
        ({"B": 3, "T": 2, "D": 2, "L": 4, "weights": "shared", "bias": False, "head": False}, Tile(3, 2)),
        ({"B": 2, "T": 3, "D": 2, "L": 3, "head": False}, Tile(8, 6)),
        ({"B": 1, "T": 1, "D": 1, "L": 1}, Tile(4, 4)),
    ],
    ids=["tiles", "weighted", "shared", "shared, no head", "no head, one block", "one of everything"],
)
def test_value_and_gradients_are_equations_2_to_6(shape, tile):
    trained, *fixed = make(**shape)
    assert_agrees(
        lambda trained: ours(trained, *fixed, tile),
        lambda trained: np.array(reference(trained, *fixed)),
        trained,
    )


@settings(max_examples=10, deadline=None)
@given(
    B=st.integers(1, 5), T=st.integers(1, 6), D=st.integers(1, 5), L=st.integers(1, 9), K=st.integers(1, 4),
    block=st.integers(1, 10), at_a_time=st.integers(0, 20), weights=st.sampled_from(["per_label", "shared"]),
    bias=st.booleans(), head=st.booleans(), weighted=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_tiles_give_what_whole_arrays_give(B, T, D, L, K, block, at_a_time, weights, bias, head, weighted, seed):
    trained, *fixed = make(B, T, D, L, K, 3, weights, bias, head, weighted, seed)
    tile = Tile(block, at_a_time)
    value, gradients = jax.jit(jax.value_and_grad(ours), static_argnums=4)(trained, *fixed, tile)
    expected, expected_gradients = jax.jit(jax.value_and_grad(dense))(trained, *fixed)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradients, expected_gradients)
    # Without gradients the sum is the same.
    np.testing.assert_allclose(jax.jit(ours, static_argnums=4)(trained, *fixed, tile), value, rtol=1e-6)
    logits = scores(*inputs(trained, fixed[0], jnp.float32), tile)
    np.testing.assert_allclose(logits, dense_scores(trained, fixed[0]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["states", "queries", "weights", "bias", "head"])
def test_what_alone_is_trained_has_the_same_gradient(name):
    trained, *fixed = make(4, 3, 2, 5)

    def alone(one):
        return ours(trained | {name: one}, *fixed, Tile(2, 6))

    expected = jax.grad(ours)(trained, *fixed, Tile(2, 6))[name]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), jax.grad(alone)(trained[name]), expected)


def work(shape, *names):
    """Floating-point operations of the loss with the gradients of the named inputs."""

    trained, *fixed = shape

    def loss(chosen):
        # In one tile: the compiler counts a loop's body once.
        return ours(trained | chosen, *fixed, Tile(64, 0))

    compiled = jax.jit(jax.grad(loss)).lower({name: trained[name] for name in names}).compile()
    return compiled.cost_analysis()["flops"]


def test_classifiers_alone_cost_no_gradient_of_the_encoder():
    shape = make(4, 32, 16, 64, H=16)
    # Two products of the size B T L are left of six.
    assert work(shape, "weights") < 0.45 * work(shape, "weights", "queries", "states", "head")


def test_memory_holds_blocks_and_not_all_labels():
    trained, *fixed = make(4, 64, 16, 4096, H=16)

    def temporary(loss):
        lowered = jax.jit(jax.value_and_grad(loss)).lower(trained, *fixed)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(lambda *inputs: ours(*inputs, Tile(256, 64))) < temporary(dense) / 12


def test_bfloat16_products_stay_close():
    trained, *fixed = make(4, 8, 8, 16, H=8)
    exact, rounded = (jax.value_and_grad(ours)(trained, *fixed, Tile(4, 16), x) for x in (jnp.float32, jnp.bfloat16))
    np.testing.assert_allclose(rounded[0], exact[0], rtol=0.01)

    def close(a, b):
        assert a.dtype == b.dtype == jnp.float32
        assert 0 < np.linalg.norm(np.asarray(a) - b) < 0.03 * np.linalg.norm(b)

    jax.tree.map(close, rounded[1], exact[1])


def test_extreme_logits_stay_finite():
    trained, *fixed = make(4, 3, 2, 5)
    trained["bias"] = np.array([1e4, -1e4, 1e30, -1e30, 0], np.float32)
    value, gradients = jax.value_and_grad(ours)(trained, *fixed, Tile(2, 6))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradients))


@given(B=st.integers(1, 40), T=st.integers(1, 600), words=st.integers(0, 2000), shards=st.integers(1, 4))
def test_a_tile_takes_as_many_documents_as_its_bound_allows(B, T, words, shards):
    here = Tile(1, words, shards).documents(B, T)
    assert B % here == 0
    if words == 0:
        assert here == B
    elif B % shards == 0:
        assert here % shards == 0
        assert here * T <= words or here == shards
        larger = [n for n in range(here + 1, B + 1) if B % n == 0 and n % shards == 0]
        assert all(n * T > words for n in larger)


def test_blocks_are_even():
    """Nine labels, at most four at a time: three blocks of three, and no row is put in."""
    shape = make(1, 2, 2, 9)
    text = jax.make_jaxpr(lambda trained: ours(trained, *shape[1:], Tile(4, 0)))(shape[0]).pretty_print()
    assert "f32[3,3,6]" in text  # queries, as blocks
    assert "f32[3,4,6]" not in text
