"""The format, columns and label separator of a file, from its first MiB. What is not clear is an error."""

import csv
import json
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from lsfa_jax.config import Data
from lsfa_jax.data.reading.compression import HEAD_SIZE
from lsfa_jax.data.reading.label_cells import LIST, SEPARATORS, SINGLE, parse_list
from lsfa_jax.data.reading.rows import BadRowError, Layout
from lsfa_jax.data.reading.tables import records
from lsfa_jax.util.console import UserError, warn

# Names that identify a column or field, in any case, where no option names it.
TEXT_NAMES = ("text", "texts", "document", "content", "body", "doc_token")
LABELS_NAMES = ("labels", "label", "tags", "categories", "topics", "concepts", "doc_label")
ID_NAMES = ("id", "doc_id", "docid", "document_id", "idx", "celex_id")
_SEPARATOR_NAMES = {LIST: "as a list", SINGLE: "one a row", " ": "separated by spaces", "\t": "separated by tabs"}
_NUM_ROWS = 1_000
_ARCHIVES = {b"PK\x03\x04": "zip (or an Excel file)", b"7z\xbc\xaf'\x1c": "7z", b"Rar!\x1a\x07": "rar"}

FORMATS = ("jsonl", "csv", "tsv", "libmultilabel", "pair", "lyrl2004", "eurlex57k", "parquet", "txt")


@dataclass(frozen=True)
class ReadOptions:
    """What users specify about their files; "" is detected.

    Attributes:
        format: 'auto' or one of `FORMATS`.
        text_field: the name of the field or column with the text.
        labels_field: that with the labels.
        id_field: that with the document's id.
        label_separator: what is between labels that share one string; a space stands for any white space.
        bad_rows: whether a row that cannot be used stops the reading or is left out and counted.
        labelled: False reads no labels and accepts files without any, such as one text a line.
        prefix: of the options on the command line, for messages.
        usual_text_field: a further name that identifies the text, before the others, where a column has it.
    """

    format: str = "auto"
    text_field: str = ""
    labels_field: str = ""
    id_field: str = ""
    label_separator: str = ""
    bad_rows: Literal["stop", "skip"] = "stop"
    labelled: bool = True
    prefix: str = "--data."
    usual_text_field: str = ""

    @classmethod
    def from_settings(cls, data: Data, **overrides: Any) -> "ReadOptions":
        """Makes the options of a command or a run.

        Args:
            data: the settings of the corpus: format, fields, separator, bad_rows.
            overrides: attributes from the command line; one that is "" leaves the setting as it is.

        Raises:
            UserError: no such format.
        """
        settings = {
            "format": data.format,
            "text_field": data.text_field,
            "labels_field": data.labels_field,
            "label_separator": data.label_separator,
            "bad_rows": data.bad_rows,
        }
        return cls(**(settings | {name: value for name, value in overrides.items() if value != ""}))

    @property
    def text_names(self) -> tuple[str, ...]:
        """Names that identify the text, in any case, the first before the others."""
        return (self.usual_text_field.lower(), *TEXT_NAMES) if self.usual_text_field else TEXT_NAMES

    def __post_init__(self) -> None:
        if self.format not in ("auto", *FORMATS):
            raise UserError(f"{self.prefix}format {self.format}: expected auto, {', '.join(FORMATS)}")


def describe(layout: Layout) -> str:
    """Describes how a file is read: 'csv, text from 'abstract', labels from 'tags' separated by ;'."""
    if layout.format in ("lyrl2004", "txt"):
        return {"lyrl2004": "lyrl2004", "txt": "txt, one document a line"}[layout.format]
    how = _SEPARATOR_NAMES.get(layout.separator, f"separated by {layout.separator!r}")
    if layout.format in ("libmultilabel", "pair"):
        columns = f" ({'id, ' if layout.id else ''}labels, text; no header)" if layout.format == "libmultilabel" else ""
        return f"{layout.format}{columns}" + (f", labels {how}" if layout.labels else "")
    parts = [layout.format, f"text from {layout.text!r}"]
    if layout.labels:
        parts.append(f"labels from {layout.labels!r}" + (f" {how}" if layout.separator else ""))
    if layout.id:
        parts.append(f"ids from {layout.id!r}")
    return ", ".join(parts)


