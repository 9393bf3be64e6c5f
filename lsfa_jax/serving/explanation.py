"""Pages that show which words speak for each predicted label: HTML without scripts and without external resources.

The template documents.html is also that of the service's page.

A page holds each text once. A word carries the attention of each label as a CSS variable, and the radio button of a
label chooses which of them colours the words. The words by which a linear model voted for the label stand beside it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import numpy as np

from lsfa_jax.pages.template import template
from lsfa_jax.util.atomic import TextFiles
from lsfa_jax.util.console import plural

if TYPE_CHECKING:
    from lsfa_jax.training.model_folder import TrainedModel

_FOLDER = Path(__file__).parent
# Attention below this share of the label's strongest word is too faint to see, and is left out.
_FAINTEST = 0.02
_WORDS_NAMED = 5
# A text can be a book: of the part that the model does not read, the page shows the start.
_UNREAD_SHOWN = 2000


@dataclass(frozen=True)
class About:
    """The heading of each page."""

    title: str
    model: str
    source: str
    scale: "Scale"


@dataclass(frozen=True)
class Scale:
    """What the numbers of a model's labels are compared with."""

    max_words: int
    """Words of a text that the model reads."""
    threshold: float
    """Probability from which a label is predicted."""
    head_threshold: int
    """N_t: labels with fewer training documents are the tail."""
    linear_alone: str = ""
    """Says that the linear model ranks labels alone, where it does."""

    @classmethod
    def of(cls, model: "TrainedModel") -> "Scale":
        """Returns the scale of a model."""
        config = model.config
        return cls(config.data.max_words, model.threshold, config.pvae.head_threshold, model.linear_alone)


class Explained(NamedTuple):
    """A document with its K predicted labels, best first, and the W words that the model reads."""

    name: str
    text: str
    """As the model reads it."""
    labels: Sequence[str]
    probabilities: Sequence[float]
    spans: Sequence[tuple[int, int]]
    """Where each word is in the text, start and end."""
    attention: np.ndarray
    """float32[K, W], how much each label attends to each word."""
    votes: Sequence[Sequence[tuple[str, float]]] = ()
    """For each label the words by which the linear model voted for it, and their votes; empty where there is none."""
    counts: Sequence[int] = ()
    """The training documents of each label; empty where they are not known."""
    truth: Collection[str] | None = None
    """The labels that the document has; None where they are not known."""


class _Label(NamedTuple):
    name: str
    probability: str
    words: list[tuple[str, str]]
    votes: list[tuple[str, str]]
    group: str
    """head, tail, or "" where it is not known."""
    training: str
    """Its training documents, as a number."""
    documents: str
    """The same with their noun."""
    threshold_above: str
    """The threshold at the first label below it, else ""."""
    verdict: str
    """Of a label that the document has, true where it is predicted, else missed; "" of others."""


class Document(NamedTuple):
    """A document as the template documents.html takes it."""

    name: str
    labels: list[_Label]
    pieces: list[tuple[str, str]]
    unread: str
    strongest: str
    """For each label the share of its attention that its strongest word has, as CSS variables."""
    kinds: str
    """Of tail-predicted, none-predicted and missing those that apply, by which the page selects documents."""
    unlisted: list[str]
    """Labels that the document has and the list lacks."""


class Pages:
    """Writes documents as pages that link to each other: out.html, out-2.html and so on."""

    def __init__(self, path: Path, per_page: int, about: About, files: TextFiles) -> None:
        """Writes nothing yet.

        Args:
            path: of the first page.
            per_page: documents a page.
            about: the heading.
            files: opens the pages, so that they appear when all are written.
        """
        self._path = path
        self._per_page = per_page
        self._about = about
        self._files = files
        self._waiting: list[Explained] = []
        self.written = 0
        self._template = template(_FOLDER / "explanation.html")

    def add(self, document: Explained) -> None:
        """Adds a document; a full page is written when the next document is added."""
        if len(self._waiting) == self._per_page:
            self._write(last=False)
        self._waiting.append(document)

    def end(self) -> None:
        """Writes the last page."""
        self._write(last=True)

    def _write(self, last: bool) -> None:
        number = self.written + 1
        page = self._template.generate(
            about=self._about,
            number=number,
            previous=_link(self._path, number - 1) if number > 1 else "",
            next="" if last else _link(self._path, number + 1),
            documents=[shown(document, self._about.scale) for document in self._waiting],
            with_votes=any(document.votes for document in self._waiting),
            with_truth=any(document.truth is not None for document in self._waiting),
        )
        with self._files.open(_numbered(self._path, number)) as stream:
            stream.writelines(page)
        self.written = number
        self._waiting = []


