"""Reads documents with their label names from files of many formats, with file and line in every error."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lsfa_jax.console import UserError, note
from lsfa_jax.data import formats
from lsfa_jax.data.detection import ReadOptions, describe, detect
from lsfa_jax.data.formats import BadRow, BlankLine, Layout, Lines, Parsed, Row
from lsfa_jax.data.streams import open_stream

# Ids are compared up to here, so that memory stays bounded.
_MAX_IDS = 1_000_000


@dataclass(frozen=True)
class Document:
    """One text with the names of its labels, and its id, "" where there is none."""

    text: str
    labels: tuple[str, ...]
    id: str = ""


@dataclass(frozen=True)
class Files:
    """Several files that are one split.

    Attributes:
        texts: files read one behind the other.
        labels: the file that holds the labels of them all, where it is another one.
    """

    texts: tuple[Path, ...]
    labels: Path | None = None

    def __str__(self) -> str:
        names = ", ".join(map(str, self.texts))
        return f"{names} with {self.labels}" if self.labels else names


Source = Path | BinaryIO | Files


@dataclass
class ReadReport:
    """What became of the rows of one or more files.

    `read == kept + skipped.total()` once the files are read to their end; blank lines are no rows.

    Attributes:
        read: rows seen.
        kept: rows handed on as documents.
        skipped: rows left out, by reason.
        notes: things worth knowing about what was kept ('empty text', 'no labels', 'duplicate labels') and blank lines.
        first: for each reason and note, the 'file:line' where it was seen first.
    """

    read: int = 0
    kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """Returns one line for people."""
        parts = [f"{self.read:,} rows read, {self.kept:,} kept"]
        for title, counts in (("skipped", self.skipped), ("noted", self.notes)):
            if counts:
                listed = (f"{n:,} {what} (first {self.first[what]})" for what, n in counts.most_common())
                parts.append(f"{title}: {', '.join(listed)}")
        return "; ".join(parts)

    def _count(self, counts: Counter[str], what: str, where: str) -> None:
        counts[what] += 1
        self.first.setdefault(what, where)


_PARSERS: dict[str, Callable[[Lines, Layout], Parsed]] = {
    "jsonl": formats.json_lines,
    "csv": formats.delimited,
    "tsv": formats.delimited,
    "libmultilabel": formats.libmultilabel,
    "txt": formats.plain_lines,
}


def read_documents(source: Source, *, options: ReadOptions, report: ReadReport) -> Iterator[Document]:
    """Yields the documents of a file, a stream of bytes such as standard input, or several files.

    The file is UTF-8, plain or compressed (gzip, xz, bzip2, Zstandard). Its format, columns and label separator are
    those of the options, else detected from the content, and said in a note. Repeated labels are merged in order, NUL
    characters in a text become spaces, and all else is handed on as it is. Documents with empty text, without labels
    or with an id seen before are yielded too, and counted as notes.

    Args:
        source: where the documents come from.
        options: what is known of the format.
        report: filled in while the documents are drawn.

    Raises:
        UserError: a bad row when `options.bad_rows` is 'stop', a file that is damaged, whose format is not clear, or
            that holds not a single usable row.
    """
    kept_before, skipped_before = report.kept, report.skipped.total()
    seen: set[int] = set()
    for where, row in _rows(source, options):
        if isinstance(row, BlankLine):
            report._count(report.notes, "blank line", where)
            continue
        report.read += 1
        if isinstance(row, BadRow):
            if options.bad_rows == "stop":
                advice = f"Mend the row, or leave such rows out with `{options.prefix}bad-rows skip`."
                raise UserError(f"{where}: {row}. {advice}")
            report._count(report.skipped, row.reason, where)
            continue
        report.kept += 1
        document = Document(row.text.replace("\0", " "), tuple(dict.fromkeys(row.labels)), row.id)
        for what in _notes(row, document, options):
            report._count(report.notes, what, where)
        if options.labelled and row.id:
            own = hash(row.id)
            if own in seen:
                report._count(report.notes, "duplicate id", where)
            elif len(seen) < _MAX_IDS:
                seen.add(own)
        yield document
    if report.kept == kept_before:
        skipped = report.skipped.total() - skipped_before
        found = f"all {skipped:,} rows were skipped ({report.summary()})" if skipped else "the file is empty"
        raise UserError(f"{_name(source)}: holds no documents: {found}. Expected a document in every row.")


def _notes(row: Row, document: Document, options: ReadOptions) -> Iterator[str]:
    yield from row.notes
    if len(document.labels) < len(row.labels):
        yield "duplicate labels"
    if options.labelled and not document.labels:
        yield "no labels"
    if not document.text.strip():
        yield "empty text"
    if "\0" in row.text:
        yield "NUL in a text, taken as a space"


def _name(source: Source) -> str:
    return str(source) if isinstance(source, Path | Files) else "standard input"


def _rows(source: Source, options: ReadOptions) -> Iterator[tuple[str, Row | BadRow | BlankLine]]:
    """Yields each row with its 'file:line'."""
    if isinstance(source, Files):
        raise NotImplementedError
    with open_stream(source) as stream:
        layout = detect(stream.head(), stream.name, options)
        note(f"{stream.name}: read as {describe(layout)}")
        for row in _PARSERS[layout.format](stream.lines(), layout):
            yield f"{stream.name}:{row.number}", row


_SUFFIXES = (".jsonl", ".csv", ".tsv", ".txt")
_COMPRESSED = ("", ".gz", ".xz", ".bz2", ".zst")
_SPLIT_STEMS = {"train": ("train",), "test": ("test",), "validation": ("validation", "valid", "val", "dev")}


def find_splits(data_dir: Path) -> dict[str, Source]:
    """Finds the files of the splits in a folder; a single file is all 'train'.

    Returns:
        What `read_documents` takes, under 'train' and, where there is one, 'test' and 'validation' (named validation,
        valid, val or dev).

    Raises:
        UserError: no such folder, no file for training, or two files for one split.
    """
    if data_dir.is_file():
        return {"train": data_dir}
    try:
        present = sorted(entry.name for entry in data_dir.iterdir())
    except OSError as error:
        raise UserError(f"{data_dir}: not a folder that can be read ({error.strerror}). Check the path.") from None
    splits: dict[str, Source] = {}
    for split, stems in _SPLIT_STEMS.items():
        names = {stem + suffix + packed for stem in stems for suffix in _SUFFIXES for packed in _COMPRESSED}
        found = [name for name in present if name in names and (data_dir / name).is_file()]
        if len(found) > 1:
            raise UserError(f"{data_dir}: {' and '.join(found)} both could be the {split} split. Keep one of them.")
        if found:
            splits[split] = data_dir / found[0]
        elif split == "train":
            listed = ", ".join(present[:20]) + (f" and {len(present) - 20} more" if len(present) > 20 else "")
            raise UserError(
                f"{data_dir}: no file for the {split} split; expected {split}.jsonl, {split}.csv or another format's "
                f"name, plain or compressed; found {listed or 'nothing'}."
            )
    return splits
