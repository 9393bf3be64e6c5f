"""Reads anyone's predictions, without a model: JSON Lines as bin/predict writes them, or rows of a TSV or CSV file."""

import json
import math
import reprlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.reading.compression import read_lines
from lsfa_jax.data.reading.rows import BadRowError, Layout
from lsfa_jax.data.reading.tables import records
from lsfa_jax.util.console import UserError, note

_COLUMNS = ("document", "rank", "label", "probability")
_JSON_EXAMPLE = '{"id": "7", "labels": ["best", "second"], "probabilities": [0.9, 0.4]}'


@dataclass(frozen=True)
class Listed:
    """The labels that were predicted for one document, best first."""

    id: str
    labels: list[str]
    probabilities: list[float] | None


@dataclass
class Findings:
    """What is worth saying about a file: how often, and where first."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, where: str) -> None:
        """Counts one case."""
        self.counts[what] += 1
        self.first.setdefault(what, where)

    def summary(self) -> str:
        """Returns them on one line; "" where there are none."""
        return ", ".join(f"{number:,} {what} (first {self.first[what]})" for what, number in self.counts.most_common())


def read_predictions(path: Path, findings: Findings) -> list[Listed]:
    """Reads the predictions of a file, plain or compressed.

    JSON Lines: an object a line with "labels", best first, and where there are some "probabilities" and "id". TSV or
    CSV: a header with document, label and where there are some rank and probability; a row is one label of a document;
    rows are ordered by rank, else by probability, else as they stand, documents by their first row. A label that a
    document has twice is counted where it is best, and noted; probabilities that do not fall are put in order, and
    noted.

    Raises:
        UserError: the file cannot be read or a row is no prediction; the message names the line.
    """
    lines = read_lines(path)
    rows = ((number, line) for number, line in lines if line.strip())
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path}: holds no predictions. Expected a document a line: {_JSON_EXAMPLE}")
    parse = _json_lines if first[1].lstrip()[:1] == b"{" else _long_form
    return [_tidy(one, where, findings) for where, one in parse(path, first, rows)]


def _json_lines(
    path: Path, first: tuple[int, bytes], rows: Iterator[tuple[int, bytes]]
) -> Iterator[tuple[str, Listed]]:
    for number, line in _chained(first, rows):
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{where}: not JSON, got {reprlib.repr(line)}. Expected {_JSON_EXAMPLE}") from None
        if not isinstance(row, dict) or not isinstance(row.get("labels"), list):
            raise UserError(f'{where}: no list "labels", got {reprlib.repr(row)}. Expected {_JSON_EXAMPLE}')
        labels, values, own = row["labels"], row.get("probabilities"), row.get("id")
        if not all(isinstance(label, str) for label in labels):
            raise UserError(f'{where}: a label that is no string, got {reprlib.repr(labels)}. Expected ["name", ...]')
        if values is not None:
            if not isinstance(values, list) or len(values) != len(labels):
                raise UserError(f"{where}: expected {len(labels)} probabilities, as many as labels")
            values = [_number(value, where) for value in values]
        yield where, Listed("" if own is None else str(own), labels, values)


def _long_form(path: Path, first: tuple[int, bytes], rows: Iterator[tuple[int, bytes]]) -> Iterator[tuple[str, Listed]]:
    delimiter = "\t" if b"\t" in first[1] else ","
    lines = iter([first])
    _, header, _ = next(records(lines, Layout("tsv", delimiter=delimiter)))
    names = [] if isinstance(header, BadRowError) else [name.strip().lower() for name in header]
    if not {"document", "label"} <= set(names) or len(set(names)) < len(names):
        raise UserError(
            f"{path}:{first[0]}: expected a header with document, label and perhaps rank and probability, separated by "
            f"tabs or commas, got {reprlib.repr(first[1])}; or JSON Lines such as {_JSON_EXAMPLE}"
        )
    layout = Layout("tsv" if delimiter == "\t" else "csv", delimiter=delimiter, columns=tuple(names))
    columns = {name: names.index(name) for name in _COLUMNS if name in names}
    documents: dict[str, tuple[str, list[tuple[float, str, float]]]] = {}
    for number, cells, _ in records(rows, layout):
        where = f"{path}:{number}"
        if isinstance(cells, BadRowError):
            raise UserError(f"{where}: {cells.at(number)}")
        if len(cells) != len(names):
            raise UserError(f"{where}: {len(cells)} columns, but the header has {len(names)} ({', '.join(names)})")
        value = {name: cells[place] for name, place in columns.items()}
        own = documents.setdefault(value["document"], (where, []))[1]
        if not any(cell for name, cell in value.items() if name != "document"):
            continue  # A document that is given no label.
        rank = _number(value["rank"], where) if "rank" in value else 0.0
        probability = _number(value["probability"], where) if "probability" in value else 0.0
        own.append((rank if "rank" in value else -probability, value["label"], probability))
    for name, (where, own) in documents.items():
        own.sort(key=lambda row: row[0])  # stable: without rank and probability, as they stand
        probabilities = [row[2] for row in own] if "probability" in columns else None
        yield where, Listed(name, [row[1] for row in own], probabilities)


def _tidy(one: Listed, where: str, findings: Findings) -> Listed:
    labels, values = one.labels, one.probabilities
    if values is not None and any(value < following for value, following in pairwise(values)):
        findings.add("documents whose probabilities do not fall, put in order", where)
        pairs = sorted(zip(values, labels, strict=True), key=lambda pair: -pair[0])
        values, labels = [value for value, _ in pairs], [label for _, label in pairs]
    kept = {label: place for place, label in reversed(list(enumerate(labels)))}
    if len(kept) < len(labels):
        findings.add("documents with a label predicted twice, counted once", where)
        places = sorted(kept.values())
        labels = [labels[place] for place in places]
        values = None if values is None else [values[place] for place in places]
    return Listed(one.id, labels, values)


def matched(listed: Sequence[Listed], ids: Sequence[str], path: Path, findings: Findings) -> list[Listed]:
    """Puts predictions in the order of the documents of the truth.

    Args:
        listed: the predictions.
        ids: the ids of the N documents, "" where one has none.
        path: of the predictions, for messages.
        findings: told of documents without a prediction (they get none) and of predictions for other documents.

    Returns:
        N predictions, by id where all of both have one, else in order.

    Raises:
        UserError: an id occurs twice, no id is in both, or the numbers of documents differ without ids.
    """
    if not (ids and all(ids) and all(one.id for one in listed)):
        if len(listed) != len(ids):
            raise UserError(
                f"{path}: {len(listed):,} documents with predictions, but {len(ids):,} with labels; without ids on "
                "both sides they are taken in order, so the numbers must be equal"
            )
        note(f"{path}: taken in the order of the documents, for ids are not on both sides")
        return list(listed)
    by_id = {one.id: one for one in listed}
    for names, what in (([one.id for one in listed], str(path)), (ids, "the file with the labels")):
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise UserError(f"{what}: the id {twice!r} occurs twice, so predictions cannot be told apart")
    wanted = set(ids)
    if not wanted & by_id.keys():
        raise UserError(
            f"{path}: none of its {len(listed):,} documents is among the {len(ids):,} with labels: ids such as "
            f"{listed[0].id!r} here and {ids[0]!r} there"
        )
    for one in listed:
        if one.id not in wanted:
            findings.add("documents that are not among those with labels, left out", repr(one.id))
    for name in ids:
        if name not in by_id:
            findings.add("documents without a prediction, which score 0", repr(name))
    return [by_id.get(name, Listed(name, [], None)) for name in ids]


def as_arrays(listed: Sequence[Listed], label_ids: dict[str, int], threshold: float) -> tuple[np.ndarray, Ragged]:
    """Makes predictions arrays.

    Args:
        listed: the predictions of N documents.
        label_ids: the number of every label that occurs.
        threshold: the probability from which on a label is given.

    Returns:
        int32[N, W], the labels best first, -1 beyond them; and the labels that reach the threshold.
    """
    width = max((len(one.labels) for one in listed), default=0)
    ranked = np.full((len(listed), width), -1, np.int32)
    given: list[list[int]] = [[] for _ in listed]
    for row, one in enumerate(listed):
        own = [label_ids[label] for label in one.labels]
        ranked[row, : len(own)] = own
        if one.probabilities is not None:
            # As float32, in which the model's probabilities were compared when the threshold was chosen.
            values = zip(own, one.probabilities, strict=True)
            given[row] = [label for label, value in values if np.float32(value) >= np.float32(threshold)]
    return ranked, Ragged.from_rows(given)


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: expected a number, got {reprlib.repr(value)}")
    return number


def _chained(first: tuple[int, bytes], rows: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    yield first
    yield from rows
