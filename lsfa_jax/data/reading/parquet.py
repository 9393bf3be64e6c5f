"""Formats that are not lines: Parquet, and EURLEX57K's folders of JSON documents."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lsfa_jax.data.reading.compression import MAX_LINE, open_stream, refuse_bomb
from lsfa_jax.data.reading.detect import ReadOptions, choose_columns, choose_separator
from lsfa_jax.data.reading.rows import (
    BadRow,
    BadRowError,
    Layout,
    Parsed,
    Row,
    check_labels,
    check_text,
    decode,
    fields_row,
)
from lsfa_jax.util.console import UserError

PARQUET_MAGIC = b"PAR1"
_BATCH = 64
_NUM_CELLS = 1_000
_READ_AHEAD = 2**20

# The parts of a document of EURLEX57K, in the order of the law.
_EURLEX_PARTS = ("title", "header", "recitals", "main_body", "attachments")
_ALIKE = ".json", ".json.gz", ".json.xz", ".json.bz2", ".json.zst"


class Parquet:
    """A Parquet file, read in batches of rows.

    Attributes:
        layout: how it is read.

    Raises:
        UserError: the file is damaged, or its columns are not what is needed.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._path = path
        try:
            # Neither option given, a column of a whole row group would be held at once.
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_AHEAD)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from None
        schema = self._file.schema_arrow
        text, labels, own = choose_columns(schema.names, str(path), options)
        _check_types(schema, text, labels, str(path), options)
        separator = ""
        if labels and not _is_list(schema.field(labels).type):
            cells = [cell for cell in self._first(labels) if isinstance(cell, str)]
            separator = options.label_separator or choose_separator(cells, str(path), options)
        self.layout = Layout("parquet", text, labels, own, separator)

    def rows(self) -> Parsed:
        """Yields the rows, numbered from 1."""
        names = [name for name in (self.layout.text, self.layout.labels, self.layout.id) if name]
        number = unpacked = 0
        packed = self._path.stat().st_size
        for batch in self._batches(list(dict.fromkeys(names)), _BATCH):
            unpacked += batch.nbytes
            refuse_bomb(str(self._path), unpacked, packed)
            columns = [_values(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                number += 1
                yield self._row(number, dict(zip(batch.schema.names, values, strict=True)))
        if number != self._file.metadata.num_rows:
            raise UserError(
                f"{self._path}: holds {number:,} rows, but says it has {self._file.metadata.num_rows:,}. The file is "
                "damaged: fetch or write it again."
            )

    def _row(self, number: int, row: dict[str, object]) -> Row | BadRow:
        for value in row.values():
            if isinstance(value, BadRowError):
                return value.at(number)
        try:
            return fields_row(number, row, self.layout)
        except BadRowError as bad:
            return bad.at(number)

    def _first(self, column: str) -> list[Any]:
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
    # Lists that are all empty are lists of nothing.
    if not (_is_text(kind) or (_is_list(kind) and (_is_text(inner) or pa.types.is_null(inner)))):
        raise UserError(
            f"{name}: column '{labels}' holds {kind}, expected lists of strings, or strings with a separator. Name "
            f"another with {options.prefix}labels-field; there are {', '.join(map(repr, schema.names))}."
        )


def _values(column: pa.Array) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_value(cell) for cell in column]


def _value(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        found = error.object[max(0, error.start - 10) : error.end + 10]
        return BadRowError("invalid UTF-8", "text encoded as UTF-8", found)


def json_documents(folder: Path) -> list[Path]:
    """Lists the JSON documents in a folder by name, compressed ones too."""
    return sorted(path for path in folder.iterdir() if path.name.endswith(_ALIKE) and path.is_file())


def eurlex57k(folder: Path, options: ReadOptions) -> Iterator[tuple[str, Row | BadRow]]:
    """Yields a row for each JSON document of a folder of EURLEX57K, with its file and line."""
    for path in json_documents(folder):
        row: Row | BadRow
        try:
            row = _eurlex_document(path, options)
        except BadRowError as bad:
            row = bad.at(1)
        yield f"{path}:{row.number}", row


def _eurlex_document(path: Path, options: ReadOptions) -> Row:
    lines, size = [], 0
    with open_stream(path) as stream:
        for _, line in stream.lines():
            size += len(line) + 1
            if size > MAX_LINE:
                raise UserError(f"{path}: the document is longer than {MAX_LINE / 2**20:.0f} MiB. Split it.")
            lines.append(decode(line))
    content = "\n".join(lines)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise BadRowError("not JSON", "one JSON document in the file", content) from None
    if not isinstance(document, dict):
        raise BadRowError("not an object", "a JSON object with title, main_body, concepts", document)
    present = [name for name in _EURLEX_PARTS if document.get(name) is not None]
    if not present:
        raise BadRowError("no text", f"one of {', '.join(_EURLEX_PARTS)}", list(document))
    parts: list[str] = []
    for name in present:
        value = document[name]
        parts.extend(check_text(part, f"'{name}'") for part in (value if isinstance(value, list) else [value]))
    labels: list[str] = []
    if options.labelled:
        concepts = document.get("concepts")
        if not isinstance(concepts, list):
            raise BadRowError("no list 'concepts'", "the document's concepts in a list", list(document))
        labels = check_labels(concepts, "'concepts'")
    fields = {
        "text": "\n".join(part for part in parts if part.strip()),
        "labels": labels,
        "id": document.get("celex_id"),
    }
    return fields_row(1, fields, Layout("eurlex57k", "text", "labels", "id"))
