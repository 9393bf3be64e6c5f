"""The least that a table of any library has, for environments without pandas and polars."""

import numpy as np


class Table:
    """Named columns of equal length."""

    def __init__(self, columns):
        self._columns = columns
        self.columns = list(columns)
        self.shape = (len(columns[self.columns[0]]), len(columns))

    def __getitem__(self, name):
        return self._columns[name]

    def __iter__(self):
        return iter(self.columns)

    def __array__(self, dtype=None, copy=None):
        return np.array(list(zip(*self._columns.values(), strict=True)), dtype or object)
