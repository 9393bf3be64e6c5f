"""What the encoder starts from: word vectors of the corpus's vocabulary, or a pretrained encoder."""

from typing import NamedTuple

from lsfa_jax.config import Config
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.load import load_embedding
from lsfa_jax.data.pieces import folder_of
from lsfa_jax.model.encoders import EncoderShape
from lsfa_jax.training import pretrained
from lsfa_jax.types import PyTree
from lsfa_jax.util.console import warn


class InitialEncoder(NamedTuple):
    """Initial parameters of an encoder."""

    name: str
    """What they are, for messages."""
    shape: EncoderShape
    params: dict[str, PyTree]
    """NumPy arrays by their names among the encoder's parameters; those that are not in it are drawn."""


def initial_encoder(config: Config, corpus: Corpus) -> InitialEncoder:
    """Returns what the encoder of the settings starts from.

    Raises:
        UserError: vectors or encoder cannot be read.
    """
    if config.encoder.pretrained:
        if config.encoder.train != "frozen" and config.optimizer.encoder_learning_rate == "same":
            warn(
                f"the pretrained encoder is trained at the labels' rate of {config.optimizer.learning_rate:g}, which "
                "may ruin it; --optimizer.encoder-learning-rate 1e-4 is usual"
            )
        encoder = pretrained.read(folder_of(config.encoder.pretrained))
        sizes = encoder.architecture.vocabulary_size, encoder.architecture.hidden_size
        return InitialEncoder("pretrained encoder", EncoderShape(*sizes, encoder.architecture), encoder.params)
    table = load_embedding(config, corpus.words)
    return InitialEncoder("word vectors", EncoderShape(*table.shape), {"embedding": table})
