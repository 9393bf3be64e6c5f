"""Documents to a corpus: read once, word ids on disk, splits that a corpus lacks held out, numbers by frequency.

A corpus becomes a folder of arrays (`write`), which is read as it is or mapped into memory (`read`). While documents
are read, memory holds the vocabulary, the label names and a few numbers for each document, and none of their words.
"""

import json
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import numpy as np

from lsfa_jax.data import vocabulary
from lsfa_jax.data.corpus import Corpus, Split
from lsfa_jax.data.ragged import Ragged, offsets_of
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.util.console import UserError, note, warn

# What of a label's documents stays in training at least when validation documents are held out.
_SHARE_KEPT = 0.5

# Words that are in memory at a time.
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
        say(Path(folder))
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
    """Reads documents once and writes the corpus that they make into a folder.

    Without test documents a share of the training documents, drawn at random, becomes the test split; without
    validation documents, a share of the rest becomes the validation split. Words are chosen from what remains for
    training. Training documents without a word teach nothing and are left out, with a line that says how many.

    Args:
        folder: an empty folder.
        train: documents, read to their end before the others.
        test: likewise, or None.
        validation: likewise, or None.
        max_words: words kept of each text.
        max_vocabulary: words kept of the training documents, most frequent first.
        validation_fraction: share of the training documents held out where there is no validation split.
        test_fraction: share of the documents that are the test split where there is none.
        seed: decides which ones.
        name: of the corpus, for the error.

    Raises:
        UserError: no training document has both a word and a label.
    """
    counter = vocabulary.WordCounter()
    label_ids: dict[str, int] = {}
    warnings: list[str] = []
    notes: list[str] = []

    def spooled(documents: Iterable[Document]) -> _Spool:
        return _Spool(folder, documents, counter, label_ids, max_words)

    source = spooled(train)
    in_test = np.zeros(len(source), bool)
    if test is None:
        in_test = drawn(len(source), test_fraction, seed)
        notes.append(f"No test split: {in_test.sum():,} of {len(source):,} documents are held out as test, at random")
    published = (source.lengths > 0) & ~in_test
    if empty := int((~published & ~in_test).sum()):
        warnings.append(f"{empty:,} training documents have no word and are left out")
    if not len(source.labels_of(published).values):
        raise UserError(f"{name}: no training document has both a word and a label, so there is nothing to learn")
    parts = {} if validation is None else {"validation": _whole(spooled(validation))}
    parts["test"] = (source, in_test) if test is None else _whole(spooled(test))
    labels, label_numbers = _label_order(label_ids, source.labels_of(published))
    num_labels = len(labels)

    if validation is None:
        own = source.labels_of(published)
        kept = Ragged(label_numbers[own.values], own.offsets)
        held_out = hold_out(kept, num_labels, validation_fraction, seed)
        missing = _wanted(validation_fraction, len(held_out)) - int(held_out.sum())
        if missing:
            warnings.append(
                f"{missing:,} fewer validation documents than asked for: the others carry labels too rare to spare"
            )
        in_validation = np.zeros(len(source), bool)
        in_validation[np.flatnonzero(published)[held_out]] = True
        parts |= {"train": (source, published & ~in_validation), "validation": (source, in_validation)}
    else:
        parts["train"] = (source, published)

    for split in ("validation", "test"):
        spool, keep = parts[split]
        unseen = _in_order_of_sight(spool.labels_of(keep).values, label_numbers < 0)
        label_numbers[unseen] = np.arange(len(labels), len(labels) + len(unseen))
        names = list(label_ids) if len(unseen) else []
        labels += [names[i] for i in unseen]
        if len(unseen):
            notes.append(
                f"Labels of {split} that training lacks, counted, never predicted: {len(unseen):,} "
                f"(e.g. {names[unseen[0]]!r})"
            )

    counts = np.zeros(len(counter.ids), np.int64)
    for ids in parts["train"][0].blocks(parts["train"][1]):
        counts += np.bincount(ids, minlength=len(counts))
    words, word_numbers = counter.most_frequent(counts, max_vocabulary)
    for split, (spool, keep) in parts.items():
        spool.write(folder / split, keep, word_numbers, label_numbers)

    published_labels = label_numbers[source.labels_of(published).values]
    np.save(folder / "published_counts.npy", np.bincount(published_labels, minlength=len(labels)))
    figures = {
        "num_labels": num_labels,
        "published_documents": int(published.sum()),
        "published_words": int(source.whole_lengths[published].sum()),
        "test_words": int(parts["test"][0].whole_lengths[parts["test"][1]].sum()),
    }
    (folder / "words").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    (folder / "labels").write_text("".join(f"{json.dumps(label)}\n" for label in labels), encoding="utf-8")
    content = {"figures": figures, "warnings": warnings, "notes": notes}
    (folder / "corpus.json").write_text(json.dumps(content), encoding="utf-8")


def read(folder: Path, name: str, *, mapped: bool = True) -> Corpus:
    """Returns the corpus that `write` put into a folder; mapped, its arrays are read-only views of the files."""

    def array_of(path: Path) -> np.ndarray:
        # The plain view spares every slice the bookkeeping of np.memmap.
        return np.asarray(np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False))

    def split(path: Path) -> Split:
        words, word_offsets, labels, label_offsets = (array_of(path / f"{part}.npy") for part in _PARTS)
        return Split(Ragged(words, word_offsets), Ragged(labels, label_offsets))

    figures = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["figures"]
    return Corpus(
        name=name,
        words=(folder / "words").read_text(encoding="utf-8").split("\n")[:-1],
        labels=[json.loads(line) for line in (folder / "labels").read_text(encoding="utf-8").splitlines()],
        published_counts=array_of(folder / "published_counts.npy"),
        train=split(folder / "train"),
        validation=split(folder / "validation"),
        test=split(folder / "test"),
        **figures,
    )


