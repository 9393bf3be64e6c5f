"""The format of a text file and its layout, from its first MiB. What is not clear is an error."""

import json
import re
import reprlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lsfa_jax.data.reading.columns import (
    ID_NAMES,
    LABELS_NAMES,
    TEXT_NAMES,
    Column,
    Roles,
    choose,
    choose_without_names,
    has_header,
)
from lsfa_jax.data.reading.compression import HEAD_SIZE
from lsfa_jax.data.reading.fields import values_of
from lsfa_jax.data.reading.label_cells import LIST, SINGLE, WHOLE, choose_separator
from lsfa_jax.data.reading.label_lists import is_multi_hot
from lsfa_jax.data.reading.options import FORMATS, ReadOptions
from lsfa_jax.data.reading.rows import BadRowError, Layout
from lsfa_jax.data.reading.tables import records
from lsfa_jax.util.console import UserError

NUM_ROWS = 1_000
"""Rows that the layout is detected from."""

# From how many lines on that are not UTF-8, if they are most, the file is refused at once.
_BROKEN_LINES = 10

_SEPARATOR_NAMES = {
    LIST: "as a list",
    SINGLE: "one a row",
    WHOLE: "one a row",
    " ": "separated by spaces",
    "\t": "separated by tabs",
    "\n": "separated by line ends",
}
_ARCHIVES = {b"PK\x03\x04": "zip (or an Excel file)", b"7z\xbc\xaf'\x1c": "7z", b"Rar!\x1a\x07": "rar"}
_DELIMITERS = ("\t", ",", ";", "|")
_SEP_LINE = re.compile(rb'"?sep=(.)"?\s*', re.IGNORECASE)
_FEATURES = re.compile(rb"(\d+(,\d+)*)?(\s+\d+:[-+.\deE]+)+\s*")
_ESCAPES = re.compile(rb'\\"[^"]|\\N|\\[,;|]')
_OBJECT = re.compile(rb'\s*\{\s*(["}]|$)')
_FASTTEXT = re.compile(rb"\s*(__\w+?__)\S")
_ENCODINGS = ("cp1252", "cp1251", "gb18030", "shift_jis", "euc_kr")


def describe(layout: Layout) -> str:
    """Describes how a file is read: 'csv, text from 'abstract', labels from 'tags' separated by ;'."""
    how = _SEPARATOR_NAMES.get(layout.separator, f"separated by {layout.separator!r}")
    if layout.format in ("lyrl2004", "txt"):
        return {"lyrl2004": "lyrl2004", "txt": "txt, one document a line"}[layout.format]
    if layout.format == "fasttext":
        return f"fasttext, labels are the words that begin with {layout.prefix}"
    if layout.format == "pair":
        return "pair" + (f", labels {how}" if layout.labels else "")
    parts = [layout.format + ("" if layout.header else " without a header")]
    parts.append(f"text from {_quoted(layout.texts)}")
    if layout.label_kind == "indicators":
        parts.append(f"labels are the {len(layout.labels)} columns of 0 and 1 {_quoted(layout.labels)}")
    elif layout.label_kind == "multi_hot":
        parts.append(f"labels from {_quoted(layout.labels)}, lists of 0 and 1 with a place for each of {layout.width}")
    elif layout.labels:
        parts.append(f"labels from {_quoted(layout.labels)}" + (f" {how}" if layout.separator else ""))
    if layout.id:
        parts.append(f"ids from {layout.id!r}")
    if layout.unread:
        parts.append(f"not read: {_quoted(layout.unread)}")
    return ", ".join(parts)


def _quoted(names: Sequence[str]) -> str:
    shown = [repr(name) for name in (names if len(names) <= 8 else [*names[:6], names[-1]])]
    return ", ".join(shown) if len(names) <= 8 else f"{', '.join(shown[:-1])} ... {shown[-1]}"


