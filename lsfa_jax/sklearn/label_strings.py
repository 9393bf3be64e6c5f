"""Label names that look like several labels in one string: printed lists, and labels joined by a separator."""

import re
import reprlib
import warnings
from collections.abc import Collection

_RARE_IN_NAMES = (";", "|", "\t", "\n")
_SEPARATORS = (*_RARE_IN_NAMES, ",")

# Brackets, braces and quotes at an edge; parentheses only around quotes, as in a printed tuple: "Heating (oil)" is a
# name.
_PRINTED = re.compile(r"""[\[\]{}"'].*|.*[\[\]{}"']|\(\s*['"].*""", re.DOTALL)


def check_single(names: Collection[str]) -> None:
    """Raises ValueError if single labels look like printed lists or like labels joined by a separator."""
    if problem := _problem(names):
        advice = "if they are single labels, write [[label] for label in y]"
        raise ValueError(f"{problem}; {advice}")
    with_comma = [name for name in names if "," in name]
    if len(with_comma) > 1 and 2 * len(with_comma) >= len(names):
        # Of the caller of fit. They may be names such as "Portland, Oregon".
        warnings.warn(
            f"each string is read as one label, such as {reprlib.repr(min(with_comma))}; if labels are joined by ',', "
            "split them by [label.split(',') for label in y]",
            stacklevel=4,
        )


def warn_if_unusual(names: Collection[str]) -> None:
    """Issues a Python warning if a name in lists of labels looks like a printed list or like joined labels."""
    if problem := _problem(names):
        # Of the caller of fit.
        warnings.warn(problem, stacklevel=4)


def separator_of(names: Collection[str]) -> str | None:
    """Returns the separator with which the distinct names are joined labels, None if they are not.

    At least two names contain it, and either it is rare inside names and 80% of the names contain it, or at least half
    of the parts of such names also occur without it, or both as a first and as a later part. That is so for "a,b",
    "b,c" and "a"; not for "Portland, Oregon", "Salem, Oregon", whose parts keep their places.
    """
    for separator in _SEPARATORS:
        split = [[part.strip() for part in name.split(separator) if part.strip()] for name in names]
        joined = [parts for parts in split if len(parts) > 1]
        if len(joined) < 2:
            continue
        alone = {part for parts in split if len(parts) == 1 for part in parts}
        firsts, later = {parts[0] for parts in joined}, {part for parts in joined for part in parts[1:]}
        recombined = (firsts | later) & (alone | (firsts & later))
        usual = separator in _RARE_IN_NAMES and len(joined) >= 0.8 * len(split)
        if usual or 2 * len(recombined) >= len(firsts | later):
            return separator
    return None


def _problem(names: Collection[str]) -> str | None:
    if printed := [name for name in names if _PRINTED.fullmatch(name)]:
        example = min(printed)
        return (
            f"a label begins or ends with a bracket, brace or quote, such as {reprlib.repr(example)}: "
            "read printed lists by [ast.literal_eval(label) for label in y]"
        )
    separator = separator_of(names)
    if separator is None:
        return None
    example = min(name for name in names if separator in name)
    return (
        f"labels are joined by {separator!r}, such as {reprlib.repr(example)}: split them by "
        f"[label.split({separator!r}) for label in y]"
    )
