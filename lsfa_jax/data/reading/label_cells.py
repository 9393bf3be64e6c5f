"""Labels that share one string, such as a cell of a table: how they are split, and how that is detected."""

import re
import reprlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from lsfa_jax.data.reading.label_lists import NULLS, is_multi_hot, looks_like_list, names_of, parse_list
from lsfa_jax.data.reading.rows import BadRowError
from lsfa_jax.util.console import UserError, warn

LIST = "list"
"""In place of a separator: the string is a list as a program prints it, see `label_lists`."""
SINGLE = "single"
"""In place of a separator: the string is one label without spaces, as in all of the first rows."""
WHOLE = "none"
"""In place of a separator: the string is one label, whatever it holds."""
SEPARATORS = (";", "|", ",", "\n", "；", "，", "、", "؛", "،", "｜")
"""Separators that are detected by their presence."""
RARE_SEPARATORS = (
    *(" + ", " / ", " & ", " # ", " - ", " > "),
    *("+", "/", "#", "&", "~", "^", "::", "__", ":", "@", "$", "*", "\\", "<br>", "·", "・", "•", "／", "¦"),
)
"""Separators that are detected only where what they separate occurs alone too."""

# How many different cells have to be split by a rare separator or a space before it is one.
_RARE_CELLS, _SPACED_CELLS = 3, 10
# From how many rows, and how many occurrences, parts that never occur apart mean that a mark is a part of the labels.
_REPEATED_ROWS, _REPEATED_PAIRS = 10, 3
# A word that is more likely a code than a part of a name: C15, GPOL, a_b, <http://x>, or one or two letters.
_CODE = re.compile(r"<?\w+://\S+|\S*[\d_:]\S*|\w+(\.[\w-]+)+|[A-Z0-9.\-]{2,}|\S{1,2}")
# Missing values as pandas and databases write them into cells that are no lists; and what may be one, or a label.
_MISSING = frozenset({"nan", "NaN", "<NA>", "\\N", "NULL", "null"})
_MAYBE_MISSING = frozenset({"NA", "N/A", "n/a", "None"})
_BRACKET = re.compile(r"[\[\](){}'\"`]")
_SCORED = re.compile(r"(\S+:[\d.]+(e-?\d+)?\s*)+")
_STRONG = re.compile("[" + "".join(mark for mark in SEPARATORS) + "]")
_OTHER_MARKS = {mark: re.compile(f"[{''.join(SEPARATORS).replace(mark, '')}]") for mark in SEPARATORS}
_ANY_MARK = re.compile("|".join([r"\s", *map(re.escape, (*SEPARATORS, *RARE_SEPARATORS))]))
_EDGES = "[](){}'\"`"


def split_labels(cell: str, separator: str, detected: bool = False) -> tuple[list[str], tuple[str, ...]]:
    """Splits the labels that share a string and strips white space from each.

    Args:
        cell: the string.
        separator: what is between labels; a space stands for any white space. Or LIST, SINGLE or WHOLE.
        detected: whether it was detected in the first rows; then other marks in later rows are not guessed at.

    Returns:
        The labels, and notes on what was left out.

    Raises:
        BadRowError: the string is not a list or not one label, where it has to be; or a label has an unpaired bracket.
    """
    stripped = cell.strip()
    if separator == LIST:
        return ([], ()) if stripped in NULLS else names_of(parse_list(stripped), "the list of labels")
    if not stripped:
        return [], ()
    if stripped in _MISSING:
        return [], (f"{stripped!r} read as no label",)
    notes: tuple[str, ...] = ()
    if separator == " ":
        labels = stripped.split()
    elif separator == WHOLE:
        labels = [stripped]
    elif separator == SINGLE:
        if _ANY_MARK.search(stripped) and _may_be_several(stripped):
            expected = "one label without spaces, as in the first rows; several need the label separator as an option"
            raise BadRowError("more than one label perhaps", expected, cell)
        labels = [stripped]
    else:
        parts = [part.strip() for part in cell.split(separator)]
        labels = [part for part in parts if part]
        notes = ("empty label left out",) if len(labels) < len(parts) else ()
    if detected and _OTHER_MARKS.get(separator, _STRONG).search(cell):
        expected = "labels without ; | and , in them, as in the first rows; or the label separator as an option"
        raise BadRowError("more than one label perhaps", expected, cell)
    if stripped in _MAYBE_MISSING:
        notes += ("a label that may be a missing value",)
    if _BRACKET.search(cell):
        for label in labels:
            if has_edge(label):
                _check_brackets(label, cell)
    return labels, notes