def detect(head: bytes, name: str, options: ReadOptions) -> Layout:
    """Detects how a file is to be read.

    Args:
        head: the file's first MiB, or all of it, without byte order mark.
        name: of the file, for messages.
        options: what the user specified.

    Raises:
        UserError: two formats are possible, no column is known for the text or the labels, or the file is not text.
    """
    _check_is_text(head, name, options)
    lines = _complete_lines(head)
    chosen = _format(lines, name, options) if options.format == "auto" else options.format
    if chosen == "jsonl":
        rows = list(_json_objects(lines))
        return typed_layout("jsonl", rows, name, options)
    if chosen in ("csv", "tsv", "table"):
        return _table_layout(lines, name, options, chosen)
    if chosen == "libmultilabel":
        return _libmultilabel_layout(lines, options)
    if chosen == "fasttext":
        match = _FASTTEXT.match(lines[0]) if lines else None
        prefix = match[1].decode("utf-8", "replace") if match else "__label__"
        return Layout("fasttext", ("text",), ("labels",) if options.labelled else (), prefix=prefix)
    if chosen == "pair":
        return Layout(
            "pair", ("text",), ("labels",) if options.labelled else (), separator=options.label_separator or " "
        )
    return Layout(chosen)


def _check_is_text(head: bytes, name: str, options: ReadOptions) -> None:
    for magic, archive in _ARCHIVES.items():
        if head.startswith(magic):
            raise UserError(f"{name}: is a {archive} archive. Unpack it, or save the sheet as CSV, and give that file.")
    if head[257:262] == b"ustar":
        raise UserError(f"{name}: is a tar archive. Unpack it and give the folder or file in it.")
    sample = head[:4096]
    if len(sample) > 3 and 5 * sample.count(0) >= 2 * len(sample):
        raise UserError(
            f"{name}: is no text, or UTF-16 without a byte order mark. If it is UTF-16, set "
            f"{options.option('encoding')} utf-16-le (or utf-16-be)."
        )
    if b"\r" in sample and b"\n" not in head and sample.count(b"\r") > 1:
        raise UserError(
            f"{name}: lines end with a carriage return alone, as on old Macs. Convert it: tr '\\r' '\\n' < FILE > NEW"
        )
    _check_encoding(head, name, options)


def _check_encoding(head: bytes, name: str, options: ReadOptions) -> None:
    """Raises UserError where most lines that are not ASCII are not UTF-8 either; names what the encoding may be."""
    lines = [line for line in _complete_lines(head) if not line.isascii()]
    broken = [line for line in lines if line != line.decode("utf-8", "ignore").encode()]
    if len(broken) < _BROKEN_LINES or 2 * len(broken) <= len(lines):
        return
    raise UserError(
        f"{name}: {len(broken):,} of the first {len(lines):,} lines that are not plain ASCII are not UTF-8 either: the "
        f"file is in another encoding. {readings(broken[0])}. Set {options.option('encoding')} to the right one."
    )


def readings(line: bytes) -> str:
    """Shows what a line that is not UTF-8 reads like in encodings that are common, so that the user can choose."""
    start = next((place for place, byte in enumerate(line) if byte > 127), 0)
    # From the beginning of a word, so that no character of two bytes is cut in the middle.
    part = line[max(0, line.rfind(b" ", 0, start) + 1 if start < 40 or b" " in line[:start] else start - 12) :][:40]
    shown = []
    for encoding in _ENCODINGS:
        text = part.decode(encoding, "replace")
        # The last character may be cut in the middle.
        text = text.rstrip("\ufffd")
        if "\ufffd" not in text and not re.search(r"[\x80-\x9f]", text):
            shown.append(f"{encoding} reads {text!r}")
    return "; ".join(shown) or f"It has {part!r}"


def _complete_lines(head: bytes) -> list[bytes]:
    lines = head.split(b"\n")
    # The last line may be cut off; it is used where it is the only one.
    if len(head) >= HEAD_SIZE - 3 and len(lines) > 1:
        lines.pop()
    return [line.rstrip(b"\r") for line in lines if line.strip()][:NUM_ROWS]