def detect(head: bytes, name: str, options: ReadOptions) -> Layout:
    """Detects how a file is to be read.

    Args:
        head: the file's first MiB, or all of it, without byte order mark.
        name: of the file, for messages.
        options: what the user specified.

    Raises:
        UserError: two formats are possible, no column is known for the text or the labels, or the file is not text.
    """
    _check_is_text(head, name)
    lines = _complete_lines(head)
    chosen = _format(lines, name, options) if options.format == "auto" else options.format
    if chosen == "jsonl":
        return _json_layout(lines, name, options)
    if chosen in ("csv", "tsv"):
        return _table_layout(lines, name, options, chosen)
    if chosen == "libmultilabel":
        return _libmultilabel_layout(lines, name, options)
    if chosen == "pair":
        return Layout("pair", separator=options.label_separator or " ", labels="labels" if options.labelled else "")
    return Layout(chosen)


def _check_is_text(head: bytes, name: str) -> None:
    for magic, archive in _ARCHIVES.items():
        if head.startswith(magic):
            raise UserError(f"{name}: is a {archive} archive. Unpack it, or save the sheet as CSV, and give that file.")
    if head[257:262] == b"ustar":
        raise UserError(f"{name}: is a tar archive. Unpack it and give the folder or file in it.")
    sample = head[:4096]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or (len(sample) > 3 and 5 * sample.count(0) >= 2 * len(sample)):
        raise UserError(
            f"{name}: is UTF-16 or no text at all. Convert it to UTF-8, as by iconv -f utf-16 -t utf-8, and try again."
        )
    if b"\r" in sample and b"\n" not in head and sample.count(b"\r") > 1:
        raise UserError(
            f"{name}: lines end with a carriage return alone, as on old Macs. Convert it: tr '\\r' '\\n' < FILE > NEW"
        )


def _complete_lines(head: bytes) -> list[bytes]:
    lines = head.split(b"\n")
    # The last line may be cut off; it is used where it is the only one.
    if len(head) >= HEAD_SIZE - 3 and len(lines) > 1:
        lines.pop()
    return [line.rstrip(b"\r") for line in lines if line.strip()][:_NUM_ROWS]


def _format(lines: list[bytes], name: str, options: ReadOptions) -> str:
    if not lines:
        return "txt" if not options.labelled else "jsonl"
    first = lines[0].lstrip()
    objects = sum(line.lstrip().startswith(b"{") for line in lines)
    if 2 * objects > len(lines) or first.startswith(b"{"):
        if first.rstrip() == b"{":
            raise UserError(
                f"{name}: is one JSON document over several lines; expected one JSON object a line, or a folder of "
                "documents. Convert it, as by jq -c . FILE > NEW.jsonl"
            )
        return "jsonl"
    if first.startswith(b"[") and first[1:].lstrip()[:1] in (b"{", b"") and _is_json_start(lines):
        raise UserError(
            f"{name}: is a JSON array; expected one JSON object a line. Convert it: jq -c '.[]' FILE > NEW.jsonl"
        )
    if first.startswith(b".I "):
        return "lyrl2004"
    # A line cannot have both a known text column and a known labels column under two delimiters.
    for delimiters, table in ((",;", "csv"), ("\t", "tsv")):
        if _is_clear(_header(lines, delimiters, options)[1], options):
            return table
    tabs = min(line.count(b"\t") for line in lines) >= 1
    if options.text_field or options.labels_field:
        return "tsv" if tabs else "csv"
    return _nameless(lines, tabs, name, options)


def _nameless(lines: list[bytes], tabs: bool, name: str, options: ReadOptions) -> str:
    """Detects the format where the first line has no known column names."""
    table = _header(lines, "\t" if tabs else ",;", options)
    header = _looks_like_header(table, lines)
    if options.labelled and not tabs:
        if header or any(min(line.count(mark) for line in lines) >= 1 for mark in (b",", b";")):
            # The error comes where columns are chosen, and lists them.
            return "csv"
        shown = reprlib.repr(lines[0].decode("utf-8", "replace"))
        raise UserError(
            f"{name}: the format is not clear from its first lines ({shown}). Expected one of {', '.join(FORMATS)}; "
            f"give {options.prefix}format, or a file of labels beside one of texts, named like train_texts.txt and "
            "train_labels.txt."
        )
    if options.labelled and {column.lower() for column in table[1]} & {*options.text_names, *LABELS_NAMES, *ID_NAMES}:
        return "tsv"
    if options.labelled and not header:
        return "libmultilabel"
    if not tabs and not header:
        return "txt"
    possible = ["libmultilabel ([id], labels, text; no header)"] if tabs else []
    columns = f" with the columns {', '.join(map(repr, header))}" if header else ""
    possible.append(("tsv" if tabs else "csv") + columns)
    if not options.labelled:
        possible.append("txt, one document a line")
    raise UserError(
        f"{name}: this could be {'; or '.join(possible)}. Choose with {options.prefix}format, or name the column of "
        f"the text with {options.prefix}text-field."
    )


