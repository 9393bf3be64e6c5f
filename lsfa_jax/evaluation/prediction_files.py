"""The file format of predictions, which bin/predict writes and bin/evaluate reads: JSON Lines, CSV or TSV.

JSON Lines: {"id": ..., "labels": [...], "probabilities": [...]} for each document, best label first; explained, a fused
model's predictions also have "votes", for each label a list of [word, vote]. CSV and TSV in the
long layout: the columns document, rank, label, probability; a document without labels has one row in which the last
three are empty. In the wide layout: a row for each document, with its id and the probabilities of all labels, each in
the column of the label's name; the cell of a label that is left out is empty. In CSV and TSV, an apostrophe stands
before ids and labels that a spreadsheet would run as formulas, such as '=1+1; reading removes it.
"""

import csv
import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, NamedTuple, TextIO

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.reading.compression import read_lines
from lsfa_jax.data.reading.rows import BadRowError, Layout
from lsfa_jax.data.reading.tables import records
from lsfa_jax.util.console import UserError, note, plural

COLUMNS = ("document", "rank", "label", "probability")

# The column of the ids in the wide layout; the last one where a label has a name of the long layout.
_WIDE_IDS = ("document", "id", "document_id")

_JSON_EXAMPLE = '{"id": "7", "labels": ["best", "second"], "probabilities": [0.9, 0.4]}'

Write = Callable[["Predicted"], object]
"""Writes one document."""


class Predicted(NamedTuple):
    """A document with the names of its predicted labels, best first; it may have none."""

    id: str | int
    """The document's id, or its running number from 1; "" where a file holds none."""
    labels: list[str]
    probabilities: list[float] | None
    """As many as labels; None where a file holds none. The writers need them."""
    text: str = ""
    votes: Sequence[Sequence[tuple[str, float]]] | None = None
    """For each label the words by which a linear model voted for it, and their votes; None without one."""


def have_probabilities(predicted: Iterable[Predicted]) -> bool:
    """Whether every predicted label has a probability."""
    return all(document.probabilities is not None or not document.labels for document in predicted)


def without(document: Predicted, labels: Sequence[str]) -> Predicted:
    """Returns a document without some of its predicted labels."""
    if not labels:
        return document
    kept = [place for place, label in enumerate(document.labels) if label not in labels]
    probabilities = document.probabilities and [document.probabilities[place] for place in kept]
    return document._replace(labels=[document.labels[place] for place in kept], probabilities=probabilities)


