"""What a run prints: the corpus and the devices at its start, the results before and after augmentation at its end."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from lsfa_jax.config import Config
from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.evaluation.groups import head_of_all_labels
from lsfa_jax.util.console import note, plural, table

_GROUPS = ("all", "head", "tail")


def print_start(config: Config, corpus: Corpus, train: Batches, is_head: np.ndarray, shortlist_size: int) -> None:
    """Prints the sizes of the corpus, the devices, and how texts are padded."""
    splits = {"train": corpus.train, "validation": corpus.validation, "test": corpus.test}
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in splits.items())
    per_document = len(corpus.train.labels.values) / len(corpus.train)
    note(
        f"{corpus.name}: {sizes} documents; {plural(corpus.num_labels, 'label')} ({int(is_head.sum()):,} head, "
        f"{int((~is_head).sum()):,} tail at N_t = {config.pvae.head_threshold}), "
        f"{per_document:.2f} a document; "
        + (f"{corpus.pieces.size:,} word pieces" if corpus.pieces else f"{len(corpus.words):,} words")
    )
    unit = "word pieces" if corpus.pieces else "words"
    kinds = sorted({device.device_kind for device in jax.local_devices()})
    note(
        f"Devices: {jax.local_device_count()} x {', '.join(kinds)}; {config.precision}; texts padded to "
        f"{', '.join(map(str, train.buckets))} {unit}, {train.padding:.2f} computed {unit} for each real one"
    )
    if shortlist_size:
        note(
            f"Representation: a random sample of {shortlist_size:,} labels a step stands for all {corpus.num_labels:,}"
        )


def print_results(corpus: Corpus, is_head: np.ndarray, metrics: dict[str, Any], folder: Path) -> None:
    """Prints the test metrics of all, head and tail labels, before and after augmentation, and the time of each stage.

    Args:
        corpus: the documents that were measured.
        is_head: bool[L].
        metrics: the content of metrics.json.
        folder: the run folder.
    """
    before = metrics["stages"]["representation"]["test"]
    after = metrics["stages"].get("adjusted", {}).get("test")
    # A group none of whose labels occurs in the test documents has no metrics; 0.00 would look like failure.
    occurring = head_of_all_labels(corpus, is_head)[corpus.test.labels.values]
    measured = {"all": len(occurring) > 0, "head": bool(occurring.any()), "tail": bool((~occurring).any())}

    def cells(metric: str) -> list[str]:
        row = [metric]
        for group in _GROUPS:
            values = [(x if group == "all" else x[group])[metric] for x in (before, after) if x is not None]
            row += [f"{value:.2f}" if measured[group] else "-" for value in values]
        if after:
            row.append(f"{after['tail'][metric] - before['tail'][metric]:+.2f}" if measured["tail"] else "-")
        return row

    columns = [name for group in _GROUPS for name in ((group, "adjusted") if after else (group,))]
    header = ["test documents", *columns, *(["change"] if after else [])]
    title = "Before and after augmentation, percent" if after else "Representation learning, percent"
    table(f"{corpus.name}: {title}", header, [cells(metric) for metric in before if metric not in _GROUPS])
    if "pvae" in metrics:
        error, ratio = metrics["pvae"]["relative_mean_error"], metrics["pvae"]["variance_ratio"]
        note(f"Generated features: relative mean error {error:.3f} (best: 0), variance ratio {ratio:.3f} (best: 1)")
    times = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in metrics["seconds"].items())
    note(f"Time: {times}. Results: {folder}")