def _may_be_several(cell: str) -> bool:
    return len(cell.split()) > 1 or any(_divides(mark, cell) for mark in (*SEPARATORS, *RARE_SEPARATORS))


def _divides(mark: str, cell: str) -> bool:
    """Whether a mark stands between two parts of a cell: not in C++ or #tag."""
    before, _, after = cell.partition(mark)
    return mark in cell and before.strip() != "" and after.strip() != ""


def _check_brackets(label: str, cell: str) -> None:
    """Raises BadRowError for a label that is a list, or a part of one."""
    unpaired = any(label.count(left) != label.count(right) for left, right in ("[]", "()", "{}"))
    if unpaired or looks_like_list(label):
        expected = "labels without brackets around them, or lists in all rows"
        raise BadRowError("a label looks like a list, or a part of one", expected, cell)


def are_codes(words: Sequence[str]) -> bool:
    """Whether nearly all words look like codes rather than parts of names."""
    return sum(_CODE.fullmatch(word) is not None for word in words) >= 0.9 * len(words)


def unquoted(label: str) -> str:
    """Returns a label without quotes around it."""
    wrapped = len(label) > 2 and label[0] in "\"'" and label[0] == label[-1] and label.count(label[0]) == 2
    return label[1:-1].strip() if wrapped else label


def has_edge(label: str) -> bool:
    """Whether a label begins or ends with a bracket, brace or quote."""
    return label != "" and (label[0] in _EDGES or label[-1] in _EDGES)


def choose_separator(cells: Iterable[str], name: str, given: str, prefix: str) -> str:
    """Returns what separates the labels that share a cell.

    Args:
        cells: of the first rows.
        name: of the file, for messages.
        given: the user's separator, or "".
        prefix: of the options on the command line.

    Raises:
        UserError: more than one separator is possible, or some cells are lists and others are not.
    """
    cells = [cell.strip() for cell in cells]
    cells = [cell for cell in cells if cell and cell not in _MISSING]
    if given:
        _warn_of_absent(cells, name, given)
        return given
    if _are_lists(cells, name, prefix):
        return LIST
    present = [mark for mark in SEPARATORS if any(mark in cell for cell in cells)]
    if len(present) > 1:
        raise _unclear(cells, name, prefix, present, f"hold {' and '.join(map(repr, present))}")
    if present:
        # A comma is more often a part of a name than a semicolon is.
        if _Split.by(present[0], cells).is_contradicted(least_pairs=1 if present[0] in ",，、،" else 2):
            raise _unclear(
                cells, name, prefix, present, f"hold {present[0]!r}, but what it separates never occurs apart"
            )
        return present[0]
    if mark := _check_rare(cells, name, prefix):
        return mark
    separator = _spaces(cells, name, prefix)
    has_rare = any(_divides(mark, cell) for mark in RARE_SEPARATORS for cell in cells)
    return WHOLE if has_rare and separator == SINGLE else separator


def _check_rare(cells: Sequence[str], name: str, prefix: str) -> str:
    """Returns the rare mark that separates labels, or "".

    Raises:
        UserError: a mark may separate them.
    """
    for mark in RARE_SEPARATORS:
        if not any(_divides(mark, cell) for cell in cells):
            continue
        split = _Split.by(mark, cells)
        share, number = split.known_parts()
        if share >= (0.5 if mark[0] == " " else 0.9) and number >= _RARE_CELLS:
            return mark
        if share >= 0.3 or (split.recombined() >= 0.5 and len(split.multiple) >= _RARE_CELLS):
            raise _unclear(cells, name, prefix, [mark], f"hold {mark!r}, which may be a part of them or separate them")
    return ""


