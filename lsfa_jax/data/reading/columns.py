"""Which columns hold texts, labels and ids: those of the options, else of known names, else by their content."""

import math
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from lsfa_jax.data.reading.label_cells import RARE_SEPARATORS, SEPARATORS, are_codes
from lsfa_jax.data.reading.label_lists import FALSE, NULLS, TRUE, looks_like_list, parse_list
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.util.console import UserError, warn

# Names that identify a column or field, in any case, where no option names it.
TEXT_NAMES = ("text", "texts", "document", "content", "body", "doc_token")
LABELS_NAMES = ("labels", "label", "tags", "categories", "topics", "concepts", "doc_label", "cats", "target_ind")
ID_NAMES = ("id", "doc_id", "docid", "document_id", "idx", "celex_id", "uid")

# From how many rows on repetition tells labels from texts, and what a text has at least on average.
_FEW_ROWS = 5
_WORDS_OF_TEXT, _LETTERS_OF_TEXT, _TOKENS_OF_TEXT = 3.5, 12, 8
# Letters from which a cell holds no labels; of longer ones the beginning tells what they are.
_LONG = 1_000
# A reading is chosen only where it is ahead of the next one by this much, see `_pair_score`.
_MARGIN = 1.0

_SPLIT = re.compile("|".join(map(re.escape, (*SEPARATORS, *RARE_SEPARATORS[:4]))))
# Also the mark of a document for which a label is not known, in Kaggle's test data.
_FLAGS = frozenset({"0", "1", "0.0", "1.0", "-1", *TRUE, *FALSE})