def _format(lines: list[bytes], name: str, options: ReadOptions) -> str:
    if not lines:
        return "txt" if not options.labelled else "jsonl"
    first = lines[0].lstrip()
    objects = sum(_OBJECT.match(line) is not None for line in lines)
    if _is_json_document(first, objects, len(lines)):
        return "json"
    # A table may begin with a column of {...}: then its lines go on behind the brace.
    closed = sum(line.rstrip().endswith(b"}") for line in lines)
    if (2 * objects > len(lines) or _OBJECT.match(first)) and (
        2 * closed >= objects or not all(b"\t" in x for x in lines)
    ):
        return "jsonl"
    if first.startswith(b".I "):
        return "lyrl2004"
    _refuse_features(lines, name)
    prefixes = Counter(match[1] for line in lines if (match := _FASTTEXT.match(line)))
    if prefixes and (b"__label__" in prefixes or max(prefixes.values()) >= 0.9 * len(lines)):
        return "fasttext"
    return "table"


def _is_json_document(first: bytes, objects: int, number: int) -> bool:
    """Whether a file is one JSON document: an array, or an object that is not one of a line each."""
    if first.startswith(b"["):
        following = first[1:].lstrip()[:1]
        return following in (b"{", b"", b"[", b'"') and (following != b"" or first.rstrip() == b"[")
    if not first.startswith(b"{"):
        return False
    if first.rstrip() == b"{":
        return True
    try:
        only = json.loads(first) if number == 1 else None
    except (ValueError, RecursionError):
        return number > 1 and objects < 0.5 * number
    return isinstance(only, dict) and bool(only) and all(isinstance(value, dict | list) for value in only.values())


def _refuse_features(lines: Sequence[bytes], name: str) -> None:
    """Raises UserError for numbers of words and their counts, which are not texts."""
    header = re.fullmatch(rb"\s*\d+\s+\d+\s+\d+\s*", lines[0]) is not None
    rows = lines[1:] if header and len(lines) > 1 else lines
    matching = sum(_FEATURES.fullmatch(line) is not None for line in rows)
    if matching >= 0.9 * len(rows):
        shown = reprlib.repr(rows[0].decode("utf-8", "replace"))
        raise UserError(
            f"{name}: holds bag-of-words features (numbers of words and their weights, as in {shown}), not texts. LSFA "
            "reads texts: get the raw text files of the same corpus, such as trn.json.gz or train_texts.txt."
        )


# Tables.


@dataclass(frozen=True)
class _Table:
    """The first rows of a table under one delimiter."""

    layout: Layout
    rows: list[list[str]]
    consistency: float
    """Share of the rows that have as many columns as most."""

    @property
    def width(self) -> int:
        return len(self.rows[0]) if self.rows else 0


def _table_layout(lines: list[bytes], name: str, options: ReadOptions, chosen: str) -> Layout:
    first_line = 0
    delimiters: tuple[str, ...] = _DELIMITERS
    if chosen in ("csv", "tsv"):
        delimiters = ("\t",) if chosen == "tsv" else (",", ";", "|")
    if lines and (sep := _SEP_LINE.fullmatch(lines[0])):
        first_line, delimiters, lines = 1, (sep[1].decode("latin-1"),), lines[1:]
    if not lines:
        raise UserError(f"{name}: holds no documents: no header can be read. Expected a header and rows.")
    tables = [_parsed(lines, delimiter) for delimiter in delimiters]
    named = [table for table in tables if _is_clear(_names(table), options)]
    if named and not options.columns:
        # Of one column, the file is a CSV.
        table = max(named, key=lambda table: (len(_names(table)), table.layout.delimiter == ","))
        return _with_header(table, first_line, name, options)
    if chosen == "table" and not options.labelled and not options.columns:
        likely = [table for table in tables if _is_a_table(table, options)]
        if not likely and not options.text_field:
            return Layout("txt")
        tables = likely or tables
    wide = [table for table in tables if table.width > 1 and table.consistency >= 0.9]
    if options.columns:
        number = len(options.columns.split(","))
        wide = [table for table in wide if table.width == number]
    if not wide:
        raise _no_table(lines, tables, name, options)
    # All lines of a table have its delimiter; those of prose have as many commas by chance.
    table = max(wide, key=lambda table: (table.layout.delimiter == "\t", _score(table, options), table.consistency))
    if options.columns:
        return _with_given_names(table, first_line, name, options)
    if has_header(table.rows, lambda name: _is_known(name, options)):
        try:
            return _with_header(table, first_line, name, options)
        except UserError as error:
            if any(_is_known(cell, options) for cell in _names(table)):
                raise
            raise UserError(f"{error} If the first row is a document, set {_columns_advice(table, options)}.") from None
    return _without_header(table, first_line, name, options)


