"""What a file is: its format, columns and label separator, from its first MiB. What is not clear is an error."""

import csv
import json
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from lsfa_jax.data.reading.compression import HEAD_SIZE
from lsfa_jax.data.reading.rows import LIST, SEPARATORS, WHOLE, BadRowError, Layout, parse_list, records
from lsfa_jax.util.console import UserError, warn

# Names by which a column or field is known, in any case, where no option names it.
TEXT_NAMES = ("text", "texts", "document", "content", "body", "doc_token")
LABELS_NAMES = ("labels", "label", "tags", "categories", "topics", "concepts", "doc_label")
ID_NAMES = ("id", "doc_id", "docid", "document_id", "idx", "celex_id")
_SEPARATOR_NAMES = {LIST: "as a list", WHOLE: "one a row", " ": "separated by spaces", "\t": "separated by tabs"}
_NUM_ROWS = 1_000
_ARCHIVES = {b"PK\x03\x04": "zip (or an Excel file)", b"7z\xbc\xaf'\x1c": "7z", b"Rar!\x1a\x07": "rar"}

FORMATS = ("jsonl", "csv", "tsv", "libmultilabel", "pair", "lyrl2004", "eurlex57k", "parquet", "txt")


@dataclass(frozen=True)
class ReadOptions:
    """What people say about their files; "" is left to be detected.

    Attributes:
        format: 'auto' or one of `FORMATS`.
        text_field: the name of the field or column with the text.
        labels_field: that with the labels.
        id_field: that with the document's id.
        label_separator: what is between labels that share one string; a space stands for any white space.
        bad_rows: whether a row that cannot be used stops the reading or is left out and counted.
        labelled: False reads no labels, and takes files without any, such as one text a line.
        prefix: how the options are spelled on the command line, for messages.
        usual_text_field: a name by which the text is known too, where there is a column of that name.
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

    @property
    def text_names(self) -> tuple[str, ...]:
        """Names by which the text is known in any case, the first above the others."""
        return (self.usual_text_field.lower(), *TEXT_NAMES) if self.usual_text_field else TEXT_NAMES

    def __post_init__(self) -> None:
        if self.format not in ("auto", *FORMATS):
            raise UserError(f"{self.prefix}format {self.format}: expected auto, {', '.join(FORMATS)}")


def describe(layout: Layout) -> str:
    """Returns how a file is read, for people: 'csv, text from 'abstract', labels from 'tags' separated by ;'."""
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
    """Says how a file is to be read.

    Args:
        head: the file's first MiB, or all of it, without byte order mark.
        name: of the file, for messages.
        options: what is known already.

    Raises:
        UserError: two formats are possible, no column is known for the text or the labels, or the file is none of text.
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
    # The last one may be cut; a single one is better than none.
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
    # No two delimiters can both make a known text and a known labels column of one line.
    for delimiters, table in ((",;", "csv"), ("\t", "tsv")):
        if _is_clear(_header(lines, delimiters, options)[1], options):
            return table
    tabs = min(line.count(b"\t") for line in lines) >= 1
    if options.text_field or options.labels_field:
        return "tsv" if tabs else "csv"
    return _nameless(lines, tabs, name, options)


def _nameless(lines: list[bytes], tabs: bool, name: str, options: ReadOptions) -> str:
    """The format of lines whose first does not name the columns by names that are known."""
    table = _header(lines, "\t" if tabs else ",;", options)
    header = _looks_like_header(table, lines)
    if options.labelled and not tabs:
        if header or any(min(line.count(mark) for line in lines) >= 1 for mark in (b",", b";")):
            # Which column is which is asked where columns are chosen.
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
        f"{name}: this could be {'; or '.join(possible)}. Say which with {options.prefix}format, or name the column of "
        f"the text with {options.prefix}text-field."
    )


def _looks_like_header(table: tuple[str, tuple[str, ...]], lines: list[bytes]) -> tuple[str, ...]:
    """Returns the columns if the first row names them: short and different cells over rows as wide, with texts."""
    delimiter, columns = table
    if len(columns) < 2 or len(set(columns)) < len(columns) or not all(0 < len(name.split()) <= 3 for name in columns):
        return ()
    layout = Layout("csv", delimiter=delimiter, columns=columns)
    rows = [fields for _, fields, _ in records(iter(enumerate(lines, 1)), layout)][1:]
    whole = [row for row in rows if not isinstance(row, BadRowError) and len(row) >= len(columns)]
    texts = any(len(cell.split()) > 3 for row in whole for cell in row)
    alike = delimiter == "\t" or (len(whole) == len(rows) and all(len(row) == len(columns) for row in whole))
    return columns if texts and alike else ()


def _is_json_start(lines: list[bytes]) -> bool:
    rest = lines[0].lstrip()[1:].lstrip() or (lines[1].lstrip() if len(lines) > 1 else b"")
    return rest.startswith((b"{", b"[")) or not rest


