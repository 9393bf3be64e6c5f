"""Eq. 1: encoders behind one interface, token ids to token states.

An encoder is a Flax module with the members of `Encoder`. To add one, write it in a file of this folder and list it in
`ENCODERS`; nothing outside this folder depends on which one is used.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from lsfa_jax import config
from lsfa_jax.model.encoders.bilstm import BiLstm
from lsfa_jax.model.encoders.cnn import Cnn
from lsfa_jax.model.encoders.transformer import Architecture, Transformer
from lsfa_jax.types import Array, DTypeLike
from lsfa_jax.util.console import UserError


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


def _bilstm(settings: config.Encoder, shape: EncoderShape, dtype: DTypeLike) -> BiLstm:
    return BiLstm(
        vocabulary_size=shape.vocabulary_size,
        embedding_size=shape.embedding_size,
        hidden_size=settings.hidden_size,
        embedding_dropout=settings.embedding_dropout,
        state_dropout=settings.encoder_dropout,
        trainable_embedding=settings.embedding_trainable != "no",
        dtype=dtype,
    )


def _transformer(settings: config.Encoder, shape: EncoderShape, dtype: DTypeLike) -> Transformer:
    assert shape.architecture, "the folder of a transformer has its architecture"
    num_layers = shape.architecture.num_layers
    train_from = {"all": 0, "frozen": num_layers + 1}.get(str(settings.train))
    if train_from is None:
        if int(settings.train) > num_layers:
            raise UserError(f"encoder.train = {settings.train}: expected all, frozen, or 1 to {num_layers} last layers")
        train_from = num_layers + 1 - int(settings.train)
    return Transformer(
        architecture=shape.architecture,
        window=settings.window,
        train_from=train_from,
        embedding_dropout=settings.embedding_dropout,
        state_dropout=settings.encoder_dropout,
        dtype=dtype,
    )


def _cnn(settings: config.Encoder, shape: EncoderShape, dtype: DTypeLike) -> Cnn:
    return Cnn(
        vocabulary_size=shape.vocabulary_size,
        embedding_size=shape.embedding_size,
        num_filters=2 * settings.hidden_size,
        kernel_width=settings.kernel_width,
        residual_blocks=settings.residual_blocks,
        embedding_dropout=settings.embedding_dropout,
        state_dropout=settings.encoder_dropout,
        trainable_embedding=settings.embedding_trainable != "no",
        dtype=dtype,
    )


ENCODERS: dict[str, Callable[[config.Encoder, EncoderShape, DTypeLike], Encoder]] = {
    "bilstm": _bilstm,
    "cnn": _cnn,
    "transformer": _transformer,
}
"""Encoders by the name that `encoder.kind` has in the settings."""


def make_encoder(settings: config.Encoder, shape: EncoderShape, dtype: DTypeLike) -> Encoder:
    """Returns the encoder that the settings name.

    Raises:
        UserError: there is no such encoder.
    """
    if settings.kind not in ENCODERS:
        raise UserError(f"encoder.kind = {settings.kind!r}: expected one of {', '.join(ENCODERS)}")
    return ENCODERS[settings.kind](settings, shape, dtype)
