"""Named values to a row: what all formats share, from the cells of a table to the typed values of JSON and Parquet."""

from collections.abc import Callable, Mapping

from lsfa_jax.data.reading.label_cells import LIST, split_labels, unquoted
from lsfa_jax.data.reading.label_lists import hot_places, names_of, parse_list, positive_names, truth
from lsfa_jax.data.reading.rows import BadRowError, Layout, Row, check_text

Notes = tuple[str, ...]


def row_of_fields(number: int, fields: Mapping[str, object], layout: Layout, notes: Notes = ()) -> Row:
    """Makes a row of named values.

    Raises:
        BadRowError: a value is missing or of another type.
    """
    labels: list[str] = []
    try:
        text = _text(fields, layout.texts)
        if layout.labels:
            labels, more = _LABELS[layout.label_kind](fields, layout)
            notes = notes + more if more else notes
    except KeyError as error:
        listed = " and ".join(f"'{name}'" for name in (*layout.texts, *layout.labels))
        what = f"the field{'s' * (listed.count(' and ') > 0)} {listed}"
        raise BadRowError(f"no field '{error.args[0]}'", what, list(fields)) from None
    value = fields.get(layout.id, "") if layout.id else ""
    document_id = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return Row(number, text, labels, document_id, notes)


def _text(fields: Mapping[str, object], names: tuple[str, ...]) -> str:
    if len(names) == 1:
        text = fields[names[0]]
        return text if isinstance(text, str) else check_text(text, f"'{names[0]}'")
    parts = [check_text(fields[name], f"'{name}'") for name in names if fields[name] is not None]
    return "\n".join(part for part in parts if part.strip())


def _named_labels(fields: Mapping[str, object], layout: Layout) -> tuple[list[str], Notes]:
    if len(layout.labels) == 1:
        return _labels_of(fields[layout.labels[0]], layout.labels[0], layout)
    labels: list[str] = []
    notes: Notes = ()
    for name in layout.labels:
        names, more = _labels_of(fields[name], name, layout)
        labels += names
        notes += more
    return labels, notes


def _labels_of(value: object, name: str, layout: Layout) -> tuple[list[str], Notes]:
    if isinstance(value, str) and layout.separator:
        labels, notes = split_labels(value, layout.separator, layout.detected)
        return [unquoted(label) for label in labels] if layout.unquote else labels, notes
    return _typed_labels(value, name)


def _typed_labels(value: object, name: str) -> tuple[list[str], Notes]:
    """Returns the labels of a value of JSON or Parquet: a list, a mapping of names to scores, a number, or nothing."""
    if isinstance(value, list):
        return names_of(value, f"'{name}'")
    if value is None:
        return [], ()
    if isinstance(value, dict):
        unsure = any(isinstance(score, float) and 0 < score < 1 for score in value.values())
        return positive_names(value), ("label with a score between 0 and 1",) * unsure
    if isinstance(value, int | float):
        return names_of([value], f"'{name}'")
    expected = "a list of strings, or one string and its separator as an option"
    raise BadRowError(f"'{name}' is not a list", expected, value)


def _multi_hot_labels(fields: Mapping[str, object], layout: Layout) -> tuple[list[str], Notes]:
    value = fields[layout.labels[0]]
    if value is None or value == "":
        return [], ()
    return hot_places(values_of(value, layout.separator), layout.width), ()


def _indicated_labels(fields: Mapping[str, object], layout: Layout) -> tuple[list[str], Notes]:
    labels = []
    for name in layout.labels:
        number = truth(fields[name])
        if number not in (0, 1):
            raise BadRowError(f"column '{name}' holds a value for its label that is not 0 or 1", "0 or 1", fields[name])
        if number:
            labels.append(name)
    return labels, ()


def values_of(value: object, separator: str) -> list[object]:
    """Returns the elements of a list, or of a string that holds one."""
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        raise BadRowError("labels are not a list", "a list of 0 and 1", value)
    if separator == LIST:
        return parse_list(value)
    return list(value.split() if separator == " " else [part.strip() for part in value.split(separator)])


_LABELS: dict[str, Callable[[Mapping[str, object], Layout], tuple[list[str], Notes]]] = {
    "names": _named_labels,
    "multi_hot": _multi_hot_labels,
    "indicators": _indicated_labels,
}


def check_unicode(row: Row) -> Row:
    """Returns a row of JSON.

    Raises:
        BadRowError: it has half of a surrogate pair, as \\ud83d from an emoji cut in two, which cannot be encoded.
    """
    try:
        "\n".join([row.text, row.id, *row.labels]).encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRowError("invalid Unicode", "complete characters", error.object[error.start : error.end]) from None
    return row
