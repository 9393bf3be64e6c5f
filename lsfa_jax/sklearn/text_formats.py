"""Parses texts in the forms that Python's users have: lists, Series, arrays, tables of one column, lists of words."""

import reprlib
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
from scipy import sparse

from lsfa_jax.sklearn.tables import column_names, is_missing, is_table


def parse_texts(X: Any) -> list[str]:
    """Returns the texts of N documents.

    Args:
        X: N strings, or N lists of words, which are joined by spaces, in any iterable with an order; or a table or
            array with one column of them.

    Raises:
        ValueError: X has another form, a table has several columns, or a document is not a text; the message names the
            document, counted from 0.
    """
    return [_text(number, row) for number, row in enumerate(_rows(X))]


def _rows(X: Any) -> list[Any]:
    if is_table(X):
        names = column_names(X)
        if len(names) != 1:
            raise ValueError(
                f"X is a table with the columns {reprlib.repr(names)}, expected one column of texts: choose it, "
                f"such as X[{_likely_text(X, names)!r}]"
            )
        return list(X[names[0]])
    if isinstance(X, Mapping):
        key = next(iter(X), "text")
        raise ValueError(f"X is a {type(X).__name__}, expected a list of texts: choose its texts, such as X[{key!r}]")
    if isinstance(X, Set):
        raise ValueError(f"X is a {type(X).__name__}, which has no order; expected a list of texts")
    if isinstance(X, str | bytes) or not isinstance(X, Iterable) or sparse.issparse(X):
        raise ValueError(f"expected a list of texts (strings), got one {type(X).__name__}; for one text, write [text]")
    if isinstance(X, np.ndarray) and X.ndim != 1:
        if X.ndim != 2 or X.shape[1] != 1:
            raise ValueError(f"X is an array {X.shape}, expected a list of texts: choose a column, such as X[:, 0]")
        return list(X[:, 0])
    return list(X)


def _likely_text(table: Any, names: list[Any]) -> Any:
    """Returns the name of the column with the longest first string, or the first name."""
    first = {name: next(iter(table[name]), "") for name in dict.fromkeys(names)}
    return max(first, key=lambda name: len(first[name]) if isinstance(first[name], str) else -1, default="text")


def _text(number: int, row: Any) -> str:
    if isinstance(row, str):
        return str(row)
    if is_missing(row):
        raise ValueError(f'text {number} is missing ({row!r}): fill it, such as X.fillna(""), or leave the row out')
    if isinstance(row, bytes):
        raise ValueError(f"text {number} is bytes, expected a string: decode it, such as text.decode('utf-8')")
    if isinstance(row, Iterable) and not isinstance(row, Mapping | Set):
        words = list(row)
        if all(isinstance(word, str) for word in words):
            return _joined(number, words)
    raise ValueError(f"text {number} is a {type(row).__name__}, expected a string: this classifier takes raw texts")


def _joined(number: int, words: list[str]) -> str:
    """Joins the words of a text that was split before."""
    # Rows of a table, such as (text, label), would be read as one text.
    spaced = next((word for word in words if len(words) > 1 and len(word.split()) > 1), None)
    if spaced is not None:
        raise ValueError(
            f"text {number} is a list of several texts ({reprlib.repr(spaced)} is one of them), expected one string or "
            "a list of words: choose one, such as [row[0] for row in X], or join them by ' '.join(row)"
        )
    return " ".join(words)
