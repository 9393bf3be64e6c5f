"""Eq. 1 by a pretrained transformer of the BERT family: BERT, MiniLM, DistilBERT, RoBERTa.

Shapes: B documents, T tokens (padded), W windows of S tokens (their first and last token included), H hidden units,
N attention heads, I units of a feed-forward network. All functions are pure. Padding is exact: values beyond a
document's length change no output and no gradient.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout, with_layout_constraint
from jax.export import is_symbolic_dim

from lsfa_jax import config
from lsfa_jax.model.attention import MINUS_INFINITY, product, token_mask
from lsfa_jax.model.encoders.interface import Architecture, EncoderShape, declared
from lsfa_jax.types import Array, DTypeLike, HostArray, Params, PyTree


class Windows(NamedTuple):
    """How texts are read: windows of `size` tokens that start every `stride` tokens and overlap in between."""

    number: int
    size: int
    stride: int

    @property
    def starts(self) -> HostArray:
        """First token of each window, int[W]."""
        return np.arange(self.number) * self.stride

    def lengths(self, lengths: Array) -> Array:
        """Returns int32[B, W], the tokens that each window holds of documents of the given lengths, int32[B]."""
        is_needed = np.arange(self.number) <= self._last(lengths)[:, None]
        return jnp.where(is_needed, jnp.clip(lengths[:, None] - self.starts, 0, self.size), 0)

    def of_tokens(self, lengths: Array, num_tokens: int) -> Array:
        """Returns int32[B, T], the window in which each token is farthest from an edge.

        The end of the text is no edge. No window depends on T, so that padding changes no state.
        """
        overlap = self.size - self.stride
        farthest = np.maximum((np.arange(num_tokens) - overlap // 2) // self.stride, 0)
        return jnp.minimum(farthest, self._last(lengths)[:, None])

    def _last(self, lengths: Array) -> Array:
        """Returns int32[B], the window that holds the last token of each document and begins first."""
        ends = self.size + self.starts[:-1]
        return jnp.sum(lengths[:, None] > ends, axis=1, dtype=jnp.int32)


def windows_of(num_tokens: int, largest: int) -> Windows:
    """Returns the windows that cover `num_tokens` tokens, of at most `largest` each; neighbours share a quarter."""
    if num_tokens <= largest:
        return Windows(1, num_tokens, 1)
    stride = _stride(largest)
    return Windows(1 + -(-(num_tokens - largest) // stride), largest, stride)


def _stride(largest: int) -> int:
    """Returns the tokens between the starts of neighbouring windows of `largest` tokens each."""
    return largest - largest // 4


def split_windows(
    token_ids: Array, lengths: Array, windows: Windows, architecture: Architecture
) -> tuple[Array, Array]:
    """Returns the windows of each document, int32[B W, S] and their lengths int32[B W], with first and last token."""
    pieces = token_ids
    if windows.number > 1:
        needed = int(windows.starts[-1]) + windows.size - token_ids.shape[1]
        index = windows.starts[:, None] + np.arange(windows.size)
        pieces = jnp.pad(token_ids, ((0, 0), (0, needed)))[:, index].reshape(-1, windows.size)
    lengths = windows.lengths(lengths).reshape(-1, 1)
    ids = jnp.pad(pieces, ((0, 0), (1, 1)), constant_values=architecture.first_id)
    ids = jnp.where(jnp.arange(windows.size + 2) == lengths + 1, architecture.last_id, ids)
    return ids, lengths[:, 0] + 2


def join_windows(states: Array, lengths: Array, windows: Windows, num_tokens: int) -> Array:
    """Returns the state of each token from one window, [B, T, H] from states [B W, S, H]; zero beyond the lengths."""
    if windows.number == 1:
        states = states[:, 1:-1]
    else:
        window = windows.of_tokens(lengths, num_tokens)
        place = window * (windows.size + 2) + 1 + np.arange(num_tokens) - window * windows.stride
        flat = states.reshape(lengths.shape[0], -1, states.shape[-1])
        states = jnp.take_along_axis(flat, place[..., None], axis=1)
    return states * token_mask(lengths, num_tokens)[..., None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer_norm(epsilon: float, x: Array, scale: Array, bias: Array) -> Array:
    return _layer_norm_forward(epsilon, x, scale, bias)[0]


def _layer_norm_forward(epsilon: float, x: Array, scale: Array, bias: Array) -> tuple[Array, PyTree]:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    return centred * inverse * scale + bias, (centred, inverse, scale)


def _layer_norm_backward(epsilon: float, stored: PyTree, d_out: Array) -> tuple[Array, Array, Array]:
    centred, inverse, scale = stored
    normed, d_normed = centred * inverse, d_out * scale
    rows = tuple(range(d_out.ndim - 1))
    d_x = d_normed - jnp.mean(d_normed, axis=-1, keepdims=True)
    d_x = inverse * (d_x - normed * jnp.mean(d_normed * normed, axis=-1, keepdims=True))
    return d_x, jnp.sum(d_out * normed, axis=rows), jnp.sum(d_out, axis=rows)


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def layer_norm(params: Params, x: Array, epsilon: float) -> Array:
    """Normalises float32[..., H] over the last axis, then scales and shifts."""
    return _layer_norm(epsilon, x, params["scale"], params["bias"])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _matmul(dtype: DTypeLike, x: Array, kernel: Array) -> Array:
    """x W in mixed precision, with gradients that are products in `dtype`, too."""
    return product("nh,hi->ni", x, kernel, dtype)


def _matmul_forward(dtype: DTypeLike, x: Array, kernel: Array) -> tuple[Array, PyTree]:
    return _matmul(dtype, x, kernel), (x, kernel)


def _matmul_backward(dtype: DTypeLike, stored: PyTree, d_out: Array) -> tuple[Array, Array]:
    x, kernel = stored
    if x.shape[1] <= d_out.shape[1]:
        d_kernel = product("hn,ni->hi", _transposed(x), d_out, dtype)
    else:
        # The barrier keeps XLA from swapping the factors, which would be read by columns again.
        d_kernel = jax.lax.optimization_barrier(product("hn,ni->hi", _transposed(d_out), x, dtype)).T
    return product("ni,hi->nh", d_out, kernel, dtype).astype(x.dtype), d_kernel


_matmul.defvjp(_matmul_forward, _matmul_backward)


def _transposed(x: Array) -> Array:
    """Swaps the last two axes in memory, as float32, which a CPU transposes faster than bfloat16.

    Without the constraint, XLA keeps the array as it is and multiplies by columns, which takes a CPU 2.5 times as long.
    A program that is exported, for a symbolic number of rows, has no layouts.
    """
    transposed = x.astype(jnp.float32).swapaxes(-1, -2)
    if any(map(is_symbolic_dim, x.shape)):
        return transposed
    return with_layout_constraint(transposed, Layout(tuple(range(x.ndim))))


def dense(params: Params, x: Array, dtype: DTypeLike) -> Array:
    """x W + b."""
    return _matmul(dtype, x, params["kernel"]) + params["bias"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(dtype: DTypeLike, qkv: Array, mask: Array) -> Array:
    """Attention by head, float32[W, S, N, D] from queries, keys and values float32[W, S, 3, N, D], mask bool[W, S].

    Scores are k q^T with the keys as rows, so that no product of the forward and backward pass reads a factor by
    columns, which takes a CPU three times as long. They stay divided by nothing: queries divide the result.
    """
    return _attend_forward(dtype, qkv, mask)[0]


def _attend_forward(dtype: DTypeLike, qkv: Array, mask: Array) -> tuple[Array, PyTree]:
    q, k, v = (x.astype(dtype) for x in qkv.transpose(2, 0, 3, 1, 4))
    scores = product("wnsd,wntd->wnst", k, q, dtype) * q.shape[-1] ** -0.5
    scores = jnp.where(mask[:, None, :, None], scores, MINUS_INFINITY)
    weights = jnp.exp(scores - jnp.max(scores, axis=2, keepdims=True))
    total = jnp.sum(weights, axis=2)
    weights = weights.astype(dtype)
    out = product("wnds,wnst->wndt", _transposed(v), weights, dtype) / total[:, :, None]
    return _transposed(out).swapaxes(1, 2), (q, k, v, weights, total, out)


def _attend_backward(dtype: DTypeLike, stored: PyTree, d_out: Array) -> tuple[Array, None]:
    q, k, v, weights, total, out = stored
    scale = q.shape[-1] ** -0.5
    d_out = d_out.transpose(0, 2, 1, 3) / total[..., None]
    mean = jnp.sum(d_out.swapaxes(2, 3) * out, axis=2, keepdims=True)
    # Without these barriers XLA computes in float32, or reads factors by columns.
    d_weights = jax.lax.optimization_barrier(product("wnsd,wntd->wnst", v, d_out, dtype))
    d_scores = (weights * (d_weights - mean)).astype(dtype)
    d_q = jax.lax.optimization_barrier(product("wnds,wnst->wndt", _transposed(k), d_scores, dtype))
    d_q = d_q.swapaxes(2, 3) * scale
    d_k = product("wnst,wntd->wnsd", d_scores, q, dtype) * scale
    d_v = product("wnst,wntd->wnsd", weights, d_out, dtype)
    return jnp.stack([d_q, d_k, d_v]).transpose(1, 3, 0, 2, 4), None


_attend.defvjp(_attend_forward, _attend_backward)


def fused_attention(dtype: DTypeLike, qkv: Array, mask: Array) -> Array:
    """Computes `_attend` by `jax.nn.dot_product_attention`: by cuDNN where it has the sizes, without stored scores."""
    q, k, v = (x.astype(dtype) for x in jnp.moveaxis(qkv, 2, 0))
    has_cudnn = jax.default_backend() == "gpu" and jnp.dtype(dtype).itemsize == 2
    implementation: Literal["cudnn", "xla"] = "cudnn" if has_cudnn and q.shape[-1] in (32, 64, 96, 128) else "xla"
    lengths = jnp.sum(mask, axis=1, dtype=jnp.int32)
    out = jax.nn.dot_product_attention(q, k, v, key_value_seq_lengths=lengths, implementation=implementation)
    return out.astype(jnp.float32)


def self_attention(params: Params, x: Array, mask: Array, num_heads: int, dtype: DTypeLike) -> Array:
    """Attention of each token over the tokens of its window, softmax(q k^T / sqrt(D)) v by head, then a dense layer.

    Args:
        params: `qkv` and `output`, dense layers H -> 3H and H -> H.
        x: float32[W S, H].
        mask: bool[W, S], false at padding.
        num_heads: N, of size D = H / N.
        dtype: of the matrix products.

    Returns:
        float32[W S, H].
    """
    qkv = dense(params["qkv"], x, dtype).reshape(*mask.shape, 3, num_heads, -1)
    attend = _attend if jax.default_backend() == "cpu" else fused_attention
    return dense(params["output"], attend(dtype, qkv, mask).reshape(x.shape), dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gelu(dtype: DTypeLike, z: Array) -> Array:
    """z Phi(z), rounded to `dtype`; the derivative is stored instead of computed again."""
    return (0.5 * z * (1 + jax.lax.erf(z * 0.5**0.5))).astype(dtype)


def _gelu_forward(dtype: DTypeLike, z: Array) -> tuple[Array, Array]:
    phi = 0.5 * (1 + jax.lax.erf(z * 0.5**0.5))
    derivative = phi + z * jnp.exp(-0.5 * z * z) * (2 * np.pi) ** -0.5
    return (z * phi).astype(dtype), derivative.astype(dtype)


def _gelu_backward(dtype: DTypeLike, derivative: Array, d_out: Array) -> tuple[Array]:
    return (d_out.astype(jnp.float32) * derivative,)


_gelu.defvjp(_gelu_forward, _gelu_backward)


def activate(z: Array, name: str, dtype: DTypeLike) -> Array:
    """Applies the activation of the feed-forward network; the result is a factor of a product in `dtype`."""
    if name == "gelu":
        return _gelu(dtype, z)
    return (jax.nn.relu(z) if name == "relu" else jax.nn.gelu(z, approximate=True)).astype(dtype)


def layer(params: Params, x: Array, mask: Array, architecture: Architecture, dtype: DTypeLike) -> Array:
    """One layer: attention, then the feed-forward network, each followed by a residual sum and a layer norm."""
    epsilon = architecture.norm_epsilon
    attended = self_attention(params["attention"], x, mask, architecture.num_heads, dtype)
    x = layer_norm(params["attention"]["norm"], x + attended, epsilon)
    hidden = activate(dense(params["feed_forward"]["inner"], x, dtype), architecture.activation, dtype)
    return layer_norm(
        params["feed_forward"]["norm"], x + dense(params["feed_forward"]["output"], hidden, dtype), epsilon
    )


def embed(params: Params, ids: Array, epsilon: float) -> Array:
    """Returns the normed sum of word and position embeddings, float32[W, S, H] of ids int32[W, S]."""
    return layer_norm(params["norm"], params["words"][ids] + params["positions"][: ids.shape[1]], epsilon)


def transformer(
    params: Params,
    token_ids: Array,
    lengths: Array,
    architecture: Architecture,
    window: int,
    dtype: DTypeLike = jnp.float32,
    drop_embedding: Callable[[Array], Array] = lambda x: x,
) -> Array:
    """Eq. 1: the state of each token from a transformer with post-norm, as BERT has it (Devlin et al., NAACL 2019).

    Each window of a text is read between the first and the last token, whose states are dropped.

    Args:
        params: as `params_from_hugging_face` returns them.
        token_ids: int32[B, T], without first and last token.
        lengths: int32[B], tokens of each document; may be 0.
        architecture: sizes.
        window: tokens that are read at a time, with first and last token; `num_positions` at most.
        dtype: of the matrix products, float32 or bfloat16.
        drop_embedding: dropout on the embeddings.

    Returns:
        float32[B, T, H], zero beyond each document's length.
    """
    depth = architecture.num_layers
    hidden = lower_layers(params, token_ids, lengths, architecture, window, dtype, depth, drop_embedding)
    return upper_layers(params, hidden, lengths, architecture, window, dtype, depth)[:, : token_ids.shape[1]]


def lower_layers(
    params: Params,
    token_ids: Array,
    lengths: Array,
    architecture: Architecture,
    window: int,
    dtype: DTypeLike,
    depth: int,
    drop_embedding: Callable[[Array], Array] = lambda x: x,
) -> Array:
    """Computes the first `depth` layers.

    Returns:
        float32[B, R, H], the hidden states of each document's windows one after the other, first and last tokens
        included; R = `hidden_rows(T, ...)`.
    """
    chex.assert_rank((token_ids, lengths), (2, 1))
    windows = windows_of(token_ids.shape[1], _tokens_at_once(architecture, window))
    ids, window_lengths = split_windows(token_ids, lengths, windows, architecture)
    x = drop_embedding(embed(params["embedding"], ids, architecture.norm_epsilon)).reshape(-1, architecture.hidden_size)
    x = _layers(params, x, token_mask(window_lengths, ids.shape[1]), architecture, dtype, range(depth))
    return x.reshape(lengths.shape[0], -1, architecture.hidden_size)


def upper_layers(
    params: Params,
    hidden: Array,
    lengths: Array,
    architecture: Architecture,
    window: int,
    dtype: DTypeLike,
    depth: int,
) -> Array:
    """Computes all layers but the first `depth` from what `lower_layers` returns.

    Returns:
        float32[B, T, H], zero beyond each document's length, with the largest T of as many windows.
    """
    largest = _tokens_at_once(architecture, window)
    number = 1 if hidden.shape[1] <= largest + 2 else -(-hidden.shape[1] // (largest + 2))
    num_tokens = hidden.shape[1] - 2 if number == 1 else largest + (number - 1) * _stride(largest)
    windows = windows_of(num_tokens, largest)
    mask = token_mask(windows.lengths(lengths).reshape(-1) + 2, windows.size + 2)
    x = hidden.reshape(-1, architecture.hidden_size)
    x = _layers(params, x, mask, architecture, dtype, range(depth, architecture.num_layers))
    return join_windows(x.reshape(*mask.shape, -1), lengths, windows, num_tokens)


def hidden_rows(lengths: HostArray, architecture: Architecture, window: int) -> HostArray:
    """Returns int64[...], the rows of the hidden states of documents of the given lengths, int[...]."""
    largest = _tokens_at_once(architecture, window)
    number = 1 - np.minimum(largest - np.asarray(lengths), 0) // _stride(largest)
    return np.where(number == 1, np.asarray(lengths) + 2, number * (largest + 2)).astype(np.int64)


def _tokens_at_once(architecture: Architecture, window: int) -> int:
    """Returns the tokens of a full window without the first and the last one."""
    return min(window, architecture.num_positions) - 2


def _layers(
    params: Params, x: Array, mask: Array, architecture: Architecture, dtype: DTypeLike, numbers: Iterable[int]
) -> Array:
    for i in numbers:
        x = layer(params[layer_name(i)], x, mask, architecture, dtype)
    return x


def layer_name(number: int) -> str:
    """Returns the key of a layer, counted from 0, in the parameter tree."""
    return f"layer_{number:02d}"


_Shapes = Mapping[str, PyTree]


def param_shapes(architecture: Architecture) -> dict[str, PyTree]:
    """Returns the tree of the parameters' shapes."""
    hidden, inner = architecture.hidden_size, architecture.intermediate_size
    norm = {"scale": (hidden,), "bias": (hidden,)}

    def dense_shapes(rows: int, columns: int) -> dict[str, tuple[int, ...]]:
        return {"kernel": (rows, columns), "bias": (columns,)}

    one_layer = {
        "attention": {"qkv": dense_shapes(hidden, 3 * hidden), "output": dense_shapes(hidden, hidden), "norm": norm},
        "feed_forward": {"inner": dense_shapes(hidden, inner), "output": dense_shapes(inner, hidden), "norm": norm},
    }
    words, positions = (architecture.vocabulary_size, hidden), (architecture.num_positions, hidden)
    embedding = {"words": words, "positions": positions, "norm": norm}
    return {"embedding": embedding} | {layer_name(i): one_layer for i in range(architecture.num_layers)}