def say(folder: Path) -> None:
    """Prints what was worth saying when the corpus was written."""
    content = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    for text in content["warnings"]:
        warn(text)
    for text in content["notes"]:
        note(text)


class _Spool:
    """The documents of one source, numbered in the order of first sight. N documents."""

    def __init__(
        self,
        folder: Path,
        documents: Iterable[Document],
        counter: vocabulary.WordCounter,
        label_ids: dict[str, int],
        max_words: int,
    ) -> None:
        # On disk, where it has no name: it is gone with the process, however that ends.
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115
        lengths, whole_lengths, labels, sizes = array("q"), array("q"), array("i"), array("q")
        for document in documents:
            ids = counter.encode(document.text, max_words)
            self._file.write(ids.tobytes())
            lengths.append(len(ids))
            whole_lengths.append(vocabulary.count_words(document.text))
            labels.extend(label_ids.setdefault(label, len(label_ids)) for label in document.labels)
            sizes.append(len(document.labels))
        self.lengths = np.array(lengths, np.int64)
        """int64[N], words kept."""
        self.whole_lengths = np.array(whole_lengths, np.int64)
        """int64[N], words before texts were cut."""
        self._labels = Ragged.from_sizes(np.array(labels, np.int32), np.array(sizes, np.int64))

    def __len__(self) -> int:
        return len(self.lengths)

    def labels_of(self, keep: np.ndarray) -> Ragged:
        """Returns the label numbers of the documents where bool[N] `keep` is true."""
        return self._labels.take(keep)

    def blocks(self, keep: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the word numbers of those documents, int32, a block of documents at a time."""
        offsets = offsets_of(self.lengths)
        self._file.seek(0)
        start = 0
        while start < len(self):
            stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + _BLOCK, "right")) - 1)
            ids = np.frombuffer(self._file.read(4 * int(offsets[stop] - offsets[start])), np.int32)
            yield ids[np.repeat(keep[start:stop], self.lengths[start:stop])]
            start = stop

    def write(self, folder: Path, keep: np.ndarray, word_numbers: np.ndarray, label_numbers: np.ndarray) -> None:
        """Writes those documents as a split."""
        folder.mkdir()
        lengths = self.lengths[keep]
        with (folder / "words.npy").open("wb") as file:
            header = {"descr": "<i4", "fortran_order": False, "shape": (int(lengths.sum()),)}
            np.lib.format.write_array_header_1_0(file, header)
            for ids in self.blocks(keep):
                file.write(word_numbers[ids].tobytes())
        labels = self.labels_of(keep)
        np.save(folder / "word_offsets.npy", offsets_of(lengths))
        np.save(folder / "labels.npy", label_numbers[labels.values])
        np.save(folder / "label_offsets.npy", labels.offsets)


def _whole(spool: _Spool) -> tuple[_Spool, np.ndarray]:
    return spool, np.ones(len(spool), bool)


def _label_order(label_ids: dict[str, int], labels: Ragged) -> tuple[list[str], np.ndarray]:
    """Lists the labels that occur, most frequent first, ties by name, and int32, each one's number there; -1: none."""
    counts = np.bincount(labels.values, minlength=len(label_ids))
    names = list(label_ids)
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda i: (-counts[i], names[i]))
    numbers = np.full(len(names), -1, np.int32)
    numbers[order] = np.arange(len(order))
    return [names[i] for i in order], numbers


def _in_order_of_sight(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the distinct values where `wanted`, indexed by value, is true, in the order in which they come."""
    distinct, first = np.unique(values, return_index=True)
    distinct = distinct[np.argsort(first)]
    return distinct[wanted[distinct]]


def drawn(num_documents: int, fraction: float, seed: int) -> np.ndarray:
    """Draws test documents at random, bool[N]; where a share is asked for, one at least, and never all."""
    wanted = min(max(round(fraction * num_documents), int(fraction > 0)), num_documents - 1)
    chosen = np.zeros(num_documents, bool)
    # Another stream than that of the validation documents.
    random = np.random.Generator(np.random.Philox(key=[seed, 2**32]))
    chosen[random.permutation(num_documents)[: max(0, wanted)]] = True
    return chosen


def hold_out(labels: Ragged, num_labels: int, fraction: float, seed: int) -> np.ndarray:
    """Chooses validation documents at random, so that each label keeps at least half of its documents in training.

    Returns:
        bool[N], true where a document is held out; fewer than `fraction` x N where rare labels forbid more.
    """
    num_documents = labels.num_rows
    counts = np.bincount(labels.values, minlength=num_labels)
    left, least = counts.copy(), np.maximum(1, np.ceil(counts * _SHARE_KEPT))
    wanted = _wanted(fraction, num_documents)
    held_out = np.zeros(num_documents, bool)
    for row in np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(num_documents):
        if wanted == 0:
            break
        own = labels.row(row)
        if np.all(left[own] > least[own]):
            left[own] -= 1
            held_out[row] = True
            wanted -= 1
    return held_out


def _wanted(fraction: float, num_documents: int) -> int:
    return min(round(fraction * num_documents), num_documents - 1)
