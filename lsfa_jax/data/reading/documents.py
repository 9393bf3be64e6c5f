"""Documents with their label names from files of any format, with file and line in every error."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from lsfa_jax.data.reading.compression import open_stream
from lsfa_jax.data.reading.detect import ReadOptions, describe, detect
from lsfa_jax.data.reading.eurlex57k import json_documents, law_rows
from lsfa_jax.data.reading.json_lines import json_lines
from lsfa_jax.data.reading.lyrl2004 import TOPICS, token_file_rows
from lsfa_jax.data.reading.paired import paired_rows
from lsfa_jax.data.reading.parquet import PARQUET_MAGIC, Parquet
from lsfa_jax.data.reading.rows import BadRow, BlankLine, Layout, Lines, Parsed, Placed, Row
from lsfa_jax.data.reading.splits import Files, Source, compressed_or_plain, with_label_file
from lsfa_jax.data.reading.tables import table_rows
from lsfa_jax.data.reading.text_lines import libmultilabel, plain_lines
from lsfa_jax.util.console import UserError, note, plural

# So many ids are compared at most, so that memory stays bounded.
_MAX_IDS = 1_000_000


@dataclass(frozen=True)
class Document:
    """One text with the names of its labels, and its id, "" where there is none."""

    text: str
    labels: tuple[str, ...]
    id: str = ""


@dataclass
class ReadReport:
    """Counts of the rows of one or more files.

    `read == kept + skipped.total()` once the files are read to their end; blank lines are no rows.

    Attributes:
        read: all rows.
        kept: rows that became documents.
        skipped: rows left out, by reason.
        notes: peculiarities of documents ('empty text', 'no labels', 'duplicate labels'), and blank lines.
        first: the 'file:line' where each reason and note occurred first.
    """

    read: int = 0
    kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """Returns the counts as one line of text."""
        parts = [f"{plural(self.read, 'row')} read, {self.kept:,} kept"]
        for title, counts in (("skipped", self.skipped), ("noted", self.notes)):
            if counts:
                listed = (f"{n:,} {what} (first {self.first[what]})" for what, n in counts.most_common())
                parts.append(f"{title}: {', '.join(listed)}")
        return "; ".join(parts)

    def _count(self, counts: Counter[str], what: str, where: str) -> None:
        counts[what] += 1
        self.first.setdefault(what, where)


_PARSERS: dict[str, Callable[[Lines, Layout], Parsed]] = {
    "jsonl": json_lines,
    "csv": table_rows,
    "tsv": table_rows,
    "libmultilabel": libmultilabel,
    "txt": plain_lines,
}


def read_documents(source: Source, *, options: ReadOptions, report: ReadReport) -> Iterator[Document]:
    """Yields the documents of a file, a stream of bytes such as standard input, or several files.

    The file is UTF-8, plain or compressed (gzip, xz, bzip2, Zstandard). Its format, columns and label separator are
    those of the options, else detected from the content, and printed. Repeated labels are merged in order, NUL
    characters in a text become spaces, and nothing else is changed. Documents with empty text, without labels or with
    the id of an earlier one are yielded too, and counted as notes.

    Args:
        source: what the documents are read from.
        options: what is known of the format.
        report: updated with each row.

    Raises:
        UserError: a bad row when `options.bad_rows` is 'stop', a file that is damaged, whose format is not clear, or
            that holds not a single usable row.
    """
    kept_before, skipped_before = report.kept, report.skipped.total()
    ids: set[int] = set()
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
            hashed = hash(row.id)
            if hashed in ids:
                report._count(report.notes, "duplicate id", where)
            elif len(ids) < _MAX_IDS:
                ids.add(hashed)
        yield document
    if report.kept == kept_before:
        skipped = report.skipped.total() - skipped_before
        cause = f"all {skipped:,} rows were skipped ({report.summary()})" if skipped else "the file is empty"
        raise UserError(f"{_name(source)}: holds no documents: {cause}. Expected a document in every row.")


def _notes(row: Row, document: Document, options: ReadOptions) -> Iterator[str]:
    yield from row.notes
    if len(document.labels) < len(row.labels):
        yield "duplicate labels"
    if options.labelled and not document.labels:
        yield "no labels"
    if not document.text.strip():
        yield "empty text"
    if "\0" in row.text:
        yield "NUL in a text, read as a space"


def _name(source: Source) -> str:
    return str(source) if isinstance(source, Path | Files) else "standard input"


def _rows(source: Source, options: ReadOptions) -> Placed:
    """Yields each row with its 'file:line'."""
    if isinstance(source, Path) and source.is_dir():
        if not json_documents(source):
            raise UserError(f"{source}: is a folder, and holds no JSON documents. Expected a file, or such a folder.")
        note(f"{source}: read as eurlex57k, a JSON document a file")
        yield from law_rows(source, options.labelled)
        return
    if isinstance(source, Path) and options.labelled and options.format in ("auto", "pair", "lyrl2004"):
        source = with_label_file(source)
    if isinstance(source, Files) and source.labels:
        yield from _paired_rows(source.texts, source.labels, options)
        return
    for file in source.texts if isinstance(source, Files) else [source]:
        yield from _file_rows(file, options)


def _file_rows(source: Path | BinaryIO, options: ReadOptions) -> Placed:
    with open_stream(source) as stream:
        head = stream.head()
        if options.format == "parquet" or (options.format == "auto" and head.startswith(PARQUET_MAGIC)):
            if stream.compressed or not isinstance(source, Path):
                problem = "is compressed again" if stream.compressed else "cannot be read from a pipe"
                raise UserError(
                    f"{stream.name}: a Parquet file that {problem}. Save it as a plain file, and give that."
                )
            file = Parquet(source, options)
            note(f"{source}: read as {describe(file.layout)}")
            for row in file.rows():
                yield f"{source}:{row.number}", row
            return
        layout = detect(head, stream.name, options)
        if layout.format in _PARSERS:
            note(f"{stream.name}: read as {describe(layout)}")
            for row in _PARSERS[layout.format](stream.lines(), layout):
                yield f"{stream.name}:{row.number}", row
            return
    if layout.format == "lyrl2004" and isinstance(source, Path):
        topics = compressed_or_plain(source.parent, TOPICS) if options.labelled else []
        if len(topics) != 1 and options.labelled:
            raise UserError(f"{source}: expected the file of its labels, {TOPICS}, once in the same folder.")
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
            yield from token_file_rows(texts, labels)
            return
        layout = detect(stream.head(), stream.name, replace(options, format="pair"))
        if labels is None or len(texts) != 1:
            raise UserError(f"{names}: expected one file of texts and one of labels")
        note(f"{names}: read as {describe(layout)}")
        with open_stream(labels) as label_stream:
            yield from paired_rows(stream, label_stream, layout)
