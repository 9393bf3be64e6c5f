"""What texts show about the settings that read them: words that are not read, HTML tags, sentences read as one word."""

from collections.abc import Sequence

from lsfa_jax.data.tokenizer import Tokenizer, has_markup

# Letters of a word on average from which a text seems not to be split; German has six.
_LONG = 15
# At least this share of the texts has them before a warning is given.
_SHARE_WITH_MARKUP = 0.01
_SHARE_UNSPLIT = 0.1


class TextAdvice:
    """Counts the texts that another tokenizer may suit better."""

    def __init__(self, tokenizer: Tokenizer, max_words: int) -> None:
        self._tokenizer, self._max_words = tokenizer, max_words
        self._texts = self._with_markup = self._unsplit = 0
        self._example = ""

    def add(self, text: str, words: Sequence[str]) -> None:
        """Adds a text and its first `max_words` words."""
        self._texts += 1
        if self._tokenizer.html == "keep" and "<" in text:
            self._with_markup += has_markup(text)
        if self._tokenizer.kind == "characters" or len(words) >= self._max_words:
            return
        # The length of the text is a quick bound.
        if 0 < _LONG * len(words) < len(text) and sum(map(len, words)) > _LONG * len(words):
            self._unsplit += 1
            self._example = self._example or max(words, key=len)

    def warnings(self) -> list[str]:
        """Returns a line for each setting that should be looked at."""
        lines = []
        if self._with_markup and self._with_markup >= _SHARE_WITH_MARKUP * self._texts:
            lines.append(
                f"texts with HTML tags, which are read as words: {_share(self._with_markup, self._texts)}; "
                "--data.html strip removes them"
            )
        if self._unsplit and self._unsplit >= _SHARE_UNSPLIT * self._texts:
            example = self._example if len(self._example) <= 40 else f"{self._example[:40]}..."
            better = "characters" if self._tokenizer.kind == "words" else "words"
            lines.append(
                f"texts of very long words (e.g. {example!r}): {_share(self._unsplit, self._texts)}; where words have "
                f"no spaces between them, use --data.tokenizer {better}"
            )
        return lines


def unread_words(num_texts: int, num_cut: int, words: int, unread: int, max_words: int) -> str:
    """Describes how much is not read because texts are cut; "" where nothing is."""
    if not num_cut:
        return ""
    return (
        f"Texts longer than {max_words:,} words: {_share(num_cut, num_texts)}; {100 * unread / words:.1f} % of all "
        "words are not read (training with a larger --data.max-words reads more)"
    )


def _share(number: int, total: int) -> str:
    return f"{number:,} of {total:,} ({100 * number / total:.1f} %)"
