"""Documents to measure on, however many: labels and ids in memory, texts and word ids in temporary files."""

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.data.same_text import Rows
from lsfa_jax.data.vocabulary import Vocabulary
from lsfa_jax.util.console import UserError


class DocumentStore:
    """N documents that were read once, so that a pipe will do, and whose texts can be iterated over again.

    Rows of one document are merged, as in training (`same_text.Rows`), where they are given a place for that.

    Attributes:
        ids: the id of each document, "" where it has none.
        labels: the label names of each document.
        excluded: the names of labels that are neither predicted for each document nor counted.
    """

    def __init__(self, documents: Iterable[Document], keep_texts: bool = True, rows: Rows | None = None) -> None:
        """Reads documents to their end.

        Args:
            documents: one for each row.
            keep_texts: whether texts go to a temporary file, or nowhere.
            rows: compares the texts and merges rows of one document; without it, each row is a document.

        Raises:
            UserError: there is no room for the file.
        """
        self.ids: list[str] = []
        self.labels: list[tuple[str, ...]] = []
        self.excluded: list[tuple[str, ...]] = []
        with _enough_room():
            self._texts = tempfile.TemporaryFile("w+", encoding="utf-8", prefix="lsfa-")  # noqa: SIM115 - as long as the store
        for document in documents:
            self.ids.append(document.id)
            # One string for each name, not one for each document.
            self.labels.append(tuple(map(sys.intern, document.labels)))
            self.excluded.append(tuple(map(sys.intern, document.excluded)))
            if keep_texts:
                with _enough_room():
                    # As JSON, a line a text: line ends and lone surrogates survive.
                    self._texts.write(json.dumps(document.text) + "\n")
            if len(document.labels) > 1:
                rows = None  # no rows of such a file are merged
            if rows is not None:
                rows.add(document)
        self._skipped: set[int] = set()
        if rows is not None:
            self._merge(rows)

    def _merge(self, rows: Rows) -> None:
        is_first, label_ids = rows.documents()
        names = list(rows.label_ids)
        first = np.flatnonzero(is_first).tolist()
        self._skipped = set(np.flatnonzero(~is_first).tolist())
        self.ids = [self.ids[row] for row in first]
        self.excluded = [self.excluded[row] for row in first]
        self.labels = [tuple(names[label] for label in label_ids.row(row)) for row in first]

    def __len__(self) -> int:
        return len(self.ids)

    def texts(self) -> Iterator[str]:
        """Yields the texts in order; one such iteration at a time."""
        with _enough_room():
            self._texts.seek(0)
        for number, line in enumerate(self._texts):
            if number not in self._skipped:
                yield json.loads(line)

    def label_ids(self, numbers: dict[str, int]) -> Ragged:
        """Returns the labels as numbers, int32, N rows."""
        return _numbered(self.labels, numbers)

    def excluded_ids(self, numbers: dict[str, int]) -> Ragged | None:
        """Returns the excluded labels that have a number, int32, N rows; None where no document has any."""
        if not any(self.excluded):
            return None
        return _numbered([[label for label in labels if label in numbers] for labels in self.excluded], numbers)


def _numbered(rows: Sequence[Sequence[str]], numbers: dict[str, int]) -> Ragged:
    ids = np.array([numbers[label] for labels in rows for label in labels], np.int32)
    return Ragged.from_sizes(ids, np.array([len(labels) for labels in rows], np.int64))


def encode(texts: Iterable[str], vocabulary: Vocabulary) -> Ragged:
    """Encodes texts as token ids, int32, which are mapped from a temporary file.

    Args:
        texts: N texts.
        vocabulary: of the model.

    Raises:
        UserError: there is no room for the file.
    """
    sizes = []
    with _enough_room(), tempfile.TemporaryFile(prefix="lsfa-") as file:
        for text in texts:
            ids = vocabulary.encode(text)
            file.write(ids.tobytes())
            sizes.append(len(ids))
        file.flush()
        # An empty file cannot be mapped. The mapping outlives the open file.
        values = np.memmap(file, np.int32, mode="r") if sum(sizes) else np.zeros(0, np.int32)
    return Ragged.from_sizes(values, np.array(sizes, np.int64))


@contextmanager
def _enough_room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{tempfile.gettempdir()}: a temporary file cannot be written ({error.strerror or error}); make room, or "
            "set TMPDIR to another folder"
        ) from None
