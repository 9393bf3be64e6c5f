"""Predictions as people and programs want them: a table, JSON Lines, CSV or TSV, a document at a time."""

import csv
import json
import re
from collections.abc import Callable
from itertools import islice, zip_longest
from types import SimpleNamespace
from typing import NamedTuple, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

FORMATS = ("table", "jsonl", "csv", "tsv")


class Predicted(NamedTuple):
    """A document with the names of its predicted labels, best first; it may have none."""

    id: str | int
    """The document's own id, or its running number from 1."""
    text: str
    labels: list[str]
    probabilities: list[float]


Write = Callable[[Predicted], object]


def writer(name: str, stream: TextIO) -> Write:
    """Returns what writes one document after another to a stream in one of `FORMATS`; a header is written at once."""
    if name == "jsonl":
        return lambda document: stream.write(_json_line(document))
    if name == "table":
        return _table(stream)
    return _long_form(stream, "," if name == "csv" else "\t")


def _json_line(document: Predicted) -> str:
    row = {"id": document.id, "labels": document.labels, "probabilities": document.probabilities}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _long_form(stream: TextIO, delimiter: str) -> Write:
    """A row a label; a document without labels has one row that says so, so that none goes missing."""

    # The writer puts quotes around what its line end holds, and a lone carriage return needs them too; programs that
    # go by lines want the newline alone.
    def write_line(line: str) -> None:
        stream.write(line.removesuffix("\r\n") + "\n")

    rows = csv.writer(SimpleNamespace(write=write_line), delimiter=delimiter, lineterminator="\r\n")
    rows.writerow(("document", "rank", "label", "probability"))

    def write(document: Predicted) -> None:
        if not document.labels:
            rows.writerow((document.id, "", "", ""))
        for rank, (label, probability) in enumerate(zip(document.labels, document.probabilities, strict=True), start=1):
            rows.writerow((document.id, rank, label, probability))

    return write


def _table(stream: TextIO) -> Write:
    """Columns of fixed width, since the rows to come are not known; the text's start fills the lines of its labels."""
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    # A screen has its own width; a file is read in some editor.
    width = max(50, console.width) if console.is_terminal else 120
    console.width = width
    id_width, probability_width = 10, 5
    text_width = (width - id_width - probability_width - 6) * 3 // 5
    label_width = width - id_width - probability_width - 6 - text_width

    def show(rows: list[tuple[str | Text, ...]], style: str = "", rule: str = "") -> None:
        grid = Table.grid(padding=(0, 2, 0, 0))
        for column_width in (id_width, text_width, label_width):
            grid.add_column(width=column_width, overflow="fold")
        grid.add_column(width=probability_width, justify="right")
        for row in rows:
            grid.add_row(*row, style=style)
        # Not printed directly: rich would end the program itself where nobody reads the stream any more.
        with console.capture() as printed:
            console.print(grid)
        stream.write(printed.get() + rule)

    show([("document", "text", "label", "prob.")], "bold", "─" * width + "\n")

    def write(document: Predicted) -> None:
        names = map(_on_one_line, document.labels)
        labels = [(name, f"{p:.2f}") for name, p in zip(names, document.probabilities, strict=True)]
        labels = labels or [("(none)", "")]
        start = Text(_on_one_line(document.text[: 20 * text_width]), style="dim")
        lines = start.wrap(console, text_width)
        shown = list(islice(lines, len(labels)))
        if len(lines) > len(shown):
            # The last character gives way where the line is full.
            shown[-1].truncate(text_width - 1)
            shown[-1].append("…")
        ids = [_on_one_line(str(document.id))]
        show([(i, text, *label) for i, text, label in zip_longest(ids, shown, labels, fillvalue="")])

    return write


# Control characters, among them the escapes that would move a terminal's cursor, and those that turn the writing round.
_NOT_SHOWN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")


def _on_one_line(text: str) -> str:
    return _NOT_SHOWN.sub(" ", text).strip()
