import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.model import attention, classifier
from lsfa_jax.model.label_loss import LabelTables, Targets, TileSize, Tokens, loss, scores
from tests.reference import classifier as reference_classifier
from tests.reference import encoder as reference_encoder
from tests.reference.agreement import assert_agrees, optimized_jit


def make(B, T, D, L, K=3, H=3, weights="per_label", bias=True, head=True, weighted=False, seed=0):
    """Inputs; if B is large enough, with a document without tokens, one without labels and one that is padding."""
    random = np.random.default_rng([seed, B, T, L])

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)

    lengths = random.integers(0, T + 1, B)
    lengths[0] = T
    lengths[1:2] = 0
    num_rows = L if weights == "per_label" else 1
    trained = {
        "states": normal(B, T, 2 * H) * (np.arange(T) < lengths[:, None])[..., None],
        "queries": normal(L, 2 * H),
        "weights": normal(num_rows, D if head else 2 * H),
    }
    trained |= {"bias": normal(num_rows)} if bias else {}
    trained |= {"head": {"kernel": normal(2 * H, D), "bias": normal(D)}} if head else {}
    label_ids = np.stack([random.permutation(max(L, K))[:K] for _ in range(B)])
    label_mask = (label_ids < L) & (random.random((B, K)) < 0.7)
    label_mask[2:3] = False
    label_ids = np.where(label_mask, label_ids, 0).astype(np.int32)
    targets = Targets(label_ids, label_mask, np.arange(B) < max(1, B - 1))
    return trained, lengths, targets, random.uniform(0.0, 3.0, L).astype(np.float32) if weighted else None


def inputs(trained, lengths, dtype):
    states, head = trained["states"], trained.get("head")
    mask = attention.token_mask(lengths, states.shape[1])
    tokens = Tokens(states, attention.project_tokens(states, head, dtype), mask)
    return tokens, head and head["bias"], LabelTables(trained["queries"], trained["weights"], trained.get("bias"))


def tiled(trained, lengths, targets, label_weights, tile_size, dtype=jnp.float32):
    return loss(*inputs(trained, lengths, dtype), targets, tile_size, dtype, label_weights)


def tiled_scores(trained, lengths, tile_size):
    return scores(*inputs(trained, lengths, jnp.float32), tile_size)


def reference(trained, lengths, targets, label_weights):
    features = reference_encoder.label_features(trained["states"], lengths, trained["queries"], trained.get("head"))
    logits = reference_classifier.scores(features, trained["weights"], trained.get("bias"))
    rows = zip(targets.label_ids, targets.label_mask, targets.document_mask, strict=True)
    label_sets = [set(ids[mask].tolist()) if is_document else None for ids, mask, is_document in rows]
    return reference_classifier.binary_cross_entropy(logits, label_sets, label_weights)


def dense_scores(trained, lengths):
    """The same logits without tiles."""
    tokens, head_bias, (queries, weights, bias) = inputs(trained, lengths, jnp.float32)
    alpha = attention.label_attention(tokens.states, tokens.mask, queries)
    return classifier.scores(attention.label_features(alpha, tokens.values, head_bias), weights, bias)


def dense(trained, lengths, targets, label_weights):
    """The same loss without tiles, for automatic differentiation."""
    logits = dense_scores(trained, lengths)
    y = jnp.zeros(logits.shape).at[np.arange(len(lengths))[:, None], targets.label_ids].max(targets.label_mask)
    weights = targets.document_mask[:, None] * (1.0 if label_weights is None else label_weights)
    return jnp.sum(weights * (jax.nn.softplus(logits) - y * logits))