def _looks_like_header(table: tuple[str, tuple[str, ...]], lines: list[bytes]) -> tuple[str, ...]:
    """Returns the first row if it looks like column names: short, distinct, over rows of that width with texts."""
    delimiter, columns = table
    if len(columns) < 2 or len(set(columns)) < len(columns) or not all(0 < len(name.split()) <= 3 for name in columns):
        return ()
    layout = Layout("csv", delimiter=delimiter, columns=columns)
    rows = [fields for _, fields, _ in records(iter(enumerate(lines, 1)), layout)][1:]
    complete = [row for row in rows if not isinstance(row, BadRowError) and len(row) >= len(columns)]
    has_texts = any(len(cell.split()) > 3 for row in complete for cell in row)
    fits = delimiter == "\t" or (len(complete) == len(rows) and all(len(row) == len(columns) for row in complete))
    return columns if has_texts and fits else ()


def _is_json_start(lines: list[bytes]) -> bool:
    rest = lines[0].lstrip()[1:].lstrip() or (lines[1].lstrip() if len(lines) > 1 else b"")
    return rest.startswith((b"{", b"[")) or not rest


def _header(lines: list[bytes], delimiters: str, options: ReadOptions) -> tuple[str, tuple[str, ...]]:
    """Returns the delimiter that gives known columns, or else most columns, in the first row, and those columns."""
    headers: list[tuple[str, tuple[str, ...]]] = []
    for delimiter in delimiters:
        reader = csv.reader((line.decode("utf-8", "replace") + "\n" for line in lines), delimiter=delimiter)
        try:
            headers.append((delimiter, tuple(column.strip() for column in next(reader, []))))
        except csv.Error:
            continue
    return max(headers, key=lambda header: (_is_clear(header[1], options), len(header[1])), default=(delimiters[0], ()))


def _is_clear(columns: tuple[str, ...], options: ReadOptions) -> bool:
    texts = [options.text_field] if options.text_field else options.text_names
    labels = [options.labels_field] if options.labels_field else LABELS_NAMES
    lowered = {column.lower() for column in columns} | set(columns)
    return not lowered.isdisjoint(texts) and (not options.labelled or not lowered.isdisjoint(labels))


def _choose(columns: Iterable[str], option: str, given: str, names: tuple[str, ...], name: str, prefix: str) -> str:
    """Returns the column for the text or the labels: the one of the option `given`, else the one with a known name."""
    columns = list(columns)
    listed = ", ".join(repr(column) for column in columns[:40]) + (" ..." if len(columns) > 40 else "")
    what = option.removesuffix("-field")
    if given:
        if columns.count(given) == 1:
            return given
        times = "no" if given not in columns else "more than one"
        raise UserError(f"{name}: {times} column '{given}' ({prefix}{option}); there are {listed}.")
    known = [column for column in columns if column.lower() in names]
    # The first name has precedence: 'text' over 'body'.
    first = [column for column in known if column.lower() == names[0]]
    known = first if len(first) == 1 else known
    if len(known) != 1:
        problem = f"{' and '.join(map(repr, known))} both could hold" if known else "it is not clear which holds"
        raise UserError(
            f"{name}: {problem} the {what}; the columns are {listed}. Name the column with {prefix}{option} NAME."
        )
    return known[0]


def _choose_id(columns: Iterable[str], options: ReadOptions, name: str) -> str:
    columns = list(columns)
    if options.id_field:
        return _choose(columns, "id-field", options.id_field, ID_NAMES, name, options.prefix)
    return next((column for known in ID_NAMES for column in columns if column.lower() == known), "")


def choose_columns(columns: Iterable[str], name: str, options: ReadOptions) -> tuple[str, str, str]:
    """Returns the columns of text, labels ("" where they are not read) and id ("" where there is none).

    Raises:
        UserError: one is missing or not clear.
    """
    columns = list(columns)
    prefix = options.prefix
    text = _choose(columns, "text-field", options.text_field, options.text_names, name, prefix)
    labels = ""
    if options.labelled:
        labels = _choose(columns, "labels-field", options.labels_field, LABELS_NAMES, name, prefix)
    return text, labels, _choose_id(columns, options, name)


