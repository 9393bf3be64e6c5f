"""The metrics of an evaluation as tables, as a JSON file, and as a TSV file with a row for each label."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import ranking, thresholded
from lsfa_jax.evaluation.groups import GroupMetrics, Scores, TrainingCounts
from lsfa_jax.evaluation.ranking import Propensity
from lsfa_jax.util.atomic import TextFiles
from lsfa_jax.util.console import UserError, note, plural, table

_THRESHOLDED = ("micro_precision", "micro_recall", "micro_F1", "macro_F1", "macro_F1_tested")
_GROUPS = ("all", "head", "tail")


def write_json(path: Path, report: Mapping[str, object]) -> None:
    """Writes all metrics, not rounded.

    Raises:
        UserError: the file cannot be written.
    """
    with TextFiles() as files, files.open(path) as file:
        json.dump(report, file, indent=2)
        file.write("\n")


def write_per_label(
    path: Path, labels: Sequence[str], training: TrainingCounts | None, scores: Scores, truth: Ragged
) -> None:
    """Writes a row for each label, the most frequent in training first: its counts, precision and recall in percent.

    Raises:
        UserError: the file cannot be written, or the predictions have no probabilities.
    """
    if scores.confusion is None:
        raise UserError(
            "--per-label: the predictions have no probabilities, so no label can be compared to a threshold"
        )
    counts = training.label_counts.tolist() if training else [""] * len(labels)
    tested = np.bincount(truth.values, minlength=len(labels)).tolist()
    columns = [column.tolist() for column in scores.confusion]
    columns += [metric(scores.confusion).tolist() for metric in (thresholded.precision, thresholded.recall)]
    with TextFiles() as files, files.open(path) as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["label", "training", "test", "TP", "FP", "FN", "precision", "recall"])
        rows = list(zip(labels, counts, tested, *columns, strict=True))
        order = np.argsort(-training.label_counts, kind="stable") if training else range(len(rows))
        writer.writerows(rows[number] for number in order)


def print_tables(
    systems: Mapping[str, GroupMetrics], num_documents: int, places: Sequence[int], propensity: Propensity
) -> None:
    """Prints all labels, head and tail with the systems side by side, and a table of the bins for each system.

    Args:
        systems: the metrics of each system by its name; all have the same groups.
        num_documents: N.
        places: where rankings are cut off.
        propensity: A and B of PSP.
    """
    groups = list(next(iter(systems.values())))
    _print_systems(systems, num_documents, places, [name for name in groups if name in _GROUPS])
    bins = [name for name in groups if name not in _GROUPS]
    if bins:
        for system, metrics in systems.items():
            _print_bins(system, metrics, places, bins)
        note(f"PSP with A = {propensity.a:g}, B = {propensity.b:g}")


def _print_systems(
    systems: Mapping[str, GroupMetrics], num_documents: int, places: Sequence[int], groups: Sequence[str]
) -> None:
    header = [plural(num_documents, "document")]
    header += [name if len(systems) == 1 else f"{name}: {system}" for name in groups for system in systems]
    rows = [
        [metric, *(_shown(metrics[group], metric) for group in groups for metrics in systems.values())]
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
    yield from _THRESHOLDED


def _shown(metrics: Mapping[str, float], metric: str) -> str:
    # "-" for a group without test documents: 0.00 would look like failure.
    return f"{metrics[metric]:.2f}" if metric in metrics and metrics["documents"] else "-"
