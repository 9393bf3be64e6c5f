"""Why a command line is wrong, on one line. The parser's messages take ten lines, and name Python types."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_origin

import tyro
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.fields import FieldInfo

from lsfa_jax.config import expected_values, item_type, nearest


@dataclass(frozen=True)
class _Options:
    """The arguments of a command."""

    named: dict[str, FieldInfo]
    """By the option without its dashes: data.max-words."""
    positional: list[tuple[str, FieldInfo]]
    flags: frozenset[str]
    """Options without a value: resume, no-resume."""


def first_error(kind: type[BaseModel], argv: Sequence[str]) -> str | None:
    """Returns what is wrong first on a command line: the option, what was expected; None where nothing is.

    Args:
        kind: the class of the command's arguments.
        argv: the command line after the command's name.
    """
    options = _options(kind)
    given: set[str] = set()
    free = list(options.positional)
    words, only_positional = list(argv), False
    while words:
        word = words.pop(0)
        if word == "--" and not only_positional:  # no option is among the words after it
            only_positional = True
            continue
        if only_positional or not _is_option(word):
            if not free:
                return f"{word}: unexpected argument{_as_data_dir(word, options)}"
            if get_origin(free[0][1].annotation) is not tuple:  # else all further words are its values
                free.pop(0)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("_", "-")
        if name in options.flags and not equals:
            continue
        if name not in options.named or not word.startswith("--"):
            return f"{word.partition('=')[0]}: unknown option{_nearest_option(name, options)}"
        given.add(name)
        field = options.named[name]
        several = get_origin(field.annotation) is tuple
        values = [value] * bool(equals)
        if several or not equals:
            values += _take_values(words, several)
        if error := _value_error(name, field, values):
            return error
    missing = [(name.upper(), field) for name, field in free]
    missing += [(f"--{name}", field) for name, field in options.named.items() if name not in given]
    needed = (f"{name} is missing. {field.description}" for name, field in missing if field.is_required())
    return next(needed, "").rstrip(".") or None


def _options(kind: type[BaseModel]) -> _Options:
    named: dict[str, FieldInfo] = {}
    positional: list[tuple[str, FieldInfo]] = []
    for name, field in kind.model_fields.items():
        option = name.replace("_", "-")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            prefix = "" if tyro.conf.OmitArgPrefixes in field.metadata else f"{option}."
            named |= {f"{prefix}{inner}": of_inner for inner, of_inner in _options(field.annotation).named.items()}
        elif tyro.conf.Positional in field.metadata:
            positional.append((name, field))
        else:
            named[option] = field
    flags = [name for name, field in named.items() if field.annotation is bool]
    return _Options(named, positional, frozenset([*flags, *map(_negated, flags)]))


def _negated(flag: str) -> str:
    """Returns the option that sets a flag to false: psc.normalize -> psc.no-normalize."""
    section, dot, name = flag.rpartition(".")
    return f"{section}{dot}no-{name}"


def _is_option(word: str) -> bool:
    # Negative numbers, and - for standard input, are values.
    return word.startswith("-") and word.lstrip("-")[:1].isalpha()


def _take_values(words: list[str], several: bool) -> list[str]:
    """Removes the values of an option from the rest of the line: one, or all up to the next option."""
    values: list[str] = []
    while words and words[0] != "--" and not _is_option(words[0]) and (several or not values):
        values.append(words.pop(0))
    return values


def _value_error(name: str, field: FieldInfo, values: list[str]) -> str | None:
    several = get_origin(field.annotation) is tuple
    kind = item_type(field)
    expected = expected_values(kind, () if several else field.metadata)
    expected = "a value" if expected == "a string" else expected
    if not values and not several:
        return f"--{name}: expected {expected} after it"
    for value in values:
        if not _allowed(value, kind, () if several else field.metadata):
            return f"--{name} {value}: expected {expected}"
    return None


def _allowed(word: str, kind: object, metadata: Sequence[object]) -> bool:
    """Whether a word of a command line, or the number that it spells, is a value of a type."""
    limited: Any = Annotated[(kind, *metadata)] if metadata else kind  # type: ignore[misc]
    adapter: TypeAdapter[object] = TypeAdapter(limited, config=ConfigDict(allow_inf_nan=False))
    for read in (str, int, float):
        with suppress(ValueError):  # ValidationError is one
            adapter.validate_python(read(word), strict=True)
            return True
    return False


def _nearest_option(name: str, options: _Options) -> str:
    return nearest(name, [*options.named, *options.flags]).replace("did you mean ", "did you mean --")


def _as_data_dir(word: str, options: _Options) -> str:
    """Suggests the option for files where a command takes none without it."""
    return f" (did you mean --data-dir {word}?)" if "data-dir" in options.named and Path(word).exists() else ""