def _numbered(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def _link(path: Path, number: int) -> str:
    return "./" + quote(_numbered(path, number).name)


def shown(document: Explained, scale: Scale) -> Document:
    """Returns a document as the template documents.html takes it."""
    truth = document.truth or ()
    # A text without words has no strongest word.
    strongest = np.maximum(document.attention.max(axis=1, initial=0), 1e-30)
    depths = (document.attention / strongest[:, None]).T
    first_below = sum(probability >= scale.threshold for probability in document.probabilities)
    labels = [
        _Label(
            name,
            f"{probability:.2f}",
            _strongest_words(document, attention),
            [(word, f"{vote:+.2f}") for word, vote in votes],
            "" if count is None else "tail" if count < scale.head_threshold else "head",
            "" if count is None else f"{count:,}",
            "" if count is None else plural(count, "document"),
            f"{scale.threshold:.2f}" if place == first_below else "",
            "" if name not in truth else "true" if place < first_below else "missed",
        )
        for place, (name, probability, attention, votes, count) in enumerate(
            zip(
                document.labels,
                document.probabilities,
                document.attention,
                document.votes or repeat(()),
                document.counts or repeat(None),
                strict=False,
            )
        )
    ]
    unlisted = [name for name in truth if name not in document.labels]
    kinds = {
        "tail-predicted": any(label.group == "tail" for label in labels[:first_below]),
        "none-predicted": first_below == 0,
        "missing": bool(unlisted) or any(label.verdict == "missed" for label in labels),
    }
    read_to = document.spans[-1][1] if len(document.spans) >= scale.max_words else len(document.text)
    return Document(
        document.name,
        labels,
        list(_pieces(document, depths, read_to)),
        _shortened(document.text[read_to:]),
        ";".join(f"--s{place}:{share:.3g}" for place, share in enumerate(strongest.tolist(), 1)),
        " ".join(kind for kind, applies in kinds.items() if applies),
        unlisted,
    )


def _strongest_words(document: Explained, attention: np.ndarray) -> list[tuple[str, str]]:
    """Returns the words with most of a label's attention and their shares of it, repeated words added up."""
    shares: Counter[str] = Counter()
    for (start, end), share in zip(document.spans, attention.tolist(), strict=True):
        shares[document.text[start:end].lower()] += share
    return [(word, f"{share:.0%}") for word, share in shares.most_common(_WORDS_NAMED) if share >= 0.005]


def _pieces(document: Explained, depths: np.ndarray, read_to: int) -> Iterator[tuple[str, str]]:
    """Splits the text that the model reads into words with a style and the pieces between them without one."""
    plain_from = 0
    for (start, end), word_depths in zip(document.spans, depths, strict=True):
        shown = np.flatnonzero(word_depths >= _FAINTEST)
        if not len(shown):
            continue
        if start > plain_from:
            yield document.text[plain_from:start], ""
        yield document.text[start:end], _style(shown, word_depths[shown])
        plain_from = end
    if read_to > plain_from:
        yield document.text[plain_from:read_to], ""


def _style(labels: np.ndarray, depths: np.ndarray) -> str:
    pairs: Iterable[tuple[int, float]] = zip(labels.tolist(), depths.tolist(), strict=True)
    return ";".join(f"--a{label + 1}:{depth:.2g}" for label, depth in pairs)


def _shortened(unread: str) -> str:
    unread = unread.rstrip()
    if len(unread) <= _UNREAD_SHOWN:
        return unread
    return f"{unread[:_UNREAD_SHOWN]} … ({len(unread) - _UNREAD_SHOWN:,} more characters)"
