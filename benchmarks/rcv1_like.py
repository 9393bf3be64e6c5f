"""Documents of RCV1's shape, random words and labels, for the benchmarks."""

import numpy as np

from lsfa_jax.data.corpus import Split
from lsfa_jax.metrics import LabelSets


def rcv1_like(num_documents: int, num_labels: int, vocabulary: int, max_words: int) -> Split:
    """Documents with the lengths (log-normal, mean 138, median 102) and labels a document (3.18) of RCV1."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(np.log(102), 0.78, num_documents), 4, max_words).astype(np.int64)
    labels = np.clip(random.poisson(3.18, num_documents), 1, 14)
    ids = np.concatenate([random.choice(num_labels, size=k, replace=False) for k in labels]).astype(np.int32)
    offsets = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in (lengths, labels)]
    words = random.integers(2, vocabulary, offsets[0][-1]).astype(np.int32)
    return Split(words, offsets[0], LabelSets(ids, offsets[1]))
