"""Texts to numbers: those of their words, or of another vocabulary with the members of `Vocabulary`."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import repeat
from typing import Protocol

import numpy as np

from lsfa_jax.data.tokenizer import Tokenizer

PADDING = 0
UNKNOWN = 1
NUM_SPECIAL = 2
"""Word ids below this are padding and the unknown word; the vocabulary's words follow, most frequent first."""


class Vocabulary(Protocol):
    """Texts as token ids, one of an encoder's two inputs."""

    @property
    def size(self) -> int:
        """The largest token id + 1."""

    @property
    def max_tokens(self) -> int:
        """Tokens of a text at most."""

    def encode(self, text: str) -> np.ndarray:
        """Returns int32[T], the ids of a text's tokens, up to its `data.max_words`-th word."""

    def is_known(self, ids: np.ndarray) -> np.ndarray:
        """Returns a bool for each token id, false where it stands for anything that the vocabulary lacks."""

    def word_places(self, text: str) -> tuple[list[tuple[int, int]], np.ndarray]:
        """Returns the words that the tokens of `encode(text)` belong to.

        Returns:
            Start and end of each word in `Tokenizer.normalised(text)`, and int64[T], the place of each token's word in
            this list.
        """


class WordCounter:
    """Numbers words in the order in which they are first seen, so that a corpus is read once and held as integers."""

    def __init__(self) -> None:
        self.ids: defaultdict[str, int] = defaultdict()
        # A word that is looked up for the first time gets the next number.
        self.ids.default_factory = self.ids.__len__

    def number(self, words: Sequence[str]) -> np.ndarray:
        """Returns int32[words], their provisional ids."""
        return np.fromiter(map(self.ids.__getitem__, words), np.int32, len(words))

    def most_frequent(self, counts: np.ndarray, limit: int, known: Sequence[str] = ()) -> tuple[list[str], np.ndarray]:
        """Chooses the vocabulary.

        Args:
            counts: int[number of provisional ids], how often each occurs in training.
            limit: words kept at most, the known ones not counted.
            known: words that come first, whether or not they occur.

        Returns:
            The words, behind the known ones most frequent first (ties in the order of first sight), and int32[number
            of provisional ids], the final id of each provisional one: `UNKNOWN` for what is not kept.
        """
        words, places = list(self.ids), {word: NUM_SPECIAL + i for i, word in enumerate(known)}
        final = np.fromiter((places.get(word, UNKNOWN) for word in words), np.int32, len(words))
        order = np.argsort(-counts, kind="stable")
        order = order[(counts[order] > 0) & (final[order] == UNKNOWN)][:limit]
        final[order] = NUM_SPECIAL + len(known) + np.arange(len(order))
        return [*known, *(words[i] for i in order)], final


class Words:
    """A vocabulary of words: a token is a word, and its id `NUM_SPECIAL` + its place in the vocabulary."""

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer, max_words: int) -> None:
        """Indexes the vocabulary `words`; `max_words` of each text are read."""
        self._index = {word: NUM_SPECIAL + i for i, word in enumerate(words)}
        self._tokenizer, self.max_tokens = tokenizer, max_words
        self.size = NUM_SPECIAL + len(self._index)

    def encode(self, text: str) -> np.ndarray:
        words = self._tokenizer.first_words(text, self.max_tokens)
        return np.fromiter(map(self._index.get, words, repeat(UNKNOWN)), np.int32, len(words))

    def is_known(self, ids: np.ndarray) -> np.ndarray:
        return ids > UNKNOWN

    def word_places(self, text: str) -> tuple[list[tuple[int, int]], np.ndarray]:
        spans = self._tokenizer.spans(text, self.max_tokens)
        return spans, np.arange(len(spans))
