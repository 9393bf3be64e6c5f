"""Texts to words, for preparation, prediction, explanation and baselines alike.

Scripts without spaces between words are split into characters: a Han or Kana character, a Bopomofo or Yi letter; in
Thai, Lao, Khmer, Burmese, Javanese and their relatives a consonant with everything that is written around it (vowels
before and behind it, marks, subscript consonants, Burmese finals). No dictionary is involved, so that a model reads the
same words wherever it runs. P@1 of small corpora that were joined from real words of 12 labels and 30 common ones,
a linear SVM on TF-IDF with 250 training documents (mean of 3 seeds) and LSFA with 400 (quick preset, 12 epochs):

                          Chinese  Japanese  Thai   Lao  Khmer  Burmese   words a document: Chinese, Thai
    SVM, characters          98.9      98.8  96.6  96.9   98.2     99.1   26, 41
    SVM, code points         98.9      98.8  92.3  94.1   96.0     98.1   26, 56
    SVM, pairs               85.7      86.0  93.3  89.4   88.9     82.8   25, 40
    SVM, ICU's dictionaries  98.8      98.7  99.2  98.9   97.9     98.4   16, 19
    LSFA, characters         99.0      95.8  91.4  88.6   94.4     97.2
    LSFA, pairs              87.6
    LSFA, ICU                97.0      97.0  97.4  97.0   93.6     94.4

ICU (icu4py 1.2, 16 MB) is better in Thai and Lao only, and its dictionaries change between versions. Texts of these two
are best segmented before, with spaces between words, and read with `spaces`.
"""

import functools
import html
import itertools
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lsfa_jax.config import Data, TokenizerKind

# Combining marks (vowel signs, accents) belong to the word although `\w` lacks them: words of Hindi would be split. The
# lookahead saves the many characters below the first mark a search through the marks.
_MARKS = "".join(mark for mark in map(chr, range(0x20000)) if unicodedata.category(mark).startswith("M"))
_WITH_MARKS = rf"(?:(?=[^\0-\u02ff])[{_MARKS}]+{{more}}*)*"
_RUN = re.compile(r"[^\W_]+" + _WITH_MARKS.format(more=r"[^\W_]"))
# Keeps ASCII letters and digits and replaces the rest by spaces.
_ASCII_WORDS = bytes(code if chr(code).isalnum() and code < 128 else ord(" ") for code in range(256))
_ASCII_LETTERS = bytes(byte != ord(" ") for byte in _ASCII_WORDS)

# Blocks of scripts that are written without spaces: where Unicode breaks lines between any two letters (classes ID, AK)
# or by a dictionary (SA). Hangul and the scripts of the Philippines have spaces; Tibetan separates syllables by a sign.
_UNSPACED_BLOCKS = (
    (0x0E01, 0x0E5B),  # Thai
    (0x0E81, 0x0EDF),  # Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17DC),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A00, 0x1AAD),  # Buginese, Tai Tham
    (0x1B05, 0x1B4C),  # Balinese
    (0x1BC0, 0x1BE5),  # Batak
    (0x3005, 0x3007),  # ideographic marks and zero
    (0x3021, 0x303C),
    (0x3041, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA000, 0xA48C),  # Yi
    (0xA984, 0xA9CF),  # Javanese
    (0xA9E0, 0xA9FE),  # Myanmar
    (0xAA00, 0xAADD),  # Cham, Myanmar, Tai Viet
    (0xF900, 0xFAD9),  # Han
    (0x11700, 0x11746),  # Ahom
    (0x11EE0, 0x11EF2),  # Makasar
    (0x17000, 0x18D8F),  # Tangut, Khitan
    (0x1AFF0, 0x1B2FB),  # Kana, Nushu
    (0x20000, 0x3FFFD),  # Han
)
# Vowels before their consonant (Thai, Lao, New Tai Lue, Tai Viet), vowel letters behind it, and signs that stack the
# next consonant below it or silence it.
_BEFORE = "เ-ไເ-ໄ\u19b5-\u19b7\u19ba\uaab5\uaab6\uaab9\uaabb\uaabc"
_BEHIND = "ะาๅະາຽ"
_STACKING = "\u1039\u17d2\u1a60\u1b44\ua9c0"
_BURMESE_FINAL = "(?:[\u1000-\u1021]\u1037?\u103a[\u1037\u1038]*)*"

# Signs that are emoji wherever they stand. Further signs are emoji where a variation selector follows.
_EMOJI = (
    "\U0001f000-\U0001f0ff\U0001f170-\U0001f19a\U0001f300-\U0001f3fa\U0001f400-\U0001faff"
    "⌚⌛⏩-⏬⏰⏳◽◾☔☕♈-♓♿⚓⚡⚪⚫⚽⚾⛄⛅⛎⛔⛪⛲⛳⛵⛺⛽✅✊✋✨❌❎❓-❕❗➕-➗➰➿⬛⬜⭐⭕☹☺♥❣❤"
)
_FLAG = "\U0001f1e6-\U0001f1ff"

