"""Eq. 1: BiLSTM over the words, with its backward pass written by hand.

Shapes: B documents, T words (padded), E word vector, H hidden units a direction.
Pure functions; padding is exact: what lies beyond a document's length changes no value and no gradient.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lsfa_jax.model.attention import product, word_mask

Array = jax.Array

# Numerator and denominator of tanh(z) / z in powers of z^2, Eigen's minimax fit for float32; beyond the bound it is 1.
_TANH_ABOVE = (
    4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08, -8.60467152213735e-11,
    2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
_TANH_BELOW = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
_TANH_BOUND = 7.90531110763549805


def tanh(z: Array) -> Array:
    """Computes tanh of float32, written out.

    For a CPU's compiler `jnp.tanh` is one operation, too little for a second core. The same arithmetic in sight, it
    shares the cells' loop among the cores: half the time.
    """

    def polynomial(coefficients: tuple[float, ...]) -> Array:
        total: Any = coefficients[-1]
        for coefficient in coefficients[-2::-1]:
            total = total * square + coefficient
        return total

    z = jnp.clip(z, -_TANH_BOUND, _TANH_BOUND)
    square = z * z
    return z * polynomial(_TANH_ABOVE) / polynomial(_TANH_BELOW)


class _Side(NamedTuple):
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

    def start(self, num_documents: int) -> "_State":
        """Returns the state before the first word."""
        h, c = (jnp.broadcast_to(x, (num_documents, len(x))) for x in (self.h0, self.c0))
        return h, c


_Sides = tuple[_Side, _Side]


class _Saved(NamedTuple):
    """What one direction keeps of each word for the way back, float32[T, B, ...] in the order of reading."""

    hidden: Array
    """[H], h."""
    slopes: Array
    """[4H], of the gates i, f, g: dc / dz; of o: dh / dz at a fixed c."""
    d_cell: Array
    """[H], dh / dc."""
    forget: Array
    """[H], f, which is dc / dc of the word before."""


_State = tuple[Array, Array]
"""h and c, float32[B, H]; on the way back their gradients."""


def _recurrent(h: Array, w: Array) -> Array:
    return jnp.dot(h.astype(w.dtype), w, preferred_element_type=jnp.float32)


def _gate_scales(hidden_size: int) -> Array:
    """Returns float32[4H], k of each gate: k tanh(k z) + 1 - k is sigmoid(z) for k = 1/2 and tanh(z) for k = 1.

    One formula for all four gates keeps them one array, which a CPU computes in half the time of four slices.
    """
    return jnp.repeat(jnp.array([0.5, 0.5, 1.0, 0.5]), hidden_size)


def _read_word(state: _State, projected: Array, here: Array, w_hidden: Array, bias: Array) -> tuple[_State, _Saved]:
    """Computes one step of one direction; a document that has no word `here` (bool[B, 1]) keeps its state."""
    h, c = state
    k = _gate_scales(h.shape[-1])
    gates = k * tanh(k * (projected + bias + _recurrent(h, w_hidden))) + (1 - k)
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    new_c = f * c + i * g
    tanh_c = tanh(new_c)
    # The derivative of k tanh(k z) + 1 - k, written with its value.
    slopes = jnp.concatenate([g, c, i, tanh_c], axis=-1) * (k * k - (gates - (1 - k)) ** 2)
    h, c = jnp.where(here, o * tanh_c, h), jnp.where(here, new_c, c)
    return (h, c), _Saved(h, slopes, o * (1 - tanh_c * tanh_c), f)


def _way_back(
    d_state: _State, d_hidden: Array, saved: _Saved, here: Array, w_hidden_turned: Array
) -> tuple[_State, Array]:
    """Takes `_read_word` back: the gradients of the state before and of z, float32[B, 4H]."""
    dh, dc = d_state
    dh = dh + d_hidden
    new_dc = dc + dh * saved.d_cell
    dz = jnp.where(here, jnp.concatenate([new_dc, new_dc, new_dc, dh], axis=-1) * saved.slopes, 0.0)
    return (jnp.where(here, _recurrent(dz, w_hidden_turned), dh), jnp.where(here, new_dc * saved.forget, dc)), dz


def _turned(x: Array) -> tuple[Array, Array]:
    """Returns what the two directions read in which order: from the first word on, and from the last."""
    return x, jnp.flip(x, axis=0)


def _flat(x: Array) -> Array:
    """[T, B, ...] -> [T B, ...]: a CPU takes products over two axes at once 1.4 to 2 times as long."""
    return x.reshape(-1, x.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _read_both_ways(dtype: Any, sides: _Sides, x: Array, here: Array) -> Array:
    """Computes Eq. 1 with time first: x float32[T, B, E] and here bool[T, B] give float32[T, B, 2H].

    One loop takes a step of both directions, so that one's product and the other's cells share the cores. The backward
    pass is written by hand: the gradients of weights are one matrix product after the loop, where automatic
    differentiation would add up T small ones inside it, and the way back computes no gate anew.
    """
    return _read_both_ways_forward(dtype, sides, x, here)[0]


def _read_both_ways_forward(dtype: Any, sides: _Sides, x: Array, here: Array) -> tuple[Array, tuple[Any, ...]]:
    shape = (*x.shape[:2], -1)
    # A CPU does these products in four fifths of the time with the words' vectors as columns.
    projected = [
        product("en,eg->ng", jax.lax.optimization_barrier(_flat(own).T), p.w_input, dtype).reshape(shape)
        for p, own in zip(sides, _turned(x), strict=True)
    ]
    recurrent = [p.w_hidden.astype(dtype) for p in sides]

    def step(states: Any, word: Any) -> tuple[Any, Any]:
        z, here = word
        both = [_read_word(states[i], z[i], here[i], recurrent[i], sides[i].bias) for i in (0, 1)]
        return tuple(state for state, _ in both), tuple(saved for _, saved in both)

    start = tuple(p.start(x.shape[1]) for p in sides)
    _, saved = jax.lax.scan(step, start, (projected, _turned(here[..., None])))
    hidden = jnp.concatenate([saved[0].hidden, jnp.flip(saved[1].hidden, axis=0)], axis=-1)
    return hidden, (sides, x, here, saved)


def _read_both_ways_backward(dtype: Any, kept: tuple[Any, ...], d_hidden: Array) -> tuple[Any, Array, None]:
    sides, x, here, saved = kept
    starts = tuple(p.start(x.shape[1]) for p in sides)
    turned = [p.w_hidden.astype(dtype).T for p in sides]

    def step(d_states: Any, word: Any) -> tuple[Any, Any]:
        d_hidden, saved, here = word
        both = [_way_back(d_states[i], d_hidden[i], saved[i], here[i], turned[i]) for i in (0, 1)]
        return tuple(state for state, _ in both), tuple(dz for _, dz in both)

    d_first, d_second = jnp.split(d_hidden, 2, axis=-1)
    words = (d_first, jnp.flip(d_second, axis=0)), saved, _turned(here[..., None])
    d_starts, dz = jax.lax.scan(step, jax.tree.map(jnp.zeros_like, starts), words, reverse=True)

    def gradients(p: _Side, x: Array, start: _State, hidden: Array, dz: Array, d_start: _State) -> tuple[_Side, Array]:
        inputs = jnp.concatenate([x, jnp.concatenate([start[0][None], hidden[:-1]])], axis=-1)
        d_weights = product("ni,ng->ig", _flat(inputs), _flat(dz), dtype)
        d_input, d_recurrent = jnp.split(d_weights, [x.shape[-1]])
        d_h0, d_c0 = (jnp.sum(d, axis=0) for d in d_start)
        d_side = _Side(d_input, d_recurrent, jnp.sum(_flat(dz), axis=0), d_h0, d_c0)
        # A CPU does this product in two thirds of the time with the smaller factor first.
        d_x = jax.lax.optimization_barrier(product("eg,ng->en", p.w_input, _flat(dz), dtype))
        return d_side, d_x.T.reshape(x.shape)

    xs = _turned(x)
    each = [gradients(sides[i], xs[i], starts[i], saved[i].hidden, dz[i], d_starts[i]) for i in (0, 1)]
    (d_forward, dx_forward), (d_backward, dx_backward) = each
    return (d_forward, d_backward), dx_forward + jnp.flip(dx_backward, axis=0), None


_read_both_ways.defvjp(_read_both_ways_forward, _read_both_ways_backward)


def bilstm(params: Mapping[str, Any], x: Array, lengths: Array, dtype: Any = jnp.float32) -> Array:
    """Computes Eq. 1, the hidden representation of each word from both sides.

    Args:
        params: for each of `forward` and `backward`: `w_input` [E, 4H], `w_hidden` [H, 4H], `bias` [4H] (gates i, f, g,
            o), `h0` [H] and `c0` [H], the learned initial states.
        x: float32[B, T, E], word vectors.
        lengths: int32[B], words of each document; 0 is allowed.
        dtype: of the matrix products, float32 or bfloat16.

    Returns:
        float32[B, T, 2H], zero beyond each document's length.
    """
    mask = word_mask(lengths, x.shape[1])
    sides = _Side(**params["forward"]), _Side(**params["backward"])
    return _read_both_ways(dtype, sides, x.swapaxes(0, 1), mask.T).swapaxes(0, 1) * mask[..., None]
