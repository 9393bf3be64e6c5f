import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.rnn import lstm_ref

from lsfa_jax.model.encoders import bilstm
from tests.reference import encoder as reference
from tests.reference.agreement import assert_agrees, assert_equal, value_and_gradients
from tests.reference.inputs import normal

B, T, E, H = 4, 6, 3, 2
LENGTHS = st.lists(st.integers(0, T), min_size=B, max_size=B).map(lambda n: np.array(n, np.int32))


def lstm_params(embedding_size, hidden_size):
    def direction(seed):
        return {
            "w_input": normal(embedding_size, 4 * hidden_size, seed=seed),
            "w_hidden": normal(hidden_size, 4 * hidden_size, seed=seed),
            "bias": normal(4 * hidden_size, seed=seed),
            "h0": normal(hidden_size, seed=seed),
            "c0": normal(hidden_size, seed=seed + 10),
        }

    return {"forward": direction(1), "backward": direction(2)}


@settings(deadline=None)
@given(st.floats(-20, 20, width=32))
def test_tanh_equals_numpy(z):
    np.testing.assert_allclose(bilstm.tanh(jnp.float32(z)), np.tanh(np.float64(z)), rtol=0, atol=4e-7)


def test_tanh_saturates_at_one_and_propagates_nan():
    z = np.float32([np.inf, -np.inf, 1e30, 0, np.nan])
    for compute in (bilstm.tanh, jax.jit(bilstm.tanh)):
        np.testing.assert_allclose(compute(z), [1, -1, 1, 0, np.nan], rtol=0, atol=4e-7)


@pytest.mark.parametrize(
    ("num_tokens", "lengths", "hidden_size"),
    [(T, [6, 1, 0, 3], H), (1, [1], 1), (1, [1, 0], 3), (2, [0, 0], H), (5, [5, 5, 5], 1), (30, [30, 29, 2], 4)],
    ids=["ragged", "one token", "one token or none", "all padding", "one unit", "long"],
)
def test_bilstm_is_equation_1_over_each_documents_length(num_tokens, lengths, hidden_size):
    lengths = np.array(lengths, np.int32)
    assert_agrees(
        lambda params, x: bilstm.bilstm(params, x, lengths),
        lambda params, x: reference.bilstm(params, x, lengths),
        lstm_params(E, hidden_size),
        normal(len(lengths), num_tokens, E),
    )


@pytest.mark.slow
def test_bilstm_equals_the_lstm_of_jax():
    num_documents, num_tokens, embedding_size, hidden_size = 3, 30, 7, 5
    lengths = np.array([30, 1, 17], np.int32)
    is_token = np.arange(num_tokens)[None, :, None] < lengths[:, None, None]

    def jax_lstm(params, x):
        directions = [params["forward"], params["backward"]]

        def weights(name):
            return {i: p[name].T for i, p in enumerate(directions)}

        def initial(name):
            return jnp.stack([jnp.broadcast_to(p[name], (num_documents, hidden_size)) for p in directions])

        no_bias = {i: jnp.zeros(4 * hidden_size) for i in range(2)}
        states, _, _ = lstm_ref(
            x,
            initial("h0"),
            initial("c0"),
            weights("w_input"),
            weights("w_hidden"),
            weights("bias"),
            no_bias,
            lengths,
            embedding_size,
            hidden_size,
            1,
            0.0,
            True,
        )
        return states * is_token

    arguments = lstm_params(embedding_size, hidden_size), normal(num_documents, num_tokens, embedding_size)
    expected, expected_gradients = value_and_gradients(jax_lstm, *arguments)
    value, gradients = value_and_gradients(lambda params, x: bilstm.bilstm(params, x, lengths), *arguments)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(gradients, expected_gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 4])
def test_padding_a_document_changes_none_of_its_states(length):
    params, x = lstm_params(E, H), normal(B, T, E)
    padded = bilstm.bilstm(params, x, np.full(B, length, np.int32))
    trimmed = bilstm.bilstm(params, x[:, :length], np.full(B, length, np.int32))
    np.testing.assert_allclose(padded[:, :length], trimmed, rtol=1e-6, atol=1e-6)


@jax.jit
def bilstm_and_gradients(params, x, lengths):
    states, pullback = jax.vjp(lambda params, x: bilstm.bilstm(params, x, lengths), params, x)
    return states, pullback(normal(B, T, 2 * H, seed=3))


@settings(deadline=None, max_examples=25)
@given(lengths=LENGTHS, scale=st.sampled_from([1.0, 1e4]))
def test_embeddings_beyond_the_length_change_no_state_and_no_gradient(lengths, scale):
    params, x = lstm_params(E, H), normal(B, T, E)
    beyond = np.arange(T)[None] >= lengths[:, None]
    garbage = np.where(beyond[..., None], scale * normal(B, T, E, seed=4), x)
    states, (d_params, d_x) = bilstm_and_gradients(params, x, lengths)
    assert_equal(bilstm_and_gradients(params, garbage, lengths), (states, (d_params, d_x)))
    assert not np.any(np.asarray(states)[beyond])
    assert not np.any(np.asarray(d_x)[beyond])
    assert np.all(np.any(np.asarray(states)[~beyond], axis=-1))