class Transformer(nn.Module):
    """Eq. 1 with its parameters: a transformer, and dropout on its embeddings and its states.

    Attributes:
        architecture: sizes.
        window: tokens that are read at a time.
        embedding_dropout: rate of the dropout on the embeddings.
        state_dropout: rate of the dropout on the states.
        dtype: of the matrix products, float32 or bfloat16.
        num_frozen: layers below those that are trained, whose hidden states may be stored.
    """

    architecture: Architecture
    window: int
    embedding_dropout: float = 0.0
    state_dropout: float = 0.0
    dtype: DTypeLike = jnp.float32
    num_frozen: int = 0

    stored_dtype: ClassVar[DTypeLike] = jnp.float16
    """Precision in which states may be stored: the last layer norm bounds them by sqrt(H) times its scale."""

    @property
    def state_size(self) -> int:
        """H."""
        return self.architecture.hidden_size

    @property
    def tokens_at_once(self) -> int:
        """Tokens of a text that is read in one window, at most."""
        return _tokens_at_once(self.architecture, self.window)

    def setup(self) -> None:
        shapes = param_shapes(self.architecture)
        self.parts = {name: self.param(name, _init, shapes[name]) for name in shapes}
        self.drop_embedding = nn.Dropout(self.embedding_dropout)
        self.drop_states = nn.Dropout(self.state_dropout)

    def hidden(self, token_ids: Array, lengths: Array) -> Array:
        """Computes the hidden states of the frozen layers, float32[B, R, H], without dropout."""
        sizes = self.architecture, self.window, self.dtype, self.num_frozen
        return lower_layers(self.parts, token_ids, lengths, *sizes)

    def from_hidden(self, hidden: Array, lengths: Array, train: bool = False) -> Array:
        """Computes the token states float32[B, T, H] of hidden states of the frozen layers."""
        sizes = self.architecture, self.window, self.dtype, self.num_frozen
        states = upper_layers(self.parts, hidden.astype(jnp.float32), lengths, *sizes)
        return self.drop_states(states, deterministic=not train)

    def hidden_rows(self, lengths: HostArray) -> HostArray:
        """Returns R of documents of the given lengths, int64[...]."""
        return hidden_rows(lengths, self.architecture, self.window)

    def __call__(self, token_ids: Array, lengths: Array, train: bool = False) -> Array:
        """Computes the token states float32[B, T, H] of token ids int32[B, T] and lengths int32[B].

        With `train`, dropout is on and needs a key named `dropout`.
        """

        if self.is_initializing():
            return declared(token_ids, self.state_size)

        def drop_embedding(x: Array) -> Array:
            return self.drop_embedding(x, deterministic=not train)

        states = transformer(
            self.parts, token_ids, lengths, self.architecture, self.window, self.dtype, drop_embedding
        )  # fmt: skip
        return self.drop_states(states, deterministic=not train)


