"""Names of labels that a corpus has as numbers or URIs: a list in the order of the numbers, or a vocabulary."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lsfa_jax.data.reading.compression import read_lines
from lsfa_jax.data.reading.rows import BadRowError, decode
from lsfa_jax.util.console import UserError

# Header cells of a vocabulary in CSV, as Annif has them: uri,label_en,notation.
_ID_COLUMN = ("uri", "id", "label_id", "code")


def in_order(names: Sequence[str]) -> dict[str, str]:
    """Returns the name of each number from 0, as strings; equal names get their number, so that they stay apart."""
    counts = Counter(names)
    return {str(place): name if counts[name] == 1 else f"{name} ({place})" for place, name in enumerate(names)}


def read_label_names(path: Path) -> Mapping[str, str]:
    """Reads names of labels.

    The file has the name of number i in line i, from 0; or an id, a tab and a name in each line; or it is a CSV with a
    column uri or id and one whose name begins with label; or JSON Lines with a "title" or "name" in their order.

    Raises:
        UserError: the file cannot be read, or a line has another form.
    """
    lines = []
    for number, line in read_lines(path):
        try:
            lines.append(decode(line))
        except BadRowError as bad:
            raise UserError(f"{path}:{number}: {bad.at(number)}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"{path}: holds no names of labels. Expected one a line, or id<TAB>name a line.")
    if lines[0].lstrip().startswith("{"):
        return in_order([_title(line, f"{path}:{number}") for number, line in enumerate(lines, 1)])
    header = [cell.strip().lower() for cell in next(csv.reader([lines[0]]))]
    id_columns = [place for place, cell in enumerate(header) if cell in _ID_COLUMN]
    name_columns = [
        place for place, cell in enumerate(header) if cell.startswith(("label", "name")) and cell not in _ID_COLUMN
    ]
    if id_columns and name_columns:
        id_at, name_at = id_columns[0], name_columns[0]
        rows = csv.reader(lines[1:])
        return _mapping([(row[id_at], row[name_at]) for row in rows if len(row) > max(id_at, name_at)], path)
    if all("\t" in line for line in lines):
        return _mapping([tuple(line.split("\t", 2)[:2]) for line in lines], path)  # type: ignore[misc]
    return in_order([line.strip() for line in lines])


def _title(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f'{where}: not JSON. Expected {{"title": "name of the label"}} on each line.') from None
    title = (row.get("title") or row.get("name") or row.get("uid")) if isinstance(row, dict) else None
    if not isinstance(title, str):
        raise UserError(f'{where}: has no "title". Expected {{"title": "name of the label"}} on each line.')
    return title.strip()


def _mapping(pairs: Sequence[tuple[str, str]], path: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for identifier, name in pairs:
        identifier = identifier.strip().removeprefix("<").removesuffix(">")
        if names.setdefault(identifier, name.strip()) != name.strip():
            raise UserError(
                f"{path}: {identifier!r} has two names, {names[identifier]!r} and {name.strip()!r}. Keep one."
            )
    counts = Counter(names.values())
    return {key: name if counts[name] == 1 else f"{name} ({key})" for key, name in names.items()}
