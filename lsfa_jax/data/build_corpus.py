"""Documents to a corpus: read once, word ids on disk, missing splits drawn from training, numbers by frequency.

`write` turns documents into a folder of arrays and `read` loads the folder or maps it into memory. While documents are
read, memory holds the vocabulary, the label names and a few numbers for each document, but none of their words.
"""

import json
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import numpy as np

from lsfa_jax.data import vocabulary
from lsfa_jax.data.corpus import Corpus, Split
from lsfa_jax.data.ragged import Ragged, offsets_of
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.util.console import UserError, note, warn
from lsfa_jax.util.random_streams import Stream, stream

# At least this share of a label's documents stays in training when validation documents are held out.
_SHARE_KEPT = 0.5

# Words in memory at a time.
_BLOCK = 2**20

_PARTS = ("words", "word_offsets", "labels", "label_offsets")


def build(
    name: str,
    train: Iterable[Document],
    test: Iterable[Document] | None,
    validation: Iterable[Document] | None,
    *,
    max_words: int,
    max_vocabulary: int,
    validation_fraction: float,
    seed: int,
    test_fraction: float = 0.0,
) -> Corpus:
    """Makes a corpus in memory; arguments and errors are those of `write`."""
    with TemporaryDirectory(prefix="lsfa-") as folder:
        write(
            Path(folder),
            train,
            test,
            validation,
            max_words=max_words,
            max_vocabulary=max_vocabulary,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            seed=seed,
            name=name,
        )
        corpus = read(Path(folder), name, mapped=False)
        print_notes(Path(folder))
    return corpus


def write(
    folder: Path,
    train: Iterable[Document],
    test: Iterable[Document] | None,
    validation: Iterable[Document] | None,
    *,
    max_words: int,
    max_vocabulary: int,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    name: str,
) -> None:
    """Reads documents once and writes their corpus into a folder.

    Without test documents a share of the training documents, drawn at random, becomes the test split; without
    validation documents, a share of the rest becomes the validation split. The vocabulary is chosen from the remaining
    training documents. Those without a word teach nothing and are left out, with a warning that counts them.

    Args:
        folder: an empty folder.
        train: documents; all of them are read before those of the other splits.
        test, validation: documents, or None.
        max_words: words kept of each text.
        max_vocabulary: words kept of the training documents, most frequent first.
        validation_fraction: share of the training documents held out where there is no validation split.
        test_fraction: share of the documents that are the test split where there is none.
        seed: of both draws.
        name: of the corpus, for the error.

    Raises:
        UserError: no training document has both a word and a label.
    """
    reader, messages = _Reader(folder, max_words), _Messages()
    parts = {"train": reader.spool_all(train)}
    if test is None:
        parts |= _draw_test(parts["train"], test_fraction, seed, messages)
    published = parts["train"] = _without_empty(parts["train"], name, messages)
    if validation is not None:
        parts["validation"] = reader.spool_all(validation)
    if test is not None:
        parts["test"] = reader.spool_all(test)
    labels, label_numbers = _label_order(reader.label_ids, published.labels)
    num_labels = len(labels)
    if validation is None:
        parts |= _draw_validation(published, label_numbers, num_labels, validation_fraction, seed, messages)
    labels += _number_unseen_labels(parts, label_numbers, num_labels, list(reader.label_ids), messages)
    counts = _count_words(parts["train"], len(reader.counter.ids))
    words, word_numbers = reader.counter.most_frequent(counts, max_vocabulary)
    _write_splits(folder, parts, word_numbers, label_numbers)
    published_labels = label_numbers[published.labels.values]
    np.save(folder / "published_counts.npy", np.bincount(published_labels, minlength=len(labels)))
    totals = {
        "num_labels": num_labels,
        "published_documents": int(published.keep.sum()),
        "published_words": published.num_text_words,
        "test_words": parts["test"].num_text_words,
    }
    (folder / "corpus.json").write_text(json.dumps({"totals": totals, **asdict(messages)}), encoding="utf-8")
    _write_names(folder, words, labels)


def _write_names(folder: Path, words: list[str], labels: list[str]) -> None:
    (folder / "words").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    # A label may hold a line end.
    (folder / "labels").write_text("".join(f"{json.dumps(label)}\n" for label in labels), encoding="utf-8")


def read(folder: Path, name: str, *, mapped: bool = True) -> Corpus:
    """Returns the corpus that `write` put into a folder; mapped, its arrays are read-only views of the files."""

    def array_of(path: Path) -> np.ndarray:
        # A plain view: slices of np.memmap are slow.
        return np.asarray(np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False))

    def split(path: Path) -> Split:
        words, word_offsets, labels, label_offsets = (array_of(path / f"{part}.npy") for part in _PARTS)
        return Split(Ragged(words, word_offsets), Ragged(labels, label_offsets))

    totals = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["totals"]
    return Corpus(
        name=name,
        words=(folder / "words").read_text(encoding="utf-8").split("\n")[:-1],
        labels=[json.loads(line) for line in (folder / "labels").read_text(encoding="utf-8").splitlines()],
        published_counts=array_of(folder / "published_counts.npy"),
        train=split(folder / "train"),
        validation=split(folder / "validation"),
        test=split(folder / "test"),
        **totals,
    )


