"""Reads documents with their label names from files of many formats, with file and line in every error."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from lsfa_jax.data.reading import parquet, rows
from lsfa_jax.data.reading.compression import open_stream
from lsfa_jax.data.reading.detect import ReadOptions, describe, detect
from lsfa_jax.data.reading.paired import Placed, lyrl2004, pair
from lsfa_jax.data.reading.parquet import PARQUET_MAGIC, Parquet
from lsfa_jax.data.reading.rows import BadRow, BlankLine, Layout, Lines, Parsed, Row
from lsfa_jax.util.console import UserError, note

_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")
_COMPRESSED = ("", ".gz", ".xz", ".bz2", ".zst")
_SPLIT_STEMS = {"train": ("train",), "test": ("test",), "validation": ("validation", "valid", "val", "dev")}
_TOPICS = "rcv1-v2.topics.qrels"

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
    "jsonl": rows.json_lines,
    "csv": rows.delimited,
    "tsv": rows.delimited,
    "libmultilabel": rows.libmultilabel,
    "txt": rows.plain_lines,
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


def _rows(source: Source, options: ReadOptions) -> Placed:
    """Yields each row with its 'file:line'."""
    if isinstance(source, Path) and source.is_dir():
        if not parquet.json_documents(source):
            raise UserError(f"{source}: is a folder, and holds no JSON documents. Expected a file, or such a folder.")
        note(f"{source}: read as eurlex57k, a JSON document a file")
        yield from parquet.eurlex57k(source, options)
        return
    if isinstance(source, Path) and options.labelled and options.format in ("auto", "pair", "lyrl2004"):
        source = _with_labels(source)
    if isinstance(source, Files) and source.labels:
        yield from _paired_rows(source.texts, source.labels, options)
        return
    for one in source.texts if isinstance(source, Files) else [source]:
        yield from _file_rows(one, options)


def _file_rows(source: Path | BinaryIO, options: ReadOptions) -> Placed:
    with open_stream(source) as stream:
        head = stream.head()
        if options.format == "parquet" or (options.format == "auto" and head.startswith(PARQUET_MAGIC)):
            if stream.compressed or not isinstance(source, Path):
                problem = "is compressed again" if stream.compressed else "cannot be read from a pipe"
                raise UserError(
                    f"{stream.name}: a Parquet file that {problem}. Save it as a plain file, and give that."
                )
            parquet = Parquet(source, options)
            note(f"{source}: read as {describe(parquet.layout)}")
            for row in parquet.rows():
                yield f"{source}:{row.number}", row
            return
        layout = detect(head, stream.name, options)
        if layout.format in _PARSERS:
            note(f"{stream.name}: read as {describe(layout)}")
            for row in _PARSERS[layout.format](stream.lines(), layout):
                yield f"{stream.name}:{row.number}", row
            return
    if layout.format == "lyrl2004" and isinstance(source, Path):
        topics = _packed(source.parent, _TOPICS) if options.labelled else []
        if len(topics) != 1 and options.labelled:
            raise UserError(f"{source}: expected the file of its labels, {_TOPICS}, once in the same folder.")
        yield from _paired_rows((source,), topics[0] if topics else None, options)
        return
    expected = "a folder of JSON documents"
    if layout.format != "eurlex57k":
        expected = (
            "texts in a file named like train_texts.txt or text_train, and train_labels.txt or label_train beside it"
        )
    raise UserError(f"{stream.name}: cannot be read as {layout.format}. Expected {expected}.")


def _paired_rows(texts: tuple[Path, ...], labels: Path | None, options: ReadOptions) -> Placed:
    names = f"{', '.join(map(str, texts))}" + (f" with {labels}" if labels else "")
    with open_stream(texts[0]) as stream:
        if options.format == "lyrl2004" or (options.format == "auto" and stream.head().startswith(b".I ")):
            note(f"{names}: read as lyrl2004")
            yield from lyrl2004(texts, labels)
            return
        layout = detect(stream.head(), stream.name, replace(options, format="pair"))
        if labels is None or len(texts) != 1:
            raise UserError(f"{names}: expected one file of texts and one of labels")
        note(f"{names}: read as {describe(layout)}")
        with open_stream(labels) as others:
            yield from pair(stream, others, layout)


def _with_labels(path: Path) -> Path | Files:
    """Adds the file of labels that lies beside a file of texts, by its name."""
    stem = _plain_name(path.name)
    topics = _packed(path.parent, _TOPICS) if stem.startswith("lyrl2004_tokens_") else []
    if len(topics) == 1:
        return Files((path,), topics[0])
    if stem.endswith(".txt") or "." not in stem:
        for texts, labels in (("texts", "labels"), ("text", "label")):
            found = _packed(path.parent, stem.replace(texts, labels, 1)) if texts in stem else []
            if len(found) == 1:
                return Files((path,), found[0])
    return path


def _plain_name(name: str) -> str:
    return next((name.removesuffix(end) for end in _COMPRESSED[1:] if name.endswith(end)), name)


def _packed(folder: Path, name: str) -> list[Path]:
    return [folder / (name + end) for end in _COMPRESSED if (folder / (name + end)).is_file()]


def find_splits(data_dir: Path) -> dict[str, Source]:
    """Finds the files of the splits in a folder, of any format; a single file is all 'train'.

    Returns:
        What `read_documents` takes, under 'train' and, where there is one, 'test' and 'validation' (named validation,
        valid, val or dev).

    Raises:
        UserError: no such folder, no file for training, two for one split, or one of several that belong together is
            missing.
    """
    if data_dir.is_file():
        return {"train": _with_labels(data_dir)}
    try:
        present = sorted(entry.name for entry in data_dir.iterdir())
    except OSError as error:
        raise UserError(f"{data_dir}: not a folder that can be read ({error.strerror}). Check the path.") from None
    splits: dict[str, Source] = {}
    for split, stems in _SPLIT_STEMS.items():
        found = [source for stem in stems for source in _candidates(data_dir, stem)]
        if len(found) > 1:
            names = " and ".join(source.name if isinstance(source, Path) else str(source) for source in found)
            raise UserError(f"{data_dir}: {names} both could be the {split} split. Keep one of them.")
        if found:
            splits[split] = found[0]
        elif split == "train":
            if (data_dir / "data").is_dir():
                # As public hubs lay out a repository of Parquet files.
                return find_splits(data_dir / "data")
            listed = ", ".join(present[:20]) + (f" and {len(present) - 20} more" if len(present) > 20 else "")
            raise UserError(
                f"{data_dir}: no file for the {split} split; expected {split}.jsonl, {split}.csv or another format's "
                f"name, plain or compressed; found {listed or 'nothing'}."
            )
    return splits


def _candidates(folder: Path, stem: str) -> Iterator[Path | Files]:
    """Yields what could be the split of that name."""
    for suffix in _SUFFIXES:
        yield from _packed(folder, stem + suffix)
    for texts, labels in ((f"{stem}_texts.txt", f"{stem}_labels.txt"), (f"text_{stem}", f"label_{stem}")):
        for path in _packed(folder, texts):
            yield Files((path,), _only(folder, labels))
    parts = [f"lyrl2004_tokens_test_pt{i}.dat" for i in range(4)] if stem == "test" else [f"lyrl2004_tokens_{stem}.dat"]
    if any(_packed(folder, part) for part in parts):
        yield Files(tuple(_only(folder, part) for part in parts), _only(folder, _TOPICS))
    if (folder / stem).is_dir() and parquet.json_documents(folder / stem):
        yield folder / stem
    shards = sorted(folder.glob(f"{stem}-?????-of-?????.parquet"))
    if shards:
        total = int(shards[0].stem[-5:]) if shards[0].stem[-5:].isdigit() else 0
        yield Files(tuple(_only(folder, f"{stem}-{i:05}-of-{total:05}.parquet") for i in range(total)))


def _only(folder: Path, name: str) -> Path:
    found = _packed(folder, name)
    if len(found) != 1:
        problem = f"{' and '.join(path.name for path in found)} are there" if found else "it is missing"
        raise UserError(f"{folder}: expected one file {name} (plain or compressed), but {problem}.")
    return found[0]
