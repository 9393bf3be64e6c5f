"""Eq. 1 by a pretrained transformer of the BERT family: BERT, MiniLM, DistilBERT, RoBERTa.

Shapes: B documents, T tokens (padded), W windows of S tokens (their first and last token included), H hidden units.
All functions are pure. Padding is exact: values beyond a document's length change no output and no gradient.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lsfa_jax import config
from lsfa_jax.model.attention import token_mask
from lsfa_jax.model.encoders.interface import Architecture, EncoderShape, declared
from lsfa_jax.model.encoders.transformer_layer import layer, layer_norm
from lsfa_jax.model.encoders.windows import join_windows, split_windows, stride_of, windows_of
from lsfa_jax.types import Array, DTypeLike, HostArray, Params, PyTree


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
    num_tokens = hidden.shape[1] - 2 if number == 1 else largest + (number - 1) * stride_of(largest)
    windows = windows_of(num_tokens, largest)
    mask = token_mask(windows.lengths(lengths).reshape(-1) + 2, windows.size + 2)
    x = hidden.reshape(-1, architecture.hidden_size)
    x = _layers(params, x, mask, architecture, dtype, range(depth, architecture.num_layers))
    return join_windows(x.reshape(*mask.shape, -1), lengths, windows, num_tokens)


def hidden_rows(lengths: HostArray, architecture: Architecture, window: int) -> HostArray:
    """Returns int64[...], the rows of the hidden states of documents of the given lengths, int[...]."""
    largest = _tokens_at_once(architecture, window)
    number = 1 - np.minimum(largest - np.asarray(lengths), 0) // stride_of(largest)
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


def from_settings(settings: config.Encoder, shape: EncoderShape, dtype: DTypeLike) -> Transformer:
    """Returns the transformer of an architecture with the window and the dropout of the settings."""
    assert shape.architecture, "the folder of a transformer has its architecture"
    num_trained = settings.train if isinstance(settings.train, int) else shape.architecture.num_layers
    return Transformer(
        architecture=shape.architecture,
        num_frozen=max(0, shape.architecture.num_layers - num_trained),
        window=settings.window,
        # Without it where layers are frozen: it must not depend on whether their hidden states could be stored.
        embedding_dropout=settings.embedding_dropout if settings.train == "all" else 0.0,
        state_dropout=settings.encoder_dropout,
        dtype=dtype,
    )
