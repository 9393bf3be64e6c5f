"""Named values to a row: what all formats share, from the cells of a table to the typed values of JSON and Parquet."""

from collections.abc import Callable, Mapping

from lsfa_jax.data.reading.label_cells import LIST, has_edge, split_labels
from lsfa_jax.data.reading.label_lists import hot_places, looks_like_list, names_of, parse_list, positive_names, truth
from lsfa_jax.data.reading.rows import BadRowError, Layout, Row, check_text

Notes = tuple[str, ...]


def row_of_fields(number: int, fields: Mapping[str, object], layout: Layout, notes: Notes = ()) -> Row:
    """Makes a row of named values.

    Raises:
        BadRowError: a value is missing or of another type.
    """
    required = (*layout.texts, *layout.labels)
    for name in required:
        if name not in fields:
            listed = " and ".join(f"'{name}'" for name in required)
            raise BadRowError(f"no field '{name}'", f"the field{'s' * (len(required) > 1)} {listed}", list(fields))
    text = _text(fields, layout.texts)
    labels, more = _LABELS[layout.label_kind](fields, layout)
    value = fields.get(layout.id, "") if layout.id else ""
    document_id = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    try:
        "\n".join([text, document_id, *labels]).encode("utf-8")
    except UnicodeEncodeError as error:
        # Half of a surrogate pair, as \ud83d from an emoji cut in two, cannot be encoded.
        raise BadRowError("invalid Unicode", "complete characters", error.object[error.start : error.end]) from None
    return Row(number, text, labels, document_id, (*notes, *more))


def _text(fields: Mapping[str, object], names: tuple[str, ...]) -> str:
    if len(names) == 1:
        return check_text(fields[names[0]], f"'{names[0]}'")
    parts = (check_text(fields[name], f"'{name}'") for name in names if fields[name] is not None)
    return "\n".join(part for part in parts if part.strip())


def _named_labels(fields: Mapping[str, object], layout: Layout) -> tuple[list[str], Notes]:
    labels: list[str] = []
    notes: Notes = ()
    for name in layout.labels:
        value = fields[name]
        if isinstance(value, str) and layout.separator:
            names, more = split_labels(value, layout.separator)
        else:
            names, more = _typed_labels(value, name)
        labels += names
        notes += more
        if any(has_edge(label) for label in names):
            notes += ("label with a bracket or quote at its edge",)
    return labels, notes


def _typed_labels(value: object, name: str) -> tuple[list[str], Notes]:
    """Returns the labels of a value of JSON or Parquet: a list, a mapping of names to scores, a number, or nothing."""
    if value is None:
        return [], ()
    if isinstance(value, dict):
        return positive_names(value), ()
    if isinstance(value, int | float):
        return names_of([value], f"'{name}'")
    if not isinstance(value, list):
        expected = "a list of strings, or one string and its separator as an option"
        raise BadRowError(f"'{name}' is not a list", expected, value)
    names, notes = names_of(value, f"'{name}'")
    for label in names:
        if label[0] in "[({" and looks_like_list(label) and "'" in label:
            raise BadRowError("a label is a list in a string", "a list of labels", label)
    return names, notes


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
