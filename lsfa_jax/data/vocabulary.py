"""Words to numbers, and texts to the numbers of their words."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import repeat

import numpy as np

from lsfa_jax.data.tokenizer import Tokenizer

PADDING = 0
UNKNOWN = 1
NUM_SPECIAL = 2
"""Word ids below this are padding and the unknown word; the vocabulary's words follow, most frequent first."""


class WordCounter:
    """Numbers words in the order in which they are first seen, so that a corpus is read once and held as integers."""

    def __init__(self) -> None:
        self.ids: defaultdict[str, int] = defaultdict()
        # A word that is looked up for the first time gets the next number.
        self.ids.default_factory = self.ids.__len__

    def number(self, words: Sequence[str]) -> np.ndarray:
        """Returns int32[words], their provisional ids."""
        return np.fromiter(map(self.ids.__getitem__, words), np.int32, len(words))

    def most_frequent(self, counts: np.ndarray, limit: int) -> tuple[list[str], np.ndarray]:
        """Chooses the vocabulary.

        Args:
            counts: int[number of provisional ids], how often each occurs in training.
            limit: words kept at most.

        Returns:
            The words, most frequent first (ties in the order of first sight), and int32[number of provisional ids], the
            final id of each provisional one: `UNKNOWN` for what is not kept.
        """
        order = np.argsort(-counts, kind="stable")[:limit]
        order = order[counts[order] > 0]
        final = np.full(len(counts), UNKNOWN, np.int32)
        final[order] = np.arange(NUM_SPECIAL, NUM_SPECIAL + len(order))
        words = list(self.ids)
        return [words[i] for i in order], final


def encode(text: str, index: dict[str, int], max_words: int, tokenizer: Tokenizer) -> np.ndarray:
    """Returns int32[<= max_words], the ids of the first words of a text in a finished vocabulary."""
    words = tokenizer.first_words(text, max_words)
    return np.fromiter(map(index.get, words, repeat(UNKNOWN)), np.int32, len(words))


def word_index(words: Sequence[str]) -> dict[str, int]:
    """Returns the id of each word of a vocabulary."""
    return {word: NUM_SPECIAL + i for i, word in enumerate(words)}
