"""The figures of an evaluation for people and programs: tables, a JSON file, a TSV file with a row for each label."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import thresholded
from lsfa_jax.evaluation.groups import GroupMetrics, Scored, Training
from lsfa_jax.util.atomic import TextFiles
from lsfa_jax.util.console import UserError, note, table

_DECISIONS = ("micro_precision", "micro_recall", "micro_F1", "macro_F1", "macro_F1_tested")
_GROUPS = ("all", "head", "tail")


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Writes all figures, unrounded.

    Raises:
        UserError: the file cannot be written.
    """
    with TextFiles() as files, files.open(path) as file:
        json.dump(report, file, indent=2)
        file.write("\n")


def write_per_label(
    path: Path, labels: dict[str, int], training: Training | None, scored: Scored, truth: Ragged
) -> None:
    """Writes a row for each label, the most frequent in training first: its counts, precision and recall in percent.

    Raises:
        UserError: the file cannot be written, or the predictions have no probabilities.
    """
    if scored.outcomes is None:
        raise UserError("--per-label: the predictions have no probabilities, so it is not known which labels are given")
    counts = training.label_counts.tolist() if training else [""] * len(labels)
    tested = np.bincount(truth.values, minlength=len(labels)).tolist()
    columns = [column.tolist() for column in scored.outcomes]
    columns += [metric(scored.outcomes).tolist() for metric in (thresholded.precision, thresholded.recall)]
    with TextFiles() as files, files.open(path) as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["label", "training", "test", "TP", "FP", "FN", "precision", "recall"])
        rows = list(zip(labels, counts, tested, *columns, strict=True))
        order = np.argsort(-training.label_counts, kind="stable") if training else range(len(rows))
        writer.writerows(rows[number] for number in order)


def print_tables(report: dict[str, Any], places: Sequence[int]) -> None:
    """Prints all labels, head and tail with the systems side by side, and a table of the bins for each system."""
    systems: dict[str, GroupMetrics] = report["systems"]
    first = next(iter(systems.values()))
    groups = [name for name in _GROUPS if name in first]
    metrics = [f"{name}@{k}" for name in ("P", "R", "N", "PSP") for k in sorted(set(places))]
    metrics = [
        name for name in [*metrics, "macro_P@5", *_DECISIONS] if any(name in one["all"] for one in systems.values())
    ]
    header = [f"{report['documents']:,} documents"]
    header += [name if len(systems) == 1 else f"{name}: {system}" for name in groups for system in systems]
    rows = [
        [metric, *(_shown(one[group], metric) for group in groups for one in systems.values())] for metric in metrics
    ]
    table("Percent", header, rows)
    bins = [name for name in first if name not in _GROUPS]
    if not bins:
        return
    chosen = [f"{name}@{max(places)}" for name in ("P", "R", "N")] + ["macro_P@5", "micro_F1", "macro_F1"]
    for system, result in systems.items():
        header = ["training documents", "labels", "documents", *chosen]
        rows = [
            [name, f"{result[name]['labels']:,.0f}", f"{result[name]['documents']:,.0f}"]
            + [_shown(result[name], metric) for metric in chosen]
            for name in bins
        ]
        table(f"{system}: labels by their number of training documents", header, rows)
    a, b = report["propensity"].values()
    note(f"PSP with A = {a:g}, B = {b:g}")


def _shown(figures: dict[str, float], metric: str) -> str:
    # A group that no document has a label of has no figures; 0.00 would look like failure.
    return f"{figures[metric]:.2f}" if metric in figures and figures["documents"] else "-"