# Unicode's default ignorable characters: soft hyphens, zero-width spaces and joiners, byte order marks, directions. The
# selector of an emoji's colours is kept. Joiners within words of Persian or of Indian scripts choose between shapes of
# the same letters, and are often lacking: words are equal with and without.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e"
    "\ufeff\uffa0\U000e0000-\U000e0fff]+"
)
# Letters of scripts with spaces and their punctuation: of these NFKC makes no special character and no ignorable one. A
# class that is repeated is matched in a third of the time in which one is searched for.
_PLAIN = re.compile(
    "[\0-\u00ac\u00ae-\u034e\u0350-\u061b\u061d-\u0dff\u1e00-\u1fff\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\uac00-\ud7a3]*"
)
_TRADE_MARKS = str.maketrans("™℠", "  ")

_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(?P<raw>script|style)\b.*?(?:</(?P=raw)\b[^>]*>|\Z)"
    r"""|</?[a-z](?:=\s*"[^"]*"|=\s*'[^']*'|[^>=]+|=)*+>"""
    r"|<!\[CDATA\[|\]\]>|<[!?][^>]*>",
    re.DOTALL | re.IGNORECASE,
)
_USUAL_TAG = re.compile(
    r"</?(?:p|br|div|span|a|b|i|u|em|strong|ul|ol|li|table|tr|td|th|h[1-6]|img|html|body|head|script|style|font|pre"
    r"|code|blockquote|sub|sup)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)

# Characters of a text that `first_words` looks at first for each of the words: few texts need a second look.
_LETTERS_A_WORD = 10
_LETTER, _MARK = 1, 2


def _ranges(blocks: tuple[tuple[int, int], ...]) -> str:
    """Returns the letters of the blocks, without digits and punctuation, as ranges of a character class."""
    letter = re.compile(r"[^\W\d_]").match
    parts: list[list[int]] = []
    for first, last in blocks:
        for code in range(first, last + 1):
            if letter(chr(code)):
                if parts and parts[-1][1] == code - 1:
                    parts[-1][1] = code
                else:
                    parts.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in parts)


class _Patterns:
    """The patterns of `words` for texts with scripts without spaces or with emoji; compiled when one is met."""

    @functools.cached_property
    def unspaced(self) -> str:
        return _ranges(_UNSPACED_BLOCKS)

    @functools.cached_property
    def special(self) -> re.Pattern[str]:
        """A character that `_RUN` would not split rightly."""
        return re.compile(f"[{self.unspaced}{_EMOJI}{_FLAG}\ufe0f]")

    @functools.cached_property
    def word(self) -> re.Pattern[str]:
        unspaced = self.unspaced
        letter = rf"[^\W_{unspaced}]"
        cluster = rf"[{_BEFORE}]?[{unspaced}](?:[{_STACKING}][{unspaced}]|[{_MARKS}])*[{_BEHIND}]?{_BURMESE_FINAL}"
        emoji = rf"[{_EMOJI}]|[{_FLAG}]{{2}}|(?=[\u203c-\u3299])[^\w\s](?=\ufe0f)"
        return re.compile(f"{letter}+{_WITH_MARKS.format(more=letter)}|{cluster}|{emoji}")


_PATTERNS = _Patterns()
_PIECE = re.compile(r"[^\s\ud800-\udfff]+")
_CHARACTER = re.compile(rf"[^\s\ud800-\udfff][{_MARKS}]*")


