"""CSV and TSV, with or without a header: records of cells, and rows. A record with broken quotes costs no other one."""

import csv
import re
from collections import deque
from collections.abc import Iterator
from itertools import islice

from lsfa_jax.data.reading.compression import MAX_LINE
from lsfa_jax.data.reading.fields import row_of_fields
from lsfa_jax.data.reading.label_cells import split_labels
from lsfa_jax.data.reading.rows import BadRowError, BlankLine, Layout, Lines, Parsed, RepeatedHeader, Row, decode

_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}

Record = tuple[int, list[str] | BadRowError, tuple[str, ...]]
"""The number of a record's first line, its cells (none in a blank line) or what is wrong with it, and notes."""


def table_rows(lines: Lines, layout: Layout) -> Parsed:
    """Yields a row for each record below the header.

    A record whose quotes are broken is a bad row in CSV. In TSV, which is often written without any quoting, its first
    line is split at the tabs, quotes included.
    """
    remaining = records(islice(lines, layout.first_line, None), layout)
    if layout.header:
        next(remaining, None)
    # The place of each column that is read; of two with one name, the first.
    needed = {name: layout.columns.index(name) for name in (*layout.texts, *layout.labels, layout.id) if name}
    header = list(layout.columns) if layout.header else []
    width, separator, detected = len(layout.columns), layout.separator, layout.detected
    places = _places(layout, needed)
    for number, cells, notes in remaining:
        try:
            if isinstance(cells, BadRowError):
                yield cells.at(number)
            elif places and len(cells) == width and cells != header and cells[0][:1] != "\ufeff":
                # What `row_of_fields` does for most tables, in less time.
                text_at, labels_at, id_at = places
                labels, more = split_labels(cells[labels_at], separator, detected)
                document_id = cells[id_at] if id_at >= 0 else ""
                yield Row(number, cells[text_at], labels, document_id, notes + more if more else notes)
            elif not cells or (width > 1 and len(cells) == 1 and not cells[0].strip()):
                yield BlankLine(number)
            elif [cells[0].lstrip("\ufeff"), *cells[1:]] == header:
                yield RepeatedHeader(number)
            else:
                yield _row(number, cells, notes, layout, needed)
        except BadRowError as bad:
            yield bad.at(number)


def _places(layout: Layout, needed: dict[str, int]) -> tuple[int, int, int] | None:
    """Returns the places of text, labels and id (-1: none) of a table with one column of each; else None."""
    if layout.label_kind != "names" or layout.unquote or not len(layout.texts) == len(layout.labels) == 1:
        return None
    return needed[layout.texts[0]], needed[layout.labels[0]], needed[layout.id] if layout.id else -1


def _row(number: int, cells: list[str], notes: tuple[str, ...], layout: Layout, needed: dict[str, int]) -> Row:
    width = len(layout.columns)
    if len(cells) > width and layout.delimiter == "\t" and needed[layout.texts[-1]] == width - 1:
        cells = [*cells[: width - 1], "\t".join(cells[width - 1 :])]
        notes = (*notes, "tab within a text")
    if len(cells) != width:
        reason = f"too {'many' if len(cells) > width else 'few'} columns"
        where = "in the header" if layout.header else "in the first rows"
        raise BadRowError(reason, f"{width} as {where} (quote a text that holds the delimiter)", cells)
    return row_of_fields(number, {name: cells[place] for name, place in needed.items()}, layout, notes)


def records(lines: Lines, layout: Layout) -> Iterator[Record]:
    """Splits the lines of CSV or TSV into records, the header among them; a quoted cell may hold line ends.

    After a record with broken quotes reading goes on at the line behind its first one. Python's csv and pyarrow.csv
    lose rows there, or silently merge them into one text: tests/data/reading/test_tables.py compares them.
    """
    if layout.quoted:
        return _quoted_records(lines, layout)
    split = _split_lines(lines, layout.delimiter)
    return (_unescaped(record) for record in split) if layout.escaped else split


