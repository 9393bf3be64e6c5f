"""Predictions as a table on a terminal: a document at a time, columns of fixed width, control characters escaped."""

import re
from itertools import islice, zip_longest
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lsfa_jax.evaluation.prediction_files import Predicted, Write
from lsfa_jax.util.console import escaped

_ID_WIDTH, _PROBABILITY_WIDTH, _GAPS = 10, 5, 6
# A terminal has a width; a file is opened in an editor.
_LEAST_WIDTH, _FILE_WIDTH = 50, 120

_SPACES = re.compile(r"\s+")


def table_writer(stream: TextIO) -> Write:
    """Returns a function that writes one document after another to a stream, and a header before the first.

    Widths are fixed, since later rows are not known; the start of the text fills the lines beside the labels.
    """
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    console.width = width = max(_LEAST_WIDTH, console.width) if console.is_terminal else _FILE_WIDTH
    text_width = (width - _ID_WIDTH - _PROBABILITY_WIDTH - _GAPS) * 3 // 5
    label_width = width - _ID_WIDTH - _PROBABILITY_WIDTH - _GAPS - text_width

    def show(rows: list[tuple[str | Text, ...]], style: str = "", rule: str = "") -> None:
        grid = Table.grid(padding=(0, 2, 0, 0))
        for column_width in (_ID_WIDTH, text_width, label_width):
            grid.add_column(width=column_width, overflow="fold")
        grid.add_column(width=_PROBABILITY_WIDTH, justify="right")
        for row in rows:
            grid.add_row(*row, style=style)
        # Captured, not printed directly: rich would exit the program when the reader of the stream is gone.
        with console.capture() as printed:
            console.print(grid)
        stream.write(printed.get() + rule)

    is_empty = True

    def write(document: Predicted) -> None:
        nonlocal is_empty
        if is_empty:
            # Not earlier: notes on how the file is read come first.
            show([("document", "text", "label", "prob.")], "bold", "─" * width + "\n")
            is_empty = False
        names = map(_on_one_line, document.labels)
        labels: list[tuple[str | Text, str]] = []
        for name, probability, votes in zip_longest(names, document.probabilities or (), document.votes or ()):
            labels.append((name, f"{probability:.2f}"))
            if votes:
                words = Text("votes: " + ", ".join(_on_one_line(word) for word, _ in votes), style="dim")
                labels += [(line, "") for line in words.wrap(console, label_width)]
        labels = labels or [("(none)", "")]
        start = Text(_on_one_line(document.text[: 20 * text_width]), style="dim")
        lines = start.wrap(console, text_width)
        shown = list(islice(lines, len(labels)))
        if len(lines) > len(shown):
            # Room for the ellipsis where the line is full.
            shown[-1].truncate(text_width - 1)
            shown[-1].append("…")
        ids = [_on_one_line(str(document.id))]
        show([(i, text, *label) for i, text, label in zip_longest(ids, shown, labels, fillvalue="")])

    return write


def _on_one_line(text: str) -> str:
    return escaped(_SPACES.sub(" ", text).strip())
