"""The space of a search: the settings that are varied, and the values that they may have.

Spaces are the files `configs/tune/*.toml`, or any file that is named by its path. They have the sections of a settings
file, with values of three forms: a list to choose from; `{ low, high, log }`, the bounds of a number, on a logarithmic
scale with `log = true`; and `{ times = [...] }`, factors of the value that the corpus has.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lsfa_jax.config import CONFIGS, Config, get, keys, nearest, nested, read_toml, validated
from lsfa_jax.util.console import UserError

FOLDER = CONFIGS / "tune"
"""The folder with the spaces that have a name."""

_VARIED = ("encoder", "classifier", "psc", "optimizer", "representation", "transfer", "pvae", "adjust")
_FIXED = (
    *("encoder.kind", "encoder.pretrained", "representation.select", "representation.num_candidates"),
    "adjust.select",
)

_FORMS = "a list of values, { low = ..., high = ..., log = true } or { times = [...] }"


class Dimension(NamedTuple):
    """A setting that is varied."""

    choices: tuple[Any, ...] = ()
    """The values to choose from; () for a number between bounds."""
    low: float = 0.0
    high: float = 0.0
    """The bounds, of the setting's type, int or float; both may be chosen."""
    log: bool = False
    """Whether the logarithm is drawn evenly."""

    def __contains__(self, value: object) -> bool:
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high


Space = dict[str, Dimension]
"""Dimensions by the dotted name of the setting."""


def names() -> list[str]:
    """Lists the spaces that have a name."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str, corpus: Config) -> Space:
    """Reads a space by its name, or a file by its path.

    Args:
        name: of a space, or a path that ends in .toml.
        corpus: the settings that runs on the corpus have, of which a space may name multiples.

    Raises:
        UserError: there is no such space, or something in its file is wrong; the message names file and setting.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise UserError(f"--space {name}: expected {', '.join(names())}, or a TOML file{nearest(name, names())}")
    space = {key: _dimension(key, value, corpus, str(path)) for key, value in _settings(read_toml(path), str(path))}
    if not space:
        raise UserError(f"{path}: no setting is varied; expected sections of settings, each with {_FORMS}")
    return space


def _settings(values: Mapping[str, Any], where: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields what a file says about each setting, by its dotted name."""
    known = list(keys(Config))
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in known:
            if key.partition(".")[0] not in _VARIED or key in _FIXED:
                option = key.replace("_", "-")
                raise UserError(f"{where}: {key} is the same in all trials; choose it with --{option}")
            yield key, value
        elif isinstance(value, Mapping) and any(other.startswith(f"{key}.") for other in known):
            yield from _settings(value, where, f"{key}.")
        else:
            raise UserError(f"{where}: unknown setting {key}{nearest(key, known)}")


def _dimension(key: str, value: Any, corpus: Config, where: str) -> Dimension:
    def checked(value: Any) -> Any:
        """Returns a value as the setting has it."""
        return get(validated(nested({key: value}), where), key)

    def number(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{where}: {key}: {value!r} is not a number")
        return value

    match value:
        case [_, *_]:
            return Dimension(tuple(dict.fromkeys(map(checked, value))))
        case {"times": [_, *_] as factors} if len(value) == 1:
            old = number(get(corpus, key))
            scaled = (old * number(factor) for factor in factors)
            whole = (round(value) if isinstance(old, int) else value for value in scaled)
            return Dimension(tuple(dict.fromkeys(map(checked, whole))))
        case {"low": low, "high": high} if value.keys() <= {"low", "high", "log"}:
            low, high, log = checked(number(low)), checked(number(high)), value.get("log", False)
            if type(log) is not bool or not low < high or (log and low <= 0):
                raise UserError(f"{where}: {key}: expected low below high, and log = true only where both are above 0")
            return Dimension((), low, high, log)
    raise UserError(f"{where}: {key} = {value!r}: expected {_FORMS}")
