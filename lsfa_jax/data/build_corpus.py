"""Documents to a corpus: read once, word ids on disk, missing splits drawn from training, numbers by frequency.

`write` turns documents into a folder of arrays and `read` loads the folder or maps it into memory. While documents are
read, memory holds the vocabulary, the label names and a few numbers for each document, but none of their words.
"""

import functools
import json
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import numpy as np

from lsfa_jax.data import bags, vocabulary
from lsfa_jax.data.corpus import Corpus, Split
from lsfa_jax.data.held_out import ValidationFraction, draw_test_split, hold_out, validation_size
from lsfa_jax.data.pieces import Pieces
from lsfa_jax.data.ragged import Ragged, blocks_of, offsets_of
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.data.same_text import Rows, in_both, same_texts
from lsfa_jax.data.similar_labels import alike
from lsfa_jax.data.text_advice import TextAdvice, unread_words
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER, Tokenizer
from lsfa_jax.util import array_file
from lsfa_jax.util.array_file import appending
from lsfa_jax.util.console import UserError, note, warn

# Words in memory at a time.
_BLOCK = 2**20

_PARTS = ("words", "word_offsets", "labels", "label_offsets")
_EXCLUDED = ("excluded", "excluded_offsets")


def build(
    name: str,
    train: Iterable[Document],
    test: Iterable[Document] | None,
    validation: Iterable[Document] | None,
    *,
    max_words: int,
    max_vocabulary: int,
    validation_fraction: ValidationFraction,
    seed: int,
    test_fraction: float = 0.0,
    tokenizer: Tokenizer = DEFAULT_TOKENIZER,
    pieces: Pieces | None = None,
    known: Sequence[str] = (),
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
            tokenizer=tokenizer,
            pieces=pieces,
            known=known,
        )
        corpus = read(Path(folder), name, mapped=False, pieces=pieces)
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
    validation_fraction: ValidationFraction,
    test_fraction: float,
    seed: int,
    name: str,
    tokenizer: Tokenizer = DEFAULT_TOKENIZER,
    pieces: Pieces | None = None,
    known: Sequence[str] = (),
) -> None:
    """Reads documents once and writes their corpus into a folder.

    Rows of one document are merged (`same_text.Rows`). Without test documents a share of the training documents, drawn
    at random, becomes the test split; without validation documents, a share of the rest becomes the validation split;
    documents with the same text stay together. The vocabulary is chosen from the remaining training documents. Those
    without a word teach nothing and are left out, with a warning that counts them.

    Args:
        folder: an empty folder.
        train: documents; all of them are read before those of the other splits.
        test, validation: documents, or None.
        max_words: words kept of each text.
        max_vocabulary: words kept of the training documents, most frequent first.
        validation_fraction: share of the training documents held out where there is no validation split, or "auto".
        test_fraction: share of the documents that are the test split where there is none.
        seed: of both draws.
        name: of the corpus, for the error.
        tokenizer: of the texts.
        pieces: the vocabulary, where texts are word pieces; None: words are counted and the most frequent ones kept.
        known: words that the vocabulary begins with, those of a model that training starts from.

    Raises:
        UserError: no training document has both a word and a label.
    """
    messages = _Messages()
    reader = _Reader(folder, max_words, tokenizer, messages, pieces)
    parts = {"train": reader.spool_all(train, "train")}
    _note_repeated(parts["train"], messages)
    if test is None:
        parts |= _draw_test(parts["train"], test_fraction, seed, messages)
    published = parts["train"] = _without_empty(parts["train"], name, messages)
    if validation is not None:
        parts["validation"] = reader.spool_all(validation, "validation")
    if test is not None:
        parts["test"] = reader.spool_all(test, "test")
    for split in sorted(parts.keys() - {"train"}):
        _warn_of_overlap(split, parts[split], published, messages)
    labels, label_numbers = _label_order(reader.label_ids, published.labels)
    num_labels = len(labels)
    if validation is None:
        parts |= _draw_validation(published, label_numbers, num_labels, validation_fraction, seed, messages)
    labels += _number_unseen_labels(parts, label_numbers, num_labels, list(reader.label_ids), messages)
    words, word_numbers = _vocabulary(reader, parts["train"], max_vocabulary, known)
    _write_splits(folder, parts, word_numbers, label_numbers)
    _write_excluded(folder, parts, label_numbers, num_labels, messages)
    bag_terms = _write_bags(folder, parts, published, reader)
    np.save(
        folder / "published_counts.npy",
        np.bincount(label_numbers[published.labels.values], minlength=len(labels)),
    )
    _add_advice(reader, parts, labels, label_numbers, messages)
    _write_totals(folder, published, parts["test"], num_labels, messages)
    _write_names(folder, words, bag_terms, labels)