def _header(lines: list[bytes], delimiters: str, options: ReadOptions) -> tuple[str, tuple[str, ...]]:
    """The delimiter that makes most columns of the first row, known ones above all, and those columns."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for delimiter in delimiters:
        reader = csv.reader((line.decode("utf-8", "replace") + "\n" for line in lines), delimiter=delimiter)
        try:
            found.append((delimiter, tuple(column.strip() for column in next(reader, []))))
        except csv.Error:
            continue
    return max(found, key=lambda one: (_is_clear(one[1], options), len(one[1])), default=(delimiters[0], ()))


def _is_clear(columns: tuple[str, ...], options: ReadOptions) -> bool:
    texts = [options.text_field] if options.text_field else options.text_names
    labels = [options.labels_field] if options.labels_field else LABELS_NAMES
    lowered = {column.lower() for column in columns} | set(columns)
    return not lowered.isdisjoint(texts) and (not options.labelled or not lowered.isdisjoint(labels))


def _choose(columns: Iterable[str], option: str, given: str, names: tuple[str, ...], name: str, prefix: str) -> str:
    """The column for the text or the labels."""
    columns = list(columns)
    listed = ", ".join(repr(column) for column in columns[:40]) + (" ..." if len(columns) > 40 else "")
    what = option.removesuffix("-field")
    if given:
        if columns.count(given) == 1:
            return given
        times = "no" if given not in columns else "more than one"
        raise UserError(f"{name}: {times} column '{given}' ({prefix}{option}); there are {listed}.")
    found = [column for column in columns if column.lower() in names]
    # The plain name wins over its like: 'text' over 'body'.
    plain = [column for column in found if column.lower() == names[0]]
    found = plain if len(plain) == 1 else found
    if len(found) != 1:
        problem = f"{' and '.join(map(repr, found))} both could hold" if found else "it is not clear which holds"
        raise UserError(
            f"{name}: {problem} the {what}; the columns are {listed}. Say which with {prefix}{option} NAME."
        )
    return found[0]


def _choose_id(columns: Iterable[str], options: ReadOptions, name: str) -> str:
    columns = list(columns)
    if options.id_field:
        return _choose(columns, "id-field", options.id_field, ID_NAMES, name, options.prefix)
    found = [column for wanted in ID_NAMES for column in columns if column.lower() == wanted]
    return found[0] if found else ""


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
        # The rows themselves will say what is wrong with them.
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
        text, labels, own = choose_columns(columns, name, options)
    except UserError as error:
        raise UserError(f"{error} The first row is taken as the header; if it is none, add one.") from None
    layout = Layout(chosen, text, labels, own, options.label_separator or WHOLE, delimiter, columns)
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
    own = options.label_separator
    if own or not cells:
        others = [mark for mark in SEPARATORS if any(mark in cell for cell in cells)]
        if own and others and not any(own in cell for cell in cells):
            listed = " and ".join(map(repr, others))
            warn(
                f"{name}: {own!r} separates labels, but the first rows hold none, and {listed}: each cell is one label"
            )
        return own or WHOLE
    if all(cell.startswith("[") and cell.endswith("]") for cell in cells):
        try:
            for cell in cells:
                parse_list(cell)
            return LIST
        except BadRowError:
            pass
    found = [separator for separator in SEPARATORS if any(separator in cell for cell in cells)]
    if len(found) == 1:
        return found[0]
    if not found and not any(len(cell.split()) > 1 for cell in cells):
        return WHOLE
    example = next(cell for cell in cells if any(s in cell for s in (found or " \t\n\r\f\v")) or len(cell.split()) > 1)
    which = " and ".join(repr(separator) for separator in found) if found else "only white space"
    raise UserError(
        f"{name}: it is not clear what separates labels: they hold {which}, as in {reprlib.repr(example)}. Say it with "
        f"{options.prefix}label-separator '{found[0] if found else ' '}' (or another; one that never occurs makes each "
        "cell one label)."
    )


def _libmultilabel_layout(lines: list[bytes], name: str, options: ReadOptions) -> Layout:
    rows = [line.split(b"\t") for line in lines]
    own = ""
    if rows and all(len(row) >= 3 for row in rows):
        names = [row[0] for row in rows]
        if any(b" " in cell for cell in names) or 2 * len(set(names)) < len(names):
            raise UserError(
                f"{name}: it is not clear whether the first of three columns is an id: some are alike or hold spaces. "
                "Expected id, labels and text, or labels and text, between tabs. Take tabs out of the texts, or add a "
                f"header (text, labels) and give {options.prefix}format tsv."
            )
        own = "id"
    separator = options.label_separator or " "
    return Layout("libmultilabel", labels="labels" if options.labelled else "", id=own, separator=separator)
