"""Writes docs/settings.md from the descriptions of the settings: python docs/make_settings.py."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lsfa_jax.config import Config, Section, dotted, read_toml

PAGE = Path(__file__).with_name("settings.md")
CONFIGS = Path(__file__).parents[1] / "configs"

_HEAD = """# Settings

Generated from the code by `python docs/make_settings.py`. Every setting is an option of `bin/train` (`--psc.weight 1`)
and a key of a settings file (`--config FILE`, TOML: `weight = 1` under `[psc]`). An unknown key is an error that names
the most similar one. Each of these overrides the ones before it:

1. the defaults below,
2. the file of the corpus in `configs/`,
3. with `--preset quick` its file in `configs/presets/`, then the part `quick` of the corpus's file,
4. the file of the encoder in `configs/encoders/`, where there is one, with its part `quick` likewise,
5. `--profile`,
6. the file of `--config`,
7. options.

`bin/train` uses `--preset quick` unless another is chosen (with `--profile released` it uses `full`), and `--dataset
custom` with `--data-dir`. The last section lists what the files change; with quick, some settings follow from the
corpus ([your_own_data.md](your_own_data.md#what-follows-from-the-corpus)).
"""


def page() -> str:
    """Returns the content of docs/settings.md."""
    parts = [_HEAD, "## The run\n", _table(Config)]
    for name, field in Config.model_fields.items():
        if _is_section(field.annotation):
            parts += [f"## {name}\n", f"{field.annotation.__doc__}\n", _table(field.annotation, f"{name}.")]
    parts += [
        "## What the files in configs/ change\n",
        "Keys under `quick` apply with `--preset quick`.\n",
        *_differences(),
    ]
    return "\n".join(parts)


def _is_section(kind: object) -> TypeGuard[type[Section]]:
    return isinstance(kind, type) and issubclass(kind, Section)


def _table(section: type[BaseModel], prefix: str = "") -> str:
    rows = ["| option | default | values | effect |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        if not _is_section(field.annotation):
            option = f"--{prefix}{name}".replace("_", "-")
            rows.append(f"| `{option}` | {_code(field.default)} | {_values(field)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _code(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(f"`{part}`" for part in value)
    return "(empty)" if value == "" else f"`{value}`"


def _values(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(item, name):,}"
        for item in field.metadata
        for name, sign in (("gt", ">"), ("ge", "at least"), ("lt", "<"), ("le", "at most"))
        if getattr(item, name, None) is not None
    ]
    return ", ".join([_kind(field.annotation), *bounds])


def _kind(kind: Any) -> str:
    """Names a type in words."""
    origin = get_origin(kind)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in get_args(kind))
    if origin is tuple:
        return "whole numbers"
    if origin is not None:  # Annotated
        return _kind(get_args(kind)[0])
    return {int: "whole number", float: "number", str: "text", bool: "yes or no (`--no-...`)"}[kind]


def _settings_files() -> Iterator[Path]:
    """Yields the files of corpora, presets, encoders and profiles; plans of experiments are no settings."""
    return (path for path in CONFIGS.rglob("*.toml") if path.parent.name != "experiments")


def _differences() -> Iterator[str]:
    def rows(values: dict[str, Any]) -> Iterator[str]:
        for key, value in dotted(values).items():
            yield f"`{key}` = {_code(tuple(value) if isinstance(value, list) else value)}"

    for path in sorted(_settings_files(), key=lambda path: (path.parent.name, path.name)):
        yield f"- `{path.relative_to(CONFIGS.parent)}`: {', '.join(rows(read_toml(path)))}"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