@dataclass(frozen=True)
class Roles:
    """What the columns are for."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    id: str = ""
    indicators: bool = False
    """Whether each of the columns `labels` is a label and holds 0 or 1."""


class Column:
    """What a column looks like over the first rows."""

    def __init__(self, name: str, values: Sequence[object]) -> None:
        self.name = name
        self.rows = len(values)
        self.values = [value for value in values if not _is_missing(value)]
        self.cells = [_as_text(value) for value in self.values]
        self.filled = len(self.cells) / max(1, self.rows)
        number = max(1, len(self.cells))
        self.letters = sum(map(len, self.cells)) / number
        self.words = sum(len(cell[:_LONG].split()) for cell in self.cells) / number
        counts = Counter(self.cells)
        self.distinct = len(counts) / number
        self.repeated = sum(count for count in counts.values() if count > 1) / number

    @property
    def is_flags(self) -> bool:
        """Whether all values are 0 and 1, true and false, or a mark."""
        return bool(self.cells) and all(cell.strip().lower() in _FLAGS for cell in self.cells)

    @property
    def is_text(self) -> bool:
        """Whether the cells look like texts: several words or, without spaces, many letters, and hardly any twice."""
        if any(isinstance(value, dict | bool | int | float) for value in self.values):
            return False
        if any(isinstance(value, list) for value in self.values):
            return self.words >= _TOKENS_OF_TEXT  # a list of tokens rather than of labels
        long = self.words >= _WORDS_OF_TEXT or (
            self.words < 2 and self.letters >= _LETTERS_OF_TEXT and self._has_script()
        )
        return long and self.repeated < 0.5

    @property
    def is_lists(self) -> bool:
        """Whether most cells are lists of labels."""
        return 2 * sum(looks_like_list(cell.strip()) for cell in self.cells) >= max(1, len(self.cells))

    @property
    def may_be_labels(self) -> bool:
        """Whether nothing speaks against labels: in more than a few rows some have to occur again."""
        return self.is_lists or self.rows < _FEW_ROWS or self.repeated_parts() >= 0.3

    @property
    def is_names(self) -> bool:
        """Whether the cells are of one word each and all different, as ids are."""
        one_word = all(cell.isascii() and len(cell.split()) == 1 for cell in self.cells)
        return bool(self.cells) and self.distinct == 1 and one_word

    @cached_property
    def _part_counts(self) -> Counter[str]:
        if self.letters > _LONG:
            return Counter(self.cells)
        words = [word for cell in self.cells for word in cell.split()]
        if are_codes(words):
            rows = (_SPLIT.sub(" ", cell).split() for cell in self.cells)
        else:
            rows = (_parts(value, cell) for value, cell in zip(self.values, self.cells, strict=True))
        return Counter(part for parts in rows for part in set(parts))

    @property
    def parts(self) -> set[str]:
        """The labels, where the column holds labels."""
        return set(self._part_counts)

    def repeated_parts(self) -> float:
        """Returns the share of the labels, where the column holds labels, that other rows have too."""
        counts = self._part_counts.values()
        return sum(count for count in counts if count > 1) / max(1, sum(counts))

    @property
    def is_labels(self) -> bool:
        """Whether the cells look like labels: values of which most occur again."""
        if any(isinstance(value, dict) for value in self.values):
            return True
        return len(self.cells) >= _FEW_ROWS and self.repeated_parts() >= 0.5 and len(set(self.cells)) > 1

    def _has_script(self) -> bool:
        """Whether the letters are of a script that may have no spaces."""
        return sum(letter > "\u0dff" for cell in self.cells for letter in cell) > 0.5 * sum(map(len, self.cells))


def _is_nested(value: object) -> bool:
    """Whether a value of JSON is an object that holds texts, such as {"data": {"text": ...}}."""
    if isinstance(value, list):
        return any(isinstance(element, dict) for element in value)
    return isinstance(value, dict) and any(isinstance(element, str | dict | list) for element in value.values())


def _is_missing(value: object) -> bool:
    if isinstance(value, str):
        return value.strip() in NULLS
    return value is None or (isinstance(value, float) and math.isnan(value))


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return value if isinstance(value, str) else str(value)


def _parts(value: object, cell: str) -> list[str]:
    if isinstance(value, list):
        return [str(element) for element in value]
    if looks_like_list(cell):
        return [str(element) for element in parse_list(cell)]
    return [part.strip() for part in _SPLIT.split(cell) if part.strip()]


def choose(columns: Sequence[Column], name: str, options: ReadOptions) -> Roles:
    """Chooses the columns of a table with names.

    Args:
        columns: of the first rows.
        name: of the file, for messages.
        options: what the user specified.

    Raises:
        UserError: one is missing, or two are possible; the message names the option.
    """
    names = [column.name for column in columns]
    labels: tuple[str, ...] = ()
    indicators = False
    if options.labelled:
        labels, indicators = _given_labels(columns, name, options)
    texts = _texts(columns, labels, name, options)
    if options.labelled and not labels:
        labels, indicators = _labels_by_content(columns, texts, name, options)
    document_id = options.id_field and _resolve(names, options.id_field, "id_field", name, options)[0]
    document_id = document_id or next((n for known in ID_NAMES for n in names if n.lower() == known), "")
    roles = Roles(texts, labels, document_id, indicators)
    _check(roles, columns, name, options)
    return roles


def _given_labels(columns: Sequence[Column], name: str, options: ReadOptions) -> tuple[tuple[str, ...], bool]:
    """Returns the label columns that an option or a known name identifies, and whether they hold 0 and 1."""
    names = [column.name for column in columns]
    if options.label_columns:
        return _resolve(names, options.label_columns, "label_columns", name, options), True
    if options.labels_field:
        return _resolve(names, options.labels_field, "labels_field", name, options), False
    known = _known(names, LABELS_NAMES)
    if len(known) > 1:
        raise _unclear(
            columns, f"{' and '.join(map(repr, known))} both could hold the labels", "labels_field", name, options
        )
    return tuple(known), False


def _known(names: Sequence[str], known_names: Sequence[str]) -> list[str]:
    """Returns the names that are known; the first known name has precedence: 'text' over 'body'."""
    known = [name for name in names if name.strip().lower() in known_names]
    first = [name for name in known if name.strip().lower() == known_names[0]]
    return first if len(first) == 1 else known


def _resolve(names: Sequence[str], given: str, field: str, name: str, options: ReadOptions) -> tuple[str, ...]:
    """Returns the columns that an option lists: names, patterns, or first..last, separated by commas."""
    if names.count(given) == 1:
        return (given,)
    resolved: list[str] = []
    for part in [given] if given in names else [part.strip() for part in given.split(",") if part.strip()] or [given]:
        first, dots, last = part.partition("..")
        if names.count(part) == 1:
            resolved.append(part)
        elif (
            dots and first and names.count(first) == names.count(last) == 1 and names.index(first) <= names.index(last)
        ):
            resolved += names[names.index(first) : names.index(last) + 1]
        elif matching := [n for n in names if fnmatchcase(n, part)] if part not in names else []:
            resolved += matching
        else:
            times = "more than one" if part in names else "no"
            advice = f" Name the columns with {options.option('columns')} NAMES." if part in names else ""
            raise UserError(
                f"{name}: {times} column '{part}' ({options.option(field)}); there are {_listed(names)}.{advice}"
            )
    return tuple(dict.fromkeys(resolved))


def _texts(columns: Sequence[Column], labels: Sequence[str], name: str, options: ReadOptions) -> tuple[str, ...]:
    names = [column.name for column in columns]
    if options.text_field:
        return _resolve(names, options.text_field, "text_field", name, options)
    usual = [part.strip() for part in options.usual_text_field.split(",")]
    if options.usual_text_field and options.usual_text_field in names:
        return (options.usual_text_field,)
    if options.usual_text_field and all(part in names for part in usual):
        return tuple(usual)
    if "target_ind" in names and "title" in names:
        # The extreme classification repository: Amazon's titles, with or without descriptions.
        return ("title", "content") if "content" in names else ("title",)
    known = _known(names, TEXT_NAMES)
    if len(known) == 1:
        return (known[0],)
    if known:
        problem = f"{' and '.join(map(repr, known))} both could hold the text"
        field = "text_field" if len(set(known)) > 1 else f"columns {_renamed(names)}"
        raise _unclear(columns, problem, field, name, options)
    texts = [column for column in columns if column.is_text and column.name not in labels]
    if len(texts) > 1:
        listed = ",".join(column.name for column in texts)
        raise _unclear(columns, "more than one column looks like the text", f"text_field {listed}", name, options)
    if not texts or names.count(texts[0].name) > 1:
        raise _unclear(columns, "it is not clear which column holds the text", "text_field", name, options)
    return (texts[0].name,)


def _labels_by_content(
    columns: Sequence[Column], texts: Sequence[str], name: str, options: ReadOptions
) -> tuple[tuple[str, ...], bool]:
    rest = [column for column in columns if column.name not in texts and column.name.lower() not in ID_NAMES]
    flags = [column for column in rest if column.is_flags]
    likely = [column for column in rest if column.is_labels and not column.is_flags and not column.is_text]
    if len(flags) > 1 and not likely:
        return tuple(column.name for column in flags), True
    if len(flags) > 1:
        problem = f"{len(flags)} columns of 0 and 1, and {likely[0].name!r}, could hold the labels"
        advice = f"label_columns '{flags[0].name}..{flags[-1].name}'"
        raise _unclear(columns, problem, advice, name, options, f"labels_field '{likely[0].name}'")
    if len(likely) == 1 and not flags:
        return (likely[0].name,), False
    problem = "it is not clear which column holds the labels"
    if not likely and flags:
        raise _unclear(
            columns, problem, f"label_columns {flags[0].name}", name, options, f"labels_field {flags[0].name}"
        )
    if not any(column.may_be_labels for column in rest):
        raise UserError(
            f"{name}: no column looks like labels, which are needed for training and evaluation. Add one to the file, "
            f"such as labels, with grain;trade in a row. If a column holds labels, choose it with "
            f"{options.option('labels_field')} NAME. The columns are {_with_examples(columns)}."
        )
    if not likely:
        raise _unclear(columns, problem, "labels_field", name, options)
    problem = f"{' and '.join(repr(column.name) for column in [*likely, *flags])} could hold the labels"
    listed = ",".join(column.name for column in likely)
    raise _unclear(columns, problem, f"labels_field '{listed}'" if len(likely) > 1 else "labels_field", name, options)


def _check(roles: Roles, columns: Sequence[Column], name: str, options: ReadOptions) -> None:
    """Raises UserError or warns where the content of a column contradicts its name."""
    by_name = {column.name: column for column in columns}
    text = by_name[roles.texts[0]]
    rest = [column for column in columns if column.name not in (*roles.texts, *roles.labels)]
    if text.rows >= _FEW_ROWS and not options.text_field and len(roles.texts) == 1 and text.words < 1.5:
        longer = [column for column in rest if column.is_text and column.letters > 4 * text.letters]
        if longer and text.letters < _LETTERS_OF_TEXT:
            example = reprlib.repr(text.cells[0]) if text.cells else "nothing"
            problem = f"column {text.name!r} holds {example}, and {longer[0].name!r} looks like the text"
            raise _unclear(columns, problem, "text_field", name, options)
    if len(roles.labels) != 1 or roles.indicators:
        return
    labels = by_name[roles.labels[0]]
    _check_siblings(labels, rest, name, options)
    are_strings = all(isinstance(value, str) for value in labels.values) and not options.labels_field
    are_strings = are_strings and not labels.is_lists
    if labels.rows >= _FEW_ROWS and are_strings and labels.is_text and labels.letters > 2 * text.letters:
        problem = f"column {labels.name!r} looks like a text, as in {reprlib.repr(labels.cells[0])}"
        raise _unclear(columns, problem, "labels_field", name, options)
    if labels.is_flags:
        flags = [column.name for column in columns if column.is_flags and column.name not in roles.texts]
        if len(flags) > 1:
            raise UserError(
                f"{name}: column {labels.name!r} holds only 0 and 1, as {len(flags)} columns do: {_listed(flags)}. If "
                f"each of them is a label, set {options.option('label_columns')} '{flags[0]}..{flags[-1]}'."
            )
        shown = " and ".join(map(repr, sorted({cell.strip() for cell in labels.cells})))
        warn(
            f"{name}: column {labels.name!r} holds only {shown}, which become the labels; if the column itself is a "
            f"label, set {options.option('label_columns')} {labels.name}"
        )


def _check_siblings(labels: Column, rest: Sequence[Column], name: str, options: ReadOptions) -> None:
    """Raises UserError where further columns hold the same labels: label, label_2, label_3."""
    stem = labels.name.lower().rstrip("0123456789_- ")
    siblings = []
    for column in rest:
        numbered = re.fullmatch(rf"{re.escape(stem)}s?[ _\-]?\d+", column.name.lower()) is not None
        shared = len(column.parts & labels.parts) >= 0.5 * len(column.parts) and not column.is_flags
        if (
            column.cells
            and not column.is_text
            and shared
            and (numbered or (column.is_labels and len(column.parts) > 2))
        ):
            siblings.append(column.name)
    if siblings and not options.labels_field:
        listed = ",".join([labels.name, *siblings])
        raise UserError(
            f"{name}: the columns {_listed([labels.name, *siblings])} hold the same labels. For all of them set "
            f"{options.option('labels_field')} '{listed}', for the first one alone {options.option('labels_field')} "
            f"{labels.name}."
        )


def _unclear(
    columns: Sequence[Column], problem: str, option: str, name: str, options: ReadOptions, also: str = ""
) -> UserError:
    field, _, value = option.partition(" ")
    typed = f"{options.option(field)} {value or 'NAME'}"
    if also:
        field, _, value = also.partition(" ")
        typed += f" or {options.option(field)} {value}"
    if any(_is_nested(value) for column in columns for value in column.values):
        typed += ", or write one object for each document without objects inside it, where the text is within one"
    return UserError(f"{name}: {problem}. Choose with {typed}. The columns are {_with_examples(columns)}.")


def _with_examples(columns: Sequence[Column]) -> str:
    """Returns the names of columns with a cell of each."""
    return "; ".join(
        f"{column.name!r}, such as {reprlib.repr(column.cells[0])}" if column.cells else f"{column.name!r}, empty"
        for column in columns[:20]
    ) + (" ..." if len(columns) > 20 else "")


def _renamed(names: Sequence[str]) -> str:
    """Returns names for columns of which several have the same name: the later ones are not read."""
    return ",".join("-" if name in names[:place] or not name else name for place, name in enumerate(names))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:40])) + (" ..." if len(names) > 40 else "")


def choose_without_names(columns: Sequence[Column], labelled: bool) -> Roles | None:
    """Chooses the columns of a table without a header by their content alone.

    A text is longer than labels, and labels occur again in other rows.

    Args:
        columns: of the first rows.
        labelled: False chooses the text alone, and does without labels.

    Returns:
        The roles; None where two readings are near each other.
    """
    if len(columns) > 2 and columns[0].rows < _FEW_ROWS:
        return None
    ids = [column for column in columns if column.is_names and column.filled == 1 and column.rows > 1]
    document_id = ids[0].name if ids and len(columns) > 2 and (ids[0] is columns[0] or len(ids) == 1) else ""
    rest = [column for column in columns if column.name != document_id and column.cells]
    if len(rest) > 2:
        rest = [column for column in rest if column.distinct * len(column.cells) > 1]  # not constant
    pairs = [(t, x) for t in rest for x in rest if t is not x and not t.is_lists and x.may_be_labels]
    scores = sorted(((_pair_score(t, x), t.name, x.name) for t, x in pairs), reverse=True)
    if scores and scores[0][0] >= 1 and (len(scores) < 2 or scores[0][0] - scores[1][0] >= _MARGIN):
        _, text, labels = scores[0]
        return Roles((text,), (labels,) if labelled else (), document_id)
    if labelled:
        return None
    texts = [column for column in rest if column.is_text]
    return Roles((texts[0].name,), (), document_id) if len(texts) == 1 else None


def _pair_score(text: Column, labels: Column) -> float:
    """Scores how well one column is the text and another the labels: by length, and by repetition across rows."""
    length = math.log2(max(text.letters, 0.5) / max(labels.letters, 0.5))
    repetition = labels.repeated_parts() - text.repeated if labels.rows >= _FEW_ROWS else 0.0
    unlike = 2.0 if labels.is_text and labels.rows >= _FEW_ROWS else 0.0
    return max(-4.0, min(4.0, length)) + 3 * repetition - unlike


def has_header(rows: Sequence[Sequence[str]], is_known: Callable[[str], bool]) -> bool | None:
    """Whether the first row of a table looks like names of columns rather than a document.

    Args:
        rows: the first rows, all of one width.
        is_known: whether a name identifies a column.

    Returns:
        None where it may be either.
    """
    first, rest = [cell.strip() for cell in rows[0]], rows[1:]
    if not any(first) or any(looks_like_list(cell) for cell in first):
        return False
    columns = [Column(name, [row[place] for row in rest]) for place, name in enumerate(first)]
    recurs = [column.cells.count(name) if name else 0 for name, column in zip(first, columns, strict=True)]
    # Joined files repeat their header, but not every few rows.
    if any(is_known(name) and 20 * times <= len(rest) + 40 for name, times in zip(first, recurs, strict=True)):
        return True
    if any(recurs) or any(set(_parts(name, name)) & column.parts for name, column in zip(first, columns, strict=True)):
        return False
    if any(
        column.is_text and 2 * len(name) < min(map(len, column.cells))
        for name, column in zip(first, columns, strict=True)
    ):
        return True
    if any(_is_number(name) for name in first):
        return False
    if any(column.cells and all(map(_is_number, column.cells)) for column in columns):
        return True
    # A label that no other row has is rare where nearly all others recur.
    new_label = any(len(column.cells) >= 10 and column.repeated_parts() >= 0.9 for column in columns)
    short = all(len(cell.split()) <= 3 for cell in first)
    long_text = any(
        column.is_text and len(name) > 0.5 * column.letters for name, column in zip(first, columns, strict=True)
    )
    if new_label and len(set(first)) == len(first):
        return True if short and not long_text else None
    return any(
        column.is_text and short and min(len(cell.split()) for cell in column.cells) > len(name.split())
        for name, column in zip(first, columns, strict=True)
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