def _parsed(lines: list[bytes], delimiter: str) -> _Table:
    """Parses the first lines as a table; backslashes escape where that makes more rows equally wide."""
    plain = _parsed_as(lines, Layout("tsv" if delimiter == "\t" else "csv", delimiter=delimiter))
    # JSON within CSV has backslashes too, before doubled quotes.
    if not any(_ESCAPES.search(line) for line in lines):
        return plain
    escaped = _parsed_as(lines, replace(plain.layout, escaped=True))
    has_null = any(b"\\N" in line for line in lines)
    return escaped if (escaped.consistency, has_null) > (plain.consistency, False) else plain


def _parsed_as(lines: list[bytes], layout: Layout) -> _Table:
    # A text in TSV may hold a tab, and a quote that nothing closes.
    names = {cell.strip(b'" ').lower().decode("utf-8", "replace") for cell in lines[0].split(b"\t")}
    quoted = layout.delimiter != "\t" or not names.isdisjoint(TEXT_NAMES) or _has_quoted_cells(lines)
    first = next(records(iter(enumerate(lines[:100], 1)), replace(layout, quoted=quoted)), None)
    columns = tuple(first[1]) if first and not isinstance(first[1], BadRowError) else ()
    layout = replace(layout, quoted=quoted, columns=columns)
    parsed = [cells for _, cells, _ in records(iter(enumerate(lines, 1)), layout)]
    # A record that the end of the head cuts off is broken, and no other one tells anything.
    rows = [cells for cells in parsed if not isinstance(cells, BadRowError) and cells]
    if not rows:
        return _Table(layout, [], 0.0)
    widths = Counter(map(len, rows))
    width = widths.most_common(1)[0][0]
    names = {cell.strip().lower() for cell in rows[0]}
    if names & {*TEXT_NAMES} and (names & {*LABELS_NAMES} or len(rows[0]) == 1):
        width = len(rows[0])
    fitting = [row for row in rows if len(row) == width]
    # A text that is the last column may hold tabs.
    wider = sum(len(row) > width for row in rows) if layout.delimiter == "\t" else 0
    return _Table(layout, fitting, (len(fitting) + wider) / len(parsed))


def _has_quoted_cells(lines: Sequence[bytes]) -> bool:
    """Whether cells between tabs are enclosed in quotes, rather than texts that begin with one."""
    enclosed = sum(re.search(rb'(^|\t)"([^"\t]|"")*("(\t|$)|$)', line) is not None for line in lines)
    return enclosed > 0


def _names(table: _Table) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in table.rows[0]) if table.rows else ()


def _is_known(name: str, options: ReadOptions) -> bool:
    given = {part.strip() for field in (options.text_field, options.labels_field) for part in field.split(",") if part}
    return name in given or name.lower() in {
        *TEXT_NAMES,
        *LABELS_NAMES,
        *ID_NAMES,
        options.usual_text_field.lower(),
    } - {""}


def _is_clear(columns: tuple[str, ...], options: ReadOptions) -> bool:
    """Whether a first row has a known column for the text and one for the labels."""
    lowered = {column.lower() for column in columns}
    texts = [part.strip() for part in options.text_field.split(",") if part.strip()]
    is_text = all(part in columns for part in texts) if texts else not lowered.isdisjoint(TEXT_NAMES)
    usual = [part.strip() for part in options.usual_text_field.split(",")]
    is_text = is_text or (not texts and all(part in columns for part in usual))
    if not options.labelled:
        return is_text
    labels = options.label_columns or options.labels_field
    parts = [part.strip() for part in re.split(r",|\.\.", labels)]
    has_labels = (
        bool(set(parts) & set(columns) or labels in columns) if labels else not lowered.isdisjoint(LABELS_NAMES)
    )
    has_labels = has_labels or ("*" in labels and len(columns) > 1)
    return is_text and has_labels and not any(len(column) > 200 for column in columns)


