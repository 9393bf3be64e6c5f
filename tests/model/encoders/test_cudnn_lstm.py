"""cuDNN's LSTM beside the loop of `bilstm`; without a GPU, `lstm_ref` of JAX stands for cuDNN."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

from lsfa_jax.model.encoders import bilstm, cudnn_lstm
from tests.model.encoders.test_bilstm import lstm_params
from tests.reference.agreement import assert_equal, value_and_gradients
from tests.reference.inputs import normal

E, H = 3, 2

needs_gpu = pytest.mark.skipif(not cudnn_lstm.is_available(), reason="needs one NVIDIA GPU")


def lstm_by_reference(x, h_0, c_0, weights, seq_lengths, input_size, hidden_size, num_layers, dropout, bidirectional):
    """`rnn.lstm` without cuDNN: the same arguments and results; nan where cuDNN refuses a length."""
    sizes = input_size, hidden_size, num_layers
    assert weights.shape == (rnn.get_num_params_in_lstm(*sizes, bidirectional),)
    parts = rnn.unpack_lstm_weights(weights, *sizes, bidirectional)
    results = rnn.lstm_ref(x, h_0, c_0, *parts, seq_lengths, *sizes, dropout, bidirectional)
    return jax.tree.map(lambda array: jnp.where(jnp.min(seq_lengths) < 1, jnp.nan, array), results)


def use_reference(monkeypatch):
    monkeypatch.setattr(cudnn_lstm, "is_available", lambda: True)
    monkeypatch.setattr(rnn, "lstm", lstm_by_reference)


def states_and_gradients(params, x, lengths):
    return value_and_gradients(lambda params, x: bilstm.bilstm(params, x, np.array(lengths, np.int32)), params, x)


def assert_cudnn_equals_the_loop(lengths, num_tokens, hidden_size):
    params, x = lstm_params(E, hidden_size), normal(len(lengths), num_tokens, E)
    value, gradients = states_and_gradients(params, x, lengths)
    expected, expected_gradients = value_and_gradients(
        lambda params, x: bilstm.by_loop(params, x, np.array(lengths, np.int32)), params, x
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(gradients, expected_gradients, rtol=1e-4, atol=1e-5)


SHAPES = pytest.mark.parametrize(
    ("lengths", "num_tokens", "hidden_size"),
    [([6, 1, 0, 3], 6, H), ([0, 0], 2, H), ([1], 1, 1), ([17, 30, 29], 30, 5)],
    ids=["ragged", "all padding", "one token", "long"],
)


@SHAPES
def test_the_call_of_cudnn_computes_what_the_loop_computes(monkeypatch, lengths, num_tokens, hidden_size):
    use_reference(monkeypatch)
    assert_cudnn_equals_the_loop(lengths, num_tokens, hidden_size)


@needs_gpu
@SHAPES
def test_cudnn_computes_what_the_loop_computes(lengths, num_tokens, hidden_size):
    assert_cudnn_equals_the_loop(lengths, num_tokens, hidden_size)


@pytest.mark.parametrize("stand_in", [True, pytest.param(False, marks=needs_gpu)], ids=["lstm_ref", "cuDNN"])
def test_embeddings_beyond_the_length_change_no_state_and_no_gradient(monkeypatch, stand_in):
    if stand_in:
        use_reference(monkeypatch)
    lengths = [4, 0, 1]
    params, x = lstm_params(E, H), normal(len(lengths), 5, E)
    beyond = np.arange(5) >= np.array(lengths)[:, None]
    states, (d_params, d_x) = states_and_gradients(params, x, lengths)
    garbage = np.where(beyond[..., None], np.float32(np.nan), x)
    assert_equal(states_and_gradients(params, garbage, lengths), (states, (d_params, d_x)))
    for array in (states, d_x):
        assert not np.any(np.asarray(array)[beyond])
        assert np.all(np.any(np.asarray(array)[~beyond], axis=-1))


def test_cudnn_is_used_on_one_gpu_of_nvidia_only(monkeypatch):
    backends = [("gpu", "cuda 13000", 1), ("gpu", "cuda 13000", 2), ("gpu", "rocm 70000", 1), ("cpu", "cuda", 1)]
    available = []
    for name, version, devices in backends:
        monkeypatch.setattr(jax, "default_backend", lambda name=name: name)
        monkeypatch.setattr(jax, "local_devices", lambda devices=devices: [object()] * devices)
        platform = type("Backend", (), {"platform_version": f"PJRT C API\n{version}"})
        monkeypatch.setattr(cudnn_lstm.backend, "get_backend", lambda platform=platform: platform)
        available.append(cudnn_lstm.is_available())
    assert available == [True, False, False, False]
