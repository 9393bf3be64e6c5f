"""The rows that every file format is parsed into, usable and bad ones, and the checks of their texts and labels."""

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Lines = Iterator[tuple[int, bytes]]
"""Lines with their numbers from 1, without line ends."""


@dataclass(frozen=True)
class Layout:
    """How a file is to be read.

    Attributes:
        format: a name from `options.FORMATS`.
        texts: the fields or columns with the text; several are joined by line ends.
        labels: the fields or columns with the labels; none where labels are not read.
        id: the field or column with the document's id; "" where there is none.
        separator: between labels that share a cell; a space stands for any white space, see `label_cells` for LIST,
            SINGLE and WHOLE.
        unquote: whether quotes around labels are removed, which most of the first rows have.
        detected: whether the separator was detected, not given.
        label_kind: 'names' or numbers of labels; 'multi_hot', lists of 0 and 1 with a place for each label; or
            'indicators', where each of the columns `labels` is a label and holds 0 or 1.
        width: of the lists of 0 and 1.
        delimiter: between the columns of a line.
        columns: all columns, in order.
        header: whether the first row has the columns' names.
        quoted: whether quotes in a table enclose cells.
        escaped: whether a backslash escapes quotes and delimiters in a table, as MySQL writes them.
        first_line: lines before the table (Excel's `sep=;`).
        prefix: of labels among the words of a line, in fastText's format.
        unread: columns of no use, for the message.
    """

    format: str
    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    id: str = ""
    separator: str = ""
    unquote: bool = False
    detected: bool = False
    label_kind: Literal["names", "multi_hot", "indicators"] = "names"
    width: int = 0
    delimiter: str = ""
    columns: tuple[str, ...] = ()
    header: bool = True
    quoted: bool = True
    escaped: bool = False
    first_line: int = 0
    prefix: str = ""
    unread: tuple[str, ...] = ()


class Row(NamedTuple):
    """A row that can be used."""

    number: int
    text: str
    labels: list[str]
    id: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: why, what was expected and what the file has instead."""

    number: int
    reason: str
    expected: str
    got: object

    def __str__(self) -> str:
        return f"{self.reason}: expected {self.expected}, got {reprlib.repr(self.got)}"


@dataclass(frozen=True)
class BlankLine:
    """A line that is no row."""

    number: int


@dataclass(frozen=True)
class RepeatedHeader:
    """A row of a table that has the columns' names again, as in files that were joined."""

    number: int


class BadRowError(Exception):
    """Raised within a parser for what becomes a `BadRow`."""

    def __init__(self, reason: str, expected: str, got: object) -> None:
        super().__init__(reason)
        self.reason, self.expected, self.got = reason, expected, got

    def at(self, number: int) -> BadRow:
        """Returns the bad row."""
        return BadRow(number, self.reason, self.expected, self.got)


Parsed = Iterator[Row | BadRow | BlankLine | RepeatedHeader]
Placed = Iterator[tuple[str, Row | BadRow | BlankLine | RepeatedHeader]]
"""Rows, each with its 'file:line'."""


INVALID_UTF8 = "invalid UTF-8"
"""The reason of a row with bytes that are not UTF-8."""


def decode(line: bytes) -> str:
    """Decodes UTF-8.

    Raises:
        BadRowError: with the position of the first byte that is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        expected = f"text encoded as UTF-8 (byte {error.start + 1} of the line is 0x{line[error.start]:02x})"
        raise BadRowError(INVALID_UTF8, expected, line[max(0, error.start - 10) : error.end + 10]) from None


def check_text(text: object, where: str) -> str:
    """Returns the text, a string or a list of tokens, as one string; a missing one is empty.

    Raises:
        BadRowError: it is neither.
    """
    if text is None:
        return ""
    if isinstance(text, list) and all(isinstance(token, str) for token in text):
        return " ".join(text)
    if not isinstance(text, str):
        raise BadRowError(f"{where} is not text", "a string or a list of strings", text)
    return text