def _score(table: _Table, options: ReadOptions) -> float:
    """Whether text and labels can be told apart under a delimiter."""
    if has_header(table.rows, lambda name: _is_known(name, options)):
        return 2.0
    return float(choose_without_names(_columns(table), options.labelled) is not None)


def _is_a_table(table: _Table, options: ReadOptions) -> bool:
    """Whether lines that are only predicted are rows of a table rather than texts that hold its delimiter."""
    if table.width < 2 or table.consistency < 0.9:
        return False
    if table.layout.delimiter == "\t":
        return True
    rows = table.rows
    if has_header(rows, lambda name: _is_known(name, options)):
        return True
    columns = _columns(table)
    return len(rows) >= 10 and any(column.is_labels and column.repeated_parts() >= 0.8 for column in columns)


def _columns(table: _Table, names: Sequence[str] = ()) -> list[Column]:
    rows = table.rows[1:] if names else table.rows
    names = names or [f"column {place}" for place in range(1, table.width + 1)]
    return [Column(name, [row[place] for row in rows if place < len(row)]) for place, name in enumerate(names)]


def _with_header(table: _Table, first_line: int, name: str, options: ReadOptions) -> Layout:
    names = _names(table)
    roles = choose(_columns(table, names), name, options)
    # A cell of a later row may be quoted where none of the first rows is.
    table = replace(table, layout=replace(table.layout, quoted=True))
    return _layout_of(table, names, roles, first_line, name, options)


def _with_given_names(table: _Table, first_line: int, name: str, options: ReadOptions) -> Layout:
    names = tuple(part.strip() for part in options.columns.split(","))
    header = _names(table) == names or has_header(table.rows, lambda name: _is_known(name, options))
    repeated = _is_clear(_names(table), replace(options, text_field="", labels_field="", label_columns=""))
    table = table if header or repeated else replace(table, rows=[list(names), *table.rows])
    read = [column for column in _columns(table, names) if column.name != "-"]
    roles = choose(read, name, options)
    layout = _layout_of(table, names, roles, first_line, name, options)
    return replace(layout, header=header or repeated)


def _without_header(table: _Table, first_line: int, name: str, options: ReadOptions) -> Layout:
    columns = _columns(table)
    names = tuple(column.name for column in columns)
    fields = [field for field in ("text_field", "labels_field", "label_columns") if getattr(options, field)]
    if fields:
        raise UserError(
            f"{name}: the first row is no header ({reprlib.repr(table.rows[0])}), so {options.option(fields[0])} names "
            f"no column. Name the columns: {_columns_advice(table, options)}."
        )
    roles = choose_without_names(columns, options.labelled)
    if roles is None:
        shown = "; ".join(
            f"{column.name}, such as {reprlib.repr(column.cells[0] if column.cells else '')}" for column in columns
        )
        raise UserError(
            f"{name}: it is not clear which of its {len(columns)} columns, which have no header, hold the text and the "
            f"labels: {shown}. Name them in order: {_columns_advice(table, options)}."
        )
    named = replace(table, rows=[list(names), *table.rows])
    return replace(_layout_of(named, names, roles, first_line, name, options), header=False)


def _columns_advice(table: _Table, options: ReadOptions) -> str:
    examples = {2: "text,labels (or labels,text)", 3: "id,text,labels (or text,labels,- and so on)"}
    return f"{options.option('columns')} {examples.get(table.width, 'text,labels,-,... (- is not read)')}"


def _layout_of(
    table: _Table, names: tuple[str, ...], roles: Roles, first_line: int, name: str, options: ReadOptions
) -> Layout:
    read = {*roles.texts, *roles.labels, roles.id}
    layout = replace(
        table.layout,
        texts=roles.texts,
        labels=roles.labels,
        id=roles.id,
        columns=names,
        first_line=first_line,
        unread=tuple(column for column in names if column and column not in read),
        separator=options.label_separator or SINGLE,
    )
    if roles.indicators or not roles.labels:
        return replace(layout, label_kind="indicators") if roles.indicators else layout
    cells = [column.cells for column in _columns(table, names) if column.name in roles.labels]
    return _with_separator(layout, [cell for values in cells for cell in values], name, options)


