"""The page of a run, from the files of its folder alone: charts of its history, results, settings, time."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from lsfa_jax.config import STAGES, Config, corpus_name, dotted, read_toml
from lsfa_jax.pages.charts import Chart, line_chart
from lsfa_jax.pages.template import template
from lsfa_jax.training import results
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.util import atomic

NAME = "report.html"

_TEMPLATE = Path(__file__).with_name("report.html")

TITLES = {
    "bce": "Binary cross-entropy (Eq. 6)",
    "psc": "Contrastive loss (Eq. 9)",
    "negative_elbo": "Negative evidence lower bound (Eq. 17)",
    "kl": "KL divergence of the latent variable",
    "augmented": "Cross-entropy of generated features (Eq. 19)",
}
"""Of the losses, by their names in the history."""

_COLUMNS = ("P@1", "P@3", "P@5", "N@5", "PSP@5", "head N@5", "tail N@5", "tail PSP@5")
# Of a line of the history, what is no loss.
_NO_LOSSES = {"stage", "step", "epoch", "time", "input_wait", "validation"}


class StageCharts(NamedTuple):
    """The charts of a stage and where it is."""

    name: str
    epoch: str
    charts: list[Chart]


class Result(NamedTuple):
    """A row of the table of results."""

    name: str
    is_kept: bool
    cells: list[tuple[str, bool]]
    """Percent, and whether it is the best of its column."""


def write(folder: Path, path: Path) -> None:
    """Writes the page of the run in a folder, atomically.

    Raises:
        UserError: a file of the run cannot be read, or the page cannot be written.
    """
    atomic.write_text(path, page(folder))


def page(folder: Path) -> str:
    """Returns the page of the run in a folder, as far as the run has come.

    Raises:
        UserError: the folder holds no run, or its settings cannot be read.
    """
    run = RunFolder(folder)
    settings = dotted(read_toml(run.config_file))
    metrics, history = run.read_metrics(), run.read_history()
    split, rows = _results(metrics)
    return template(_TEMPLATE).render(
        name=folder.resolve().name,
        dataset=corpus_name(str(settings.get("dataset", "")), str(settings.get("data_dir", ""))),
        sizes=metrics.get("split", {}),
        num_labels=metrics.get("num_labels", 0),
        head_threshold=settings.get("pvae.head_threshold"),
        is_complete=bool(metrics) and not run.is_unfinished,
        updated=_date(history[-1]["time"]) if history and "time" in history[-1] else "",
        stages=[_stage(name, lines, settings) for name in STAGES if (lines := _of_stage(history, name))],
        split=split,
        columns=_COLUMNS,
        results=rows,
        linear_alone=results.linear_alone(metrics),
        change=_change(metrics, split),
        bins=_bins(metrics, settings),
        pvae=metrics.get("pvae", {}),
        settings=_changed(settings),
        seconds=metrics.get("seconds", {}),
    )


def _of_stage(history: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [line for line in history if line["stage"] == name]


def _stage(name: str, lines: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> StageCharts:
    section = {"transfer": "pvae", "adjustment": "adjust"}.get(name, name)
    epoch = f"epoch {lines[-1]['epoch']:.3g} of at most {settings.get(f'{section}.epochs', '?')}"
    return StageCharts(name, epoch, [chart for chart in _charts(lines) if chart])


def _charts(lines: Sequence[Mapping[str, Any]]) -> Iterator[Chart | None]:
    """Yields the charts of a stage: each loss, the validation metrics, learning rates that change."""
    flat = [dotted(line) for line in lines]

    def points(key: str) -> list[tuple[float, float]]:
        return [(line["epoch"], line[key]) for line in flat if key in line]

    # The first line of a run that starts from a trained model has no losses.
    names = [key for key in lines[-1] if key not in _NO_LOSSES and not key.endswith(("/s", "learning_rate"))]
    for name in names:
        yield line_chart(TITLES.get(name, name), "epoch", {name: points(name)})
    for metric in ("P@1", "P@5", "N@5", "PSP@5"):
        series = {"all labels": points(f"validation.{metric}")}
        if metric in ("N@5", "PSP@5"):
            series |= {group: points(f"validation.{group}.{metric}") for group in ("head", "tail")}
        yield line_chart(f"Validation {metric}, percent", "epoch", series)
    rates = {key: points(key) for key in lines[-1] if key.endswith("learning_rate")}
    if any(len({rate for _, rate in values}) > 1 for values in rates.values()):
        yield line_chart("Learning rates", "epoch", rates)


def _results(metrics: Mapping[str, Any]) -> tuple[str, list[Result]]:
    """Returns which documents the models were measured on, and the table: the linear models, each stage, fused."""
    split = _split(metrics)
    values = {
        name: [_metric(stage[split], column) for column in _COLUMNS]
        for name, stage in metrics.get("stages", {}).items()
        if split in stage
    }
    best = [
        max((value for value in column if value is not None), default=None)
        for column in zip(*values.values(), strict=True)
    ]
    rows = [
        Result(
            name,
            name == metrics.get("kept"),
            [("" if value is None else f"{value:.2f}", value == top) for value, top in zip(row, best, strict=True)],
        )
        for name, row in values.items()
    ]
    return split, rows


def _split(metrics: Mapping[str, Any]) -> str:
    stages = metrics.get("stages", {}).values()
    return "test" if any("test" in stage for stage in stages) else "validation"


def _metric(measured: Mapping[str, Any], column: str) -> float | None:
    *group, metric = column.split()
    value: float | None = (measured.get(group[0], {}) if group else measured).get(metric)
    return value


def _change(metrics: Mapping[str, Any], split: str) -> list[str]:
    """Returns by how much the last stage, with its generated features, changes each column; [] before it."""
    before, after = (metrics.get("stages", {}).get(name, {}).get(split) for name in results.NETWORKS)
    if not before or not after:
        return []
    pairs = [(_metric(after, column), _metric(before, column)) for column in _COLUMNS]
    return ["" if new is None or old is None else f"{new - old:+.2f}" for new, old in pairs]


def _bins(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> Chart | None:
    """Returns the chart of macro P@5 by label frequency (Fig. 1b); None where all labels are in one bin."""
    size = settings.get("report.bin_size", 400)
    series = {
        name: stage["macro_P@5_bins"] for name, stage in metrics.get("stages", {}).items() if "macro_P@5_bins" in stage
    }
    count = max(map(len, series.values()), default=0)
    first_ranks = [f"{size * place + 1:,}" for place in range(count)]
    if count < 2:
        return None
    return line_chart(
        f"Macro P@5 of test documents, percent, in bins of {size:,} labels from the most frequent down (Fig. 1b)",
        "rank",
        {name: list(enumerate(values)) for name, values in series.items()},
        first_ranks,
    )


def _changed(settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the settings that differ from the defaults: name, value, default."""
    usual = dotted(Config().model_dump(mode="json"))
    return [
        (key, _shown(value), _shown(usual.get(key, ""))) for key, value in settings.items() if value != usual.get(key)
    ]


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
