"""What the encoders of words share: embedding table, dropout before and after them, embeddings in the states."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lsfa_jax import config
from lsfa_jax.model.attention import token_mask
from lsfa_jax.model.encoders.interface import EncoderShape, declared
from lsfa_jax.types import Array, DTypeLike


class WordEncoder(nn.Module):
    """Token embeddings, an encoder of them, and dropout after each; a subclass has `encode` and `encoded_size`.

    Attributes:
        vocabulary_size: rows of the embedding table.
        embedding_size: E.
        embedding_dropout: rate of the dropout on the embeddings.
        state_dropout: rate of the dropout on the states.
        trainable_embedding: whether the embedding table has a gradient.
        append_embedding: whether the state of a token ends with its embedding.
        dtype: of the matrix products, float32 or bfloat16.
    """

    vocabulary_size: int
    embedding_size: int
    embedding_dropout: float = 0.0
    state_dropout: float = 0.0
    trainable_embedding: bool = True
    append_embedding: bool = False
    dtype: DTypeLike = jnp.float32

    @property
    def encoded_size(self) -> int:
        """2H, the size of what `encode` computes for a token."""
        raise NotImplementedError

    def encode(self, x: Array, lengths: Array) -> Array:
        """Computes float32[B, T, 2H] of embeddings float32[B, T, E] and lengths int32[B]."""
        raise NotImplementedError

    @property
    def state_size(self) -> int:
        """2H, or 2H + E with the embedding appended."""
        return self.encoded_size + (self.embedding_size if self.append_embedding else 0)

    def setup(self) -> None:
        embedding_shape = (self.vocabulary_size, self.embedding_size)
        self.embedding = self.param("embedding", nn.initializers.normal(0.1), embedding_shape)
        self.drop_embedding = nn.Dropout(self.embedding_dropout)
        self.drop_states = nn.Dropout(self.state_dropout)

    def __call__(self, token_ids: Array, lengths: Array, train: bool = False) -> Array:
        """Computes the token states float32[B, T, 2H] or [B, T, 2H + E] of token ids int32[B, T], lengths int32[B].

        With `train`, dropout is on and needs a key named `dropout`.
        """
        if self.is_initializing():
            return declared(token_ids, self.state_size)
        table = self.embedding if self.trainable_embedding else jax.lax.stop_gradient(self.embedding)
        x = self.drop_embedding(table[token_ids], deterministic=not train)
        states = self.drop_states(self.encode(x, lengths), deterministic=not train)
        return with_embedding(states, x, lengths) if self.append_embedding else states


def with_embedding(states: Array, embeddings: Array, lengths: Array) -> Array:
    """Appends each token's embedding to its state, so that a label can attend to a word itself and not only in context.

    Args:
        states: float32[B, T, 2H], zero beyond each document's length.
        embeddings: float32[B, T, E].
        lengths: int32[B], tokens of each document.

    Returns:
        float32[B, T, 2H + E], zero beyond each document's length.
    """
    mask = token_mask(lengths, embeddings.shape[1])
    return jnp.concatenate([states, embeddings * mask[..., None]], axis=-1)


def shared_settings(settings: config.Encoder, shape: EncoderShape, dtype: DTypeLike) -> dict[str, Any]:
    """Returns the attributes of `WordEncoder` that the settings describe."""
    return {
        "vocabulary_size": shape.vocabulary_size,
        "embedding_size": shape.embedding_size,
        "embedding_dropout": settings.embedding_dropout,
        "state_dropout": settings.encoder_dropout,
        "trainable_embedding": settings.embedding_trainable != "no",
        "append_embedding": settings.append_embedding,
        "dtype": dtype,
    }
