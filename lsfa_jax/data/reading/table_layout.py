"""How a table is read, with or without a header, from its first lines: delimiter, quotes, columns."""

import re
import reprlib
from collections import Counter
from collections.abc import Sequence
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
from lsfa_jax.data.reading.label_cells import SINGLE
from lsfa_jax.data.reading.options import FORMATS, ReadOptions
from lsfa_jax.data.reading.rows import BadRowError, Layout
from lsfa_jax.data.reading.tables import records
from lsfa_jax.data.reading.typed_layout import with_roles, with_separator
from lsfa_jax.util.console import UserError

# A header can go on over several lines.
_HEADER_LINES = 20
_NULL_CELL = re.compile(rb"(^|\t)\\N(\t|$)")
_DELIMITERS = ("\t", ",", ";", "|", "\x01")
# Lines before the names of the columns, such as a title.
_MOST_TITLE_LINES = 5
_SEP_LINE = re.compile(rb'"?sep=(.)"?\s*', re.IGNORECASE)
_ESCAPES = re.compile(rb'\\"[^"]|\\N|\\[,;|]')


@dataclass(frozen=True)
class _Table:
    """The first rows of a table under one delimiter."""

    layout: Layout
    rows: list[list[str]]
    consistency: float
    """Share of the rows that have as many columns as most."""
    start: int = 0
    """Lines before the first of these rows, such as a title."""

    @property
    def width(self) -> int:
        return len(self.rows[0]) if self.rows else 0


def table_layout(lines: list[bytes], name: str, options: ReadOptions, form: str) -> Layout:
    """Detects how a table is to be read.

    Args:
        lines: the first lines.
        name: of the file, for messages.
        options: what the user specified.
        form: 'csv', 'tsv', or 'table' where the delimiter is not known; without labels that may be plain text.

    Raises:
        UserError: the columns of text and labels are not clear.
    """
    first_line = 0
    delimiters: tuple[str, ...] = _DELIMITERS
    if form in ("csv", "tsv"):
        delimiters = ("\t",) if form == "tsv" else (",", ";", "|")
    if lines and (sep := _SEP_LINE.fullmatch(lines[0])):
        first_line, delimiters, lines = 1, (sep[1].decode("latin-1"),), lines[1:]
    if not lines:
        raise UserError(f"{name}: holds no documents: no header can be read. Expected a header and rows.")
    headers = {delimiter: _names(_parsed(lines[:_HEADER_LINES], delimiter)) for delimiter in delimiters}
    named = [delimiter for delimiter, names in headers.items() if _is_clear(names, options)]
    if named and not options.columns:
        # Of one column, the file is a CSV.
        delimiter = max(named, key=lambda delimiter: (len(headers[delimiter]), delimiter == ","))
        return _with_header(_parsed(lines, delimiter), first_line, name, options)
    tables = [_parsed(lines, delimiter) for delimiter in delimiters]
    alone = False  # whether texts may be the only column
    if form in ("csv", "tsv"):
        alone = not options.labelled
    elif not options.labelled and not options.columns:
        likely = [table for table in tables if _is_a_table(table, options)]
        if is_named_a_table(name) or _are_quoted(lines):
            likely, alone = tables, True
        if not likely and not options.text_field:
            return Layout("txt")
        tables = likely or tables
    wide = [table for table in tables if table.width > 1 and table.consistency >= 0.9]
    if alone and not wide:
        wide = [table for table in tables if table.layout.delimiter == "," and table.width == 1]
    if options.columns:
        number = len(options.columns.split(","))
        wide = [table for table in wide if table.width == number]
    if not wide:
        raise _no_table(lines, tables, name, options)
    # All lines of a table have its delimiter; those of prose have as many commas by chance.
    table = max(wide, key=lambda table: (table.layout.delimiter == "\t", _score(table, options), table.consistency))
    first_line += table.start
    if options.columns:
        return _with_given_names(table, first_line, name, options)
    header = _has_header(table, options)
    if header is None:
        raise UserError(
            f"{name}: it is not clear whether the first row {reprlib.repr(table.rows[0])} has the names of the columns "
            f"or is a document. Set {options.option('header')} yes or {options.option('header')} no."
        )
    if header:
        try:
            return _with_header(table, first_line, name, options)
        except UserError as error:
            if options.header == "yes" or any(_is_known(cell, options) for cell in _names(table)):
                raise
            raise UserError(f"{error} If the first row is a document, set {_columns_advice(table, options)}.") from None
    return _without_header(table, first_line, name, options)


def has_clear_header(lines: list[bytes], options: ReadOptions) -> bool:
    """Whether the first line has known names of columns under a delimiter."""
    return any(_is_clear(_names(_parsed(lines[:_HEADER_LINES], delimiter)), options) for delimiter in _DELIMITERS)


def _has_header(table: _Table, options: ReadOptions) -> bool | None:
    if options.header != "auto":
        return options.header == "yes"
    return has_header(table.rows, lambda name: _is_known(name, options))


def is_named_a_table(name: str) -> bool:
    """Whether a file's name ends with .csv or .tsv, before the suffix of a compression."""
    return re.search(r"\.(csv|tsv)(\.\w+)?$", name.lower()) is not None


def _are_quoted(lines: Sequence[bytes]) -> bool:
    return 2 * sum(re.fullmatch(rb'\s*"([^"]|"")*".*', line) is not None for line in lines) > len(lines)


