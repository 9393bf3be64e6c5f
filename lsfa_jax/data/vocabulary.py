"""Texts to words, and words to numbers."""

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from itertools import repeat

import numpy as np

PADDING = 0
UNKNOWN = 1
NUM_SPECIAL = 2
"""Word ids below this are padding and the unknown word; the vocabulary's words follow, most frequent first."""

# Combining marks (vowel signs, accents) belong to the word although `\w` lacks them: words of Hindi would be split. The
# lookahead saves the many characters below the first mark a search through the marks.
_MARKS = "".join(mark for mark in map(chr, range(0x20000)) if unicodedata.category(mark).startswith("M"))
_WORD = re.compile(rf"[^\W_]+(?:(?=[^\0-\u02ff])[{_MARKS}]+[^\W_]*)*")
# Keeps ASCII letters and digits and replaces the rest by spaces.
_ASCII_WORDS = bytes(code if chr(code).isalnum() and code < 128 else ord(" ") for code in range(256))
_LETTER, _MARK = 1, 2

# Characters of a text that `first_words` looks at first for each of the words: few texts need a second look.
_LETTERS_A_WORD = 10


def tokenize(text: str) -> list[str]:
    """Splits a text into words: lower-cased runs of letters, digits and their accents, of any script."""
    return _lowered_words(text.lower())


def _lowered_words(text: str) -> list[str]:
    if text.isascii():
        # Without accents, separators are replaced by spaces, in a sixth of the time.
        return text.encode().translate(_ASCII_WORDS).decode().split()
    return _WORD.findall(text)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Returns the start and end of each word of `tokenize` in a text."""
    return [match.span() for match in _WORD.finditer(text)]


def first_words(text: str, limit: int) -> list[str]:
    """Returns `tokenize(text)[:limit]`, without going through the rest of a long text."""
    text = text.lower()
    end = _LETTERS_A_WORD * limit
    while end < len(text):
        # The cut may go through the last word, which is therefore left out.
        words = _lowered_words(text[:end])[:-1]
        if len(words) >= limit:
            return words[:limit]
        end *= 2
    return _lowered_words(text)[:limit]


def count_words(text: str) -> int:
    """Returns `len(tokenize(text))`, in a fraction of the time: no string is built for a word."""
    kinds = _kinds()[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]
    if (kinds == _MARK).any():
        # A mark ends no word, and one that stands alone begins none.
        kinds = kinds[kinds != _MARK]
    letters = kinds == _LETTER
    return int(letters[:1].sum() + np.count_nonzero(letters[1:] & ~letters[:-1]))


@functools.cache
def _kinds() -> np.ndarray:
    """Returns uint8[number of code points]: letter or digit, mark, anything else."""
    every = "".join(map(chr, range(0x110000)))
    kinds = np.zeros(len(every), np.uint8)
    kinds[[ord(x) for x in re.findall(r"[^\W_]", every)]] = _LETTER
    kinds[[ord(x) for x in _MARKS]] = _MARK
    return kinds


class WordCounter:
    """Numbers words in the order in which they are first seen, so that a corpus is read once and held as integers."""

    def __init__(self) -> None:
        self.ids: defaultdict[str, int] = defaultdict()
        # A word that is looked up for the first time gets the next number.
        self.ids.default_factory = self.ids.__len__

    def encode(self, text: str, max_words: int) -> np.ndarray:
        """Returns int32[<= max_words], the provisional ids of the first words of a text."""
        words = first_words(text, max_words)
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


def encode(text: str, index: dict[str, int], max_words: int) -> np.ndarray:
    """Returns int32[<= max_words], the ids of the first words of a text in a finished vocabulary."""
    words = first_words(text, max_words)
    return np.fromiter(map(index.get, words, repeat(UNKNOWN)), np.int32, len(words))


def word_index(words: Sequence[str]) -> dict[str, int]:
    """Returns the id of each word of a vocabulary."""
    return {word: NUM_SPECIAL + i for i, word in enumerate(words)}
