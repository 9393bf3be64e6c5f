"""Random documents of a benchmark's shape: NumPy only, so that a peer's interpreter can import it."""

from typing import NamedTuple

import numpy as np

from benchmarks.cases import Shape
from lsfa_jax.data.ragged import Ragged

# No more documents than this are drawn: lengths and labels repeat.
_MAX_DOCUMENTS = 12_000


class Documents(NamedTuple):
    """N documents as word ids and label ids."""

    words: Ragged
    """int32, from 2 on: 0 is padding."""
    labels: Ragged
    """int32, ascending in a document, without repetition."""
    scale: float
    """Training documents of the corpus for each drawn document."""

    @property
    def lengths(self) -> np.ndarray:
        """int64[N], words of each document."""
        return self.words.sizes

    def padded(self, rows: np.ndarray, num_words: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns int64[B, T] words, cut and padded to `num_words` or the longest document, and int64[B] lengths."""
        lengths = np.minimum(self.lengths[rows], num_words or self.lengths.max())
        words = np.zeros((len(rows), num_words or lengths.max()), np.int64)
        for row, (document, length) in enumerate(zip(rows, lengths, strict=True)):
            words[row, :length] = self.words.row(document)[:length]
        return words, lengths

    def pairs(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the positive pairs: int64[P] positions in `rows` and int64[P] labels."""
        labels = self.labels.take(np.asarray(rows))
        return labels.row_ids, labels.values.astype(np.int64)


def documents(shape: Shape, seed: int) -> Documents:
    """Draws documents: log-normal lengths, uniform words, labels whose frequency falls with their rank."""
    random = np.random.default_rng(seed)
    number = min(shape.num_documents, _MAX_DOCUMENTS)
    median = shape.mean_words / np.exp(shape.spread**2 / 2)
    lengths = np.clip(random.lognormal(np.log(median), shape.spread, number), 4, shape.max_words).astype(np.int64)
    cumulative = np.cumsum((np.arange(shape.num_labels) + 10.0) ** -1.1)
    counts = np.maximum(random.poisson(shape.labels_per_document, number), 1)
    drawn = np.searchsorted(cumulative / cumulative[-1], random.random(counts.sum()))
    labels = [np.unique(x) for x in np.split(drawn, np.cumsum(counts)[:-1])]
    return Documents(
        words=Ragged.from_sizes(random.integers(2, shape.vocabulary_size, lengths.sum()).astype(np.int32), lengths),
        labels=Ragged.from_rows(labels),
        scale=shape.num_documents / number,
    )


def step_rows(drawn: Documents, shape: Shape, num_words: int | None = None) -> np.ndarray:
    """Returns a batch of documents, int64[B], whose lengths are between 3/4 of `num_words` and `num_words`.

    With so little padding neither side gains by how it treats padding. `num_words` is `shape.step_words` by default.
    """
    num_words = num_words or shape.step_words
    fitting = np.flatnonzero((drawn.lengths <= num_words) & (drawn.lengths >= 0.75 * num_words))
    return np.random.default_rng(0).choice(fitting, shape.batch_size, replace=len(fitting) < shape.batch_size)


def random_rows(drawn: Documents, number: int, seed: int) -> np.ndarray:
    """Returns `number` different documents, int64[number]; the same for ours and for every peer."""
    return np.random.default_rng(seed).choice(len(drawn.lengths), number, replace=False)
