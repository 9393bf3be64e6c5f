"""Labels that share one string, such as a cell of a table: how they are split."""

import ast
import json
import re

from lsfa_jax.data.reading.rows import BadRowError, check_labels

LIST = "list"
"""In place of a separator: the string is a JSON or Python list."""
SINGLE = "single"
"""In place of a separator: the string is one label."""
SEPARATORS = (";", "|", ",")
"""The separators that are detected."""

_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LIST_OF_STRINGS = re.compile(rf"\[\s*(?:{_STRING}\s*(?:,\s*{_STRING}\s*)*,?\s*)?\]", re.DOTALL)


def split_labels(cell: str, separator: str) -> tuple[list[str], tuple[str, ...]]:
    """Splits the labels that share a string and strips white space from each.

    Args:
        cell: the string.
        separator: what is between labels; a space stands for any white space. Or LIST or SINGLE.

    Returns:
        The labels, and notes on what was left out.

    Raises:
        BadRowError: the string is not a list or not one label, where it has to be.
    """
    if separator == " ":
        return cell.split(), ()
    if not cell.strip():
        return [], ()
    if separator == SINGLE:
        # The first rows had one word each. A later cell that looks like several labels is not guessed at.
        if len(cell.split()) > 1 or any(mark in cell for mark in SEPARATORS):
            expected = "one label without spaces, as in the first rows; several need the label separator as an option"
            raise BadRowError("more than one label perhaps", expected, cell)
        return [cell.strip()], ()
    if separator == LIST:
        return parse_list(cell), ()
    parts = [part.strip() for part in cell.split(separator)]
    labels = [part for part in parts if part]
    return labels, ("empty label left out",) if len(labels) < len(parts) else ()


def parse_list(cell: str) -> list[str]:
    """Parses a list of strings as JSON or Python writes it.

    Raises:
        BadRowError: the string is not such a list.
    """
    labels: object = None
    try:
        labels = json.loads(cell)
    except (ValueError, RecursionError):
        # Nothing but string literals in one list reaches ast: no code, and no deep nesting.
        if _LIST_OF_STRINGS.fullmatch(cell.strip()):
            try:
                labels = ast.literal_eval(cell.strip())
            except (ValueError, SyntaxError):
                labels = None
    if not isinstance(labels, list):
        raise BadRowError("labels are not a list", 'a list of strings such as ["a", "b"], as in other rows', cell)
    return check_labels(labels, "the list of labels")