def _init(key: Array, shapes: _Shapes) -> PyTree:
    """Returns random parameters as BERT starts from: scales of 1, biases of 0, other entries of deviation 0.02."""

    def init(path: tuple[jax.tree_util.DictKey, ...], shape: tuple[int, ...]) -> Array:
        name = path[-1].key
        if name in ("scale", "bias"):
            return jnp.full(shape, name == "scale", jnp.float32)
        return 0.02 * jax.random.normal(jax.random.fold_in(key, next(number)), shape)

    number = iter(range(100))
    return jax.tree_util.tree_map_with_path(init, shapes, is_leaf=lambda x: isinstance(x, tuple))


Family = Literal["bert", "distilbert", "roberta"]
"""How the tensors of a Hugging Face folder are named."""


class _LayerNames(NamedTuple):
    """Names of the tensors of a layer, without `.weight` and `.bias`; {} stands for the number of the layer."""

    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    inner: str
    output: str
    norm: str


_BERT = _LayerNames(
    query="encoder.layer.{}.attention.self.query",
    key="encoder.layer.{}.attention.self.key",
    value="encoder.layer.{}.attention.self.value",
    attention_output="encoder.layer.{}.attention.output.dense",
    attention_norm="encoder.layer.{}.attention.output.LayerNorm",
    inner="encoder.layer.{}.intermediate.dense",
    output="encoder.layer.{}.output.dense",
    norm="encoder.layer.{}.output.LayerNorm",
)
_DISTILBERT = _LayerNames(
    query="transformer.layer.{}.attention.q_lin",
    key="transformer.layer.{}.attention.k_lin",
    value="transformer.layer.{}.attention.v_lin",
    attention_output="transformer.layer.{}.attention.out_lin",
    attention_norm="transformer.layer.{}.sa_layer_norm",
    inner="transformer.layer.{}.ffn.lin1",
    output="transformer.layer.{}.ffn.lin2",
    norm="transformer.layer.{}.output_layer_norm",
)
_LAYER_NAMES: dict[Family, _LayerNames] = {"bert": _BERT, "distilbert": _DISTILBERT, "roberta": _BERT}

