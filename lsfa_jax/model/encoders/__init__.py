"""Eq. 1: encoders behind one interface, token ids to token states.

An encoder is a Flax module with the members of `Encoder`. To add one, write it in a file of this folder, with a
function `from_settings` that returns it, and add the file's name to `config.EncoderKind`. Nothing outside this folder
depends on which one is used.
"""

import importlib
from typing import NamedTuple, Protocol, cast

from lsfa_jax import config
from lsfa_jax.model.encoders.transformer import Architecture
from lsfa_jax.types import Array, DTypeLike


class Encoder(Protocol):
    """Computes a state for each token of a document."""

    @property
    def state_size(self) -> int:
        """Size of a token state, 2H."""

    @property
    def stored_dtype(self) -> DTypeLike:
        """Precision in which states may be stored for a stage with a frozen encoder."""

    def __call__(self, token_ids: Array, lengths: Array, train: bool = False) -> Array:
        """Computes float32[B, T, 2H] of token ids int32[B, T] and lengths int32[B]; padding changes no state."""


class EncoderShape(NamedTuple):
    """The sizes of an encoder that come from its data and not from the settings."""

    vocabulary_size: int
    """Rows of the embedding table."""
    embedding_size: int
    """Columns of the embedding table, E."""
    architecture: Architecture | None = None
    """Of a pretrained transformer, as its folder says; None for an encoder that starts from random weights."""


def make_encoder(settings: config.Encoder, shape: EncoderShape, dtype: DTypeLike) -> Encoder:
    """Returns the encoder that the settings name.

    Raises:
        UserError: a setting does not fit the pretrained encoder.
    """
    module = importlib.import_module(f"{__name__}.{settings.kind}")
    return cast(Encoder, module.from_settings(settings, shape, dtype))
