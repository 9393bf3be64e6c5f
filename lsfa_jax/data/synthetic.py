"""A long-tailed corpus made of nothing but a seed: the embedded default, and the one that tests learn from.

Labels follow Zipf's law, and a rare label comes with a frequent one, as "Neptune" comes with "astronomy". Each document
speaks of its labels from one of a few angles, and angles are shared: what varies within a frequent label varies in the
same way within a rare one, which is what LSFA carries over.
"""

from collections.abc import Iterator

import numpy as np

from lsfa_jax.data.reading.documents import Document

_NUM_ANGLES = 6
_WORDS_PER_LABEL = 12
_WORDS_PER_ANGLE = 20
_NUM_COMMON_WORDS = 600
# Shares of a document's words: about its labels, of its angle; the rest is common.
_ABOUT_LABEL = 0.35
_ABOUT_ANGLE = 0.25


def documents(
    num_documents: int, num_labels: int = 60, seed: int = 0, split: int = 0, mean_length: int = 40
) -> Iterator[Document]:
    """Makes documents.

    Args:
        num_documents: how many.
        num_labels: L; the most frequent third has no parent, the others bring one of those along.
        seed: of the language, which splits share.
        split: of the documents; another number, other documents.
        mean_length: words a document on average.

    Yields:
        Documents with one to about six labels, named `frequent_3`, `rare_41` and so on.
    """
    language = np.random.Generator(np.random.Philox(key=[seed, 0]))
    random = np.random.Generator(np.random.Philox(key=[seed, 1 + split]))
    num_frequent = max(1, num_labels // 3)
    share = 1.0 / np.arange(1, num_labels + 1) ** 1.2
    share /= share.sum()
    parent = language.integers(num_frequent, size=num_labels)
    # Each angle prefers some of a label's words, the same positions in every label.
    preference = language.dirichlet(np.full(_WORDS_PER_LABEL, 0.3), size=_NUM_ANGLES)
    common = 1.0 / np.arange(1, _NUM_COMMON_WORDS + 1)
    # Added up once: `choice` with probabilities does it at every draw, and takes ten times as long.
    preference, common = np.cumsum(preference, axis=1), np.cumsum(common / common.sum())

    def draw(cumulative: np.ndarray) -> int:
        return int(cumulative.searchsorted(random.random() * cumulative[-1], side="right"))

    for _ in range(num_documents):
        chosen = random.choice(num_labels, size=min(num_labels, 1 + random.poisson(1.4)), replace=False, p=share)
        labels = sorted({int(label) for label in chosen} | {int(parent[x]) for x in chosen if x >= num_frequent})
        angle = random.integers(_NUM_ANGLES)
        length = 8 + random.poisson(max(0, mean_length - 8))
        kind = random.random(length)
        words = []
        for x in kind:
            if x < _ABOUT_LABEL:
                word = draw(preference[angle])
                words.append(f"label{labels[random.integers(len(labels))]}w{word}")
            elif x < _ABOUT_LABEL + _ABOUT_ANGLE:
                words.append(f"angle{angle}w{random.integers(_WORDS_PER_ANGLE)}")
            else:
                words.append(f"common{draw(common)}")
        names = tuple(f"{'frequent' if label < num_frequent else 'rare'}_{label}" for label in labels)
        yield Document(" ".join(words), names)
