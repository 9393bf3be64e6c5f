"""JSON Lines: one JSON object a line."""

import json

from lsfa_jax.data.reading.fields import check_unicode, row_of_fields
from lsfa_jax.data.reading.rows import BadRowError, BlankLine, Layout, Lines, Parsed, Row, decode


def json_lines(lines: Lines, layout: Layout) -> Parsed:
    """Yields a row for each line."""
    for number, line in lines:
        if not line.strip():
            yield BlankLine(number)
            continue
        try:
            yield _row(number, decode(line), layout)
        except BadRowError as bad:
            yield bad.at(number)


def _row(number: int, line: str, layout: Layout) -> Row:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRowError("not JSON", "one JSON object on the line", line) from None
    if not isinstance(fields, dict):
        raise BadRowError(
            "not an object", f'{{"{(*layout.labels, "id")[0]}": ..., "{layout.texts[0]}": "..."}}', fields
        )
    return check_unicode(row_of_fields(number, fields, layout))