def separator_of_lines(cells: Iterable[str], name: str, prefix: str) -> str:
    """Returns what separates the labels in the lines of a file of labels: spaces, where nothing speaks against it.

    Args:
        cells: the first lines.
        name: of the file, for messages.
        prefix: of the options on the command line.

    Raises:
        UserError: the lines are no labels, or more than one separator is possible.
    """
    cells = [cell.strip() for cell in cells if cell.strip()]
    if any(is_multi_hot([[x.strip() for x in cell.split(mark)] for cell in cells]) for mark in (" ", ",", "\t")):
        raise UserError(f"{name}: holds 0 and 1 for each label (multi-hot). Write the labels of each text instead.")
    if cells and all(_SCORED.fullmatch(cell) for cell in cells):
        raise UserError(f"{name}: holds labels with scores, as in {reprlib.repr(cells[0])}. Write the labels alone.")
    if _are_lists(cells, name, prefix):
        return LIST
    present = [mark for mark in ("\t", *SEPARATORS) if any(mark in cell for cell in cells)]
    split = _Split.by(" ", cells)
    if not present and not split.multiple:
        return _check_rare(cells, name, prefix) or " "
    if present:
        if all(len(re.sub(rf"\s*{re.escape(present[0])}\s*", "", cell).split()) <= 1 for cell in cells):
            return present[0]
        # A few labels hold the mark, as 1,2-dichloroethane; or it separates labels of several words.
        if sum(present[0] in cell for cell in cells) >= max(3, 0.1 * len(cells)):
            raise _unclear(cells, name, prefix, present, f"hold {present[0]!r} and spaces")
        warn(
            f"{name}: labels are separated by spaces, and hold {present[0]!r} too; if that separates them, set "
            f"{prefix}label-separator '{present[0]}'"
        )
    if split.multiple and len(cells) >= _REPEATED_ROWS:
        codes = are_codes([word for cell in split.multiple for word in cell.split()])
        if split.recombined() < 0.5 and not (codes and not split.is_contradicted(least_pairs=2)):
            raise _unclear(cells, name, prefix, [" "], "hold only white space")
    return " "


def _spaces(cells: Sequence[str], name: str, prefix: str) -> str:
    """Returns SINGLE where no cell has two words, a space where they are codes or labels by themselves, or WHOLE."""
    split = _Split.by(" ", cells)
    if not split.multiple:
        return SINGLE
    contradicted = split.is_contradicted(least_pairs=2)
    words = [word for cell in split.multiple for word in cell.split()]
    # A mark that stands alone separates something.
    contradicted = contradicted or not all(any(map(str.isalnum, word)) for word in words)
    codes = are_codes(words)
    # CIVIL LAW and TAX LAW are names: their first words occur in no other cell.
    if codes and not contradicted and (split.recombined() >= 0.5 or len(cells) < _REPEATED_ROWS):
        return " "
    share, number = split.known_parts()
    if share >= 0.95 and number >= _SPACED_CELLS:
        return " "
    if share == 0 and split.exclusive() >= 0.8 and len(cells) >= _REPEATED_ROWS and split.recurs():
        return WHOLE
    raise _unclear(cells, name, prefix, [" "], "hold only white space")


def _are_lists(cells: Sequence[str], name: str, prefix: str) -> bool:
    lists = [cell for cell in cells if looks_like_list(cell)]
    rest = [cell for cell in cells if cell not in NULLS]
    if not lists or not rest:
        return False
    others = [cell for cell in rest if not looks_like_list(cell)]
    if others and all(cell[0] == cell[-1] and cell[0] in "'\"" for cell in [*others, *lists]):
        return True  # "a", "b" in one row and "a" in another
    if not others:
        _check_bare_lists(rest, name)
        return True
    # "[deleted]" alone among names is a label, and reported as one with brackets.
    if len(lists) <= 0.02 * len(rest) and all("," not in cell and "'" not in cell for cell in lists):
        return False
    try:
        parse_list(others[0])
    except BadRowError as bad:
        if bad.reason.startswith("a list that"):
            raise UserError(f"{name}: {bad.at(0)}. Write the file again with complete lists.") from None
    raise UserError(
        f"{name}: the labels of some rows are lists, as in {reprlib.repr(lists[0])}, those of others are not, as in "
        f"{reprlib.repr(others[0])}. Write all of them alike, or set {prefix}label-separator."
    )


def _check_bare_lists(cells: Sequence[str], name: str) -> None:
    """Raises UserError where lists have no quotes, and commas that may be a part of their elements."""
    bare = [cell.strip("[](){} ") for cell in cells if not any(quote in cell for quote in "'\"‘“<")]
    if bare and _Split.by(",", bare).is_contradicted():
        example = next(cell for cell in cells if "," in cell)
        raise UserError(
            f"{name}: lists such as {reprlib.repr(example)} have no quotes, and what stands between their commas never "
            "occurs apart: it is not clear whether a comma is a part of a label. Write them as JSON, with quotes."
        )


