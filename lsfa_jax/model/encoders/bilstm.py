"""Eq. 1: BiLSTM over the tokens, by cuDNN on an NVIDIA GPU, elsewhere a loop with a hand-written backward pass.

Shapes: B documents, T tokens (padded), E embedding, H hidden units per direction.
All functions are pure. Padding is exact: values beyond a document's length change no output and no gradient.
"""

import functools
from typing import ClassVar, NamedTuple

import chex
import jax
import jax.numpy as jnp

from lsfa_jax import config
from lsfa_jax.model.attention import product, token_mask
from lsfa_jax.model.encoders import cudnn_lstm
from lsfa_jax.model.encoders.interface import EncoderShape
from lsfa_jax.model.encoders.words import WordEncoder, shared_settings
from lsfa_jax.types import Array, DTypeLike, Params, PyTree

# Numerator and denominator of tanh(z) / z in powers of z^2, Eigen's minimax fit for float32; beyond the bound it is 1.
_TANH_NUMERATOR = (
    4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08, -8.60467152213735e-11,
    2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
_TANH_DENOMINATOR = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
_TANH_BOUND = 7.90531110763549805


def tanh(z: Array) -> Array:
    """Computes tanh of float32 as a rational function, within 4e-7.

    XLA on a CPU treats `jnp.tanh` as one cheap operation and runs the cell update on one core. With the arithmetic
    written out, it splits the loop over the cores: half the time.
    """
    z = jnp.clip(z, -_TANH_BOUND, _TANH_BOUND)
    square = z * z
    return z * _polynomial(_TANH_NUMERATOR, square) / _polynomial(_TANH_DENOMINATOR, square)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Evaluates sum_i coefficients[i] x^i by Horner's rule."""
    total: Array | float = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return jnp.asarray(total)


class _Direction(NamedTuple):
    """Parameters of one direction; gates are in the order i, f, g, o."""

    w_input: Array
    """float32[E, 4H]."""
    w_hidden: Array
    """float32[H, 4H]."""
    bias: Array
    """float32[4H]."""
    h0: Array
    """float32[H]."""
    c0: Array
    """float32[H]."""

    def initial_state(self, batch_size: int) -> "_State":
        """Returns the state before the first token."""
        h, c = (jnp.broadcast_to(x, (batch_size, len(x))) for x in (self.h0, self.c0))
        return h, c


_Directions = tuple[_Direction, _Direction]
"""Forward and backward."""

_State = tuple[Array, Array]
"""h and c, float32[B, H]; in the backward pass their gradients."""


class _Residuals(NamedTuple):
    """What one direction stores of each token for the backward pass, float32[T, B, ...] in reading order."""

    hidden: Array
    """[H], h."""
    d_gates: Array
    """[4H], derivatives with respect to the pre-activations z: of i, f, g: dc / dz; of o: dh / dz at constant c."""
    d_cell: Array
    """[H], dh / dc."""
    forget: Array
    """[H], f, which is dc_t / dc_{t-1}."""


def _recurrent(h: Array, w: Array) -> Array:
    return jnp.dot(h.astype(w.dtype), w, preferred_element_type=jnp.float32)


def _gate_scales(hidden_size: int) -> Array:
    """Returns float32[4H], k of each gate: k tanh(k z) + 1 - k is sigmoid(z) for k = 1/2 and tanh(z) for k = 1.

    One formula for all four gates keeps them one array; on a CPU that takes half the time of four slices.
    """
    return jnp.repeat(jnp.array([0.5, 0.5, 1.0, 0.5]), hidden_size)


def _forward_step(
    state: _State, projected: Array, is_token: Array, w_hidden: Array, bias: Array
) -> tuple[_State, _Residuals]:
    """Computes one LSTM step of one direction; a document keeps its state where `is_token` (bool[B, 1]) is false."""
    h, c = state
    k = _gate_scales(h.shape[-1])
    gates = k * tanh(k * (projected + bias + _recurrent(h, w_hidden))) + (1 - k)
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    new_c = f * c + i * g
    tanh_c = tanh(new_c)
    # The derivative of k tanh(k z) + 1 - k, in terms of its value.
    d_gates = jnp.concatenate([g, c, i, tanh_c], axis=-1) * (k * k - (gates - (1 - k)) ** 2)
    h, c = jnp.where(is_token, o * tanh_c, h), jnp.where(is_token, new_c, c)
    return (h, c), _Residuals(h, d_gates, o * (1 - tanh_c * tanh_c), f)


def _backward_step(
    d_state: _State, d_hidden: Array, residuals: _Residuals, is_token: Array, w_hidden_transposed: Array
) -> tuple[_State, Array]:
    """Backward pass of `_forward_step`: the gradients of the previous state and of z, float32[B, 4H]."""
    dh, dc = d_state
    dh = dh + d_hidden
    new_dc = dc + dh * residuals.d_cell
    dz = jnp.where(is_token, jnp.concatenate([new_dc, new_dc, new_dc, dh], axis=-1) * residuals.d_gates, 0.0)
    dh = jnp.where(is_token, _recurrent(dz, w_hidden_transposed), dh)
    return (dh, jnp.where(is_token, new_dc * residuals.forget, dc)), dz


def _both_directions(x: Array) -> tuple[Array, Array]:
    """Returns x and x reversed in time."""
    return x, jnp.flip(x, axis=0)


def _flatten_time(x: Array) -> Array:
    """[T, B, ...] -> [T B, ...]: on a CPU a product over two axes at once takes 1.4 to 2 times as long."""
    return x.reshape(-1, x.shape[-1])


def _project(x: Array, w_input: Array, dtype: DTypeLike) -> Array:
    """Computes x W: [T B, E] and [E, 4H] to [T B, 4H]."""
    if dtype != jnp.float32:
        return product("ne,eg->ng", x, w_input, dtype)
    # In float32 a CPU takes four fifths of the time with the embeddings as columns; in bfloat16 1.5 times as long.
    return product("en,eg->ng", jax.lax.optimization_barrier(x.T), w_input, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bidirectional(dtype: DTypeLike, directions: _Directions, x: Array, is_token: Array) -> Array:
    """Eq. 1 with time first: x float32[T, B, E] and is_token bool[T, B] give float32[T, B, 2H].

    One loop takes a step of both directions, so that the cores share one direction's product and the other's cell
    update. In the hand-written backward pass the gradients of the weights are one matrix product after the loop, where
    automatic differentiation accumulates T small ones inside it, and no gate is recomputed.
    """
    return _bidirectional_forward(dtype, directions, x, is_token)[0]


def _bidirectional_forward(
    dtype: DTypeLike, directions: _Directions, x: Array, is_token: Array
) -> tuple[Array, PyTree]:
    shape = (*x.shape[:2], -1)
    projected = [
        _project(_flatten_time(inputs), p.w_input, dtype).reshape(shape)
        for p, inputs in zip(directions, _both_directions(x), strict=True)
    ]
    w_hidden = [p.w_hidden.astype(dtype) for p in directions]

    def step(states: PyTree, token: PyTree) -> tuple[PyTree, PyTree]:
        z, is_token = token
        results = [_forward_step(states[i], z[i], is_token[i], w_hidden[i], directions[i].bias) for i in (0, 1)]
        return tuple(state for state, _ in results), tuple(residuals for _, residuals in results)

    initial = tuple(p.initial_state(x.shape[1]) for p in directions)
    _, residuals = jax.lax.scan(step, initial, (projected, _both_directions(is_token[..., None])))
    hidden = jnp.concatenate([residuals[0].hidden, jnp.flip(residuals[1].hidden, axis=0)], axis=-1)
    return hidden, (directions, x, is_token, residuals)


def _bidirectional_backward(dtype: DTypeLike, stored: PyTree, d_hidden: Array) -> tuple[_Directions, Array, None]:
    directions, x, is_token, residuals = stored
    initial = tuple(p.initial_state(x.shape[1]) for p in directions)
    w_transposed = [p.w_hidden.astype(dtype).T for p in directions]

    def step(d_states: PyTree, token: PyTree) -> tuple[PyTree, PyTree]:
        d_hidden, residuals, is_token = token
        results = [_backward_step(d_states[i], d_hidden[i], residuals[i], is_token[i], w_transposed[i]) for i in (0, 1)]
        return tuple(state for state, _ in results), tuple(dz for _, dz in results)

    d_forward, d_backward = jnp.split(d_hidden, 2, axis=-1)
    tokens = (d_forward, jnp.flip(d_backward, axis=0)), residuals, _both_directions(is_token[..., None])
    d_initial, dz = jax.lax.scan(step, jax.tree.map(jnp.zeros_like, initial), tokens, reverse=True)

    xs = _both_directions(x)
    (forward, dx_forward), (backward, dx_backward) = (
        _direction_gradients(dtype, directions[i], xs[i], initial[i], residuals[i].hidden, dz[i], d_initial[i])
        for i in (0, 1)
    )
    return (forward, backward), dx_forward + jnp.flip(dx_backward, axis=0), None


def _direction_gradients(
    dtype: DTypeLike, p: _Direction, x: Array, initial: _State, hidden: Array, dz: Array, d_initial: _State
) -> tuple[_Direction, Array]:
    """Computes the gradients of one direction's parameters and of its inputs, from those of z, float32[T, B, 4H]."""
    inputs = jnp.concatenate([x, jnp.concatenate([initial[0][None], hidden[:-1]])], axis=-1)
    d_weights = product("ni,ng->ig", _flatten_time(inputs), _flatten_time(dz), dtype)
    d_w_input, d_w_hidden = jnp.split(d_weights, [x.shape[-1]])
    d_h0, d_c0 = (jnp.sum(d, axis=0) for d in d_initial)
    gradients = _Direction(d_w_input, d_w_hidden, jnp.sum(_flatten_time(dz), axis=0), d_h0, d_c0)
    # On a CPU this product takes two thirds of the time with the smaller factor first.
    d_x = jax.lax.optimization_barrier(product("eg,ng->en", p.w_input, _flatten_time(dz), dtype))
    return gradients, d_x.T.reshape(x.shape)


_bidirectional.defvjp(_bidirectional_forward, _bidirectional_backward)


def bilstm(params: Params, x: Array, lengths: Array, dtype: DTypeLike = jnp.float32) -> Array:
    """Eq. 1: the state of each token, from both directions.

    Args:
        params: for each of `forward` and `backward`: `w_input` [E, 4H], `w_hidden` [H, 4H], `bias` [4H] (gates in the
            order i, f, g, o), and the learned initial states `h0` [H] and `c0` [H].
        x: float32[B, T, E], token embeddings.
        lengths: int32[B], tokens of each document; may be 0.
        dtype: of the matrix products, float32 or bfloat16; cuDNN's are in TF32 for both.

    Returns:
        float32[B, T, 2H], zero beyond each document's length.
    """
    chex.assert_rank(x, 3)
    chex.assert_equal_shape_prefix((x, lengths), 1)
    if cudnn_lstm.is_available():
        return cudnn_lstm.bilstm(params, x, token_mask(lengths, x.shape[1]))
    return by_loop(params, x, lengths, dtype)


def by_loop(params: Params, x: Array, lengths: Array, dtype: DTypeLike = jnp.float32) -> Array:
    """Computes `bilstm` on any device."""
    mask = token_mask(lengths, x.shape[1])
    directions = _Direction(**params["forward"]), _Direction(**params["backward"])
    return _bidirectional(dtype, directions, x.swapaxes(0, 1), mask.T).swapaxes(0, 1) * mask[..., None]


class BiLstm(WordEncoder, kw_only=True):
    """Eq. 1 with its parameters.

    Attributes:
        hidden_size: H.
    """

    hidden_size: int

    stored_dtype: ClassVar[DTypeLike] = jnp.float16
    """Precision in which states may be stored: they lie within (-1, 1), where float16 has 11 significant bits."""

    @property
    def encoded_size(self) -> int:
        return 2 * self.hidden_size

    def setup(self) -> None:
        super().setup()
        self.directions = {name: self.param(name, self._init_direction) for name in ("forward", "backward")}

    def _init_direction(self, key: Array) -> dict[str, Array]:
        hidden = self.hidden_size
        shapes = {"w_input": (self.embedding_size, 4 * hidden), "w_hidden": (hidden, 4 * hidden), "bias": (4 * hidden,)}
        keys = jax.random.split(key, len(shapes))
        scale = hidden**-0.5
        weights = {
            name: jax.random.uniform(key, shape, minval=-scale, maxval=scale)
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }
        return weights | {"h0": jnp.zeros(hidden), "c0": jnp.zeros(hidden)}

    def encode(self, x: Array, lengths: Array) -> Array:
        return bilstm(self.directions, x, lengths, self.dtype)


def from_settings(settings: config.Encoder, shape: EncoderShape, dtype: DTypeLike) -> BiLstm:
    """Returns the BiLSTM that the settings describe."""
    return BiLstm(hidden_size=settings.hidden_size, **shared_settings(settings, shape, dtype))
