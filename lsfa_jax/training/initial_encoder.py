"""What the encoder starts from: word vectors of the corpus's vocabulary, or a pretrained encoder."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lsfa_jax.config import NAMED_VECTORS, Config
from lsfa_jax.data import cache, download, word_vectors
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.pieces import folder_of
from lsfa_jax.data.vocabulary import NUM_SPECIAL, PADDING
from lsfa_jax.model.encoders import EncoderShape
from lsfa_jax.training import pretrained, static_vectors
from lsfa_jax.types import HostArray, PyTree
from lsfa_jax.util import array_file
from lsfa_jax.util.console import note, warn

# Increased when the same words and settings would give other vectors.
_FORMAT = 1

# E of word vectors by a pretrained encoder.
_DISTILLED_SIZE = 128


class InitialEncoder(NamedTuple):
    """Initial parameters of an encoder."""

    name: str
    """What they are, for messages."""
    shape: EncoderShape
    params: dict[str, PyTree]
    """NumPy arrays by their names among the encoder's parameters; those that are not in it are drawn."""
    computed_from: str = ""
    """What decides the parameters beside the vocabulary, where they are computed and not read: they may differ in
    rounding between machines."""


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
    computed_from = f"{download.MINILM.sha256} {_FORMAT}" if config.vectors == "minilm" else ""
    return InitialEncoder("word vectors", EncoderShape(*table.shape), {"embedding": table}, computed_from)


def load_embedding(config: Config, words: Sequence[str]) -> HostArray:
    """Returns the word vector table, float32[vocabulary size, E], the padding's vector zero; prints the coverage.

    Args:
        config: `vectors`, not `auto`, and E for `none`.
        words: of the corpus.

    Raises:
        UserError: vectors cannot be read or fetched.
    """
    if config.vectors == "none":
        return _table(config, words)[0]
    path = Path(config.vectors).expanduser()
    # A path that is no file is an error, with a reason, where it is read.
    files = [path] if config.vectors not in NAMED_VECTORS and path.is_file() else []
    named_vectors = {"glove-50d": download.GLOVE_50D.sha256, "minilm": download.MINILM.sha256}
    inputs = {
        "format": _FORMAT,
        "vectors": cache.digest(path, config.data.verify)
        if files
        else named_vectors.get(config.vectors, config.vectors),
        "words": sha256("\n".join(words).encode()).hexdigest(),
    }
    if config.vectors != "minilm":
        inputs["seed"] = config.seed  # of the vectors of words that the source lacks

    def write(folder: Path) -> None:
        table, num_known = _table(config, words)
        np.save(folder / "table.npy", table)
        (folder / "known.json").write_text(json.dumps(num_known))

    folder = cache.folder("vectors", inputs, write, sources=files, verify=config.data.verify)
    num_known = json.loads((folder / "known.json").read_text())
    share = 100 * num_known / len(words) if words else 0.0
    note(f"Word vectors {config.vectors}: {num_known:,} of {len(words):,} words have one ({share:.1f} %)")
    return array_file.read(folder / "table.npy")


def _table(config: Config, words: Sequence[str]) -> tuple[HostArray, int]:
    """Makes the table, and counts the words that have a vector in the source."""
    if config.vectors == "minilm":
        loaded = static_vectors.of_words(config.vectors, words, _DISTILLED_SIZE)
    else:
        loaded = word_vectors.load_vectors(config.vectors, words, config.seed, config.encoder.embedding_size)
    table = np.zeros((NUM_SPECIAL + len(words), loaded.table.shape[1]), np.float32)
    table[NUM_SPECIAL:] = loaded.table
    # The unknown word is the mean of the others: nothing is known of it but that it is a word.
    table[PADDING + 1] = loaded.table.mean(axis=0) if len(words) else 0.0
    return table, int(loaded.known.sum())