@dataclass
class Irregularities:
    """What is unusual about the documents of a file: how often, and where first."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, where: str) -> None:
        """Counts one case."""
        self.counts[what] += 1
        self.first.setdefault(what, where)

    def summary(self) -> str:
        """Returns them on one line; "" where there are none."""
        return ", ".join(
            f"{plural(number, 'document')} {what} (first {self.first[what]})"
            for what, number in self.counts.most_common()
        )


def writer(name: Literal["jsonl", "csv", "tsv"], stream: TextIO, neutralise: bool = True) -> Write:
    """Returns a function that writes one document after another to a stream; a header is written at once.

    Args:
        name: the format.
        stream: opened for text.
        neutralise: whether cells that a spreadsheet would run get an apostrophe.
    """
    if name == "jsonl":
        return lambda document: stream.write(_json_line(document))
    return _write_rows(stream, "," if name == "csv" else "\t", neutralise)


# What spreadsheets run, and what has been neutralised already.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)*|\.\d+)([eE][+-]?\d+)?")


def neutralised(cell: object) -> object:
    """Returns a cell that no spreadsheet runs: an apostrophe stands before a formula. Numbers stay as they are."""
    is_formula = isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell


def _restored(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _json_line(document: Predicted) -> str:
    row: dict[str, object] = {
        "id": document.id,
        "labels": document.labels,
        "probabilities": document.probabilities,
    }
    if document.votes is not None:
        row["votes"] = [[(word, round(vote, 4)) for word, vote in votes] for votes in document.votes]
    return json.dumps(row, ensure_ascii=False) + "\n"


def _row_writer(stream: TextIO, delimiter: str, neutralise: bool) -> Callable[[Iterable[object]], object]:
    # csv quotes the characters of its line terminator, and a lone carriage return must be quoted too; the file itself
    # has plain newlines, for programs that read line by line.
    def write_line(line: str) -> None:
        stream.write(line.removesuffix("\r\n") + "\n")

    write_row = csv.writer(SimpleNamespace(write=write_line), delimiter=delimiter, lineterminator="\r\n").writerow
    return (lambda cells: write_row(map(neutralised, cells))) if neutralise else write_row


def _write_rows(stream: TextIO, delimiter: str, neutralise: bool) -> Write:
    write_row = _row_writer(stream, delimiter, neutralise)
    write_row(COLUMNS)

    def write(document: Predicted) -> None:
        if not document.labels:
            write_row((document.id, "", "", ""))
        pairs = zip(document.labels, document.probabilities or (), strict=True)
        for rank, (label, probability) in enumerate(pairs, start=1):
            write_row((document.id, rank, label, probability))

    return write


def wide_writer(name: Literal["csv", "tsv"], stream: TextIO, labels: Sequence[str], neutralise: bool = True) -> Write:
    """Returns a function that writes a row for each document, with a column for each of the labels, in this order."""
    write_row = _row_writer(stream, "," if name == "csv" else "\t", neutralise)
    long_names = {label.strip().lower() for label in labels} & {"document", "label"}
    write_row((_WIDE_IDS[-1] if long_names else _WIDE_IDS[0], *labels))

    def write(document: Predicted) -> None:
        cells = dict(zip(document.labels, document.probabilities or (), strict=True))
        write_row((document.id, *(cells.get(label, "") for label in labels)))

    return write


def read_predictions(path: Path, irregularities: Irregularities) -> list[Predicted]:
    """Reads the predictions of a file, plain or compressed.

    JSON Lines: an object a line with "labels", best first; "probabilities" and "id" are optional. TSV or CSV: a header
    with document and label, rank and probability are optional; a row is one label of a document; rows are ordered by
    rank, else by probability, else unchanged, documents by their first row. In the wide layout the first column is
    document, id or document_id, and each other one a label with its probabilities, or empty cells. A label that a
    document has twice counts where it is best, and probabilities that rise are sorted; both are counted as
    irregularities.

    Raises:
        UserError: the file cannot be read or a row is not a prediction; the message names the line.
    """
    lines = read_lines(path)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        raise UserError(f"{path}: holds no predictions. Expected a document a line: {_JSON_EXAMPLE}")
    parse = _read_json_lines if first[1].lstrip()[:1] == b"{" else _read_table
    return [_tidy(document, where, irregularities) for where, document in parse(path, first, lines)]


def _read_json_lines(
    path: Path, first: tuple[int, bytes], lines: Iterator[tuple[int, bytes]]
) -> Iterator[tuple[str, Predicted]]:
    for number, line in chain([first], lines):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{where}: not JSON, got {reprlib.repr(line)}. Expected {_JSON_EXAMPLE}") from None
        if not isinstance(row, dict) or not isinstance(row.get("labels"), list):
            raise UserError(f'{where}: no list "labels", got {reprlib.repr(row)}. Expected {_JSON_EXAMPLE}')
        labels, values, name = row["labels"], row.get("probabilities"), row.get("id")
        if not all(isinstance(label, str) for label in labels):
            raise UserError(f'{where}: a label that is no string, got {reprlib.repr(labels)}. Expected ["name", ...]')
        if values is not None:
            if not isinstance(values, list) or len(values) != len(labels):
                raise UserError(f"{where}: expected {len(labels)} probabilities, as many as labels")
            values = [_number(value, where) for value in values]
        yield where, Predicted("" if name is None else str(name), labels, values)


def _read_table(
    path: Path, first: tuple[int, bytes], lines: Iterator[tuple[int, bytes]]
) -> Iterator[tuple[str, Predicted]]:
    # The one that comes first: the name of the first column has neither.
    delimiter = next((character for character in first[1].decode(errors="replace") if character in ",\t"), ",")
    layout = Layout("tsv" if delimiter == "\t" else "csv", delimiter=delimiter)
    _, header, _ = next(records(chain([first], lines), layout))
    exact = [] if isinstance(header, BadRowError) else [*map(_restored, header)]
    names = [name.strip().lower() for name in exact]
    layout = replace(layout, columns=tuple(exact))
    is_long = {"document", "label"} <= set(names) and names[0] != _WIDE_IDS[-1]
    if is_long and len(set(names)) == len(names):
        return _long_rows(_rows(path, lines, layout), names)
    if not is_long and len(names) > 1 and names[0] in _WIDE_IDS and len(set(exact)) == len(exact):
        return _wide_rows(_rows(path, lines, layout), exact[1:])
    raise UserError(
        f"{path}:{first[0]}: expected a header with document, label and perhaps rank and probability, or with document "
        f"and then a column for each label, separated by tabs or commas, got {reprlib.repr(first[1])}; or JSON Lines "
        f"such as {_JSON_EXAMPLE}"
    )


def _rows(path: Path, lines: Iterator[tuple[int, bytes]], layout: Layout) -> Iterator[tuple[str, list[str]]]:
    """Yields the cells of each row of a table with its place."""
    names = layout.columns
    for number, cells, _ in records(lines, layout):
        where = f"{path}:{number}"
        if isinstance(cells, BadRowError):
            raise UserError(f"{where}: {cells.at(number)}")
        if not cells or cells == [""]:
            continue
        if len(cells) != len(names):
            shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            raise UserError(f"{where}: {plural(len(cells), 'column')}, but the header has {len(names)} ({shown})")
        yield where, [*map(_restored, cells)]


def _long_rows(rows: Iterator[tuple[str, list[str]]], names: list[str]) -> Iterator[tuple[str, Predicted]]:
    columns = {name: names.index(name) for name in COLUMNS if name in names}
    documents: dict[str, tuple[str, list[tuple[float, str, float]]]] = {}
    for where, cells in rows:
        value = {name: cells[column] for name, column in columns.items()}
        labels = documents.setdefault(value["document"], (where, []))[1]
        if not any(cell for name, cell in value.items() if name != "document"):
            continue  # A document without labels.
        rank = _number(value["rank"], where) if "rank" in value else 0.0
        probability = _number(value["probability"], where) if "probability" in value else 0.0
        labels.append((rank if "rank" in value else -probability, value["label"], probability))
    for name, (where, labels) in documents.items():
        labels.sort(key=lambda row: row[0])  # stable: without rank and probability the order stays
        probabilities = [row[2] for row in labels] if "probability" in columns else None
        yield where, Predicted(name, [row[1] for row in labels], probabilities)


def _wide_rows(rows: Iterator[tuple[str, list[str]]], labels: list[str]) -> Iterator[tuple[str, Predicted]]:
    for where, (name, *cells) in rows:
        pairs = [(_number(cell, where), label) for cell, label in zip(cells, labels, strict=True) if cell.strip()]
        pairs.sort(key=lambda pair: -pair[0])
        yield where, Predicted(name, [label for _, label in pairs], [value for value, _ in pairs])


def _tidy(document: Predicted, where: str, irregularities: Irregularities) -> Predicted:
    labels, values = document.labels, document.probabilities
    if values is not None and any(value < following for value, following in pairwise(values)):
        irregularities.add("whose probabilities rise, sorted", where)
        pairs = sorted(zip(values, labels, strict=True), key=lambda pair: -pair[0])
        values, labels = [value for value, _ in pairs], [label for _, label in pairs]
    kept = {label: place for place, label in reversed(list(enumerate(labels)))}
    if len(kept) < len(labels):
        irregularities.add("with a label predicted twice, counted once", where)
        places = sorted(kept.values())
        labels = [labels[place] for place in places]
        values = None if values is None else [values[place] for place in places]
    return Predicted(document.id, labels, values)


def matched(
    predicted: Sequence[Predicted], ids: Sequence[str], path: Path, irregularities: Irregularities
) -> list[Predicted]:
    """Puts predictions in the order of the documents of the truth.

    Args:
        predicted: the predictions.
        ids: the ids of the N documents, "" where one has none.
        path: of the predictions, for messages.
        irregularities: counts documents without a prediction (they get an empty one) and predictions for documents
            that are not in the truth.

    Returns:
        N predictions, by id where all documents on both sides have one, else in order.

    Raises:
        UserError: there are none, an id occurs twice, no id is in both, or the numbers of documents differ without ids.
    """
    if not predicted:
        raise UserError(f"{path}: holds a header and no predictions")
    if not (ids and all(ids) and all(document.id for document in predicted)):
        if len(predicted) != len(ids):
            raise UserError(
                f"{path}: {plural(len(predicted), 'document')} with predictions, but {len(ids):,} with labels; without "
                "ids on both sides they are matched in order, so the numbers must be equal"
            )
        note(f"{path}: matched with the documents in order, because not all on both sides have ids")
        return list(predicted)
    by_id = {str(document.id): document for document in predicted}
    for names, what in (([document.id for document in predicted], str(path)), (ids, "the file with the labels")):
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise UserError(f"{what}: the id {twice!r} occurs twice, so predictions cannot be matched with documents")
    known = set(ids)
    if not known & by_id.keys():
        raise UserError(
            f"{path}: no document is among the {len(ids):,} with labels: its ids are such as "
            f"{predicted[0].id!r}, those of the labels such as {ids[0]!r}"
        )
    for name in by_id:
        if name not in known:
            irregularities.add("not among those with labels, left out", repr(name))
    for name in ids:
        if name not in by_id:
            irregularities.add("without a prediction, scored 0", repr(name))
    return [by_id.get(name, Predicted(name, [], None)) for name in ids]


def as_arrays(
    predicted: Sequence[Predicted], label_ids: dict[str, int], threshold: float
) -> tuple[np.ndarray, np.ndarray, Ragged]:
    """Converts predictions to arrays.

    Args:
        predicted: the predictions of N documents, each with W labels at most.
        label_ids: the number of every label that occurs.
        threshold: the least probability at which a label counts as predicted.

    Returns:
        int32[N, W], the labels best first, -1 beyond them; float32[N, W], their probabilities, 0 where there are none;
        and the labels that reach the threshold.
    """
    width = max((len(document.labels) for document in predicted), default=0)
    ranked = np.full((len(predicted), width), -1, np.int32)
    probabilities = np.zeros(ranked.shape, np.float32)
    reached: list[list[int]] = [[] for _ in predicted]
    for row, document in enumerate(predicted):
        ids = [label_ids[label] for label in document.labels]
        ranked[row, : len(ids)] = ids
        if document.probabilities is not None:
            # In float32, as the model's probabilities were compared when the threshold was chosen.
            probabilities[row, : len(ids)] = document.probabilities
            reached[row] = ranked[row][(probabilities[row] >= np.float32(threshold)) & (ranked[row] >= 0)].tolist()
    return ranked, probabilities, Ragged.from_rows(reached)


def _number(value: object, where: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: expected a number, got {reprlib.repr(value)}")
    return number