def _warn_of_absent(cells: Sequence[str], name: str, given: str) -> None:
    present = [mark for mark in SEPARATORS if any(mark in cell for cell in cells)]
    if given != WHOLE and present and not any(given in cell for cell in cells):
        listed = " and ".join(map(repr, present))
        warn(f"{name}: {given!r} separates labels, but the first rows hold none, and {listed}: each cell is one label")


def _unclear(cells: Sequence[str], name: str, prefix: str, marks: Sequence[str], problem: str) -> UserError:
    example = next(cell for cell in cells if any(mark in cell for mark in marks) or len(cell.split()) > 1)
    shown = marks[0].replace("\n", "\\n")
    return UserError(
        f"{name}: it is not clear what separates labels: they {problem}, as in {reprlib.repr(example)}. Set "
        f"{prefix}label-separator '{shown}' (or another), or '{WHOLE}' where each cell is one label."
    )


@dataclass(frozen=True)
class _Split:
    """Cells under the assumption that a mark separates labels."""

    multiple: dict[str, list[str]]
    """The parts of each different cell that has several."""
    rows: Counter[str]
    """How often each different cell occurs."""
    single: set[str]
    """Cells of one part."""
    cells_of: dict[str, set[str]]
    """In which different cells of several parts each part occurs."""

    @classmethod
    def by(cls, mark: str, cells: Sequence[str]) -> "_Split":
        rows = Counter(cells)
        multiple, single = {}, set()
        cells_of: dict[str, set[str]] = defaultdict(set)
        for cell in rows:
            parts = cell.split() if mark == " " else [part.strip() for part in cell.split(mark)]
            if len(parts) < 2:
                single.add(cell)
                continue
            # "C++", which is not split at "+", has parts that no other cell has.
            multiple[cell] = [part for part in parts if part] if mark in SEPARATORS else parts
            for part in parts:
                cells_of[part].add(cell)
        return cls(multiple, rows, single, cells_of)

    def is_contradicted(self, least_pairs: int = 1) -> bool:
        """Whether words around the mark occur again and again, and never without each other: Heating, ventilation."""
        counts: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        for cell, number in self.rows.items():
            words = [part.split() for part in self.multiple.get(cell, [cell])]
            for word in chain.from_iterable(words):
                counts[word] += number
            for before, after in pairwise(filter(None, words)):
                pairs[before[-1], after[0]] += number
        # In a large sample, rare labels occur together by chance.
        least = max(_REPEATED_PAIRS, 0.02 * self.rows.total())
        together = [pair for pair, number in pairs.items() if number >= least and {number} == {counts[x] for x in pair}]
        return len(together) >= least_pairs and self.rows.total() >= _REPEATED_ROWS

    def known_parts(self) -> tuple[float, int]:
        """Returns the share of rows with several parts that are all labels alone too, and the number of such cells."""
        total = sum(self.rows[cell] for cell in self.multiple)
        known = [cell for cell, parts in self.multiple.items() if all(part in self.single for part in parts)]
        return (sum(self.rows[cell] for cell in known) / total if total else 0.0), len(known)

    def recombined(self) -> float:
        """Returns the share of rows with several parts that are all in other cells too."""
        total = sum(self.rows[cell] for cell in self.multiple)
        known = sum(
            self.rows[cell]
            for cell, parts in self.multiple.items()
            if all(part in self.single or len(self.cells_of[part]) > 1 for part in parts)
        )
        return known / total if total else 0.0

    def recurs(self) -> bool:
        """Whether most cells of several parts occur more than once."""
        rows = [self.rows[cell] for cell in self.multiple]
        return sum(number for number in rows if number > 1) >= 0.8 * sum(rows)

    def exclusive(self) -> float:
        """Returns the share of rows with several parts whose parts occur in no other cell."""
        total = sum(self.rows[cell] for cell in self.multiple)
        return sum(self.rows[cell] for cell in self.multiple if self._is_exclusive(cell)) / total if total else 0.0

    def _is_exclusive(self, cell: str) -> bool:
        parts = self.multiple[cell]
        return all(part not in self.single and len(self.cells_of[part]) == 1 for part in parts)
