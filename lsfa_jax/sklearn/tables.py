"""Tables and missing values of pandas and polars, recognised without importing either."""

from typing import Any, TypeGuard

import numpy as np


def is_table(value: object) -> TypeGuard[Any]:
    """Whether a value is a two-dimensional table with named columns, such as a DataFrame of pandas or polars."""
    return hasattr(value, "columns") and len(getattr(value, "shape", ())) == 2


def column_names(table: Any) -> list[Any]:
    """Returns the names of a table's columns in order."""
    return list(table.columns)


def is_missing(value: object) -> bool:
    """Whether a value is None, NaN, or pandas' NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))
