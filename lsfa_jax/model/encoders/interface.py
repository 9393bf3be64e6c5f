"""What every encoder has, and the sizes that it is built for."""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp

from lsfa_jax.types import Array, DTypeLike, HostArray


class Encoder(Protocol):
    """Computes a state for each token of a document."""

    @property
    def state_size(self) -> int:
        """Size of a token state, called 2H also where it is another number."""

    @property
    def stored_dtype(self) -> DTypeLike:
        """Precision in which states may be stored for a stage with a frozen encoder."""

    def __call__(self, token_ids: Array, lengths: Array, train: bool = False) -> Array:
        """Computes float32[B, T, 2H] of token ids int32[B, T] and lengths int32[B]; padding changes no state."""


@runtime_checkable
class PoolingEncoder(Encoder, Protocol):
    """An encoder that has one state for a whole document, in place of one for each token."""

    def state_rows(self, lengths: HostArray) -> HostArray:
        """Returns the number of states of documents of the given lengths, int64[...]."""


class LayeredEncoder(Encoder, Protocol):
    """An encoder whose first layers may be frozen and their hidden states stored, R rows a document."""

    def hidden(self, token_ids: Array, lengths: Array) -> Array:
        """Computes the hidden states of the frozen layers, float32[B, R, H]."""

    def from_hidden(self, hidden: Array, lengths: Array, train: bool = False) -> Array:
        """Computes the token states float32[B, T, 2H] of hidden states."""

    def hidden_rows(self, lengths: HostArray) -> HostArray:
        """Returns R of documents of the given lengths, int64[...]."""


class Architecture(NamedTuple):
    """The sizes of a transformer, as the config.json beside its weights has them."""

    vocabulary_size: int
    """Rows of the embedding table."""
    hidden_size: int
    """H."""
    num_layers: int
    num_heads: int
    intermediate_size: int
    """Hidden units of the feed-forward network."""
    num_positions: int
    """Tokens of a window at most, the first and the last token included."""
    activation: Literal["gelu", "gelu_tanh", "relu"]
    norm_epsilon: float
    first_id: int
    """Id of the token before each window, [CLS] or <s>."""
    last_id: int
    """Id of the token after each window, [SEP] or </s>."""

    @property
    def is_possible(self) -> bool:
        """Whether a transformer of these sizes can be built."""
        sizes = self.vocabulary_size, self.hidden_size, self.num_layers, self.num_heads, self.intermediate_size
        return (
            min(sizes) >= 1
            and self.hidden_size % self.num_heads == 0
            and self.num_positions >= 3
            and 0 < self.norm_epsilon < 1
            and min(self.first_id, self.last_id) >= 0
            and max(self.first_id, self.last_id) < self.vocabulary_size
        )


class EncoderShape(NamedTuple):
    """The sizes of an encoder that come from its data and not from the settings."""

    vocabulary_size: int
    """Rows of the embedding table."""
    embedding_size: int
    """Columns of the embedding table, E."""
    architecture: Architecture | None = None
    """Of a pretrained transformer, as its folder says; None for an encoder that starts from random weights."""


def declared(token_ids: Array, state_size: int) -> Array:
    """Returns zeros in place of token states while an encoder's parameters are declared.

    To compute states asks which devices there are. A model is read from its folder without that, so that its process
    may still fork.
    """
    return jnp.zeros((*token_ids.shape, state_size))