# RoBERTa counts positions from its padding id + 1.
_UNUSED_POSITIONS = {"bert": 0, "distilbert": 0, "roberta": 2}


def _old_name(name: str) -> str:
    """Returns the name that a tensor has in old files."""
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


class _Tensors:
    """Looks tensors up by name and checks their shapes."""

    def __init__(self, tensors: Mapping[str, HostArray], family: Family) -> None:
        """Accepts names with and without the family's prefix."""
        self._tensors = tensors
        prefix = f"{family}."
        self._prefix = prefix if any(name.startswith(prefix) for name in tensors) else ""

    def get(self, name: str, *shape: int | None) -> HostArray:
        """Returns a tensor as float32; its size along an axis may be any where `shape` has None.

        Raises:
            ValueError: it is missing, or its shape is another one.
        """
        name = self._prefix + name
        tensor = self._tensors.get(name, self._tensors.get(_old_name(name)))
        if tensor is None:
            raise ValueError(f"tensor {name} is missing")
        if tensor.ndim != len(shape) or any(n not in (m, None) for m, n in zip(tensor.shape, shape, strict=True)):
            expected = ", ".join("any" if n is None else str(n) for n in shape)
            raise ValueError(f"tensor {name} has shape {list(tensor.shape)}: expected [{expected}]")
        return np.asarray(tensor, np.float32)

    def norm(self, name: str, size: int) -> dict[str, HostArray]:
        """Returns the parameters of a layer norm."""
        return {"scale": self.get(f"{name}.weight", size), "bias": self.get(f"{name}.bias", size)}

    def dense(self, names: tuple[str, ...], rows: int, columns: int) -> dict[str, HostArray]:
        """Returns the parameters of dense layers with the same input, side by side."""
        kernels = [self.get(f"{name}.weight", columns, rows).T for name in names]
        return {
            "kernel": np.concatenate(kernels, axis=1),
            "bias": np.concatenate([self.get(f"{name}.bias", columns) for name in names]),
        }


