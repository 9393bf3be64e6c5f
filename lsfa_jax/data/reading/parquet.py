"""Parquet files, read in batches of rows."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lsfa_jax.data.reading.compression import HEAD_SIZE, refuse_bomb
from lsfa_jax.data.reading.detect import NUM_ROWS
from lsfa_jax.data.reading.fields import row_of_fields
from lsfa_jax.data.reading.label_names import in_order
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.data.reading.rows import BadRow, BadRowError, Parsed, Row
from lsfa_jax.data.reading.typed_layout import typed_layout
from lsfa_jax.util.console import UserError

PARQUET_MAGIC = b"PAR1"
_BATCH_ROWS = 64
_BUFFER_SIZE = 2**20


class Parquet:
    """A Parquet file.

    Attributes:
        layout: how it is read.

    Raises:
        UserError: the file is damaged, or has no columns for text and labels.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._path = path
        try:
            # Without these two options memory would hold a column of a complete row group at once.
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_SIZE)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from None
        schema = self._file.schema_arrow
        self.label_names: Mapping[str, str] = {}
        names = [field.name for field in schema if not _is_opaque(field.type)]
        if not names:
            kinds = ", ".join(f"'{field.name}' ({field.type})" for field in schema)
            raise UserError(f"{path}: no column can hold texts; there are {kinds or 'none'}. Write texts as strings.")
        self.layout = typed_layout("parquet", self._first_rows(names), str(path), options, names)
        for name in self.layout.texts:
            _check_text_type(schema.field(name).type, name, schema, str(path), options)
        if len(self.layout.labels) == 1:
            self.label_names = _class_names(schema, self.layout.labels[0])

    def rows(self) -> Parsed:
        """Yields the rows, numbered from 1."""
        names = [name for name in (*self.layout.texts, *self.layout.labels, self.layout.id) if name]
        number = unpacked = 0
        packed = self._path.stat().st_size
        for batch in self._batches(list(dict.fromkeys(names)), _BATCH_ROWS):
            unpacked += batch.nbytes
            refuse_bomb(str(self._path), unpacked, packed)
            columns = [_values(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                number += 1
                yield self._row(number, dict(zip(batch.schema.names, values, strict=True)))
        if number != self._file.metadata.num_rows:
            raise UserError(
                f"{self._path}: holds {number:,} rows, but its metadata names {self._file.metadata.num_rows:,}. The "
                "file is damaged: fetch or write it again."
            )

    def _row(self, number: int, fields: dict[str, object]) -> Row | BadRow:
        for value in fields.values():
            if isinstance(value, BadRowError):
                return value.at(number)
        try:
            return row_of_fields(number, fields, self.layout)
        except BadRowError as bad:
            return bad.at(number)

    def _first_rows(self, names: list[str]) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        size = 0
        for batch in self._batches(names, _BATCH_ROWS):
            columns = [_values(column) for column in batch.columns]
            clean = [[None if isinstance(value, BadRowError) else value for value in column] for column in columns]
            rows += [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*clean, strict=True)]
            size += batch.nbytes
            if len(rows) >= NUM_ROWS or size >= HEAD_SIZE:
                break
        return rows

    def _batches(self, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._file.iter_batches(batch_size=size, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> UserError:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        return UserError(f"{self._path}: is no Parquet file that can be read ({cause}). Fetch or write it again.")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_opaque(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _check_text_type(kind: pa.DataType, text: str, schema: pa.Schema, name: str, options: ReadOptions) -> None:
    if not (_is_text(kind) or (_is_list(kind) and _is_text(kind.value_type))):
        raise UserError(
            f"{name}: column '{text}' holds {kind}, expected strings. Name another with {options.prefix}text-field; "
            f"there are {', '.join(map(repr, schema.names))}."
        )


def _class_names(schema: pa.Schema, column: str) -> dict[str, str]:
    """Returns the names of the classes of a column, which Hugging Face datasets keep in the file's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        feature = features[column]
        while isinstance(feature, dict | list) and "names" not in feature:
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        names = feature["names"]
    except (KeyError, ValueError, TypeError, IndexError, RecursionError):
        return {}
    return in_order(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else {}


def _values(column: pa.Array) -> list[object]:
    """Returns the cells of a column as Python values, a BadRowError for each that is not UTF-8."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_value(cell) for cell in column]


def _value(cell: pa.Scalar) -> object:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        part = error.object[max(0, error.start - 10) : error.end + 10]
        return BadRowError("invalid UTF-8", "text encoded as UTF-8", part)