@dataclass(frozen=True)
class Tokenizer:
    """How texts become words.

    Attributes:
        kind: words: lower-cased runs of letters, digits and their marks after Unicode's normalisation NFKC, characters
            of scripts without spaces, and emoji; spaces: lower-cased pieces between white space after NFKC;
            characters: each with its marks, likewise.
        html: whether tags are part of the text, or removed and entities decoded before anything else.
    """

    kind: TokenizerKind = "words"
    html: Literal["keep", "strip"] = "keep"

    @classmethod
    def from_settings(cls, data: Data) -> "Tokenizer":
        """Returns the tokenizer of a corpus or a model."""
        return cls(data.tokenizer, data.html)

    def normalised(self, text: str) -> str:
        """Returns a text as it is read: without markup if so set, normalised, not lower-cased. Spans refer to it."""
        return self._read(text)[0]

    def _read(self, text: str) -> tuple[str, re.Pattern[str]]:
        """Returns the text as `normalised` does, and the pattern of its words."""
        if self.html == "strip" and ("<" in text or "&" in text):
            text = without_markup(text)
        if text.isascii():
            return text, self._pattern()
        plain = _PLAIN.fullmatch(text) is not None
        if not plain:
            text = _IGNORABLE.sub("", text)
        if not unicodedata.is_normalized("NFKC", text):
            # Beside a name, these would become letters of it.
            text = unicodedata.normalize("NFKC", text.translate(_TRADE_MARKS))
        special = not plain and self.kind == "words" and _PATTERNS.special.search(text)
        return text, _PATTERNS.word if special else self._pattern()

    def words(self, text: str) -> list[str]:
        """Splits a text into words."""
        text, pattern = self._read(text)
        return self._split(text.lower(), pattern)

    def first_words(self, text: str, limit: int) -> list[str]:
        """Returns `words(text)[:limit]`, without splitting the rest of a long text."""
        text, pattern = self._read(text)
        text = text.lower()
        end = _LETTERS_A_WORD * limit
        while end < len(text):
            # The cut may go through the last word; a Burmese final behind it belongs to the one before.
            words = self._split(text[:end], pattern)[:-2]
            if len(words) >= limit:
                return words[:limit]
            end *= 2
        return self._split(text, pattern)[:limit]

    def beginning(self, text: str, limit: int) -> str:
        """Returns `normalised(text)` up to the end of its word number `limit`, without splitting the rest."""
        text, pattern = self._read(text)
        if len(text) <= limit:
            return text
        if pattern is _RUN and text.isascii():
            return text[: _end_of_run(text, limit)]
        last = next(itertools.islice(pattern.finditer(text), limit - 1, None), None)
        return text if last is None else text[: last.end()]

    def count_words(self, text: str) -> int:
        """Returns `len(words(text))`, in a fraction of the time where runs of letters are the words."""
        text, pattern = self._read(text)
        if pattern is not _RUN:
            return len(self._split(text.lower(), pattern))
        if text.isascii():
            letters = np.frombuffer(text.encode().translate(_ASCII_LETTERS), bool)
            return _count_runs(letters)
        kinds = _kinds()[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]
        if (kinds == _MARK).any():
            # A mark ends no word, and one that stands alone begins none.
            kinds = kinds[kinds != _MARK]
        return _count_runs(kinds == _LETTER)

    def spans(self, text: str, limit: int | None = None) -> list[tuple[int, int]]:
        """Returns the start and end of each word in `normalised(text)`; of the first `limit` words only."""
        text, pattern = self._read(text)
        return [match.span() for match in itertools.islice(pattern.finditer(text), limit)]

    def patterns(self) -> dict[str, str]:
        """Returns regular expressions by which a program without this package reads texts as `words` does.

        Returns:
            `markup`: what is replaced by a space, before entities are decoded, "" where tags are text; `ignorable`:
            what is removed before NFKC; `word`: a word of the text in lower case.
        """
        return {
            "markup": f"(?is){_MARKUP.pattern}" if self.html == "strip" else "",
            "ignorable": _IGNORABLE.pattern,
            "word": (_PATTERNS.word if self.kind == "words" else self._pattern()).pattern,
        }

    def _split(self, lowered: str, pattern: re.Pattern[str]) -> list[str]:
        if lowered.isascii():
            if pattern is _RUN:
                # Without accents, separators are replaced by spaces, in a sixth of the time.
                return lowered.encode().translate(_ASCII_WORDS).decode().split()
            if pattern is _PIECE:
                return lowered.split()
        return pattern.findall(lowered)

    def _pattern(self) -> re.Pattern[str]:
        """Returns the pattern of the words of texts without special characters."""
        return {"words": _RUN, "spaces": _PIECE, "characters": _CHARACTER}[self.kind]


DEFAULT_TOKENIZER = Tokenizer()
"""The default."""


def is_character(word: str) -> bool:
    """Tells whether a word of `words` is a character of a script without spaces, or an emoji."""
    return not word.isascii() and _PATTERNS.special.match(word) is not None


def without_markup(text: str) -> str:
    """Replaces HTML tags, comments, scripts and styles by spaces, and entities by their characters.

    A `<` that begins no tag is text. In linear time, whatever the text is.
    """
    # Behind the last > there is no tag; without this, each of many unclosed ones would be followed to the end.
    end = text.rfind(">") + 1
    return html.unescape(_MARKUP.sub(" ", text[:end]) + text[end:])


def has_markup(text: str) -> bool:
    """Tells whether a text has one of the usual HTML tags."""
    return "<" in text and _USUAL_TAG.search(text) is not None


def _end_of_run(text: str, number: int) -> int:
    """Returns the end of run `number` of letters in an ASCII text, or the text's length if there are fewer."""
    size = _LETTERS_A_WORD * number
    while True:
        # Not the end of a run that the cut shortens.
        letters = np.frombuffer(text[:size].encode().translate(_ASCII_LETTERS), bool)
        ends = np.flatnonzero(letters[:-1] > letters[1:]) + 1
        if len(ends) >= number:
            return int(ends[number - 1])
        if size >= len(text):
            return len(text)
        size *= 2


def _count_runs(letters: np.ndarray) -> int:
    """Counts the runs of true values in bool[N]."""
    return int(letters[:1].sum() + np.count_nonzero(letters[1:] > letters[:-1]))


@functools.cache
def _kinds() -> np.ndarray:
    """Returns uint8[number of code points]: letter or digit, mark, anything else."""
    every = "".join(map(chr, range(0x110000)))
    kinds = np.zeros(len(every), np.uint8)
    kinds[[ord(x) for x in re.findall(r"[^\W_]", every)]] = _LETTER
    kinds[[ord(x) for x in _MARKS]] = _MARK
    return kinds
