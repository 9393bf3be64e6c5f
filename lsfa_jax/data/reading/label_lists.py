"""Lists of labels as programs print them into one string: JSON, Python, NumPy, pandas, DuckDB, PostgreSQL.

Nothing is evaluated: the string is read character by character.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence

from lsfa_jax.data.reading.rows import BadRowError

NULLS = frozenset({"", "nan", "NaN", "NAN", "None", "null", "NULL", "<NA>", "\\N"})
"""How programs write that there is no value."""

_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_QUOTES = {"'": "'", '"': '"', "‘": "’", "“": "”"}
_ANGLES = re.compile(r"(?:<[^<>]+>[\s,;|]*)+")
_CALL = re.compile(r"(?:\w+\.)?(?:frozenset|set|array|list|tuple|Index|deque)\((.*)\)", re.DOTALL)
_KEYWORDS = re.compile(r",\s*(?:dtype|maxlen|name|length)=[^\[\]]*$")
_STRING_CALL = re.compile(r"(?:np\.|numpy\.)?str_\(")
_STRING_PREFIX = re.compile(r"[uUbB](?=['\"])")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[^uUx])", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
_NUMBERS = re.compile(r"[-+\d.eE\s]+")
_PAIR = re.compile(r"([^:=]+)[:=]\s*(\S+)")
TRUE, FALSE = ("true", "yes", "y", "x", "✓", "ja", "oui", "si", "sí"), ("false", "no", "n", "nein", "non")
"""How spreadsheets mark that a document has a label, or not."""
_TRUTH = dict.fromkeys(TRUE, 1.0) | dict.fromkeys(FALSE, 0.0)

Element = object
"""An element of a list: a string, a number, a truth value or None."""


def looks_like_list(cell: str) -> bool:
    """Whether a string is a list that `parse_list` reads."""
    if cell[:1] not in "[({<'\"‘“afslAtdIpn" or not cell:
        return False
    try:
        elements = parse_list(cell)
    except BadRowError:
        return False
    # One label in quotes is no list by itself.
    return len(elements) != 1 or cell[0] not in _QUOTES


def parse_list(cell: str) -> list[Element]:
    """Parses a list of strings or numbers, or a mapping of names to truth values or scores.

    Args:
        cell: such as '["a", "b"]', "['a' 'b']", "('a',)", "{'a', 'b'}", "[a, b]", "array(['a'], dtype=object)" or
            "{'a': 1.0, 'b': 0.0}".

    Returns:
        The elements; of a mapping the names whose value is true or above 0. A missing value such as nan is None.

    Raises:
        BadRowError: the string is no such list.
    """
    cell = cell.strip()
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        value = _parse(cell)
    if isinstance(value, dict):
        return list(positive_names(value))
    if not isinstance(value, list) or any(isinstance(element, list) for element in value):
        raise _not_a_list(cell)
    return [object_name(element) if isinstance(element, dict) else element for element in value]


def positive_names(scores: Mapping[str, object]) -> list[str]:
    """Returns the names whose value is true or above 0.

    Raises:
        BadRowError: a value is neither a number, a truth value nor missing.
    """
    lists = [value for value in scores.values() if isinstance(value, list)]
    if len(lists) == 1 and len(scores) == 1:
        return names_of(lists[0], "the list of labels")[0]  # Label Studio's {"choices": [...]}
    return [name for name, value in scores.items() if truth(value) > 0]


def object_name(label: Mapping[str, object]) -> object:
    """Returns the name of a label that is an object, such as {"id": 18, "name": "Drama"}.

    Raises:
        BadRowError: it has no name.
    """
    for key in ("name", "label", "title"):
        if isinstance(label.get(key), str):
            return label[key]
    raise BadRowError("a label is an object without a name", 'names, or objects with a "name" or "label"', dict(label))


def truth(value: object) -> float:
    """Returns the number that a truth value or score stands for; 0 for a missing value.

    Raises:
        BadRowError: it stands for none.
    """
    if value is None:
        return 0.0
    if isinstance(value, str):
        text = value.strip()
        if text in NULLS:
            return 0.0
        value = _TRUTH.get(text.lower(), text)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise BadRowError("a label's value is not a number", "0 and 1, true and false, or scores", value) from None
    return 0.0 if math.isnan(number) else number


def names_of(elements: Sequence[Element], where: str) -> tuple[list[str], tuple[str, ...]]:
    """Returns the labels of a list, numbers as they are printed, without missing values; and notes on what is left out.

    Raises:
        BadRowError: an element is not a label.
    """
    names = []
    for element in elements:
        if isinstance(element, str):
            if not element.strip():
                raise BadRowError(f"a label in {where} is empty", "non-empty strings", element)
            names.append(element)
        elif isinstance(element, dict):
            names.append(str(object_name(element)))
        elif element is not None and not (isinstance(element, float) and math.isnan(element)):
            names.append(_number_name(element, where))
    return names, ("missing label left out",) if len(names) < len(elements) else ()


def _number_name(element: Element, where: str) -> str:
    if isinstance(element, float) and element.is_integer():
        return str(int(element))
    if isinstance(element, int) and not isinstance(element, bool):
        return str(element)
    raise BadRowError(f"a label in {where} is not a string", "a list of strings or whole numbers", element)


def is_multi_hot(lists: Sequence[Sequence[Element]]) -> bool:
    """Whether lists hold 0 or 1 for each label instead of the labels: all of one length, with repeated values."""
    filled = [elements for elements in lists if elements]
    if not filled or len(filled[0]) < 2 or any(len(elements) != len(filled[0]) for elements in filled):
        return False
    digits = {"0", "1", "0.0", "1.0", "true", "false"}
    if any(str(element).lower() not in digits for elements in filled for element in elements):
        return False
    return any(len(set(map(str, elements))) < len(elements) for elements in filled)


def hot_places(elements: Sequence[Element], width: int) -> list[str]:
    """Returns the positions, from 0, of the values above 0 in a multi-hot list of `width` labels.

    Raises:
        BadRowError: the list has another length.
    """
    if len(elements) != width:
        raise BadRowError("a multi-hot list of another length", f"{width} values as in the first rows", list(elements))
    return [str(place) for place, element in enumerate(elements) if truth(element) > 0]


def _parse(cell: str) -> object:
    text = cell
    while call := _CALL.fullmatch(text):
        text = _KEYWORDS.sub("", call[1]).strip()
        if not text:
            return []
    if _ANGLES.fullmatch(text):
        return re.findall("<([^<>]+)>", text)
    start, end = text[:1], text[-1:]
    if start in _BRACKETS and len(text) > 1 and end == _BRACKETS[start]:
        inner = text[1:-1]
        # "(none)" is a label, "('none',)" is a list.
        if start == "(" and inner.strip() and inner.lstrip()[0] not in _QUOTES and not _is_numbers(inner):
            raise _not_a_list(cell)
        return _Scanner(inner, cell).elements()
    if start in _QUOTES and end == _QUOTES[start]:
        elements = _Scanner(text, cell).elements()
        if isinstance(elements, list):
            return elements
    raise _not_a_list(cell)


def _is_numbers(inner: str) -> bool:
    return "," in inner and _NUMBERS.fullmatch(inner.replace(",", " ")) is not None


def _not_a_list(cell: str) -> BadRowError:
    return BadRowError("labels are not a list", 'a list such as ["a", "b"], as in other rows', cell)


class _Scanner:
    """Reads the elements between the brackets of a list from left to right."""

    def __init__(self, inner: str, cell: str) -> None:
        self._text, self._cell, self._at = inner, cell, 0
        self._separator = ";" if ";" in inner and "," not in inner else ","

    def elements(self) -> list[Element] | dict[str, object]:
        text = self._text.strip()
        if _NUMBERS.fullmatch(text) and self._separator not in text:
            return [_bare(number) for number in text.split()]  # NumPy prints no commas
        elements: list[Element] = []
        pairs: dict[str, object] = {}
        while self._skip_space():
            if self._peek() == self._separator:
                self._at += 1
                continue
            element = self._quoted() if self._starts_string() else _bare(self._until_separator())
            if self._skip_space() and self._peek() == ":" and isinstance(element, str):
                self._at += 1
                pairs[element] = _bare(self._until_separator())
            else:
                elements.append(element)
        return self._mapping(elements, pairs)

    def _mapping(self, elements: list[Element], pairs: dict[str, object]) -> list[Element] | dict[str, object]:
        if pairs and not elements:
            return pairs
        matches = [_PAIR.fullmatch(element) if isinstance(element, str) else None for element in elements]
        if self._cell.startswith("{") and elements and all(matches):
            bare = {match[1].strip(): _bare(match[2]) for match in matches if match}
            if all(_is_truth(value) for value in bare.values()):
                return bare
        if pairs:
            raise _not_a_list(self._cell)
        return elements

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip_space(self) -> bool:
        """Moves to the next character that is no space; returns whether there is one."""
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._at < len(self._text)

    def _starts_string(self) -> bool:
        return self._peek() in _QUOTES or any(p.match(self._text, self._at) for p in (_STRING_CALL, _STRING_PREFIX))

    def _quoted(self) -> str:
        call = _STRING_CALL.match(self._text, self._at)
        self._at = call.end() if call else self._at
        if _STRING_PREFIX.match(self._text, self._at):
            self._at += 1
        if self._peek() not in _QUOTES:
            raise _not_a_list(self._cell)
        value = self._string()
        if call:
            if self._peek() != ")":
                raise _not_a_list(self._cell)
            self._at += 1
        after = self._text[self._at :].lstrip()[:1]
        follows = self._separator + ":" + "".join(_QUOTES)
        if after and after not in follows and not self._text[self._at].isspace():
            raise _not_a_list(self._cell)
        return value

    def _string(self) -> str:
        """Reads a string up to its closing quote; a doubled quote and one after a backslash belong to it."""
        close = _QUOTES[self._peek()]
        start = self._at = self._at + 1
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == close:
                if self._text[self._at + 1 : self._at + 2] != close:
                    break
                self._at += 1
            self._at += 2 if letter == "\\" else 1
        if self._at >= len(self._text):
            raise _not_a_list(self._cell)
        body = self._text[start : self._at].replace(close * 2, close)
        self._at += 1
        return _ESCAPE.sub(_unescaped, body) if self._is_escaped(body) else body

    def _is_escaped(self, body: str) -> bool:
        if "\\" in body and "\\" in _ESCAPE.sub("", body):
            raise _not_a_list(self._cell)
        return "\\" in body

    def _until_separator(self) -> str:
        """Reads a bare element; brackets within it are in pairs."""
        start = self._at
        open_brackets: list[str] = []
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == self._separator and not open_brackets:
                break
            if letter in _BRACKETS:
                open_brackets.append(_BRACKETS[letter])
            elif letter in _BRACKETS.values() and (not open_brackets or open_brackets.pop() != letter):
                raise _not_a_list(self._cell)
            self._at += 1
        bare = self._text[start : self._at].strip()
        if open_brackets or bare[:1] in _BRACKETS:
            raise _not_a_list(self._cell)
        if bare in ("...", "…") or bare.startswith("... "):
            raise BadRowError("a list that was shortened when it was printed", "all labels instead of ...", self._cell)
        return bare


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] in "uUx":
        number = int(code[1:], 16)
        return chr(number) if number < 0x110000 else match[0]
    return _ESCAPED.get(code, code if code in "\\'\"/" else match[0])


def _bare(text: str) -> Element:
    """Returns what an element without quotes stands for."""
    if text in NULLS:
        return None
    if text in ("True", "true", "False", "false"):
        return text.lower() == "true"
    if _NUMBERS.fullmatch(text) and any(letter.isdigit() for letter in text):
        try:
            return int(text)
        except ValueError:
            try:
                return float(text)
            except ValueError:
                return text
    return text


def _is_truth(value: object) -> bool:
    try:
        truth(value)
    except BadRowError:
        return False
    return True
