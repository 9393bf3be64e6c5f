"""Texts and labels in two files, line by line."""

from collections.abc import Iterable
from itertools import zip_longest

from lsfa_jax.data.reading.compression import Stream
from lsfa_jax.data.reading.label_cells import split_labels
from lsfa_jax.data.reading.rows import BadRowError, Layout, Placed, Row, decode
from lsfa_jax.util.console import UserError


def paired_rows(texts: Stream, labels: Stream, layout: Layout) -> Placed:
    """Yields document i from line i of one file and its labels from line i of the other; a blank line is empty.

    Raises:
        UserError: the files have different numbers of lines.
    """
    num_lines = num_unpaired = 0
    for text, cell in zip_longest(texts.lines(), labels.lines()):
        num_lines += 1
        if text is None or cell is None:
            num_unpaired += 1
            continue
        number = text[0]
        name = texts.name
        try:
            document = decode(text[1])
            name = labels.name
            names, notes = split_labels(decode(cell[1]), layout.separator)
        except BadRowError as bad:
            yield f"{name}:{number}", bad.at(number)
            continue
        yield f"{texts.name}:{number}", Row(number, document, names, notes=notes)
    if num_unpaired:
        longer, shorter = (labels.name, texts.name) if text is None else (texts.name, labels.name)
        raise UserError(
            f"{shorter} has {num_lines - num_unpaired:,} lines and {longer} {num_lines:,}; expected as many, since "
            "line i of one belongs to line i of the other. One is cut off, or a text holds a line end."
        )


def matrix_rows(texts: Stream, labels: Iterable[list[str]], matrix: str) -> Placed:
    """Yields document i from line i of a file, with the i-th of the label sets of `matrix`.

    Raises:
        UserError: there are not as many lines as label sets.
    """
    for line, names in zip_longest(texts.lines(), labels):
        if line is None or names is None:
            raise UserError(
                f"{texts.name} and {matrix}: different numbers of texts and of rows; expected as many. One is cut off, "
                "or a text holds a line end."
            )
        number = line[0]
        try:
            yield f"{texts.name}:{number}", Row(number, decode(line[1]), names)
        except BadRowError as bad:
            yield f"{texts.name}:{number}", bad.at(number)
