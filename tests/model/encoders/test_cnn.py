import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax import config
from lsfa_jax.model.encoders import EncoderShape, cnn, make_encoder
from tests.reference import encoder as reference
from tests.reference.agreement import assert_agrees, assert_equal
from tests.reference.inputs import normal

B, T, E, F = 4, 6, 3, 4
RAGGED = np.array([6, 1, 0, 3], np.int32)
LENGTHS = st.lists(st.integers(0, T), min_size=B, max_size=B).map(lambda n: np.array(n, np.int32))


def cnn_params(width, blocks=0):
    def layer(size, seed):
        # Small enough that tanh does not saturate.
        return {"kernel": 0.3 * normal(width, size, F, seed=seed), "bias": 0.3 * normal(F, seed=seed)}

    names = [f"block_{i}_{part}" for i in range(blocks) for part in ("inner", "outer")]
    return {"convolution": layer(E, 1)} | {name: layer(F, seed) for seed, name in enumerate(names, 2)}


@pytest.mark.parametrize(
    ("num_tokens", "lengths", "width", "blocks"),
    [
        (T, RAGGED, 3, 0),
        (T, RAGGED, 4, 0),
        (T, RAGGED, 1, 0),
        (T, RAGGED, 9, 0),
        (T - 1, [5, 4, 0], 10, 0),
        (1, [1, 0], 8, 0),
        (2, [0, 0], 2, 0),
        (13, [13, 12, 2], 5, 0),
        (T, RAGGED, 3, 1),
        (T, RAGGED, 2, 2),
    ],
    ids=["odd", "even", "one word wide", "wider than the text", "wide, odd text", "one token or none", "all padding",
         "long", "one block", "two blocks"],
)  # fmt: skip
def test_cnn_is_equation_1_over_each_documents_length(num_tokens, lengths, width, blocks):
    lengths = np.array(lengths, np.int32)
    assert_agrees(
        lambda params, x: cnn.cnn(params, x, lengths),
        lambda params, x: reference.cnn(params, x, lengths),
        cnn_params(width, blocks),
        normal(len(lengths), num_tokens, E),
    )


@jax.jit
def states_and_gradients(params, x, lengths):
    states, pullback = jax.vjp(lambda params, x: cnn.cnn(params, x, lengths), params, x)
    return states, pullback(normal(B, T, F, seed=3))


@settings(deadline=None, max_examples=25)
@given(lengths=LENGTHS, scale=st.sampled_from([1.0, 1e4]))
def test_embeddings_beyond_the_length_change_no_state_and_no_gradient(lengths, scale):
    params, x = cnn_params(4, blocks=1), normal(B, T, E)
    beyond = np.arange(T)[None] >= lengths[:, None]
    garbage = np.where(beyond[..., None], scale * normal(B, T, E, seed=4), x)
    states, (d_params, d_x) = states_and_gradients(params, x, lengths)
    assert_equal(states_and_gradients(params, garbage, lengths), (states, (d_params, d_x)))
    assert not np.any(np.asarray(states)[beyond])
    assert not np.any(np.asarray(d_x)[beyond])
    assert np.all(np.any(np.asarray(states)[~beyond], axis=-1))


@pytest.mark.parametrize("length", [1, 4])
def test_padding_a_document_changes_none_of_its_states(length):
    params, x = cnn_params(5, blocks=1), normal(B, T, E)
    states = jax.jit(cnn.cnn)
    padded = states(params, x, np.full(B, length, np.int32))
    trimmed = states(params, x[:, :length], np.full(B, length, np.int32))
    np.testing.assert_allclose(padded[:, :length], trimmed, rtol=1e-6, atol=1e-6)


def test_the_settings_decide_the_sizes_of_the_cnn():
    settings = config.Encoder(kind="cnn", hidden_size=2, kernel_width=10, residual_blocks=1)
    encoder = make_encoder(settings, EncoderShape(vocabulary_size=7, embedding_size=3), jnp.float32)
    words, lengths = np.zeros((2, 5), np.int32), np.array([5, 2], np.int32)
    params = jax.jit(encoder.init)(jax.random.key(0), words, lengths)["params"]
    assert jax.tree.map(jnp.shape, params) == {
        "embedding": (7, 3),
        "convolution": {"kernel": (10, 3, 4), "bias": (4,)},
        "block_0_inner": {"kernel": (10, 4, 4), "bias": (4,)},
        "block_0_outer": {"kernel": (10, 4, 4), "bias": (4,)},
    }
    assert jax.jit(encoder.apply)({"params": params}, words, lengths).shape == (2, 5, encoder.state_size)


@pytest.mark.parametrize(("trainable", "has_gradient"), [("yes", True), ("after_collection", True), ("no", False)])
def test_word_vectors_have_a_gradient_unless_the_settings_freeze_them(trainable, has_gradient):
    settings = config.Encoder(kind="cnn", hidden_size=2, kernel_width=3, embedding_trainable=trainable)
    encoder = make_encoder(settings, EncoderShape(vocabulary_size=7, embedding_size=3), jnp.float32)
    words, lengths = np.arange(5)[None], np.array([5], np.int32)
    params = jax.jit(encoder.init)(jax.random.key(0), words, lengths)
    gradients = jax.jit(jax.grad(lambda params: jnp.sum(encoder.apply(params, words, lengths))))(params)["params"]
    assert np.any(gradients["embedding"]) == has_gradient
    assert np.any(gradients["convolution"]["kernel"])


def test_dropout_is_on_in_training_alone():
    settings = config.Encoder(kind="cnn", hidden_size=2, kernel_width=3)
    encoder = make_encoder(settings, EncoderShape(vocabulary_size=7, embedding_size=3), jnp.float32)
    words, lengths = np.arange(5)[None], np.array([5], np.int32)
    params = jax.jit(encoder.init)(jax.random.key(0), words, lengths)
    apply = jax.jit(encoder.apply, static_argnames="train")
    states = apply(params, words, lengths)
    dropped = apply(params, words, lengths, train=True, rngs={"dropout": jax.random.key(1)})
    assert np.all(states)
    assert not np.all(dropped)