def print_notes(folder: Path) -> None:
    """Prints the warnings and notes from when the corpus was written."""
    content = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    for text in content["warnings"]:
        warn(text)
    for text in content["notes"]:
        note(text)


@dataclass
class _Messages:
    """What users are informed of at every start."""

    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Spool:
    """N documents of one source on disk, words and labels numbered in the order in which they first occur."""

    def __init__(
        self,
        folder: Path,
        documents: Iterable[Document],
        counter: vocabulary.WordCounter,
        label_ids: dict[str, int],
        max_words: int,
    ) -> None:
        # A file without a name: it is gone with the process, however that ends.
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        lengths, text_lengths, labels, sizes = array("q"), array("q"), array("i"), array("q")
        for document in documents:
            ids = counter.encode(document.text, max_words)
            self._file.write(ids.tobytes())
            lengths.append(len(ids))
            # A text that is not cut is tokenised once. For one that is cut, first_words and count_words together take
            # less time than `tokenize` (EURLEX57K, 756 words a text: 0.4 of it at 64 words; the same at 500).
            cut = len(ids) == max_words
            text_lengths.append(vocabulary.count_words(document.text) if cut else len(ids))
            labels.extend(label_ids.setdefault(label, len(label_ids)) for label in document.labels)
            sizes.append(len(document.labels))
        self.lengths = np.array(lengths, np.int64)
        """int64[N], words kept."""
        self.text_lengths = np.array(text_lengths, np.int64)
        """int64[N], words before texts were cut."""
        self._labels = Ragged.from_sizes(np.array(labels, np.int32), np.array(sizes, np.int64))

    def __len__(self) -> int:
        return len(self.lengths)

    def labels_of(self, keep: np.ndarray) -> Ragged:
        """Returns the provisional label ids of the documents where bool[N] `keep` is true."""
        return self._labels.take(keep)

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields blocks of documents and int32[words of the block], their provisional word ids."""
        offsets = offsets_of(self.lengths)
        self._file.seek(0)
        start = 0
        while start < len(self):
            stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + _BLOCK, "right")) - 1)
            ids = np.frombuffer(self._file.read(4 * int(offsets[stop] - offsets[start])), np.int32)
            yield slice(start, stop), ids
            start = stop


@dataclass(frozen=True)
class _Part:
    """A split: the documents of a spool where bool[N] `keep` is true."""

    spool: _Spool
    keep: np.ndarray

    @property
    def labels(self) -> Ragged:
        """Provisional label ids of each document."""
        return self.spool.labels_of(self.keep)

    @property
    def num_text_words(self) -> int:
        """Words of all documents, before texts were cut."""
        return int(self.spool.text_lengths[self.keep].sum())

    def words_of(self, block: slice, ids: np.ndarray) -> np.ndarray:
        """Selects the words of the split's documents from those of a block of the spool."""
        return ids[np.repeat(self.keep[block], self.spool.lengths[block])]


class _Reader:
    """Spools the sources of a corpus, which share words and labels."""

    def __init__(self, folder: Path, max_words: int) -> None:
        self.counter = vocabulary.WordCounter()
        self.label_ids: dict[str, int] = {}
        self._folder, self._max_words = folder, max_words

    def spool_all(self, documents: Iterable[Document]) -> _Part:
        """Reads all documents of a source."""
        spool = _Spool(self._folder, documents, self.counter, self.label_ids, self._max_words)
        return _Part(spool, np.ones(len(spool), bool))


def _draw_test(train: _Part, fraction: float, seed: int, messages: _Messages) -> dict[str, _Part]:
    """Divides the training documents into train and test."""
    in_test = draw_test_split(len(train.keep), fraction, seed)
    messages.notes.append(
        f"No test split: {in_test.sum():,} of {len(in_test):,} documents are held out as test, at random"
    )
    return {"train": _Part(train.spool, ~in_test), "test": _Part(train.spool, in_test)}


def _without_empty(train: _Part, name: str, messages: _Messages) -> _Part:
    """Leaves out training documents without a word."""
    has_words = train.spool.lengths > 0
    if num_empty := int((train.keep & ~has_words).sum()):
        messages.warnings.append(f"{num_empty:,} training documents have no word and are left out")
    part = _Part(train.spool, train.keep & has_words)
    if not len(part.labels.values):
        raise UserError(f"{name}: no training document has both a word and a label, so there is nothing to learn")
    return part


