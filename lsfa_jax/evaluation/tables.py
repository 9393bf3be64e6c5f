"""The metrics of an evaluation as tables, as a JSON file, and as a TSV file with a row for each label."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import ranking, thresholded
from lsfa_jax.evaluation.groups import GroupMetrics, TrainingCounts
from lsfa_jax.evaluation.ranking import Propensity
from lsfa_jax.evaluation.thresholded import ConfusionCounts
from lsfa_jax.util.atomic import TextFiles
from lsfa_jax.util.console import note, plural, table

_THRESHOLDED = ("micro_precision", "micro_recall", "micro_F1", "macro_F1", "macro_F1_tested")
_GROUPS = ("all", "head", "tail")
_COUNTS = ("TP", "FP", "FN")
_MOST_SIDE_BY_SIDE = 2


def write_json(path: Path, report: Mapping[str, object]) -> None:
    """Writes all metrics, not rounded.

    Raises:
        UserError: the file cannot be written.
    """
    with TextFiles() as files, files.open(path) as file:
        json.dump(report, file, indent=2)
        file.write("\n")


def write_per_label(
    path: Path,
    labels: Sequence[str],
    training: TrainingCounts | None,
    truth: Ragged,
    systems: Mapping[str, ConfusionCounts],
) -> None:
    """Writes a row for each label, the most frequent in training first: counts, precision, recall and F1 in percent.

    Args:
        path: of the TSV file.
        labels: the L names.
        training: counts of training documents, where they are known.
        truth: the labels of the N documents.
        systems: the confusion counts of each system. The columns of the first have plain names, those of further
            systems begin with the system's name: `tree F1`.

    Raises:
        UserError: the file cannot be written.
    """
    counts = training.label_counts.tolist() if training else [""] * len(labels)
    columns = {"label": labels, "training": counts, "test": np.bincount(truth.values, minlength=len(labels)).tolist()}
    for number, (system, confusion) in enumerate(systems.items()):
        prefix = f"{system} " if number else ""
        columns |= {f"{prefix}{name}": column.tolist() for name, column in zip(_COUNTS, confusion, strict=True)}
        for name, metric in thresholded.METRICS.items():
            columns[f"{prefix}{name}"] = [f"{value:.2f}" for value in metric(confusion).tolist()]
    with TextFiles() as files, files.open(path) as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        rows = list(zip(*columns.values(), strict=True))
        order = np.argsort(-training.label_counts, kind="stable") if training else range(len(rows))
        writer.writerows(rows[number] for number in order)


def by_frequency(systems: Mapping[str, GroupMetrics]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the metrics of each system that was measured in bins: system -> bin -> metric.

    A bin without a test document has no metrics but its numbers of labels and documents.
    """
    return {
        system: {
            name: values if values["documents"] else {key: values[key] for key in ("labels", "documents")}
            for name, values in metrics.items()
            if name not in _GROUPS
        }
        for system, metrics in systems.items()
        if metrics.keys() - set(_GROUPS)
    }


def write_by_frequency(
    path: Path, systems: Mapping[str, Mapping[str, Mapping[str, float]]], metrics: Sequence[str]
) -> None:
    """Writes a row for each system and bin of labels as CSV, in percent with two decimals.

    Args:
        path: of the file.
        systems: as `by_frequency` returns them.
        metrics: the columns behind the numbers of labels and documents.

    Raises:
        UserError: the file cannot be written.
    """
    with TextFiles() as files, files.open(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["system", "training documents", "labels", "documents", *metrics])
        for system, bins in systems.items():
            for name, values in bins.items():
                numbers = [f"{values[key]:.0f}" for key in ("labels", "documents")]
                percents = [f"{values[metric]:.2f}" if metric in values else "" for metric in metrics]
                writer.writerow([system, name, *numbers, *percents])


def print_tables(
    systems: Mapping[str, GroupMetrics], num_documents: int, places: Sequence[int], propensity: Propensity
) -> None:
    """Prints all labels, head and tail with the systems side by side, and a table of the bins for each system.

    Args:
        systems: the metrics of each system by its name, in the groups of the first one, or in some of them.
        num_documents: N.
        places: where rankings are cut off.
        propensity: A and B of PSP.
    """
    groups = list(next(iter(systems.values())))
    shown = [name for name in groups if name in _GROUPS]
    # Side by side, two systems fit on a page; of more, a table for each group does.
    for part in [shown] if len(systems) <= _MOST_SIDE_BY_SIDE else [[name] for name in shown]:
        _print_systems(systems, num_documents, places, part)
    bins = [name for name in groups if name not in _GROUPS]
    if bins:
        for system, metrics in systems.items():
            if bins[0] in metrics:
                _print_bins(system, metrics, places, bins)
        note(f"PSP with A = {propensity.a:g}, B = {propensity.b:g}")


def _print_systems(
    systems: Mapping[str, GroupMetrics], num_documents: int, places: Sequence[int], groups: Sequence[str]
) -> None:
    measured = {
        name if len(systems) == 1 else f"{name}: {system}": metrics[name]
        for name in groups
        for system, metrics in systems.items()
        if name in metrics
    }
    header = [plural(num_documents, "document"), *measured]
    rows = [
        [metric, *(_shown(metrics, metric) for metrics in measured.values())]
        for metric in _metric_names(places)
        if any(metric in metrics["all"] for metrics in systems.values())
    ]
    table("Percent", header, rows)


def _print_bins(system: str, metrics: GroupMetrics, places: Sequence[int], bins: Sequence[str]) -> None:
    chosen = [f"{name}@{max(places)}" for name in ("P", "R", "N")] + ["macro_P@5", "micro_F1", "macro_F1"]
    header = ["training documents", "labels", "documents", *chosen]
    rows = [
        [name, f"{metrics[name]['labels']:,.0f}", f"{metrics[name]['documents']:,.0f}"]
        + [_shown(metrics[name], metric) for metric in chosen]
        for name in bins
    ]
    table(f"{system}: labels by their number of training documents", header, rows)


def _metric_names(places: Sequence[int]) -> Iterator[str]:
    for name in ranking.METRICS:
        yield from (f"{name}@{k}" for k in sorted(set(places)))
    yield "macro_P@5"
    yield from (*_THRESHOLDED, "ECE")


def _shown(metrics: Mapping[str, float], metric: str) -> str:
    # "-" for a group without test documents: 0.00 would look like failure.
    return f"{metrics[metric]:.2f}" if metric in metrics and metrics.get("documents", 1) else "-"
