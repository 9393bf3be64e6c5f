"""Parquet files, read in batches of rows."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lsfa_jax.data.reading.compression import refuse_bomb
from lsfa_jax.data.reading.detect import ReadOptions, choose_columns, choose_separator
from lsfa_jax.data.reading.fields import row_of_fields
from lsfa_jax.data.reading.rows import BadRow, BadRowError, Layout, Parsed, Row
from lsfa_jax.util.console import UserError

PARQUET_MAGIC = b"PAR1"
_BATCH_ROWS = 64
_NUM_CELLS = 1_000
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
        text, labels, document_id = choose_columns(schema.names, str(path), options)
        _check_types(schema, text, labels, str(path), options)
        separator = ""
        if labels and not _is_list(schema.field(labels).type):
            cells = [cell for cell in self._first_cells(labels) if isinstance(cell, str)]
            separator = options.label_separator or choose_separator(cells, str(path), options)
        self.layout = Layout("parquet", text, labels, document_id, separator)

    def rows(self) -> Parsed:
        """Yields the rows, numbered from 1."""
        names = [name for name in (self.layout.text, self.layout.labels, self.layout.id) if name]
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

    def _first_cells(self, column: str) -> list[object]:
        batch = next(self._batches([column], _NUM_CELLS), None)
        return _values(batch.column(0)) if batch is not None else []

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


def _check_types(schema: pa.Schema, text: str, labels: str, name: str, options: ReadOptions) -> None:
    kind = schema.field(text).type
    if not (_is_text(kind) or (_is_list(kind) and _is_text(kind.value_type))):
        raise UserError(
            f"{name}: column '{text}' holds {kind}, expected strings. Name another with {options.prefix}text-field; "
            f"there are {', '.join(map(repr, schema.names))}."
        )
    if not labels:
        return
    kind = schema.field(labels).type
    inner = kind.value_type if _is_list(kind) else kind
    if pa.types.is_integer(inner):
        raise UserError(
            f"{name}: column '{labels}' holds numbers of classes ({kind}), expected their names, as lists of strings. "
            f"Write the names into the file: with Hugging Face datasets, features['{labels}'].feature.int2str in a map."
        )
    # A column of empty lists has the type list<null>.
    if not (_is_text(kind) or (_is_list(kind) and (_is_text(inner) or pa.types.is_null(inner)))):
        raise UserError(
            f"{name}: column '{labels}' holds {kind}, expected lists of strings, or strings with a separator. Name "
            f"another with {options.prefix}labels-field; there are {', '.join(map(repr, schema.names))}."
        )


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