def _quoted_records(lines: Lines, layout: Layout) -> Iterator[Record]:
    csv.field_size_limit(MAX_LINE)
    tabs = layout.delimiter == "\t"
    source = _RecordLines(lines, layout)
    reader = source.reader()
    # Whether the last broken record may go on: then the next line with an odd number of quotes may be its end.
    broken_before = False
    while True:
        source.record.clear()
        cells: list[str] = []
        reason = ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = str(error).partition(" - ")[0]
        number, line = source.record[0]
        odd_quotes = line.count(b'"') % 2 == 1
        # A text that goes on in the next line rarely does so with the number of tabs of a complete row.
        width = len(layout.columns)
        if tabs and width and any(part.count(b"\t") >= width - 1 for _, part in source.record[1:]):
            reason = "a quote that does not end in its line"
        elif width and len(source.record) > 1 and len(cells) != width:
            # A quote that a later row closes: the rows between them are not a part of this one.
            reason = "a quote that does not close in its row"
        if reason:
            broken_before = odd_quotes
        elif broken_before and odd_quotes and not tabs and len(source.record) == 1:
            reason, broken_before = "perhaps the rest of a broken row", False
        if reason:
            source.return_all_but_first()
            reader = source.reader()
            if not tabs:
                expected = f"quotes that open and close a column and are doubled within it ({reason})"
                yield number, BadRowError("wrong quotes", expected, line[:200]), ()
                continue
            cells = line.decode("utf-8", "surrogateescape").split("\t")
        notes = ("quotes kept as they are",) * bool(reason) + ("row over several lines",) * (len(source.record) > 1)
        yield number, _invalid_utf8(source.record) or cells, notes


def _split_lines(lines: Lines, delimiter: str) -> Iterator[Record]:
    """Splits lines in which a quote is a character like any other."""
    for number, line in lines:
        try:
            yield number, decode(line).split(delimiter) if line and not line.isspace() else [], ()
        except BadRowError as bad:
            yield number, bad, ()


def _unescaped(record: Record) -> Record:
    number, cells, notes = record
    if not isinstance(cells, BadRowError):
        cells = [cell if cell == "\\N" else _ESCAPE.sub(lambda x: _ESCAPED.get(x[1], x[1]), cell) for cell in cells]
    return number, cells, notes


class _RecordLines:
    """The lines for csv.reader, which remembers those of the current record and can return them to be read again."""

    def __init__(self, lines: Lines, layout: Layout) -> None:
        self.record: list[tuple[int, bytes]] = []
        self._lines, self._layout, self._escaped = lines, layout, layout.escaped
        # csv would read MySQL's \\N, for a missing value, as the letter N.
        self._null = re.compile(rf"(^|{re.escape(layout.delimiter)})\\N(?=$|{re.escape(layout.delimiter)})")
        self._returned: deque[tuple[int, bytes]] = deque()

    def __iter__(self) -> "_RecordLines":
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._lines)
        self.record.append(line)
        text = line[1].decode("utf-8", "surrogateescape") + "\n"
        return self._null.sub(r"\1", text) if self._escaped and "\\N" in text else text

    def reader(self) -> Iterator[list[str]]:
        """Returns a csv.reader that begins with the next line."""
        escape = "\\" if self._layout.escaped else None
        return csv.reader(self, delimiter=self._layout.delimiter, escapechar=escape, strict=True)

    def return_all_but_first(self) -> None:
        """Puts the record's lines behind its first one back in front of those to be read."""
        self._returned.extendleft(reversed(self.record[1:]))
        del self.record[1:]


def _invalid_utf8(record: list[tuple[int, bytes]]) -> BadRowError | None:
    try:
        for _, line in record:
            if not line.isascii():
                decode(line)
    except BadRowError as bad:
        return bad
    return None
