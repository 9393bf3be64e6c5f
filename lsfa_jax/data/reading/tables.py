"""CSV and TSV with a header: records of cells, and rows of them. A record with broken quotes costs no other record."""

import csv
from collections import deque
from collections.abc import Iterator

from lsfa_jax.data.reading.compression import MAX_LINE
from lsfa_jax.data.reading.label_cells import split_labels
from lsfa_jax.data.reading.rows import BadRowError, BlankLine, Layout, Lines, Parsed, Row, decode

Record = tuple[int, list[str] | BadRowError, tuple[str, ...]]
"""The number of a record's first line, its cells (none in a blank line) or what is wrong with it, and notes."""


def table_rows(lines: Lines, layout: Layout) -> Parsed:
    """Yields a row for each record below the header.

    A record whose quotes are broken is a bad row in CSV. In TSV, which is often written without any quoting, its first
    line is split at the tabs, quotes included.
    """
    remaining = records(lines, layout)
    next(remaining, None)
    for number, cells, notes in remaining:
        if isinstance(cells, BadRowError):
            yield cells.at(number)
        elif not cells or (len(layout.columns) > 1 and len(cells) == 1 and not cells[0].strip()):
            yield BlankLine(number)
        else:
            try:
                yield _row(number, cells, notes, layout)
            except BadRowError as bad:
                yield bad.at(number)


def _row(number: int, cells: list[str], notes: tuple[str, ...], layout: Layout) -> Row:
    columns = layout.columns
    width = len(columns)
    text_at = columns.index(layout.text)
    if len(cells) > width and layout.delimiter == "\t" and text_at == width - 1:
        cells = [*cells[: width - 1], "\t".join(cells[width - 1 :])]
        notes = (*notes, "tab within a text")
    if len(cells) != width:
        reason = f"too {'many' if len(cells) > width else 'few'} columns"
        raise BadRowError(reason, f"{width} as in the header (quote a text that holds the delimiter)", cells)
    labels: list[str] = []
    if layout.labels:
        labels, label_notes = split_labels(cells[columns.index(layout.labels)], layout.separator)
        notes = (*notes, *label_notes)
    document_id = cells[columns.index(layout.id)] if layout.id else ""
    return Row(number, cells[text_at], labels, document_id, notes)


def records(lines: Lines, layout: Layout) -> Iterator[Record]:
    """Splits the lines of CSV or TSV into records, the header among them; a quoted cell may hold line ends.

    After a record with broken quotes reading goes on at the line behind its first one. Python's csv and pyarrow.csv
    lose rows there, or silently merge them into one text: tests/data/reading/test_tables.py compares them.
    """
    csv.field_size_limit(MAX_LINE)
    tabs = layout.delimiter == "\t"
    source = _RecordLines(lines)
    reader = csv.reader(source, delimiter=layout.delimiter, strict=True)
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
        if tabs and any(part.count(b"\t") >= len(layout.columns) - 1 for _, part in source.record[1:]):
            reason = "a quote that does not end in its line"
        if reason:
            broken_before = odd_quotes
        elif broken_before and odd_quotes and not tabs and len(source.record) == 1:
            reason, broken_before = "perhaps the rest of a broken row", False
        if reason:
            source.return_all_but_first()
            reader = csv.reader(source, delimiter=layout.delimiter, strict=True)
            if not tabs:
                expected = f"quotes that open and close a column and are doubled within it ({reason})"
                yield number, BadRowError("wrong quotes", expected, line[:200]), ()
                continue
            cells = line.decode("utf-8", "surrogateescape").split("\t")
        notes = ("quotes kept as they are",) * bool(reason) + ("row over several lines",) * (len(source.record) > 1)
        yield number, _invalid_utf8(source.record) or cells, notes


class _RecordLines:
    """The lines for csv.reader, which remembers those of the current record and can return them to be read again."""

    def __init__(self, lines: Lines) -> None:
        self.record: list[tuple[int, bytes]] = []
        self._lines = lines
        self._returned: deque[tuple[int, bytes]] = deque()

    def __iter__(self) -> "_RecordLines":
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._lines)
        self.record.append(line)
        return line[1].decode("utf-8", "surrogateescape") + "\n"

    def return_all_but_first(self) -> None:
        """Puts the record's lines behind its first one back in front of those to be read."""
        self._returned.extendleft(reversed(self.record[1:]))
        del self.record[1:]


def _invalid_utf8(record: list[tuple[int, bytes]]) -> BadRowError | None:
    try:
        for _, line in record:
            decode(line)
    except BadRowError as bad:
        return bad
    return None
