"""Labels and filters of the Extreme Classification Repository in text files: trn_X_Y.txt, filter_labels_test.txt."""

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.reading.compression import Stream, read_lines
from lsfa_jax.util.console import UserError

_PAIR = "the numbers of a document and of a label, such as 12 345"


def sparse_label_rows(stream: Stream) -> Iterator[list[str]]:
    """Yields the labels of each document of a file whose first line is "documents labels".

    Each following line is a document, with number:value for each of its labels; values above 0 count.

    Raises:
        UserError: a line has another form.
    """
    lines = stream.lines()
    _, header = next(lines, (1, b""))
    sizes = header.split()
    if len(sizes) != 2 or not all(size.isdigit() for size in sizes):
        raise UserError(f"{stream.name}:1: expected the numbers of documents and labels, got {header[:60]!r}")
    num_labels = int(sizes[1])
    for number, line in lines:
        names = []
        for cell in line.split():
            label, _, value = cell.partition(b":")
            try:
                if not 0 <= int(label) < num_labels:
                    raise ValueError
                counts = float(value or b"1") > 0
            except ValueError:
                raise UserError(
                    f"{stream.name}:{number}: expected label:value with labels below {num_labels:,}, got {cell[:60]!r}"
                ) from None
            if counts:
                names.append(str(int(label)))
        yield names


def read_filter(path: Path) -> Ragged:
    """Reads pairs of document and label, numbers from 0, that are neither predicted nor counted.

    Returns:
        int64, the labels of each document up to the last that has any.

    Raises:
        UserError: the file cannot be read, or a line is no such pair.
    """
    pairs = array("q")
    for number, line in read_lines(path):
        cells = line.split()
        # Some of these files have numbers with a decimal point.
        numbers = [cell.removesuffix(b".0") for cell in cells]
        if cells and not (len(cells) == 2 and all(cell.isdigit() for cell in numbers)):
            raise UserError(f"{path}:{number}: expected {_PAIR}, got {line[:60]!r}")
        if cells:
            pairs.extend(map(int, numbers))
    documents, labels = np.array(pairs, np.int64).reshape(-1, 2).T
    return Ragged.from_sizes(labels[np.argsort(documents, kind="stable")], np.bincount(documents))
