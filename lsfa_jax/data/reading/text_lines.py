"""Formats in which a line is a document: plain text, and fastText's words with labels among them."""

from lsfa_jax.data.reading.fields import row_of_fields
from lsfa_jax.data.reading.rows import BadRowError, BlankLine, Layout, Lines, Parsed, Row, decode


def plain_lines(lines: Lines, layout: Layout) -> Parsed:
    """Yields a document without labels for each line; a blank line is an empty document."""
    for number, line in lines:
        try:
            yield Row(number, decode(line), [])
        except BadRowError as bad:
            yield bad.at(number)


def fasttext(lines: Lines, layout: Layout) -> Parsed:
    """Yields a document for each line; its labels are the words that begin with `layout.prefix`, without it.

    As fastText does, labels are recognised anywhere in a line. A comma between the labels and the text is left out.
    """
    for number, line in lines:
        if not line.strip():
            yield BlankLine(number)
            continue
        try:
            yield _fasttext_row(number, decode(line), layout)
        except BadRowError as bad:
            yield bad.at(number)


def _fasttext_row(number: int, line: str, layout: Layout) -> Row:
    prefix = layout.prefix
    words = line.split(" ") if "\t" not in line else line.split()
    names = [
        name.removesuffix(",")
        for word in words
        if word.startswith(prefix)
        for name in word.removeprefix(prefix).split(f",{prefix}")
    ]
    kept = [word for word in words if not word.startswith(prefix)]
    notes = ("empty label left out",) if not all(names) else ()
    if names and kept and kept[0] == ",":
        kept = kept[1:]
    fields = {"text": " ".join(kept), "labels": [name for name in names if name]}
    return row_of_fields(number, fields, layout, notes)
