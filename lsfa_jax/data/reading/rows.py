"""The file formats that go by lines: each parser turns numbered lines into rows, good and bad, and loses none."""

import ast
import csv
import json
import re
import reprlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from lsfa_jax.data.reading.compression import MAX_LINE

Lines = Iterator[tuple[int, bytes]]

# How labels lie in one string, where no separator does it: a JSON or Python list, or one label that is the whole.
LIST, WHOLE = "list", "whole"
SEPARATORS = (";", "|", ",")
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LIST_OF_STRINGS = re.compile(rf"\[\s*(?:{_STRING}\s*(?:,\s*{_STRING}\s*)*,?\s*)?\]", re.DOTALL)


@dataclass(frozen=True)
class Layout:
    """How a file is to be read.

    Attributes:
        format: a name from `readers.FORMATS`.
        text: the field or column with the text.
        labels: the field or column with the labels; empty where labels are not read.
        id: the field or column with the document's id; empty where there is none.
        separator: between labels that share a string; a space stands for any white space, LIST and WHOLE for neither.
        delimiter: between the columns of a line.
        columns: all columns, in order.
    """

    format: str
    text: str = ""
    labels: str = ""
    id: str = ""
    separator: str = ""
    delimiter: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row that can be used."""

    number: int
    text: str
    labels: list[str]
    id: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: why, what was expected, what was found."""

    number: int
    reason: str
    expected: str
    found: object

    def __str__(self) -> str:
        return f"{self.reason}: expected {self.expected}, got {reprlib.repr(self.found)}"


@dataclass(frozen=True)
class BlankLine:
    """A line that is no row."""

    number: int


class BadRowError(Exception):
    """Raised within a parser for what becomes a `BadRow`."""

    def __init__(self, reason: str, expected: str, found: object) -> None:
        super().__init__(reason)
        self.reason, self.expected, self.found = reason, expected, found

    def at(self, number: int) -> BadRow:
        """Returns the bad row."""
        return BadRow(number, self.reason, self.expected, self.found)


Parsed = Iterator[Row | BadRow | BlankLine]


