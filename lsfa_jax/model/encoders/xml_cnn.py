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
from lsfa_jax.model.encoders.words import WordEncoder, shared_settings
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


class XmlCnn(WordEncoder, kw_only=True):
    """XML-CNN up to its bottleneck layer: filters and pooling, with their parameters.

    Attributes:
        num_filters: F.
        num_parts: p.
    """

    num_filters: int
    num_parts: int = 8

    stored_dtype: ClassVar[DTypeLike] = jnp.float32

    @property
    def encoded_size(self) -> int:
        """Size of the pooled vector."""
        return self.num_parts * len(WIDTHS) * self.num_filters

    def state_rows(self, lengths: HostArray) -> HostArray:
        """Returns the states of documents of the given lengths, 1 each."""
        return (lengths > 0).astype(lengths.dtype)

    def setup(self) -> None:
        super().setup()
        self.layers = {f"width_{width}": self.param(f"width_{width}", self._init_layer, width) for width in WIDTHS}

    def _init_layer(self, key: Array, width: int) -> dict[str, Array]:
        shape = (width, self.embedding_size, self.num_filters)
        return {"kernel": nn.initializers.xavier_uniform()(key, shape), "bias": jnp.zeros(self.num_filters)}

    def encode(self, x: Array, lengths: Array) -> Array:
        """Computes the pooled vector float32[B, 1, encoded_size]."""
        return xml_cnn(self.layers, x, lengths, self.num_parts, self.dtype)


def from_settings(settings: config.Encoder, shape: EncoderShape, dtype: DTypeLike) -> XmlCnn:
    """Returns the encoder that the settings describe."""
    shared = shared_settings(settings, shape, dtype) | {"append_embedding": False}  # there is no state of a word
    return XmlCnn(num_filters=settings.hidden_size, **shared)
