"""Parses labels in the forms that scikit-learn's users have: sets of names, single labels, indicator matrices."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

Form = Literal["sets", "single", "dense", "sparse"]
"""Sets of label names, one label each, or an indicator matrix."""


@dataclass(frozen=True)
class ParsedLabels:
    """The labels of N documents, by name."""

    form: Form
    """The form that they were parsed from."""
    values: np.ndarray
    """[L], the classes in sorted order: names, single labels of any type, or the matrix's column numbers."""
    names: list[tuple[str, ...]]
    """The label names of each document; a class that is not a string is named as it is printed."""

    @property
    def classes(self) -> list[str]:
        """The name of each class."""
        return [str(value) for value in self.values.tolist()]

    @classmethod
    def of(cls, y: Any) -> "ParsedLabels":
        """Parses labels of any form.

        Raises:
            ValueError: they have none of the forms, or a name is empty.
        """
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        if sparse.issparse(y):
            return cls._indicator("sparse", sparse.csr_array(y))
        if isinstance(y, str | bytes) or not isinstance(y, Iterable):
            raise ValueError(f"expected the labels of each text, got one {type(y).__name__}")
        array = np.asarray(y) if hasattr(y, "__array__") else None
        if array is not None and array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "biuf":
            return cls._indicator("dense", array)
        if array is not None and array.ndim != 1:
            return cls._single(array)
        rows = list(y)
        # The first document decides the form; a later one that does not match raises below.
        if rows and isinstance(rows[0], Iterable) and not isinstance(rows[0], str | bytes):
            return cls._sets(rows)
        return cls._single(rows if array is None else array)

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

    @classmethod
    def _sets(cls, rows: list[Any]) -> "ParsedLabels":
        names = []
        for number, row in enumerate(rows):
            if isinstance(row, str | bytes) or not isinstance(row, Iterable):
                raise ValueError(f"labels of text {number}: expected a list of label names, got {row!r}")
            distinct = tuple(dict.fromkeys(row))
            for name in distinct:
                if not isinstance(name, str) or not name:
                    raise ValueError(
                        f"labels of text {number}: expected label names, strings that are not empty, got {name!r}; "
                        "an indicator matrix is a NumPy array or a scipy sparse matrix"
                    )
            names.append(tuple(map(str, distinct)))
        return cls("sets", np.array(sorted({name for row in names for name in row}), dtype=str), names)

    @classmethod
    def _single(cls, y: Any) -> "ParsedLabels":
        # scikit-learn warns of a matrix of one column and raises for a wider one.
        column = column_or_1d(y, warn=True)
        if column.dtype.kind == "O" and not all(isinstance(label, str) for label in column):
            odd = next(label for label in column if not isinstance(label, str))
            raise ValueError(f"expected a label name for each text, got {odd!r}")
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            raise ValueError("Input y contains NaN or infinity")
        check_classification_targets(column)
        values = np.unique(column)
        if "" in values.tolist():
            number = column.tolist().index("")
            raise ValueError(f"label of text {number}: expected a label name, got an empty string")
        return cls("single", values, [(str(label),) for label in column.tolist()])

    @classmethod
    def _indicator(cls, form: Form, matrix: Any) -> "ParsedLabels":
        rows = sparse.csr_array(matrix)
        rows.eliminate_zeros()
        if not np.all(rows.data == 1):
            raise ValueError("indicator matrix: expected zeros and ones only")
        parts = np.split(rows.indices, rows.indptr[1:-1]) if rows.shape[0] else []
        return cls(form, np.arange(rows.shape[1]), [tuple(map(str, sorted(row.tolist()))) for row in parts])
