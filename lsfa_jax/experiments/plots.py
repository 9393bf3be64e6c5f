"""The plots of an experiment, each as SVG and as PNG."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lsfa_jax.util import atomic

# Distinct also for readers who confuse red and green, and in grey.
_COLOURS = (
    "#1f4e79",
    "#d98032",
    "#7ba3c9",
    "#8c3b24",
    "#6b8e4e",
    "#b9a5c9",
    "#5c5c5c",
    "#d9b44a",
    "#3f8f8f",
    "#a66b8f",
)
_MARKERS = "osD^vP"

Values = np.ndarray
"""float[seeds, points] of one variant."""


def bars(path: Path, title: str, metrics: Sequence[str], variants: Mapping[str, Values]) -> None:
    """Draws a panel for each metric, its bars the variants, with the range over seeds; values are at the bars."""
    figure, panels = _figure(title, len(metrics), width=1.2 + 0.45 * len(variants))
    for place, (metric, axes) in enumerate(zip(metrics, panels, strict=True)):
        means = np.array([values[:, place].mean() for values in variants.values()])
        low = np.array([values[:, place].min() for values in variants.values()])
        high = np.array([values[:, place].max() for values in variants.values()])
        axes.bar(range(len(means)), means, color=_COLOURS[: len(means)], width=0.75)
        axes.errorbar(
            range(len(means)),
            means,
            yerr=np.maximum([means - low, high - means], 0),
            fmt="none",
            ecolor="#222",
            capsize=2,
            lw=1,
        )
        for x, (mean, top) in enumerate(zip(means, high, strict=True)):
            axes.annotate(f"{mean:.1f}", (x, top), (0, 2), textcoords="offset points", ha="center", fontsize=7)
        # From below the lowest value, as in the paper, since differences are small; the axis says so.
        span = max(high.max() - low.min(), 1.0)
        axes.set_ylim(max(0.0, low.min() - span), high.max() + 0.35 * span)
        axes.set_xticks(range(len(means)), list(variants), rotation=0 if _are_short(variants) else 90, fontsize=8)
        axes.set_title(metric, fontsize=9)
    panels[0].set_ylabel("percent (axis cut off)")
    _save(figure, path)


def curves(path: Path, title: str, metrics: Sequence[str], swept: Mapping[str, tuple[Sequence[float], Values]]) -> None:
    """Draws a row of panels for each swept setting: each metric over the setting's values, with the range over seeds.

    Args:
        path: without an ending.
        title: of the figure.
        metrics: names, a panel each.
        swept: by setting: its values X, and float[seeds, X, metrics].
    """
    figure, panels = _figure(title, len(metrics), rows=len(swept))
    for row, (setting, (xs, values)) in enumerate(swept.items()):
        for column, metric in enumerate(metrics):
            axes, ys = panels[row * len(metrics) + column], values[:, :, column]
            places = np.arange(len(xs))
            axes.fill_between(places, ys.min(axis=0), ys.max(axis=0), color=_COLOURS[0], alpha=0.15, lw=0)
            axes.plot(places, ys.mean(axis=0), "o-", color=_COLOURS[0], ms=4)
            axes.set_xticks(places, [f"{x:g}" for x in xs])
            axes.set(xlabel=setting, title=metric)
    _save(figure, path)


def lines(
    path: Path, title: str, xlabel: str, panels: Mapping[str, Mapping[str, Values]], bins: Sequence[str] = ()
) -> None:
    """Draws lines over bins of labels in panels, with the range over seeds; lines that are equal to a tenth as one.

    Args:
        path: without an ending.
        title: of the figure.
        xlabel: what the bins are.
        panels: by label of the y axis: the values of each variant; NaN leaves a gap.
        bins: their names; by default numbers.
    """
    figure, panels_drawn = _figure(title, len(panels), width=7 if len(panels) == 1 else 5)
    for (ylabel, variants), axes in zip(panels.items(), panels_drawn, strict=True):
        alike: dict[bytes, list[str]] = {}
        for name, values in variants.items():
            alike.setdefault(values.round(1).tobytes(), []).append(name)
        names_of = {names[0]: " = ".join(names) for names in alike.values()}
        for (name, values), colour, marker in zip(variants.items(), cycle(_COLOURS), cycle(_MARKERS), strict=False):
            if name not in names_of:
                continue
            places = np.arange(1, values.shape[1] + 1)
            axes.fill_between(places, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, lw=0)
            axes.plot(places, values.mean(axis=0), marker=marker, ms=4, color=colour, label=names_of[name])
        axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
        if bins:
            axes.set_xticks(range(1, len(bins) + 1), bins)
        else:
            axes.locator_params(axis="x", integer=True)
        axes.legend(frameon=False)
    _save(figure, path)


def shares(path: Path, title: str, values: Mapping[str, float]) -> None:
    """Draws a horizontal bar for each name, the largest at the top, with its percentage; values are shares of 1."""
    figure, (axes,) = _figure(title, 1, width=7)
    order = sorted(values, key=lambda name: values[name])
    bars = axes.barh(order, [100 * values[name] for name in order], color=_COLOURS[0])
    axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
    axes.grid(visible=False)
    axes.set_xlabel("percent")
    _save(figure, path)


def counts(path: Path, title: str, curves: Mapping[str, np.ndarray]) -> None:
    """Draws the documents, or pairs, of each label in the order of the original counts, both axes logarithmic."""
    figure, (axes,) = _figure(title, 1, width=7)
    order = np.argsort(-next(iter(curves.values())), kind="stable")
    ranks = np.arange(1, len(order) + 1)
    for (name, values), colour in zip(curves.items(), _COLOURS, strict=False):
        axes.plot(ranks, np.maximum(values[order], 0.5), ".", ms=3, color=colour, label=name)
    axes.set(xscale="log", yscale="log", xlabel="rank of the label", ylabel="training pairs of the label")
    axes.legend(frameon=False, markerscale=3)
    _save(figure, path)


def scatter(path: Path, title: str, panels_of: Mapping[str, Sequence[tuple[str, np.ndarray, np.ndarray]]]) -> None:
    """Draws points of labels; of each variant a panel with the real and one with the generated points too.

    Args:
        path: without an ending.
        title: of the figure.
        panels_of: by variant: the name of each label, its real points float[N, 2] and its generated ones.
    """
    figure, panels = _figure(title, 2 * len(panels_of), width=3.2)
    for number, (variant, labels) in enumerate(panels_of.items()):
        pair = panels[2 * number : 2 * number + 2]
        pair[1].sharex(pair[0])
        pair[1].sharey(pair[0])
        for with_generated, axes in enumerate(pair):
            for (name, real, generated), colour in zip(labels, _COLOURS, strict=False):
                if with_generated:
                    axes.scatter(generated[:, 0], generated[:, 1], s=9, color=colour, alpha=0.3, lw=0)
                axes.scatter(real[:, 0], real[:, 1], s=12, color=colour, lw=0, label=name)
            axes.set_title(f"{variant}{', generated' if with_generated else ''}", fontsize=8)
            axes.set(xticks=[], yticks=[])
    panels[0].legend(fontsize=7, frameon=False, loc="best")
    _save(figure, path)


def _are_short(names: Mapping[str, Any]) -> bool:
    return all(len(name) <= 3 for name in names)


def _figure(title: str, columns: int, rows: int = 1, width: float = 3.0) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    panels = [figure.add_subplot(rows, columns, number + 1) for number in range(rows * columns)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
    return figure, panels


def _save(figure: Figure, path: Path) -> None:
    # Equal figures give equal files: no date, and ids that follow from the content.
    with rc_context({"svg.hashsalt": "lsfa_jax"}):
        for kind, metadata in (("svg", {"Date": None}), ("png", {})):
            with atomic.replacing(path.with_suffix(f".{kind}")) as partial:
                figure.savefig(partial, dpi=150, format=kind, metadata=metadata)
