"""A baseline of the paper: XML-CNN (Liu et al., SIGIR 2017), one vector a document instead of a state a token.

Filters of several widths pass over the words, and the largest value of each filter in each of p parts of the text is
kept (dynamic max pooling). As the only token state of the document, the vector is the feature of every label: label
attention over one state is 1. The feature head is the paper's hidden bottleneck layer, and the classifiers its output.

Shapes: B documents, T tokens (padded), E embedding, F filters of a width, p parts.
"""

from typing import ClassVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from lsfa_jax import config
from lsfa_jax.model.attention import token_mask
from lsfa_jax.model.encoders.cnn import convolve
from lsfa_jax.model.encoders.interface import EncoderShape
from lsfa_jax.types import Array, DTypeLike, HostArray, Params

WIDTHS = (2, 4, 8)
"""Words under the filters."""


def xml_cnn(params: Params, x: Array, lengths: Array, num_parts: int, dtype: DTypeLike = jnp.float32) -> Array:
    """Computes the pooled filters of each document.

    Token t of a text of n tokens belongs to part floor(t p / n). Parts are those of each text; in the paper, where all
    texts are padded to one length, they are those of this length. A part without tokens is 0, as where no filter fires.

    Args:
        params: for each width `width_K` with `kernel` [K, E, F] and `bias` [F].
        x: float32[B, T, E], token embeddings.
        lengths: int32[B], tokens of each document; may be 0.
        num_parts: p.
        dtype: of the matrix products.

    Returns:
        float32[B, 1, p x widths x F].
    """
    chex.assert_rank(x, 3)
    mask = token_mask(lengths, x.shape[1])
    x = x * mask[..., None]
    filtered = [jax.nn.relu(convolve(x, layer["kernel"], dtype) + layer["bias"]) for _, layer in sorted(params.items())]
    values = jnp.concatenate(filtered, axis=-1)
    part_of = jnp.arange(x.shape[1]) * num_parts // jnp.maximum(lengths, 1)[:, None]
    parts = [
        jnp.max(jnp.where((mask & (part_of == part))[..., None], values, 0.0), axis=1) for part in range(num_parts)
    ]
    return jnp.concatenate(parts, axis=-1)[:, None]


class XmlCnn(nn.Module):
    """XML-CNN up to its bottleneck layer: token embeddings, filters, pooling, with dropout before and after.

    Attributes:
        vocabulary_size: rows of the embedding table.
        embedding_size: E.
        num_filters: F.
        num_parts: p.
        embedding_dropout: rate of the dropout on the embeddings.
        state_dropout: rate of the dropout on the pooled vector.
        trainable_embedding: whether the embedding table has a gradient.
        dtype: of the matrix products, float32 or bfloat16.
    """

    vocabulary_size: int
    embedding_size: int
    num_filters: int
    num_parts: int = 8
    embedding_dropout: float = 0.0
    state_dropout: float = 0.0
    trainable_embedding: bool = True
    dtype: DTypeLike = jnp.float32

    stored_dtype: ClassVar[DTypeLike] = jnp.float32

    @property
    def state_size(self) -> int:
        """Size of the pooled vector."""
        return self.num_parts * len(WIDTHS) * self.num_filters

    def state_rows(self, lengths: HostArray) -> HostArray:
        """Returns the states of documents of the given lengths, 1 each."""
        return (lengths > 0).astype(lengths.dtype)

    def setup(self) -> None:
        embedding_shape = (self.vocabulary_size, self.embedding_size)
        self.embedding = self.param("embedding", nn.initializers.normal(0.1), embedding_shape)
        self.layers = {f"width_{width}": self.param(f"width_{width}", self._init_layer, width) for width in WIDTHS}
        self.drop_embedding = nn.Dropout(self.embedding_dropout)
        self.drop_states = nn.Dropout(self.state_dropout)

    def _init_layer(self, key: Array, width: int) -> dict[str, Array]:
        shape = (width, self.embedding_size, self.num_filters)
        return {"kernel": nn.initializers.xavier_uniform()(key, shape), "bias": jnp.zeros(self.num_filters)}

    def __call__(self, token_ids: Array, lengths: Array, train: bool = False) -> Array:
        """Computes the pooled vector float32[B, 1, state_size] of token ids int32[B, T] and lengths int32[B].

        With `train`, dropout is on and needs a key named `dropout`.
        """
        if self.is_initializing():
            return jnp.zeros((len(token_ids), 1, self.state_size))
        table = self.embedding if self.trainable_embedding else jax.lax.stop_gradient(self.embedding)
        x = self.drop_embedding(table[token_ids], deterministic=not train)
        pooled = xml_cnn(self.layers, x, lengths, self.num_parts, self.dtype)
        return self.drop_states(pooled, deterministic=not train)


def from_settings(settings: config.Encoder, shape: EncoderShape, dtype: DTypeLike) -> XmlCnn:
    """Returns the encoder that the settings describe."""
    return XmlCnn(
        vocabulary_size=shape.vocabulary_size,
        embedding_size=shape.embedding_size,
        num_filters=settings.hidden_size,
        embedding_dropout=settings.embedding_dropout,
        state_dropout=settings.encoder_dropout,
        trainable_embedding=settings.embedding_trainable != "no",
        dtype=dtype,
    )
