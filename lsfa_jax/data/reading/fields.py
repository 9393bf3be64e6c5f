"""Named values to a row, for the formats that have them: JSON and Parquet."""

from collections.abc import Mapping

from lsfa_jax.data.reading.label_cells import split_labels
from lsfa_jax.data.reading.rows import BadRowError, Layout, Row, check_labels, check_text


def row_of_fields(number: int, fields: Mapping[str, object], layout: Layout) -> Row:
    """Makes a row of named values, as JSON and Parquet have them.

    Raises:
        BadRowError: a value is missing or of another type.
    """
    required = [name for name in (layout.text, layout.labels) if name]
    for name in required:
        if name not in fields:
            listed = " and ".join(f"'{name}'" for name in required)
            raise BadRowError(f"no field '{name}'", f"the field{'s' * (len(required) > 1)} {listed}", list(fields))
    text = check_text(fields[layout.text], f"'{layout.text}'")
    labels: list[str] = []
    notes: tuple[str, ...] = ()
    if layout.labels:
        value = fields[layout.labels]
        if isinstance(value, str) and layout.separator:
            labels, notes = split_labels(value, layout.separator)
        elif isinstance(value, list):
            labels = check_labels(value, f"'{layout.labels}'")
        else:
            expected = "a list of strings, or one string and its separator as an option"
            raise BadRowError(f"'{layout.labels}' is not a list", expected, value)
    value = fields.get(layout.id, "") if layout.id else ""
    document_id = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    try:
        "\n".join([text, document_id, *labels]).encode("utf-8")
    except UnicodeEncodeError as error:
        # Half of a surrogate pair, as \ud83d from an emoji cut in two, cannot be encoded.
        raise BadRowError("invalid Unicode", "complete characters", error.object[error.start : error.end]) from None
    return Row(number, text, labels, document_id, notes)
