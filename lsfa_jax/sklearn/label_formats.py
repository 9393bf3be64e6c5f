"""Parses labels in the forms that scikit-learn's users have: sets, scores, single labels, matrices, tables."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, TypeGuard, cast, get_args

import numpy as np
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from lsfa_jax.sklearn import label_strings
from lsfa_jax.sklearn.tables import column_names, is_missing, is_table

Form = Literal["sets", "single", "dense", "sparse"]
"""Sets of labels, one label each, or an indicator matrix."""

Label = str | int

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class ParsedLabels:
    """The labels of N documents, by name."""

    form: Form
    """The form that `LSFA.predict` returns."""
    values: np.ndarray
    """[L], the classes: names or numbers in sorted order, or a matrix's column names or numbers in its order."""
    names: list[tuple[str, ...]]
    """The label names of each document; a class that is not a string is named as it is printed."""

    @property
    def classes(self) -> list[str]:
        """The name of each class."""
        return [str(value) for value in self.values.tolist()]

    @property
    def is_unnamed_matrix(self) -> bool:
        """Whether the classes are the column numbers of a matrix."""
        return self.form in ("dense", "sparse") and np.array_equal(self.values, np.arange(len(self.values)))

    @classmethod
    def of(cls, y: Any, known: Collection[str] = ()) -> "ParsedLabels":
        """Parses labels of any form; docs/python_api.md lists them.

        Args:
            y: the labels of N documents.
            known: names that are labels however they look.

        Raises:
            ValueError: they have none of the forms, a label is missing or empty, or single labels look like several.
        """
        labels = _parse(y)
        _check_names(labels.classes)
        names = set(labels.classes) - set(known)
        if labels.form == "single":
            label_strings.check_single(names)
        if labels.form == "sets":
            label_strings.warn_if_unusual(names)
        return labels

    @classmethod
    def named(cls, names: list[str]) -> "ParsedLabels":
        """Returns the classes of a model whose labels were sets."""
        return cls("sets", np.array(sorted(names)), [])

    @classmethod
    def restored(cls, form: object, classes: object) -> "ParsedLabels":
        """Returns the classes that a file holds; raises ValueError where it does not."""
        values = np.array(classes)
        if form not in get_args(Form) or not isinstance(classes, list) or values.ndim != 1:
            raise ValueError("no form or no classes")
        return cls(cast(Form, form), values, [])


def _check_names(names: list[str]) -> None:
    """Raises ValueError if a name is empty or cannot be written to a file."""
    for name in names:
        if not name or _SURROGATE.search(name):
            problem = "half of a surrogate pair" if name else "an empty string"
            raise ValueError(f"expected label names, got {problem} ({name!r})")


def _parse(y: Any) -> ParsedLabels:
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    if sparse.issparse(y):
        return _matrix("sparse", y)
    if isinstance(y, str | bytes | Mapping | Set) or not isinstance(y, Iterable):
        raise ValueError(f"expected the labels of each text, in the texts' order, got one {type(y).__name__}")
    if is_table(y):
        if len(column_names(y)) > 1:
            return _table(y)
        # scikit-learn warns of a matrix of one column.
        y = column_or_1d(y, warn=True)
    if isinstance(y, np.ndarray) and y.ndim == 2 and y.shape[1] > 1:
        if (array := _as_numbers(y)).dtype.kind in "biuf":
            return _matrix("dense", array)
    elif isinstance(y, np.ndarray) and y.ndim != 1:
        y = column_or_1d(y, warn=True)
    return _rows(list(y))


def _rows(rows: list[Any]) -> ParsedLabels:
    """Parses one value for each document; the first that is not missing decides the form."""
    first = next((row for row in rows if not is_missing(row)), None)
    if isinstance(first, Mapping):
        return _scores(rows)
    if not _is_list(first):
        return _single(rows)
    lists = [list(row) if _is_list(row) else row for row in rows]
    if _is_multi_hot(lists):
        return _matrix("dense", np.array(lists))
    # A set has no order that is the same in each process.
    ordered = [sorted(row, key=str) if isinstance(given, Set) else row for row, given in zip(lists, rows, strict=True)]
    return _sets(ordered)


def _sets(rows: list[Any]) -> ParsedLabels:
    """Parses a list of labels, names or integers, for each document."""
    sets = [_labels(number, row) for number, row in enumerate(rows)]
    distinct = {label for row in sets for label in row}
    names = [label for label in distinct if isinstance(label, str)]
    if 0 < len(names) < len(distinct):
        number = next(label for label in distinct if not isinstance(label, str))
        raise ValueError(f"labels are names and numbers, such as {names[0]!r} and {number!r}: expected one of both")
    values = np.array(sorted(names), str) if len(names) == len(distinct) else np.array(sorted(distinct))
    return ParsedLabels("sets", values, [tuple(map(str, row)) for row in sets])


def _labels(number: int, row: object) -> tuple[Label, ...]:
    """Returns the distinct labels of a document, in their order."""
    if is_missing(row):
        raise ValueError(f"labels of text {number} are missing ({row!r}): write [] for a text without labels")
    if not _is_list(row):
        raise ValueError(f"labels of text {number}: expected a list of labels, got {row!r}")
    return tuple(dict.fromkeys(_label(f"labels of text {number}", label) for label in row))


