"""Documents with their label names from files of any format, with file and line in every error."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lsfa_jax.data.reading.annif import full_text_rows, text_documents
from lsfa_jax.data.reading.compression import open_stream
from lsfa_jax.data.reading.detect import NUM_ROWS, describe, detect, readings
from lsfa_jax.data.reading.eurlex57k import json_documents, law_rows
from lsfa_jax.data.reading.json_documents import json_document, read_objects
from lsfa_jax.data.reading.json_lines import json_lines
from lsfa_jax.data.reading.label_cells import has_edge, separator_of_lines
from lsfa_jax.data.reading.label_lists import looks_like_list
from lsfa_jax.data.reading.label_names import read_label_names
from lsfa_jax.data.reading.lyrl2004 import TOPICS, token_file_rows
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.data.reading.paired import matrix_rows, paired_rows
from lsfa_jax.data.reading.parquet import PARQUET_MAGIC, Parquet
from lsfa_jax.data.reading.pecos import label_rows
from lsfa_jax.data.reading.rows import (
    INVALID_UTF8,
    BadRow,
    BadRowError,
    BlankLine,
    Layout,
    Lines,
    Parsed,
    Placed,
    RepeatedHeader,
    Row,
)
from lsfa_jax.data.reading.splits import Files, Source, compressed_or_plain, with_label_file
from lsfa_jax.data.reading.tables import table_rows
from lsfa_jax.data.reading.text_lines import fasttext, plain_lines
from lsfa_jax.data.reading.typed_layout import typed_layout
from lsfa_jax.data.reading.xml_repository import read_filter, sparse_label_rows
from lsfa_jax.util.console import UserError, note_once, plural

# So many ids are compared at most, so that memory stays bounded.
_MAX_IDS = 1_000_000

# Characters without a width that differ between labels that look the same: soft hyphen, zero-width space, BOM.
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")
_NO_ROWS = (BlankLine, RepeatedHeader)
_FASTTEXT_PREFIX = "__label__"
_URI = re.compile(r"<(\w+:[^<>\s]+)>")


class Document(NamedTuple):
    """One text with the names of its labels, and its id, "" where there is none."""

    text: str
    labels: tuple[str, ...]
    id: str = ""
    excluded: tuple[str, ...] = ()
    """Labels that are neither predicted for the text nor counted; never among `labels`."""


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
    "libmultilabel": table_rows,
    "fasttext": fasttext,
    "txt": plain_lines,
}


def read_documents(source: Source, *, options: ReadOptions, report: ReadReport) -> Iterator[Document]:
    """Yields the documents of a file, a stream of bytes such as standard input, or several files.

    The file is plain or compressed (gzip, xz, bzip2, Zstandard). Its format, columns and label separator are those of
    the options, else detected from the content, and printed with the first document. Labels are brought into Unicode's
    form NFC, without white space around them, repeated ones are merged in order, and NUL characters in a text become
    spaces; nothing else is changed. Documents with empty text, without labels or with the id of an earlier one are
    yielded too, and counted as notes.

    Args:
        source: what the documents are read from.
        options: what is known of the format.
        report: updated with each row.

    Raises:
        UserError: a bad row when `options.bad_rows` is 'stop', a file that is damaged, whose format is not clear, or
            that holds not a single usable row.
    """
    read_before, kept_before, skipped_before = report.read, report.kept, report.skipped.total()
    ids: set[int] = set()
    labelled = options.labelled
    clean = _Labels(source, options)
    for where, row in _rows(source, options, clean):
        if isinstance(row, Row):
            row = clean(row)
        elif isinstance(row, _NO_ROWS):
            what = "blank line" if isinstance(row, BlankLine) else "repeated header, left out"
            report._count(report.notes, what, where)
            continue
        report.read += 1
        if isinstance(row, BadRow):
            if options.bad_rows == "stop":
                raise _stopped(where, row, options)
            report._count(report.skipped, row.reason, where)
            continue
        report.kept += 1
        excluded = clean.excluded(report.read - read_before - 1)
        labels = tuple(label for label in dict.fromkeys(row.labels) if label not in excluded)
        document = Document(row.text.replace("\0", " "), labels, row.id, excluded)
        for what in _notes(row, document, labelled):
            report._count(report.notes, what, where)
        if labelled and row.id:
            hashed = hash(row.id)
            if hashed in ids:
                report._count(report.notes, "duplicate id", where)
            elif len(ids) < _MAX_IDS:
                ids.add(hashed)
        if labelled and report.kept == kept_before + 1:
            note_once(f"  first document: {_shown(document)}")
        yield document
    clean.check_filter(report.read - read_before)
    if report.kept == kept_before:
        skipped = report.skipped.total() - skipped_before
        cause = f"all {skipped:,} rows were skipped ({report.summary()})" if skipped else "there are no rows"
        raise UserError(f"{_name(source)}: holds no documents: {cause}. Expected a document in every row.")


def _stopped(where: str, row: BadRow, options: ReadOptions) -> UserError:
    advice = f"Correct the row, or skip such rows with {options.prefix}bad-rows skip."
    if row.reason == INVALID_UTF8 and isinstance(row.got, bytes):
        advice = (
            f"{readings(row.got)}. If the file is in one of them, set {options.option('encoding')}; if only this row "
            f"is, convert it, or leave such rows out with `{options.prefix}bad-rows skip`."
        )
    return UserError(f"{where}: {row}. {advice}")


def _shown(document: Document) -> str:
    """Returns a document on one line: the beginning of its text, and its labels."""
    text = " ".join(document.text[:400].split())
    text = text if len(text) <= 60 else f"{text[:57]}..."
    labels = ", ".join(map(repr, document.labels[:5])) + (" ..." if len(document.labels) > 5 else "")
    return f"{text!r} -> {labels or 'no labels'}"


class _Labels:
    """Replaces numbers of labels by their names, and brings names into one form."""

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self._labelled = options.labelled
        self.names: Mapping[str, str] = {}
        path = source.names if isinstance(source, Files) else None
        if options.labelled and options.label_names:
            path = Path(options.label_names).expanduser()
        if path:
            self.names = read_label_names(path)
        self._filter_file = source.filters if isinstance(source, Files) and options.labelled else None
        self._filter = read_filter(self._filter_file) if self._filter_file else None
        # Of each label as it was read; "" is left out.
        self._cleaned: dict[str, str] = {}
        self._with_edges: set[str] = set()

    def __call__(self, row: Row) -> Row | BadRow:
        if not self._labelled or not row.labels:
            return row
        cleaned = self._cleaned
        try:
            labels = [cleaned[label] if label in cleaned else self._clean(label) for label in row.labels]
        except BadRowError as bad:
            return bad.at(row.number)
        notes = row.notes
        if self._with_edges and not self._with_edges.isdisjoint(labels):
            notes = (*notes, "label with a bracket or quote at its edge")
        if labels == row.labels:
            return row if notes is row.notes else row._replace(notes=notes)
        notes = notes if all(labels) else (*notes, "empty label left out")
        return row._replace(labels=[label for label in labels if label], notes=notes)

    def excluded(self, row: int) -> tuple[str, ...]:
        """Returns the labels that the filter file lists for a row, a number from 0.

        Raises:
            UserError: a label's number has no name.
        """
        if self._filter is None or row >= self._filter.num_rows:
            return ()
        try:
            labels = map(str, self._filter.row(row).tolist())
            return tuple(self._name(label) if self.names else label for label in labels)
        except BadRowError as bad:
            raise UserError(f"{self._filter_file}, document {row}: {bad.at(row)}") from None

    def check_filter(self, num_rows: int) -> None:
        """Raises UserError where the filter file has pairs of rows that there are not."""
        if self._filter is not None and self._filter.num_rows > num_rows:
            raise UserError(
                f"{self._filter_file}: has pairs of document {self._filter.num_rows - 1:,}, and there are only "
                f"{num_rows:,}, from 0. Expected the filter file of these documents."
            )

    def _clean(self, label: str) -> str:
        cleaned = unicodedata.normalize("NFC", _INVISIBLE.sub("", label)).strip()
        if match := _URI.fullmatch(cleaned):
            cleaned = match[1]
        if cleaned.startswith(_FASTTEXT_PREFIX):
            cleaned = cleaned.removeprefix(_FASTTEXT_PREFIX)
        if cleaned[:1] in ("[", "(", "{") and "'" in cleaned and looks_like_list(cleaned):
            raise BadRowError("a label is a list in a string", "a list of labels", label)
        if self.names:
            cleaned = self._name(cleaned)
        if has_edge(cleaned):
            self._with_edges.add(cleaned)
        self._cleaned[label] = cleaned
        return cleaned

    def _name(self, label: str) -> str:
        if label == "-1":
            return ""  # no label, as in test data without labels
        name = self.names.get(label)
        if name is None and not label.isdigit():
            return label
        if name is None:
            expected = f"a number from 0 to {len(self.names) - 1:,}, the label names"
            raise BadRowError("a label's number has no name", expected, label)
        return name


def _notes(row: Row, document: Document, labelled: bool) -> Sequence[str]:
    notes = row.notes
    if len(set(row.labels)) < len(row.labels):
        notes += ("duplicate labels",)
    if labelled and not document.labels:
        notes += ("no labels",)
    if not document.text or document.text.isspace():
        notes += ("empty text",)
    # The same object where nothing was replaced.
    if document.text is not row.text and "\0" in row.text:
        notes += ("NUL in a text, read as a space",)
    return notes


def _name(source: Source) -> str:
    return str(source) if isinstance(source, Path | Files) else "standard input"


def _rows(source: Source, options: ReadOptions, clean: "_Labels") -> Placed:
    """Yields each row with its 'file:line'."""
    if isinstance(source, Path) and source.is_dir():
        if text_documents(source, options.labelled):
            note_once(f"{source}: read as annif, a text a file with its subjects beside it")
            yield from full_text_rows(source, options.labelled, options.encoding)
            return
        if not json_documents(source):
            raise UserError(
                f"{source}: is a folder, and holds neither JSON documents nor texts with their subjects (doc1.txt and "
                "doc1.tsv). Expected a file, or such a folder."
            )
        note_once(f"{source}: read as eurlex57k, a JSON document a file")
        yield from law_rows(source, options.labelled, options.encoding)
        return
    if isinstance(source, Path) and options.labelled and options.format in ("auto", "pair", "lyrl2004"):
        source = with_label_file(source)
    if isinstance(source, Files) and source.labels:
        yield from _paired_rows(source.texts, source.labels, options)
        return
    for file in source.texts if isinstance(source, Files) else [source]:
        yield from _file_rows(file, options, clean)


def _file_rows(source: Path | BinaryIO, options: ReadOptions, clean: "_Labels") -> Placed:
    with open_stream(source, options.encoding) as stream:
        head = stream.head()
        if options.format == "parquet" or (options.format == "auto" and head.startswith(PARQUET_MAGIC)):
            if stream.compressed or not isinstance(source, Path):
                problem = "is compressed again" if stream.compressed else "cannot be read from a pipe"
                raise UserError(
                    f"{stream.name}: a Parquet file that {problem}. Save it as a plain file, and give that."
                )
            file = Parquet(source, options)
            note_once(f"{source}: read as {describe(file.layout)}")
            clean.names = clean.names or file.label_names
            for row in file.rows():
                yield f"{source}:{row.number}", row
            return
        if options.labelled and not head.strip():
            return  # an empty file has no format
        layout = detect(head, stream.name, options)
        if layout.format == "json":
            rows = read_objects(stream, options.columns)
            layout = typed_layout("json", rows[:NUM_ROWS], stream.name, options)
            note_once(f"{stream.name}: read as {describe(layout)}")
            for row in json_document(rows, layout):
                yield f"{stream.name}, item {row.number}", row
            return
        if layout.format in _PARSERS:
            note_once(f"{stream.name}: read as {describe(layout)}")
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
    with open_stream(texts[0], options.encoding) as stream:
        if labels and labels.suffix == ".npz":
            note_once(f"{names}: read as pecos, a text a line and a matrix of labels")
            yield from matrix_rows(stream, label_rows(labels), str(labels))
            return
        if labels and labels.name.startswith(("trn_X_Y.txt", "tst_X_Y.txt")):
            note_once(f"{names}: read as xml_repository, a text a line and label:value pairs a line")
            with open_stream(labels, options.encoding) as label_stream:
                yield from matrix_rows(stream, sparse_label_rows(label_stream), str(labels))
            return
        if options.format == "lyrl2004" or (options.format == "auto" and stream.head().startswith(b".I ")):
            note_once(f"{names}: read as lyrl2004")
            yield from token_file_rows(texts, labels, options.encoding)
            return
        layout = detect(stream.head(), stream.name, replace(options, format="pair"))
        if labels is None or len(texts) != 1:
            raise UserError(f"{names}: expected one file of texts and one of labels")
        with open_stream(labels, options.encoding) as label_stream:
            if not options.label_separator:
                cells = label_stream.head().decode("utf-8", "replace").split("\n")[:NUM_ROWS]
                separator = separator_of_lines(cells, label_stream.name, options.prefix)
                layout = replace(layout, separator=separator)
            note_once(f"{names}: read as {describe(layout)}")
            yield from paired_rows(stream, label_stream, layout)