def decode(line: bytes) -> str:
    """Decodes UTF-8.

    Raises:
        BadRowError: with the place of the byte at error.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = line[max(0, error.start - 10) : error.end + 10]
        expected = (
            f"text encoded as UTF-8 (byte {error.start + 1} of the line is 0x{line[error.start]:02x}; a file in "
            "Latin-1 is converted by iconv -f latin1 -t utf-8)"
        )
        raise BadRowError("invalid UTF-8", expected, found) from None


def split_labels(cell: str, separator: str) -> tuple[list[str], tuple[str, ...]]:
    """Splits the labels that share a string; white space around each is dropped.

    Returns:
        The labels, and notes.

    Raises:
        BadRowError: a list was expected, and this is none.
    """
    if separator == " ":
        return cell.split(), ()
    if not cell.strip():
        return [], ()
    if separator == WHOLE:
        # The first rows showed one word each: what else comes is not guessed at.
        if len(cell.split()) > 1 or any(mark in cell for mark in SEPARATORS):
            expected = "one label without spaces, as in the first rows; if there are several, say what separates labels"
            raise BadRowError("more than one label perhaps", expected, cell)
        return [cell.strip()], ()
    if separator == LIST:
        return parse_list(cell), ()
    parts = [part.strip() for part in cell.split(separator)]
    labels = [part for part in parts if part]
    return labels, ("empty label left out",) if len(labels) < len(parts) else ()


def parse_list(cell: str) -> list[str]:
    """Reads a list of strings as JSON or Python writes it.

    Raises:
        BadRowError: it is none.
    """
    labels: object = None
    try:
        labels = json.loads(cell)
    except (ValueError, RecursionError):
        # Only string literals in one list: nothing that could be executed, or nested without end.
        if _LIST_OF_STRINGS.fullmatch(cell.strip()):
            try:
                labels = ast.literal_eval(cell.strip())
            except (ValueError, SyntaxError):
                labels = None
    if not isinstance(labels, list):
        raise BadRowError("labels are not a list", 'a list of strings such as ["a", "b"], as in other rows', cell)
    return check_labels(labels, "the list of labels")


def check_labels(labels: list[object], where: str) -> list[str]:
    """Returns the labels, all of which must be non-empty strings.

    Raises:
        BadRowError: one is not.
    """
    for label in labels:
        if not isinstance(label, str):
            advice = f'a list of strings (write label numbers in quotes, such as "{reprlib.repr(label)}")'
            raise BadRowError(f"a label in {where} is not a string", advice, label)
        if not label.strip():
            raise BadRowError(f"a label in {where} is empty", "non-empty strings", label)
    return labels  # type: ignore[return-value]


def check_text(text: object, where: str) -> str:
    """Returns the text, a string or a list of tokens.

    Raises:
        BadRowError: it is neither.
    """
    if isinstance(text, list) and all(isinstance(token, str) for token in text):
        return " ".join(text)
    if not isinstance(text, str):
        raise BadRowError(f"{where} is not text", "a string or a list of strings", text)
    return text


def json_lines(lines: Lines, layout: Layout) -> Parsed:
    """One JSON object a line."""
    for number, line in lines:
        if not line.strip():
            yield BlankLine(number)
            continue
        try:
            yield _json_row(number, decode(line), layout)
        except BadRowError as bad:
            yield bad.at(number)


def _json_row(number: int, line: str, layout: Layout) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRowError("not JSON", "one JSON object on the line", line) from None
    if not isinstance(row, dict):
        raise BadRowError("not an object", f'{{"{layout.labels or "id"}": ..., "{layout.text}": "..."}}', row)
    return fields_row(number, row, layout)


def fields_row(number: int, row: dict[str, object], layout: Layout) -> Row:
    """Makes a row of named values, as JSON and Parquet hold them.

    Raises:
        BadRowError: a value is missing or of another type.
    """
    wanted = [name for name in (layout.text, layout.labels) if name]
    for name in wanted:
        if name not in row:
            fields = " and ".join(f"'{name}'" for name in wanted)
            raise BadRowError(f"no field '{name}'", f"the field{'s' * (len(wanted) > 1)} {fields}", list(row))
    text = check_text(row[layout.text], f"'{layout.text}'")
    labels: list[str] = []
    notes: tuple[str, ...] = ()
    if layout.labels:
        value = row[layout.labels]
        if isinstance(value, str) and layout.separator:
            labels, notes = split_labels(value, layout.separator)
        elif isinstance(value, list):
            labels = check_labels(value, f"'{layout.labels}'")
        else:
            expected = "a list of strings, or one string and the separator in it given"
            raise BadRowError(f"'{layout.labels}' is not a list", expected, value)
    own = row.get(layout.id, "") if layout.id else ""
    name = str(own) if isinstance(own, str | int) and not isinstance(own, bool) else ""
    try:
        "\n".join([text, name, *labels]).encode("utf-8")
    except UnicodeEncodeError as error:
        # Half a surrogate pair, as \ud83d from an emoji cut in two: no file could hold it as UTF-8.
        raise BadRowError("invalid Unicode", "whole characters", error.object[error.start : error.end]) from None
    return Row(number, text, labels, name, notes)


def plain_lines(lines: Lines, layout: Layout) -> Parsed:
    """One document a line, without labels; a blank line is an empty document."""
    for number, line in lines:
        try:
            yield Row(number, decode(line), [])
        except BadRowError as bad:
            yield bad.at(number)


def libmultilabel(lines: Lines, layout: Layout) -> Parsed:
    """Id (where `layout.id` says so), labels and text, between tabs; what tabs the text holds remain in it."""
    width = 3 if layout.id else 2
    expected = f"{width} columns between tabs: {'id, ' if layout.id else ''}labels, text"
    for number, line in lines:
        if not line.strip():
            yield BlankLine(number)
            continue
        try:
            *own, cell, text = _exactly(decode(line).split("\t", width - 1), width, expected)
            labels, notes = split_labels(cell, layout.separator) if layout.labels else ([], ())
        except BadRowError as bad:
            yield bad.at(number)
            continue
        if "\t" in text:
            notes = (*notes, "tab within a text")
        yield Row(number, text, labels, own[0] if own else "", notes)


def _exactly(parts: list[str], width: int, expected: str) -> list[str]:
    if len(parts) != width:
        raise BadRowError("too few columns", expected, parts)
    return parts


def delimited(lines: Lines, layout: Layout) -> Parsed:
    """CSV and TSV with a header: quoted as Python's csv module has it, line ends allowed within quotes.

    A row whose quotes do not end as they should is bad in CSV, alone: reading goes on at the line behind its first. In
    TSV, often written without any quoting, its line is taken as it is.
    """
    width = len(layout.columns)
    text_at = layout.columns.index(layout.text)
    labels_at = layout.columns.index(layout.labels) if layout.labels else -1
    id_at = layout.columns.index(layout.id) if layout.id else -1
    rows = records(lines, layout)
    next(rows, None)
    for number, fields, notes in rows:
        if isinstance(fields, BadRowError):
            yield fields.at(number)
            continue
        if not fields or (width > 1 and len(fields) == 1 and not fields[0].strip()):
            yield BlankLine(number)
            continue
        if len(fields) > width and layout.delimiter == "\t" and text_at == width - 1:
            fields = [*fields[: width - 1], "\t".join(fields[width - 1 :])]
            notes = (*notes, "tab within a text")
        try:
            if len(fields) != width:
                reason = f"too {'many' if len(fields) > width else 'few'} columns"
                raise BadRowError(reason, f"{width} as in the header (quote a text that holds the delimiter)", fields)
            more: tuple[str, ...] = ()
            labels: list[str] = []
            if labels_at >= 0:
                labels, more = split_labels(fields[labels_at], layout.separator)
        except BadRowError as bad:
            yield bad.at(number)
            continue
        yield Row(number, fields[text_at], labels, fields[id_at] if id_at >= 0 else "", (*notes, *more))


def records(lines: Lines, layout: Layout) -> Iterator[tuple[int, list[str] | BadRowError, tuple[str, ...]]]:
    """Splits the lines of CSV or TSV into records, the header among them.

    Yields:
        The number of the record's first line, its fields (none of a blank line) or what is wrong with it, and notes.
    """
    csv.field_size_limit(MAX_LINE)
    again: deque[tuple[int, bytes]] = deque()
    taken: list[tuple[int, bytes]] = []
    # Whether a record with broken quotes may go on: the next line with an odd number of quotes could be its end.
    unended = False

    def feed() -> Iterator[str]:
        while (following := again.popleft() if again else next(lines, None)) is not None:
            taken.append(following)
            yield following[1].decode("utf-8", "surrogateescape") + "\n"

    reader = csv.reader(feed(), delimiter=layout.delimiter, strict=True)
    tabs = layout.delimiter == "\t"
    while True:
        taken.clear()
        problem: csv.Error | None = None
        fields: list[str] = []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = error
        number, line = taken[0]
        # A text that goes on in the next line hardly does so with just the tabs that a whole row has.
        if tabs and any(more.count(b"\t") >= len(layout.columns) - 1 for _, more in taken[1:]):
            problem = csv.Error("a quote that does not end in its line")
        odd = line.count(b'"') % 2 == 1 and len(taken) == 1
        if problem is None and unended and odd and not tabs:
            problem = csv.Error("perhaps the rest of a broken row")
            unended = False
        elif problem is not None:
            unended = line.count(b'"') % 2 == 1
        if problem is not None:
            again.extendleft(reversed(taken[1:]))
            reader = csv.reader(feed(), delimiter=layout.delimiter, strict=True)
            if not tabs:
                reason = str(problem).partition(" - ")[0]
                expected = f"quotes that open and close a column and are doubled within it ({reason})"
                yield number, BadRowError("wrong quotes", expected, line[:200]), ()
                continue
            del taken[1:]
            fields = line.decode("utf-8", "surrogateescape").split("\t")
        notes = ("quotes taken as they are",) * (problem is not None) + ("row over several lines",) * (len(taken) > 1)
        try:
            for _, part in taken:
                decode(part)
        except BadRowError as bad:
            yield number, bad, notes
            continue
        yield number, fields, notes