def _label(where: str, label: object) -> Label:
    """Returns a label: an integer, or a name as files are read, in NFC and without white space around it."""
    if isinstance(label, str):
        name = unicodedata.normalize("NFC", label.replace("\0", " ")).strip()
        if not name:
            raise ValueError(f"{where}: expected a label name, got an empty string ({label!r})")
        return name
    if isinstance(label, Integral) and not isinstance(label, bool):
        return int(label)
    advice = "; an indicator matrix is a NumPy array or a scipy sparse matrix" if isinstance(label, Real) else ""
    raise ValueError(f"{where}: expected label names or integers, got {label!r}{advice}")


def _is_list(row: object) -> TypeGuard[Iterable[object]]:
    return isinstance(row, Iterable) and not isinstance(row, str | bytes | Mapping)


def _is_multi_hot(rows: list[Any]) -> bool:
    """Whether rows are those of an indicator matrix: zeros and ones, as many in each, and not [0, 1] in all of them.

    Those would be lists of the labels 0 and 1.
    """
    widths = {len(row) if isinstance(row, list) else 0 for row in rows}
    if len(widths) > 1 or widths == {0}:
        return False
    numbers = all(isinstance(value, Real | np.bool_) and value in (0, 1) for row in rows for value in row)
    return numbers and any(row != sorted(set(row)) for row in rows)


def _scores(rows: list[Any]) -> ParsedLabels:
    """Parses a dict for each document, from labels to booleans, zeros and ones, or scores."""
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"labels of text {number}: expected a dict as for other texts, got {row!r}")
    return _sets(
        [[label for label, score in row.items() if _is_set(number, label, score)] for number, row in enumerate(rows)]
    )


def _is_set(number: int, label: object, score: object) -> bool:
    """Whether a score means that a document has a label."""
    if not isinstance(score, Real | np.bool_) or is_missing(score):
        raise ValueError(f"labels of text {number}: expected 0 or 1 for {label!r}, got {score!r}")
    value = float(score)
    if 0 < value < 0.5:
        raise ValueError(
            f"labels of text {number}: {label!r} has the score {score!r}, from which it is not clear whether it is a "
            "label: choose a threshold, such as [{name: score >= 0.5 for name, score in row.items()} for row in y]"
        )
    return value > 0


def _single(rows: list[Any]) -> ParsedLabels:
    """Parses one label for each document, a name or a number."""
    for number, label in enumerate(rows):
        if is_missing(label):
            raise ValueError(
                f"Input y contains NaN: expected a label name or number for each text, got {label!r} for text {number}"
            )
    if all(isinstance(label, Real | np.bool_) for label in rows):
        column = np.asarray(rows)
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            raise ValueError("Input y contains NaN or infinity")
        check_classification_targets(column)
    else:
        column = np.array([_name(number, label) for number, label in enumerate(rows)], str)
    return ParsedLabels("single", np.unique(column), [(str(label),) for label in column.tolist()])


def _name(number: int, label: object) -> Label:
    if not isinstance(label, str):
        raise ValueError(f"label of text {number}: expected a label name, as for other texts, got {label!r}")
    return _label(f"label of text {number}", label)


def _as_numbers(array: np.ndarray) -> np.ndarray:
    """Converts an array of objects that are all numbers, and returns any other unchanged."""
    is_numeric = array.dtype.kind == "O" and all(isinstance(value, Real | np.bool_) for value in array.flat)
    return np.array(array.tolist()) if is_numeric else array


def _table(table: Any) -> ParsedLabels:
    """Parses an indicator matrix whose columns are the labels."""
    names = column_names(table)
    if len(set(map(str, names))) < len(names):
        raise ValueError(f"y has columns with the same name: {names!r}")
    columns = []
    for name in names:
        column = _as_numbers(np.asarray(table[name]))
        if column.dtype.kind not in "biuf" or not np.isin(column, (0, 1)).all():
            raise ValueError(
                f"y has the column {name!r}, which holds more than zeros and ones (first rows: "
                f"{column[:3].tolist()}): choose the columns of the labels, such as y[['a', 'b']], and fill missing "
                "values; for columns of label names, give a list of names for each text, such as "
                "[row.dropna().tolist() for _, row in y.iterrows()]"
            )
        columns.append(column != 0)
    is_same_kind = all(isinstance(name, str) for name in names) or all(isinstance(name, Integral) for name in names)
    return _matrix("dense", np.stack(columns, axis=1), np.array(names if is_same_kind else [str(n) for n in names]))


def _matrix(form: Form, matrix: Any, values: np.ndarray | None = None) -> ParsedLabels:
    """Parses an indicator matrix [N, L]; `values` are the names of its columns, by default their numbers."""
    rows = sparse.csr_array(matrix)
    rows.eliminate_zeros()
    if not np.all(rows.data == 1):
        raise ValueError(
            "indicator matrix: expected zeros and ones only; for counts or scores write (y > 0).astype(int), for label "
            "numbers a list of them for each text"
        )
    values = np.arange(rows.shape[1]) if values is None else values
    names = [str(value) for value in values.tolist()]
    parts = np.split(rows.indices, rows.indptr[1:-1]) if rows.shape[0] else []
    return ParsedLabels(form, values, [tuple(names[column] for column in sorted(row.tolist())) for row in parts])
