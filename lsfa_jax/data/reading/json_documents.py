"""A file that is one JSON document: an array of objects, or a table in one of the forms of pandas' to_json."""

import json

from lsfa_jax.data.reading.compression import Stream
from lsfa_jax.data.reading.fields import check_unicode, row_of_fields
from lsfa_jax.data.reading.rows import BadRowError, Layout, Parsed, decode
from lsfa_jax.util.console import UserError

MAX_SIZE = 512 * 2**20
"""Bytes of a JSON document, which is held in memory; a larger one is an error."""

Objects = list[dict[str, object]]


def read_objects(stream: Stream, columns: str) -> Objects:
    """Reads the rows of a JSON document.

    Args:
        stream: the file.
        columns: names for rows without any, separated by commas, or "".

    Raises:
        UserError: the file is not JSON, too long, or holds no table.
    """
    lines, size = [], 0
    for number, line in stream.lines():
        size += len(line) + 1
        if size > MAX_SIZE:
            raise UserError(
                f"{stream.name}: one JSON document of more than {MAX_SIZE / 2**20:.0f} MiB. Write one object a line "
                "instead: jq -c '.[]' FILE > NEW.jsonl"
            )
        try:
            lines.append(decode(line))
        except BadRowError as bad:
            raise UserError(f"{stream.name}:{number}: {bad.at(number)}.") from None
    try:
        content = json.loads("\n".join(lines))
    except (ValueError, RecursionError) as error:
        where = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(
            f"{stream.name}{where}: not JSON ({error}). Expected one JSON object a line, or one JSON array of objects."
        ) from None
    rows = _rows(content, [name.strip() for name in columns.split(",")] if columns else [])
    if rows is None:
        raise UserError(
            f"{stream.name}: is one JSON document, and no table: expected an array of objects, such "
            'as [{"text": "...", "labels": ["a"]}], one object a line, or a folder of documents.'
        )
    return rows


def _rows(content: object, names: list[str]) -> Objects | None:
    if isinstance(content, list):
        if content and all(isinstance(row, str) for row in content):
            return [{"text": row} for row in content]
        if content and all(isinstance(row, list) for row in content):
            return _named(content, names or [f"column {place}" for place in range(1, len(content[0]) + 1)])
        return [row if isinstance(row, dict) else {"": row} for row in content]
    if not isinstance(content, dict):
        return None
    columns, data = content.get("columns"), content.get("data")
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return _named(data, [str(column) for column in columns])
    if content and all(isinstance(value, dict) for value in content.values()):
        return _transposed(content)
    tables = [value for value in content.values() if _is_table(value)]
    if len(tables) == 1:
        return list(tables[0])
    lengths = {len(value) for value in content.values() if isinstance(value, list)}
    if len(content) > 1 and all(isinstance(value, list) for value in content.values()) and len(lengths) == 1:
        return [dict(zip(content, row, strict=True)) for row in zip(*content.values(), strict=True)]
    return None


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _named(rows: list[list[object]], names: list[str]) -> Objects:
    return [dict(zip(names, row, strict=False)) for row in rows]


def _transposed(content: dict[str, dict[str, object]]) -> Objects:
    """Returns the rows of {column: {index: value}}, or of {index: {column: value}}."""
    first = next(iter(content.values()))
    by_column = all(list(column) == list(first) for column in content.values()) and all(key.isdigit() for key in first)
    if not by_column:
        return list(content.values())
    return [{name: column[index] for name, column in content.items()} for index in first]


def json_document(rows: Objects, layout: Layout) -> Parsed:
    """Yields a row for each object, numbered from 1."""
    for number, fields in enumerate(rows, 1):
        try:
            yield check_unicode(row_of_fields(number, fields, layout))
        except BadRowError as bad:
            yield bad.at(number)