def _draw_validation(
    train: _Part, label_numbers: np.ndarray, num_labels: int, fraction: float, seed: int, messages: _Messages
) -> dict[str, _Part]:
    """Divides the training documents into train and validation."""
    labels = train.labels
    held_out = hold_out(Ragged(label_numbers[labels.values], labels.offsets), num_labels, fraction, seed)
    missing = _validation_size(fraction, len(held_out)) - int(held_out.sum())
    if missing:
        messages.warnings.append(
            f"{missing:,} fewer validation documents than asked for: the others carry labels too rare to spare"
        )
    in_validation = np.zeros(len(train.keep), bool)
    in_validation[np.flatnonzero(train.keep)[held_out]] = True
    return {"train": _Part(train.spool, train.keep & ~in_validation), "validation": _Part(train.spool, in_validation)}


def _count_words(part: _Part, num_ids: int) -> np.ndarray:
    """Counts int64[num_ids], how often each provisional word id occurs in a split."""
    counts = np.zeros(num_ids, np.int64)
    for block, ids in part.spool.blocks():
        counts += np.bincount(part.words_of(block, ids), minlength=num_ids)
    return counts


def _write_splits(
    folder: Path, parts: Mapping[str, _Part], word_numbers: np.ndarray, label_numbers: np.ndarray
) -> None:
    """Writes the splits' arrays with final ids, in one pass over each spool."""
    for split, part in parts.items():
        (folder / split).mkdir()
        labels = part.labels
        np.save(folder / split / "word_offsets.npy", offsets_of(part.spool.lengths[part.keep]))
        np.save(folder / split / "labels.npy", label_numbers[labels.values])
        np.save(folder / split / "label_offsets.npy", labels.offsets)
    for spool in {id(part.spool): part.spool for part in parts.values()}.values():
        with ExitStack() as stack:
            written = []
            for split, part in parts.items():
                if part.spool is spool:
                    file = stack.enter_context((folder / split / "words.npy").open("wb"))
                    shape = (int(spool.lengths[part.keep].sum()),)
                    header = {"descr": "<i4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    written.append((part, file))
            for block, ids in spool.blocks():
                for part, file in written:
                    file.write(word_numbers[part.words_of(block, ids)].tobytes())


def _label_order(label_ids: dict[str, int], labels: Ragged) -> tuple[list[str], np.ndarray]:
    """Orders the labels that occur by frequency.

    Returns:
        Their names, most frequent first, ties by name, and int32[provisional ids], the position of each there; -1 where
        a label does not occur.
    """
    counts = np.bincount(labels.values, minlength=len(label_ids))
    names = list(label_ids)
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda i: (-counts[i], names[i]))
    numbers = np.full(len(names), -1, np.int32)
    numbers[order] = np.arange(len(order))
    return [names[i] for i in order], numbers


def _number_unseen_labels(
    parts: Mapping[str, _Part], label_numbers: np.ndarray, num_labels: int, names: list[str], messages: _Messages
) -> list[str]:
    """Numbers the labels that only validation or test has, in place, in the order in which they occur.

    Returns:
        Their names.
    """
    unseen_names: list[str] = []
    for split in ("validation", "test"):
        distinct, first = np.unique(parts[split].labels.values, return_index=True)
        distinct = distinct[np.argsort(first)]
        unseen = distinct[label_numbers[distinct] < 0]
        if len(unseen):
            label_numbers[unseen] = num_labels + len(unseen_names) + np.arange(len(unseen))
            unseen_names += [names[i] for i in unseen]
            messages.notes.append(
                f"Labels of {split} that training lacks, counted, never predicted: {len(unseen):,} "
                f"(e.g. {names[unseen[0]]!r})"
            )
    return unseen_names


def draw_test_split(num_documents: int, fraction: float, seed: int) -> np.ndarray:
    """Draws test documents at random, bool[N]: at least one where the fraction is not zero, and never all."""
    size = min(max(round(fraction * num_documents), int(fraction > 0)), num_documents - 1)
    in_test = np.zeros(num_documents, bool)
    in_test[stream(Stream.TEST_SPLIT, seed).permutation(num_documents)[: max(0, size)]] = True
    return in_test


def hold_out(labels: Ragged, num_labels: int, fraction: float, seed: int) -> np.ndarray:
    """Draws validation documents at random, so that each label keeps at least half of its documents in training.

    Returns:
        bool[N], true where a document is held out; fewer than `fraction` x N where rare labels forbid more.
    """
    num_documents = labels.num_rows
    counts = np.bincount(labels.values, minlength=num_labels)
    left, least = counts.copy(), np.maximum(1, np.ceil(counts * _SHARE_KEPT))
    size = _validation_size(fraction, num_documents)
    held_out = np.zeros(num_documents, bool)
    for document in stream(Stream.VALIDATION_SPLIT, seed).permutation(num_documents):
        if size == 0:
            break
        document_labels = labels.row(document)
        if np.all(left[document_labels] > least[document_labels]):
            left[document_labels] -= 1
            held_out[document] = True
            size -= 1
    return held_out


def _validation_size(fraction: float, num_documents: int) -> int:
    return min(round(fraction * num_documents), num_documents - 1)