def _parsed(lines: list[bytes], delimiter: str) -> _Table:
    """Parses the first lines as a table; backslashes escape where that makes more rows equally wide."""
    plain = _parsed_as(lines, Layout("tsv" if delimiter == "\t" else "csv", delimiter=delimiter))
    if delimiter == "\t":
        # PostgreSQL and MySQL write a missing value so, and escape line ends and tabs.
        return replace(plain, layout=replace(plain.layout, escaped=any(_NULL_CELL.search(line) for line in lines)))
    # JSON within CSV has backslashes too, before doubled quotes; and one line may be broken.
    if sum(_ESCAPES.search(line) is not None for line in lines) < 2:
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
    numbered = [(number, cells) for number, cells, _ in records(iter(enumerate(lines, 1)), layout)]
    parsed = [cells for _, cells in numbered]
    # A record that the end of the head cuts off is broken, and no other one tells anything.
    rows = [cells for cells in parsed if not isinstance(cells, BadRowError) and cells]
    if not rows:
        return _Table(layout, [], 0.0)
    widths = Counter(map(len, rows))
    width = widths.most_common(1)[0][0]
    names = {cell.strip().lower() for cell in rows[0]}
    if names & {*TEXT_NAMES} and (names & {*LABELS_NAMES} or len(rows[0]) == 1):
        if width == len(rows[0]) + 1 and widths[width] == len(rows) - 1:
            rows[0] = ["", *rows[0]]  # R writes names of rows, and none for their column
        width = len(rows[0])
    fitting = [row for row in rows if len(row) == width]
    # A text that is the last column may hold tabs.
    wider = sum(len(row) > width for row in rows) if layout.delimiter == "\t" else 0
    start = next((number for number, cells in numbered if cells in fitting[:1]), 1) - 1 if len(rows[0]) < width else 0
    return _Table(layout, fitting, (len(fitting) + wider) / len(parsed), min(start, _MOST_TITLE_LINES))


def _has_quoted_cells(lines: Sequence[bytes]) -> bool:
    """Whether cells between tabs are enclosed in quotes, rather than texts that begin with one."""
    enclosed = sum(re.search(rb'(^|\t)"([^"\t]|"")*("(\t|$)|$)', line) is not None for line in lines)
    return enclosed > 0


def _names(table: _Table) -> tuple[str, ...]:
    """Returns the names in the first row; a column without a name gets its number."""
    cells = table.rows[0] if table.rows else []
    return tuple(cell.strip("\ufeff ") or f"column {place}" for place, cell in enumerate(cells, 1))


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
    usual = [part.strip() for part in options.usual_text_field.split(",") if part.strip()]
    is_text = is_text or bool(not texts and usual and all(part in columns for part in usual))
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
    """Scores how clear text and labels are under a delimiter."""
    if _has_header(table, options):
        return 2.0
    return float(choose_without_names(_columns(table), options.labelled) is not None)


def _is_a_table(table: _Table, options: ReadOptions) -> bool:
    """Whether lines that are only predicted are rows of a table rather than texts that hold its delimiter."""
    if table.width < 2 or table.consistency < 0.9:
        return False
    if table.layout.delimiter == "\t":
        return True
    rows = table.rows
    if _has_header(table, options):
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
    table = replace(table, layout=replace(table.layout, quoted=table.layout.quoted or not table.layout.escaped))
    return _layout_of(table, names, roles, first_line, name, options)


def _with_given_names(table: _Table, first_line: int, name: str, options: ReadOptions) -> Layout:
    names = tuple(part.strip() for part in options.columns.split(","))
    header = _names(table) == names or bool(_has_header(table, options))
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
            f"no column. Set {options.option('header')} yes if it is one, or name the columns: "
            f"{_columns_advice(table, options)}."
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
    layout = replace(
        with_roles(table.layout, roles, names),
        columns=names,
        first_line=first_line,
        separator=options.label_separator or SINGLE,
    )
    if roles.indicators or not roles.labels:
        return layout
    cells = [column.cells for column in _columns(table, names) if column.name in roles.labels]
    return with_separator(layout, [cell for values in cells for cell in values], name, options)


def _no_table(lines: list[bytes], tables: Sequence[_Table], name: str, options: ReadOptions) -> UserError:
    shown = reprlib.repr(lines[0].decode("utf-8", "replace"))
    if options.columns:
        widths = sorted({table.width for table in tables if table.width > 1})
        return UserError(
            f"{name}: {options.option('columns')} {options.columns}: the rows have "
            f"{' or '.join(map(str, widths)) or 'one'} columns, as in {shown}. Name each "
            "column once, or put - for one that is not read."
        )
    # Prose has no header, but by chance a word of one between two commas.
    headers = [names for names in map(_names, tables) if len(names) == 1 or is_named_a_table(name)]
    if texts := [
        cell for cell in dict.fromkeys(sum(headers, ())) if _is_clear((cell,), replace(options, labelled=False))
    ]:
        return UserError(
            f"{name}: has a column of texts, {texts[0]!r}, but none of labels, which are needed for training and "
            "evaluation. Add one, such as labels, with grain;trade in a row; if it has another name, choose it with "
            f"{options.option('labels_field')} NAME."
        )
    return UserError(
        f"{name}: the format is not clear from its first lines ({shown}): they have no columns of texts and labels. "
        f"Expected one of {', '.join(FORMATS)}; give {options.option('format')}, or a file of labels beside one of "
        "texts, named like train_texts.txt and train_labels.txt."
    )
