"""Formats without a header in which a line is a document: plain text, and LibMultiLabel's labels before the text."""

from lsfa_jax.data.reading.label_cells import split_labels
from lsfa_jax.data.reading.rows import BadRowError, BlankLine, Layout, Lines, Parsed, Row, decode


def plain_lines(lines: Lines, layout: Layout) -> Parsed:
    """Yields a document without labels for each line; a blank line is an empty document."""
    for number, line in lines:
        try:
            yield Row(number, decode(line), [])
        except BadRowError as bad:
            yield bad.at(number)


def libmultilabel(lines: Lines, layout: Layout) -> Parsed:
    """Yields a row for each line of labels and text, after an id where `layout.id` is set, separated by tabs.

    Further tabs belong to the text.
    """
    width = 3 if layout.id else 2
    expected = f"{width} columns between tabs: {'id, ' if layout.id else ''}labels, text"
    for number, line in lines:
        if not line.strip():
            yield BlankLine(number)
            continue
        try:
            columns = decode(line).split("\t", width - 1)
            if len(columns) != width:
                raise BadRowError("too few columns", expected, columns)
            labels, notes = split_labels(columns[-2], layout.separator) if layout.labels else ([], ())
        except BadRowError as bad:
            yield bad.at(number)
            continue
        if "\t" in columns[-1]:
            notes = (*notes, "tab within a text")
        yield Row(number, columns[-1], labels, columns[0] if layout.id else "", notes)
