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

B, T, E, H = 4, 6, 3, 2
LENGTHS = st.lists(st.integers(0, T), min_size=B, max_size=B).map(lambda n: np.array(n, np.int32))


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def lstm_params(embedding_size, hidden_size):
    def side(seed):
        return {
            "w_input": normal(embedding_size, 4 * hidden_size, seed=seed),
            "w_hidden": normal(hidden_size, 4 * hidden_size, seed=seed),
            "bias": normal(4 * hidden_size, seed=seed),
            "h0": normal(hidden_size, seed=seed),
            "c0": normal(hidden_size, seed=seed + 10),
        }

    return {"forward": side(1), "backward": side(2)}


@settings(deadline=None)
@given(st.floats(-20, 20, width=32))
def test_tanh_is_that_of_numpy(z):
    np.testing.assert_allclose(bilstm.tanh(jnp.float32(z)), np.tanh(np.float64(z)), rtol=0, atol=4e-7)


def test_tanh_ends_at_one_and_hides_no_fault():
    z = np.float32([np.inf, -np.inf, 1e30, 0, np.nan])
    for compute in (bilstm.tanh, jax.jit(bilstm.tanh)):
        np.testing.assert_allclose(compute(z), [1, -1, 1, 0, np.nan], rtol=0, atol=4e-7)


@pytest.mark.parametrize(
    ("num_words", "lengths", "hidden_size"),
    [(T, [6, 1, 0, 3], H), (1, [1], 1), (1, [1, 0], 3), (2, [0, 0], H), (5, [5, 5, 5], 1), (30, [30, 29, 2], 4)],
    ids=["ragged", "one word", "one word or none", "all padding", "one unit", "long"],
)
def test_bilstm_reads_each_document_up_to_its_length(num_words, lengths, hidden_size):
    lengths = np.array(lengths, np.int32)
    assert_agrees(
        lambda params, x: bilstm.bilstm(params, x, lengths),
        lambda params, x: reference.bilstm(params, x, lengths),
        lstm_params(E, hidden_size),
        normal(len(lengths), num_words, E),
    )


def test_bilstm_equals_the_lstm_that_comes_with_jax():
    num_documents, num_words, embedding_size, hidden_size = 3, 30, 7, 5
    lengths = np.array([30, 1, 17], np.int32)
    seen = np.arange(num_words)[None, :, None] < lengths[:, None, None]

    def theirs(params, x):
        sides = [params["forward"], params["backward"]]

        def both(name):
            return {i: side[name].T for i, side in enumerate(sides)}

        def start(name):
            return jnp.stack([jnp.broadcast_to(side[name], (num_documents, hidden_size)) for side in sides])

        no_bias = {i: jnp.zeros(4 * hidden_size) for i in range(2)}
        states, _, _ = lstm_ref(
            x,
            start("h0"),
            start("c0"),
            both("w_input"),
            both("w_hidden"),
            both("bias"),
            no_bias,
            lengths,
            embedding_size,
            hidden_size,
            1,
            0.0,
            True,
        )
        return states * seen

    arguments = lstm_params(embedding_size, hidden_size), normal(num_documents, num_words, embedding_size)
    expected, expected_gradients = value_and_gradients(theirs, *arguments)
    value, gradients = value_and_gradients(lambda params, x: bilstm.bilstm(params, x, lengths), *arguments)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradients, expected_gradients)


@pytest.mark.parametrize("length", [1, 4])
def test_padding_a_text_changes_none_of_its_states(length):
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
def test_words_beyond_the_length_change_no_state_and_no_gradient(lengths, scale):
    params, x = lstm_params(E, H), normal(B, T, E)
    beyond = np.arange(T)[None] >= lengths[:, None]
    garbage = np.where(beyond[..., None], scale * normal(B, T, E, seed=4), x)
    states, (d_params, d_x) = bilstm_and_gradients(params, x, lengths)
    assert_equal(bilstm_and_gradients(params, garbage, lengths), (states, (d_params, d_x)))
    assert not np.any(np.asarray(states)[beyond])
    assert not np.any(np.asarray(d_x)[beyond])
    assert np.all(np.any(np.asarray(states)[~beyond], axis=-1))
