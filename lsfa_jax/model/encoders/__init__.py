"""Eq. 1: encoders behind one interface, token ids to token states.

An encoder is a Flax module with the members of `Encoder`. To add one, write it in a file of this folder, with a
function `from_settings` that returns it, and add the file's name to `config.EncoderKind`. No equation outside this
folder depends on which one is used.
"""

import importlib
from typing import cast

from lsfa_jax import config
from lsfa_jax.model.encoders.interface import Encoder, EncoderShape, LayeredEncoder, PoolingEncoder
from lsfa_jax.types import DTypeLike

__all__ = ["Encoder", "EncoderShape", "LayeredEncoder", "PoolingEncoder", "make_encoder"]


def make_encoder(settings: config.Encoder, shape: EncoderShape, dtype: DTypeLike) -> Encoder:
    """Returns the encoder that the settings name."""
    module = importlib.import_module(f"{__name__}.{settings.kind}")
    return cast(Encoder, module.from_settings(settings, shape, dtype))