def _with_separator(layout: Layout, cells: Sequence[str], name: str, options: ReadOptions) -> Layout:
    separator = choose_separator(cells, name, options.label_separator, options.prefix)
    layout = replace(layout, separator=separator)
    lists = []
    for cell in cells:
        try:
            lists.append(values_of(cell, separator) if separator not in (SINGLE, WHOLE) else [])
        except BadRowError:
            continue
    return _with_multi_hot(layout, lists)


def _with_multi_hot(layout: Layout, lists: Sequence[Sequence[object]]) -> Layout:
    if not is_multi_hot(lists):
        return layout
    return replace(layout, label_kind="multi_hot", width=len(next(filter(None, lists))))


def _no_table(lines: list[bytes], tables: Sequence[_Table], name: str, options: ReadOptions) -> UserError:
    shown = reprlib.repr(lines[0].decode("utf-8", "replace"))
    if options.columns:
        widths = sorted({table.width for table in tables if table.width > 1})
        return UserError(
            f"{name}: {options.option('columns')} {options.columns}: the rows have "
            f"{' or '.join(map(str, widths)) or 'one'} columns, as in {shown}. Name each "
            "column once, or put - for one that is not read."
        )
    return UserError(
        f"{name}: the format is not clear from its first lines ({shown}): they have no columns of texts and labels. "
        f"Expected one of {', '.join(FORMATS)}; give {options.option('format')}, or a file of labels beside one of "
        "texts, named like train_texts.txt and train_labels.txt."
    )


def _libmultilabel_layout(lines: list[bytes], options: ReadOptions) -> Layout:
    """Labels and text between tabs, after an id where all rows have a third column of different names."""
    rows = [line.split(b"\t") for line in lines]
    ids = [row[0] for row in rows]
    with_id = bool(rows) and all(len(row) >= 3 for row in rows) and not any(b" " in cell for cell in ids)
    with_id = with_id and 2 * len(set(ids)) >= len(ids)
    columns = ("id", "labels", "text") if with_id else ("labels", "text")
    return Layout(
        "libmultilabel",
        ("text",),
        ("labels",) if options.labelled else (),
        "id" if with_id else "",
        separator=options.label_separator or " ",
        delimiter="\t",
        columns=columns,
        header=False,
        quoted=False,
    )


# Objects of JSON and rows of Parquet.


def typed_layout(
    form: str, rows: Sequence[dict[str, object]], name: str, options: ReadOptions, names: Sequence[str] = ()
) -> Layout:
    """Detects how rows of named and typed values are to be read.

    Args:
        form: the format.
        rows: the first rows.
        name: of the file, for messages.
        options: what the user specified.
        names: of the fields, where they are known without a row.

    Raises:
        UserError: no column is known for the text or the labels.
    """
    names = names or tuple(dict.fromkeys(key for row in rows for key in row))
    if not names:
        # Reading the rows will report what is wrong with them.
        return Layout(form, (options.text_field or "text",), (options.labels_field or "labels",) * options.labelled)
    columns = [Column(key, [row[key] for row in rows if key in row]) for key in names]
    roles = choose(columns, name, options)
    read = {*roles.texts, *roles.labels, roles.id}
    unread = tuple(key for key in names if key not in read)
    layout = Layout(form, roles.texts, roles.labels, roles.id, unread=unread)
    if roles.indicators or not roles.labels:
        return replace(layout, label_kind="indicators") if roles.indicators else layout
    values = [value for column in columns if column.name in roles.labels for value in column.values]
    cells = [value for value in values if isinstance(value, str)]
    # A string among lists is a bad row.
    if cells and len(cells) == len(values):
        return _with_separator(layout, cells, name, options)
    lists = [value for value in values if isinstance(value, list)]
    return _with_multi_hot(layout, lists) if len(lists) == len(values) else layout


def _json_objects(lines: Sequence[bytes]) -> Iterator[dict[str, object]]:
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row
