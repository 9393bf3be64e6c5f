"""The rows that every file format is parsed into, usable and bad ones, and the checks of their texts and labels."""

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass

Lines = Iterator[tuple[int, bytes]]
"""Lines with their numbers from 1, without line ends."""


@dataclass(frozen=True)
class Layout:
    """How a file is to be read.

    Attributes:
        format: a name from `detect.FORMATS`.
        text: the field or column with the text.
        labels: the field or column with the labels; "" where labels are not read.
        id: the field or column with the document's id; "" where there is none.
        separator: between labels that share a cell; a space stands for any white space, see `label_cells` for LIST and
            SINGLE.
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


class BadRowError(Exception):
    """Raised within a parser for what becomes a `BadRow`."""

    def __init__(self, reason: str, expected: str, got: object) -> None:
        super().__init__(reason)
        self.reason, self.expected, self.got = reason, expected, got

    def at(self, number: int) -> BadRow:
        """Returns the bad row."""
        return BadRow(number, self.reason, self.expected, self.got)


Parsed = Iterator[Row | BadRow | BlankLine]
Placed = Iterator[tuple[str, Row | BadRow | BlankLine]]
"""Rows, each with its 'file:line'."""


def decode(line: bytes) -> str:
    """Decodes UTF-8.

    Raises:
        BadRowError: with the position of the first byte that is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        expected = (
            f"text encoded as UTF-8 (byte {error.start + 1} of the line is 0x{line[error.start]:02x}; a file in "
            "Latin-1 is converted by iconv -f latin1 -t utf-8)"
        )
        raise BadRowError("invalid UTF-8", expected, line[max(0, error.start - 10) : error.end + 10]) from None


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
    """Returns the text, a string or a list of tokens, as one string.

    Raises:
        BadRowError: it is neither.
    """
    if isinstance(text, list) and all(isinstance(token, str) for token in text):
        return " ".join(text)
    if not isinstance(text, str):
        raise BadRowError(f"{where} is not text", "a string or a list of strings", text)
    return text