def params_from_hugging_face(
    tensors: Mapping[str, HostArray], architecture: Architecture, family: Family
) -> dict[str, PyTree]:
    """Converts the tensors of a Hugging Face model to the parameters of `transformer`.

    Token type 0 is added to the positions, and the positions that RoBERTa never uses are cut off. Tensors behind the
    last layer (pooler, heads) are ignored.

    Args:
        tensors: by their names, with or without the prefix `bert.`, `distilbert.` or `roberta.`.
        architecture: sizes.
        family: how tensors are named.

    Returns:
        The parameters, float32.

    Raises:
        ValueError: a tensor is missing or has another shape.
    """
    source = _Tensors(tensors, family)
    params = {"embedding": _convert_embedding(source, architecture, family)}
    for i in range(architecture.num_layers):
        names = _LayerNames(*(name.format(i) for name in _LAYER_NAMES[family]))
        params[layer_name(i)] = _convert_layer(source, architecture, names)
    return params


def _convert_embedding(source: _Tensors, architecture: Architecture, family: Family) -> PyTree:
    hidden, unused = architecture.hidden_size, _UNUSED_POSITIONS[family]
    positions = source.get("embeddings.position_embeddings.weight", architecture.num_positions + unused, hidden)[
        unused:
    ]
    if family != "distilbert":
        positions = positions + source.get("embeddings.token_type_embeddings.weight", None, hidden)[0]
    return {
        "words": source.get("embeddings.word_embeddings.weight", architecture.vocabulary_size, hidden),
        "positions": positions,
        "norm": source.norm("embeddings.LayerNorm", hidden),
    }


def _convert_layer(source: _Tensors, architecture: Architecture, names: _LayerNames) -> PyTree:
    hidden, inner = architecture.hidden_size, architecture.intermediate_size
    return {
        "attention": {
            "qkv": source.dense((names.query, names.key, names.value), hidden, hidden),
            "output": source.dense((names.attention_output,), hidden, hidden),
            "norm": source.norm(names.attention_norm, hidden),
        },
        "feed_forward": {
            "inner": source.dense((names.inner,), hidden, inner),
            "output": source.dense((names.output,), inner, hidden),
            "norm": source.norm(names.norm, hidden),
        },
    }


def from_settings(settings: config.Encoder, shape: EncoderShape, dtype: DTypeLike) -> Transformer:
    """Returns the transformer of an architecture with the window and the dropout of the settings."""
    assert shape.architecture, "the folder of a transformer has its architecture"
    num_trained = settings.train if isinstance(settings.train, int) else shape.architecture.num_layers
    return Transformer(
        architecture=shape.architecture,
        num_frozen=max(0, shape.architecture.num_layers - num_trained),
        window=settings.window,
        embedding_dropout=settings.embedding_dropout,
        state_dropout=settings.encoder_dropout,
        dtype=dtype,
    )