def _write_names(folder: Path, words: list[str], bag_terms: list[str], labels: list[str]) -> None:
    for name, listed in (("words", words), ("bag_terms", bag_terms)):
        (folder / name).write_text("".join(f"{word}\n" for word in listed), encoding="utf-8")
    # A label may hold a line end.
    (folder / "labels").write_text("".join(f"{json.dumps(label)}\n" for label in labels), encoding="utf-8")


def read(folder: Path, name: str, *, mapped: bool = True, pieces: Pieces | None = None) -> Corpus:
    """Returns the corpus that `write` put into a folder; mapped, its arrays are read-only views of the files."""

    array_of = functools.partial(array_file.read, mapped=mapped)

    def split(path: Path) -> Split:
        words, word_offsets, labels, label_offsets = (array_of(path / f"{part}.npy") for part in _PARTS)
        texts = bags.read(path, len(bag_terms), mapped)
        has_excluded = (path / "excluded.npy").is_file()
        excluded = Ragged(*(array_of(path / f"{part}.npy") for part in _EXCLUDED)) if has_excluded else None
        digests = array_of(path / "digests.npy")
        return Split(Ragged(words, word_offsets), Ragged(labels, label_offsets), texts, excluded, digests)

    def words_of(name: str) -> list[str]:
        return (folder / name).read_text(encoding="utf-8").split("\n")[:-1]

    bag_terms = words_of("bag_terms")
    totals = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["totals"]
    return Corpus(
        name=name,
        words=words_of("words"),
        bag_terms=bag_terms,
        labels=[json.loads(line) for line in (folder / "labels").read_text(encoding="utf-8").splitlines()],
        published_counts=array_of(folder / "published_counts.npy"),
        train=split(folder / "train"),
        validation=split(folder / "validation"),
        test=split(folder / "test"),
        pieces=pieces,
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
    """N rows of one source on disk, words and labels numbered in the order in which they first occur."""

    def __init__(self, documents: Iterable[Document], reader: "_Reader") -> None:
        """Reads all rows."""
        tokenizer, max_words = reader.tokenizer, reader.max_words
        # A file without a name: it is gone with the process, however that ends.
        self._file = TemporaryFile(dir=reader.folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self.bags = bags.BagSpool(reader.folder)
        """Of the whole texts; words by the provisional ids of `_Reader.bag_counter`."""
        weakref.finalize(self, self.bags.close)
        lengths, num_words, text_lengths = array("q"), array("q"), array("q")
        rows, excluded, num_excluded = Rows(tokenizer, max_words, reader.label_ids), array("i"), array("i")
        for document in documents:
            whole = tokenizer.words(document.text)
            words = whole[:max_words]
            ids = reader.pieces.encode(document.text) if reader.pieces else reader.counter.number(words)
            self._file.write(ids.tobytes())
            lengths.append(len(ids))
            num_words.append(len(words))
            text_lengths.append(len(whole))
            self.bags.add(bags.counted_words(whole, tokenizer), reader.bag_counter)
            rows.add(document, words)
            # A label that no training document before has is never predicted.
            known = [reader.label_ids[label] for label in document.excluded if label in reader.label_ids]
            excluded.extend(known)
            num_excluded.append(len(known))
            reader.advice.add(document.text, words)
        self.lengths = np.array(lengths, np.int64)
        """int64[N], tokens kept: words or word pieces."""
        self.num_words = np.array(num_words, np.int64)
        """int64[N], words kept."""
        self.text_lengths = np.array(text_lengths, np.int64)
        """int64[N], words before texts were cut."""
        self.digests = rows.digests
        """uint64[N, 2], of the texts."""
        self.is_first, self._labels = rows.documents()
        """bool[N], true at the first row of each document; its labels are those of all its rows."""
        self.excluded = Ragged.from_sizes(np.array(excluded, np.int32), np.array(num_excluded, np.int64))
        """Provisional ids of labels that are neither predicted for each row nor counted."""

    def __len__(self) -> int:
        return len(self.lengths)

    def labels_of(self, keep: np.ndarray) -> Ragged:
        """Returns the provisional label ids of the documents where bool[N] `keep` is true."""
        return self._labels.take(keep)

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields blocks of documents and int32[tokens of the block], their provisional token ids."""
        offsets = offsets_of(self.lengths)
        self._file.seek(0)
        for rows in blocks_of(offsets, _BLOCK):
            yield rows, np.frombuffer(self._file.read(4 * int(offsets[rows.stop] - offsets[rows.start])), np.int32)


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
    def digests(self) -> np.ndarray:
        """uint64[documents, 2], of the texts."""
        return self.spool.digests[self.keep]

    @property
    def same_text(self) -> np.ndarray:
        """int64[documents], the number of the split's first document with the text of each."""
        return same_texts(self.digests)

    @property
    def num_text_words(self) -> int:
        """Words of all documents, before texts were cut."""
        return int(self.spool.text_lengths[self.keep].sum())

    def words_of(self, block: slice, ids: np.ndarray) -> np.ndarray:
        """Selects the words of the split's documents from those of a block of the spool."""
        return ids[np.repeat(self.keep[block], self.spool.lengths[block])]


class _Reader:
    """Spools the sources of a corpus, which share words and labels."""

    def __init__(
        self, folder: Path, max_words: int, tokenizer: Tokenizer, messages: _Messages, pieces: Pieces | None
    ) -> None:
        self.counter, self.pieces = vocabulary.WordCounter(), pieces
        self.bag_counter = vocabulary.WordCounter()
        self.label_ids: dict[str, int] = {}
        self.folder, self.max_words, self.tokenizer = folder, max_words, tokenizer
        self.advice = TextAdvice(tokenizer, max_words)
        self._messages = messages

    def spool_all(self, documents: Iterable[Document], split: str) -> _Part:
        """Reads all rows of a source."""
        spool = _Spool(documents, self)
        if merged := merged_rows(split, spool.is_first):
            self._messages.notes.append(merged)
        return _Part(spool, spool.is_first)


def merged_rows(split: str, is_first: np.ndarray) -> str:
    """Describes how many documents the rows of a split are; "" where each is one."""
    if is_first.all():
        return ""
    return f"{split}: rows with the same text are merged: {len(is_first):,} rows, {is_first.sum():,} documents"


def _note_repeated(train: _Part, messages: _Messages) -> None:
    same_text = train.same_text
    if repeated := int((same_text != np.arange(len(same_text))).sum()):
        messages.notes.append(
            f"train: documents with the text of an earlier one: {repeated:,} of {len(same_text):,}; a drawn split has "
            "all documents of a text, or none"
        )


def _warn_of_overlap(split: str, part: _Part, train: _Part, messages: _Messages) -> None:
    both = in_both(part.digests, train.digests)
    if both:
        messages.warnings.append(overlap(split, both, int(part.keep.sum())))


def overlap(split: str, both: int, total: int) -> str:
    """Describes how many documents of a split are training documents too."""
    return (
        f"{split} documents with the text of a training document: {both:,} of {total:,}; metrics on them are too good"
    )


def _write_totals(folder: Path, published: _Part, test: _Part, num_labels: int, messages: _Messages) -> None:
    totals = {
        "num_labels": num_labels,
        "published_documents": int(published.keep.sum()),
        "published_words": published.num_text_words,
        "test_words": test.num_text_words,
    }
    (folder / "corpus.json").write_text(json.dumps({"totals": totals, **asdict(messages)}), encoding="utf-8")


def _add_advice(
    reader: _Reader, parts: Mapping[str, _Part], labels: list[str], label_numbers: np.ndarray, messages: _Messages
) -> None:
    """Adds what the texts and label names show about the settings."""
    lengths = np.concatenate([part.spool.num_words[part.keep] for part in parts.values()])
    text_lengths = np.concatenate([part.spool.text_lengths[part.keep] for part in parts.values()])
    cut, unread = int((text_lengths > lengths).sum()), int((text_lengths - lengths).sum())
    if cut:
        messages.notes.append(unread_words(len(lengths), cut, int(text_lengths.sum()), unread, reader.max_words))
    messages.warnings += reader.advice.warnings()
    numbers = label_numbers[np.concatenate([part.labels.values for part in parts.values()])]
    counts = np.bincount(numbers, minlength=len(labels))
    messages.warnings += alike(dict(zip(labels, counts.tolist(), strict=True)))


def _draw_test(train: _Part, fraction: float, seed: int, messages: _Messages) -> dict[str, _Part]:
    """Divides the training documents into train and test."""
    drawn = draw_test_split(int(train.keep.sum()), fraction, seed, train.same_text)
    messages.notes.append(f"No test split: {drawn.sum():,} of {len(drawn):,} documents are held out as test, at random")
    in_test = np.zeros(len(train.keep), bool)
    in_test[np.flatnonzero(train.keep)[drawn]] = True
    return {"train": _Part(train.spool, train.keep & ~in_test), "test": _Part(train.spool, in_test)}


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
    train: _Part,
    label_numbers: np.ndarray,
    num_labels: int,
    fraction: ValidationFraction,
    seed: int,
    messages: _Messages,
) -> dict[str, _Part]:
    """Divides the training documents into train and validation."""
    labels = train.labels
    numbered = Ragged(label_numbers[labels.values], labels.offsets)
    same_text = train.same_text
    held_out = hold_out(numbered, num_labels, fraction, seed, same_text)
    missing = validation_size(fraction, len(held_out)) - int(held_out.sum())
    if missing:
        reason = "carry labels too rare to spare"
        if (same_text != np.arange(len(same_text))).any():
            reason += ", or come with too many of the same text"
        messages.warnings.append(f"{missing:,} fewer validation documents than asked for: the others {reason}")
    in_validation = np.zeros(len(train.keep), bool)
    in_validation[np.flatnonzero(train.keep)[held_out]] = True
    return {"train": _Part(train.spool, train.keep & ~in_validation), "validation": _Part(train.spool, in_validation)}


def _vocabulary(
    reader: _Reader, train: _Part, max_vocabulary: int, known: Sequence[str]
) -> tuple[list[str], np.ndarray]:
    """Returns the vocabulary's words and int32[provisional ids], the final ids; those of word pieces are final."""
    if reader.pieces:
        return [], np.arange(reader.pieces.size, dtype=np.int32)
    return reader.counter.most_frequent(_count_words(train, len(reader.counter.ids)), max_vocabulary, known)


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
        np.save(folder / split / "digests.npy", part.digests)
    for spool in {id(part.spool): part.spool for part in parts.values()}.values():
        with ExitStack() as stack:
            written = [
                (part, stack.enter_context(appending(folder / split / "words.npy", np.int32)))
                for split, part in parts.items()
                if part.spool is spool
            ]
            for block, ids in spool.blocks():
                for part, append in written:
                    append(word_numbers[part.words_of(block, ids)])


def _write_excluded(
    folder: Path, parts: Mapping[str, _Part], label_numbers: np.ndarray, num_labels: int, messages: _Messages
) -> None:
    """Writes the labels of the model that are excluded for documents, of splits that have any."""
    for split, part in parts.items():
        excluded = part.spool.excluded.take(part.keep)
        numbers = label_numbers[excluded.values]
        known = excluded._replace(values=numbers).kept((numbers >= 0) & (numbers < num_labels))
        if len(known.values):
            for name, array_of_split in zip(_EXCLUDED, known, strict=True):
                np.save(folder / split / f"{name}.npy", array_of_split)
            messages.notes.append(
                f"{split}: its filter file excludes {len(known.values):,} labels of documents, which are neither "
                "predicted nor counted"
            )


def _write_bags(folder: Path, parts: Mapping[str, _Part], published: _Part, reader: _Reader) -> list[str]:
    """Writes the splits' bags; returns their terms, those of at least two published training documents."""
    chosen = bags.choose_terms(published.spool.bags, published.keep)
    for split, part in parts.items():
        bags.write(folder / split, part.spool.bags, part.keep, chosen)
    return bags.names(chosen, list(reader.bag_counter.ids))


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