@pytest.mark.parametrize(
    ("shape", "tile_size"),
    [
        ({"B": 4, "T": 3, "D": 2, "L": 5}, TileSize(2, 6)),
        ({"B": 4, "T": 3, "D": 2, "L": 5, "weighted": True, "bias": False}, TileSize(3, 1)),
        ({"B": 3, "T": 2, "D": 2, "L": 4, "weights": "shared"}, TileSize(2, 0)),
        ({"B": 3, "T": 2, "D": 2, "L": 4, "weights": "shared", "bias": False, "head": False}, TileSize(3, 2)),
        ({"B": 2, "T": 3, "D": 2, "L": 3, "head": False}, TileSize(8, 6)),
        ({"B": 1, "T": 1, "D": 1, "L": 1}, TileSize(4, 4)),
    ],
    ids=["tiles", "weighted", "shared", "shared, no head", "no head, one block", "one of everything"],
)
def test_value_and_gradients_are_equations_2_to_6(shape, tile_size):
    trained, *fixed = make(**shape)
    assert_agrees(
        lambda trained: tiled(trained, *fixed, tile_size),
        lambda trained: np.array(reference(trained, *fixed)),
        trained,
    )


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(
    B=st.integers(1, 5), T=st.integers(1, 6), D=st.integers(1, 5), L=st.integers(1, 9), K=st.integers(1, 4),
    block=st.integers(1, 10), max_tokens=st.integers(0, 20), weights=st.sampled_from(["per_label", "shared"]),
    bias=st.booleans(), head=st.booleans(), weighted=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_tiles_agree_with_dense_arrays(B, T, D, L, K, block, max_tokens, weights, bias, head, weighted, seed):
    trained, *fixed = make(B, T, D, L, K, 3, weights, bias, head, weighted, seed)
    tile_size = TileSize(block, max_tokens)
    value, gradients = jax.jit(jax.value_and_grad(tiled), static_argnums=4)(trained, *fixed, tile_size)
    expected, expected_gradients = jax.jit(jax.value_and_grad(dense))(trained, *fixed)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(gradients, expected_gradients, rtol=1e-4, atol=1e-5)
    # The program without gradients gives the same sum.
    np.testing.assert_allclose(jax.jit(tiled, static_argnums=4)(trained, *fixed, tile_size), value, rtol=1e-6)
    logits = jax.jit(tiled_scores, static_argnums=2)(trained, fixed[0], tile_size)
    np.testing.assert_allclose(logits, jax.jit(dense_scores)(trained, fixed[0]), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["states", "queries", "weights", "bias", "head"])
def test_the_gradient_of_a_single_input_equals_its_part_of_the_full_gradient(name):
    trained, *fixed = make(4, 3, 2, 5)

    def of_input(value):
        return tiled(trained | {name: value}, *fixed, TileSize(2, 6))

    expected = jax.grad(tiled)(trained, *fixed, TileSize(2, 6))[name]
    chex.assert_trees_all_close(jax.grad(of_input)(trained[name]), expected, rtol=1e-6)


@pytest.mark.slow
def test_batches_of_one_shape_share_one_program_whatever_their_lengths_and_labels():
    chex.clear_trace_counter()
    traced_once = chex.assert_max_traces(lambda *arguments: tiled(*arguments, TileSize(2, 6)), n=1)
    gradients, expected = jax.jit(jax.grad(traced_once)), jax.jit(jax.grad(dense))
    for seed in range(3):
        arguments = make(4, 3, 2, 5, seed=seed)
        chex.assert_trees_all_close(gradients(*arguments), expected(*arguments), rtol=1e-4, atol=1e-5)


def num_operations(shape, *names):
    """Floating-point operations of the loss with the gradients of the named inputs."""

    trained, *fixed = shape

    def loss(differentiated):
        # A single tile: XLA's cost analysis counts the body of a loop once.
        return tiled(trained | differentiated, *fixed, TileSize(64, 0))

    compiled = optimized_jit(jax.grad(loss)).lower({name: trained[name] for name in names}).compile()
    return compiled.cost_analysis()["flops"]


def test_gradients_of_classifiers_only_skip_the_backward_pass_of_attention():
    shape = make(4, 32, 16, 64, H=16)
    # Two of six products of the size B T L remain.
    assert num_operations(shape, "weights") < 0.45 * num_operations(shape, "weights", "queries", "states", "head")


@pytest.mark.slow
def test_temporary_memory_is_that_of_blocks_and_not_of_all_labels():
    trained, *fixed = make(4, 64, 16, 4096, H=16)

    def temporary(loss):
        lowered = optimized_jit(jax.value_and_grad(loss)).lower(trained, *fixed)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(lambda *inputs: tiled(*inputs, TileSize(256, 64))) < temporary(dense) / 12


@pytest.mark.slow
def test_bfloat16_products_stay_close():
    trained, *fixed = make(4, 8, 8, 16, H=8)
    exact, rounded = (
        jax.value_and_grad(tiled)(trained, *fixed, TileSize(4, 16), x) for x in (jnp.float32, jnp.bfloat16)
    )
    np.testing.assert_allclose(rounded[0], exact[0], rtol=0.01)

    def close(a, b):
        assert a.dtype == b.dtype == jnp.float32
        assert 0 < np.linalg.norm(np.asarray(a) - b) < 0.03 * np.linalg.norm(b)

    jax.tree.map(close, rounded[1], exact[1])


@pytest.mark.slow
def test_extreme_logits_stay_finite():
    trained, *fixed = make(4, 3, 2, 5)
    trained["bias"] = np.array([1e4, -1e4, 1e30, -1e30, 0], np.float32)
    value, gradients = jax.value_and_grad(tiled)(trained, *fixed, TileSize(2, 6))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradients))


@given(B=st.integers(1, 40), T=st.integers(1, 600), tokens=st.integers(0, 2000), shards=st.integers(1, 4))
def test_a_tile_has_as_many_documents_as_its_bound_allows(B, T, tokens, shards):
    G = TileSize(1, tokens, shards).num_documents(B, T)
    assert B % G == 0
    if tokens == 0:
        assert G == B
    elif B % shards == 0:
        assert G % shards == 0
        assert tokens >= G * T or shards == G
        larger = [n for n in range(G + 1, B + 1) if B % n == 0 and n % shards == 0]
        assert all(n * T > tokens for n in larger)


def test_blocks_are_even():
    """Nine labels in blocks of at most four: three blocks of three, without padding."""
    shape = make(1, 2, 2, 9)
    text = jax.make_jaxpr(lambda trained: tiled(trained, *shape[1:], TileSize(4, 0)))(shape[0]).pretty_print()
    assert "f32[3,3,6]" in text  # queries in blocks
    assert "f32[3,4,6]" not in text
