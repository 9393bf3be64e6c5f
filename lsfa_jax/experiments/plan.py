"""The plan of an experiment: which corpora, which variants of the settings, and what is reported of them.

Plans are the files `configs/experiments/*.toml`; a new experiment is a new file there, or any file by its path.
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from lsfa_jax.config import CONFIGS, Config, Section, dotted, fields, get, merged, nearest, nested, read_toml, validated
from lsfa_jax.experiments import statistics
from lsfa_jax.training.results import Result
from lsfa_jax.training.run_folder import stage_of
from lsfa_jax.util.console import UserError

FOLDER = CONFIGS / "experiments"
"""The folder with the plans and the figures of the paper's tables."""

# Characters of a folder's name before a checksum replaces the rest.
_LONGEST = 60

Kind = Literal["table", "bars", "curve", "bins", "counts", "features"]


class Variant(Section):
    """Settings that differ from the base, and which result of the run is reported."""

    settings: dict[str, Any] = Field({}, description="By section, as in a settings file.")
    scaled: dict[str, float] = Field({}, description="By dotted name: factors of the value that the corpus has.")
    result: Result = "adjusted"


class Claim(Section):
    """A statement that a page decides: `better` is above `worse` in each of the metrics."""

    text: str
    better: str
    worse: str
    metrics: tuple[str, ...]


class Plan(Section):
    """An experiment."""

    title: str
    about: str = ""
    corpora: tuple[str, ...]
    show: Kind = "table"
    metrics: tuple[str, ...] = ()
    paper: str = Field("", description="Rows of this table of the paper are shown beside ours.")
    settings: dict[str, Any] = Field({}, description="Of all variants.")
    variants: dict[str, Variant] = Field({}, description="By name.")
    sweep: dict[str, tuple[float, ...]] = Field(
        {}, description="By dotted name of a setting: factors of the corpus's value, a variant each."
    )
    bin_size: int = Field(400, gt=0)
    claims: tuple[Claim, ...] = ()

    def all_variants(self) -> dict[str, Variant]:
        """Returns the variants, those of the sweep included."""
        swept = {
            sweep_name(key, factor): Variant(scaled={} if factor == 1 else {key: factor})
            for key, factors in self.sweep.items()
            for factor in factors
        }
        return self.variants | swept


class Settings(NamedTuple):
    """The settings of a variant by the stage that reads them first."""

    first: dict[str, Any]
    """By section, of stage 1: runs in which these are equal share an encoder."""
    later: dict[str, Any]
    """By dotted name, of stages 2 and 3."""
    scaled: dict[str, float]
    """By dotted name: factors, of stages 2 and 3."""


def sweep_name(key: str, factor: float) -> str:
    """Returns the name of a variant of a sweep."""
    return f"{key} x {factor:g}"


def split_settings(plan: Plan, variant: Variant) -> Settings:
    """Returns the settings of a variant, those of its plan included."""
    values = dotted(merged(plan.settings, variant.settings))
    first = {key: value for key, value in values.items() if stage_of(key) == "representation"}
    later = {key: value for key, value in values.items() if key not in first}
    return Settings(nested(first), later, dict(variant.scaled))


def slug(values: Mapping[str, Any]) -> str:
    """Returns a name for a folder of the results with these values, the same for the same values."""
    text = ",".join(f"{key}={json.dumps(value)}" for key, value in sorted(values.items()))
    name = re.sub(r"[^A-Za-z0-9_.,=+-]", "", text) or "base"
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def resolved(base: Config, later: Mapping[str, Any], scaled: Mapping[str, float]) -> dict[str, Any]:
    """Returns the values of later stages by dotted name, with those that are factors of the base's computed."""

    def value(key: str, factor: float) -> float:
        old = get(base, key)
        return round(old * factor) if isinstance(old, int) else old * factor

    return dict(later) | {key: value(key, factor) for key, factor in scaled.items()}


def names() -> list[str]:
    """Lists the plans that have a name."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def file_of(name: str) -> Path:
    """Returns the file of a plan by its name, or the file that a path names, whether or not it exists."""
    return Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"


def read(name: str) -> Plan:
    """Reads a plan by its name, or a file by its path.

    Raises:
        UserError: there is no such plan, or something in its file is wrong; the message names the place.
    """
    path = file_of(name)
    if not path.is_file():
        raise UserError(f"{name}: expected a plan, one of {', '.join(names())}, or a TOML file{nearest(name, names())}")
    try:
        plan = Plan.model_validate(read_toml(path))
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"]))
        raise UserError(f"{path}: {place}: {wrong['msg'][0].lower()}{wrong['msg'][1:]}") from None
    _check(plan, str(path))
    return plan


def _check(plan: Plan, where: str) -> None:
    variants, settings = plan.all_variants(), dict(fields(Config))
    if plan.show in ("bars", "curve") and not plan.metrics:
        raise UserError(f"{where}: show = {plan.show!r} draws metrics; name some, such as metrics = ['P@5']")
    if plan.show == "curve" and not plan.sweep:
        raise UserError(f"{where}: show = 'curve' draws the values of a setting; give a section sweep with its factors")
    for metric in (*plan.metrics, *(metric for claim in plan.claims for metric in claim.metrics)):
        statistics.check_metric(metric, where)
    for claim in plan.claims:
        for name in (claim.better, claim.worse):
            if name not in variants:
                raise UserError(f"{where}: claims: {name!r} is no variant{nearest(name, list(variants))}")
    for name, variant in variants.items():
        validated(merged(plan.settings, variant.settings), f"{where}: {name}")
        for key in variant.scaled:
            if key not in settings:
                raise UserError(f"{where}: {name}: unknown setting {key}{nearest(key, list(settings))}")
            if stage_of(key) == "representation":
                raise UserError(f"{where}: {name}: {key} belongs to the first stage; only later ones are scaled")
        later = split_settings(plan, variant)
        if plan.show == "features" and (unused := [*later.later, *later.scaled]):
            raise UserError(
                f"{where}: {name}: {', '.join(unused)}: of a later stage, and show = 'features' draws what the first "
                "stage learned; choose what all variants share with --config"
            )


def paper_rows(table: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields the rows of one of the paper's tables: the model, and its figures by metric where the table has them."""
    if not table:
        return
    with (FOLDER / "paper.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row.pop("table") == table:
                model = row.pop("model")
                yield model, {metric: float(figure) for metric, figure in row.items() if figure}
