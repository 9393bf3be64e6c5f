"""How rows of named and typed values are read: the objects of JSON, and the rows of Parquet."""

from collections.abc import Sequence
from dataclasses import replace

from lsfa_jax.data.reading.columns import Column, Roles, choose
from lsfa_jax.data.reading.fields import values_of
from lsfa_jax.data.reading.label_cells import LIST, SINGLE, WHOLE, choose_separator, split_labels, unquoted
from lsfa_jax.data.reading.label_lists import is_multi_hot
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.data.reading.rows import BadRowError, Layout


def typed_layout(
    form: str, rows: Sequence[dict[str, object]], name: str, options: ReadOptions, names: Sequence[str] = ()
) -> Layout:
    """Detects how rows of named and typed values are to be read.

    Args:
        form: the format.
        rows: the first rows.
        name: of the file, for messages.
        options: what the user specified.
        names: of the fields, where they are known without a row.

    Raises:
        UserError: no column is known for the text or the labels.
    """
    names = names or tuple(dict.fromkeys(key for row in rows for key in row))
    if not names:
        # Reading the rows will report what is wrong with them.
        return Layout(form, (options.text_field or "text",), (options.labels_field or "labels",) * options.labelled)
    columns = [Column(key, [row[key] for row in rows if key in row]) for key in names]
    roles = choose(columns, name, options)
    layout = with_roles(Layout(form), roles, names)
    if roles.indicators or not roles.labels:
        return layout
    values = [value for column in columns if column.name in roles.labels for value in column.values]
    cells = [value for value in values if isinstance(value, str)]
    if cells and len(cells) == len(values):
        return with_separator(layout, cells, name, options)
    if cells:
        # Among lists, a string is one label.
        layout = replace(layout, separator=options.label_separator or WHOLE, detected=not options.label_separator)
    lists = [value for value in values if isinstance(value, list)]
    return _with_multi_hot(layout, lists) if len(lists) == len(values) else layout


def with_roles(layout: Layout, roles: Roles, names: Sequence[str]) -> Layout:
    """Returns a layout that reads the columns with a role, of all columns `names`."""
    read = {*roles.texts, *roles.labels, roles.id}
    return replace(
        layout,
        texts=roles.texts,
        labels=roles.labels,
        id=roles.id,
        label_kind="indicators" if roles.indicators else "names",
        unread=tuple(name for name in names if name not in read),
    )


def with_separator(layout: Layout, cells: Sequence[str], name: str, options: ReadOptions) -> Layout:
    """Returns a layout with what separates labels that share a string.

    Args:
        layout: the layout so far.
        cells: the strings of the first rows.
        name: of the file, for messages.
        options: what the user specified.

    Raises:
        UserError: it is not clear what separates them.
    """
    separator = choose_separator(cells, name, options.label_separator, options.prefix)
    layout = replace(layout, separator=separator, detected=not options.label_separator)
    if separator != LIST:
        labels = [label for cell in cells for label in _parts_of(cell, separator)]
        layout = replace(layout, unquote=2 * sum(unquoted(label) != label for label in labels) > len(labels))
    lists = []
    for cell in cells:
        try:
            lists.append(values_of(cell, separator) if separator not in (SINGLE, WHOLE) else [])
        except BadRowError:
            continue
    return _with_multi_hot(layout, lists)


def _parts_of(cell: str, separator: str) -> list[str]:
    try:
        return split_labels(cell, separator)[0]
    except BadRowError:
        return []


def _with_multi_hot(layout: Layout, lists: Sequence[Sequence[object]]) -> Layout:
    if not is_multi_hot(lists):
        return layout
    return replace(layout, label_kind="multi_hot", width=len(next(filter(None, lists))))
