"""Word vectors by a pretrained transformer that reads each word alone, in fewer dimensions.

They give an encoder that starts from nothing a part of what the transformer knows, for seconds and not hours of its
time (as Model2Vec does for sentence embeddings, Tulkens and van Dongen 2024).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.pieces import Pieces, folder_of, read_tokenizer
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER
from lsfa_jax.data.word_vectors import STANDARD_DEVIATION, WordVectors
from lsfa_jax.model.encoders.interface import Architecture
from lsfa_jax.model.encoders.transformer import transformer
from lsfa_jax.training import pretrained
from lsfa_jax.types import Array, HostArray, Params
from lsfa_jax.util.console import progress

# Words that are read at once, and the numbers of pieces that they are padded to; of a longer word the beginning is
# read.
_WORDS, _PIECES = 512, (2, 4, 8)


def of_words(name: str, words: Sequence[str], size: int) -> WordVectors:
    """Computes vectors of words: the mean state of a word's pieces, in its first principal components.

    Their mean is 0 and their standard deviation 0.5. A word without a piece that the transformer knows has the vector
    0 and is not known.

    Args:
        name: of the transformer, as `--encoder` takes it.
        words: V words.
        size: E, at most the size of the transformer's states.

    Raises:
        UserError: the transformer cannot be fetched or read.
    """
    folder = folder_of(name)
    encoder, pieces = pretrained.read(folder), Pieces(read_tokenizer(folder), DEFAULT_TOKENIZER, max_words=2)
    ids = [pieces.encode(word)[: _PIECES[-1]] for word in words]
    known = np.array([bool(pieces.is_known(of_word).any()) for of_word in ids], bool)
    states = np.zeros((len(words), encoder.architecture.hidden_size), np.float32)
    no_labels = Ragged.of_empty_rows(len(words))
    batches = Batches(Split(Ragged.from_rows(ids), no_labels), 1, _WORDS, _PIECES, longest=_PIECES[-1])
    with progress(f"word vectors by {name}", len(words), "words") as advance:
        for rows in batches.in_order():
            batch = batches.gather(rows)
            states[rows] = _mean_states(encoder.architecture, encoder.params, batch.words, batch.lengths)[: len(rows)]
            advance(len(rows))
    table = np.zeros((len(words), min(size, states.shape[1])), np.float32)
    table[known] = principal_components(states[known], table.shape[1])
    return WordVectors(table, known)


def principal_components(x: HostArray, size: int) -> HostArray:
    """Projects float[N, H] on the first principal components, float32[N, size] with mean 0 and one scale for all.

    The sign of each component is such that its largest weight is positive.
    """
    centered = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64) if len(x) else np.zeros(x.shape)
    _, vectors = np.linalg.eigh(centered.T @ centered)
    vectors = vectors[:, ::-1][:, :size]
    largest = np.take_along_axis(vectors, np.argmax(np.abs(vectors), axis=0)[None], axis=0)
    projected = centered @ (vectors * np.sign(largest))
    return (projected * (STANDARD_DEVIATION / max(projected.std() if len(x) else 0.0, 1e-12))).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _mean_states(architecture: Architecture, params: Params, token_ids: Array, lengths: Array) -> Array:
    """Computes the mean state float32[B, H] of the pieces int32[B, T] of each word."""
    states = transformer(params, token_ids, lengths, architecture, window=_PIECES[-1] + 2)
    return states.sum(axis=1) / jnp.maximum(lengths, 1)[:, None]