def _json_layout(lines: list[bytes], name: str, options: ReadOptions) -> Layout:
    rows = list(_json_objects(lines[:100]))
    columns = dict.fromkeys(key for row in rows for key in row)
    text, labels = options.text_field, options.labels_field
    if not rows:
        # Reading the rows will report what is wrong with them.
        return Layout("jsonl", text or "text", (labels or "labels") if options.labelled else "", options.id_field)
    text = text or _choose(columns, "text-field", "", options.text_names, name, options.prefix)
    if not options.labelled:
        labels = ""
    elif not labels:
        labels = _choose(columns, "labels-field", "", LABELS_NAMES, name, options.prefix)
    separator = options.label_separator
    values = [row[labels] for row in rows if labels in row]
    cells = [value for value in values if isinstance(value, str)]
    # A string among lists is a bad row.
    if cells and len(cells) == len(values):
        separator = choose_separator(cells, name, options)
    return Layout("jsonl", text, labels, options.id_field or _choose_id(columns, options, name), separator)


def _json_objects(lines: list[bytes]) -> Iterator[dict[str, object]]:
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row


def _table_layout(lines: list[bytes], name: str, options: ReadOptions, chosen: str) -> Layout:
    delimiter, columns = _header(lines, "\t" if chosen == "tsv" else ",;", options)
    if not columns:
        raise UserError(f"{name}: holds no documents: no header can be read. Expected a header and rows.")
    try:
        text, labels, document_id = choose_columns(columns, name, options)
    except UserError as error:
        raise UserError(f"{error} The first row is read as the header; if it is none, add one.") from None
    layout = Layout(chosen, text, labels, document_id, options.label_separator or SINGLE, delimiter, columns)
    if not labels:
        return layout
    at = columns.index(labels)
    rows = [fields for _, fields, _ in records(iter(enumerate(lines, 1)), layout)][1:]
    cells = [fields[at] for fields in rows if not isinstance(fields, BadRowError) and len(fields) == len(columns)]
    return replace(layout, separator=choose_separator(cells, name, options))


def choose_separator(cells: list[str], name: str, options: ReadOptions) -> str:
    """Returns what separates the labels that share a cell.

    Raises:
        UserError: more than one separator is possible.
    """
    cells = [cell.strip() for cell in cells if cell.strip()]
    present = [separator for separator in SEPARATORS if any(separator in cell for cell in cells)]
    given = options.label_separator
    if given or not cells:
        if given and present and not any(given in cell for cell in cells):
            listed = " and ".join(map(repr, present))
            warn(
                f"{name}: {given!r} separates labels, but the first rows hold none, and {listed}: each cell is one "
                "label"
            )
        return given or SINGLE
    if all(cell.startswith("[") and cell.endswith("]") for cell in cells):
        try:
            for cell in cells:
                parse_list(cell)
            return LIST
        except BadRowError:
            pass
    if len(present) == 1:
        return present[0]
    if not present and not any(len(cell.split()) > 1 for cell in cells):
        return SINGLE
    example = next(
        cell for cell in cells if any(mark in cell for mark in (present or " \t\n\r\f\v")) or len(cell.split()) > 1
    )
    which = " and ".join(repr(separator) for separator in present) if present else "only white space"
    raise UserError(
        f"{name}: it is not clear what separates labels: they hold {which}, as in {reprlib.repr(example)}. Set "
        f"{options.prefix}label-separator '{present[0] if present else ' '}' (or another; with one that never occurs "
        "each cell is one label)."
    )


def _libmultilabel_layout(lines: list[bytes], name: str, options: ReadOptions) -> Layout:
    rows = [line.split(b"\t") for line in lines]
    document_id = ""
    if rows and all(len(row) >= 3 for row in rows):
        names = [row[0] for row in rows]
        if any(b" " in cell for cell in names) or 2 * len(set(names)) < len(names):
            raise UserError(
                f"{name}: it is not clear whether the first of three columns is an id: some are equal or hold spaces. "
                "Expected id, labels and text, or labels and text, between tabs. Remove tabs from the texts, or add a "
                f"header (text, labels) and give {options.prefix}format tsv."
            )
        document_id = "id"
    separator = options.label_separator or " "
    return Layout("libmultilabel", labels="labels" if options.labelled else "", id=document_id, separator=separator)
