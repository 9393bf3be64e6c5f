"""What a run prints: the corpus and the devices at its start, the results before and after augmentation at its end."""

from pathlib import Path
from typing import Any

import numpy as np

from lsfa_jax.config import Config
from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.evaluation.groups import head_of_all_labels
from lsfa_jax.util import sharding
from lsfa_jax.util.console import note, plural, table

_METRICS = ("P@1", "P@3", "P@5", "N@5", "PSP@5")
_IN_GROUPS = {"head": ("N@5",), "tail": ("N@5", "PSP@5")}


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
    devices = sharding.devices_of_job()
    kinds = sorted({device.device_kind for device in devices})
    note(
        f"Devices: {len(devices)} x {', '.join(kinds)}; {config.precision}; texts padded to "
        f"{', '.join(map(str, train.buckets))} {unit}, {train.padding:.2f} computed {unit} for each real one"
    )
    if shortlist_size:
        note(
            f"Representation: a random sample of {shortlist_size:,} labels a step stands for all {corpus.num_labels:,}"
        )


def print_results(corpus: Corpus, is_head: np.ndarray, metrics: dict[str, Any], folder: Path, seconds: float) -> None:
    """Prints the test metrics of each model of a run, in all, head and tail labels, and the time of each stage.

    Args:
        corpus: the documents that were measured.
        is_head: bool[L].
        metrics: the content of metrics.json.
        folder: the run folder.
        seconds: of this run of the command, scoring included.
    """
    # A group none of whose labels occurs in the test documents has no metrics; 0.00 would look like failure.
    occurring = head_of_all_labels(corpus, is_head)[corpus.test.labels.values]
    groups = [name for name, in_group in (("head", occurring), ("tail", ~occurring)) if in_group.any()]
    stages = {name: stage["test"] for name, stage in metrics["stages"].items() if "test" in stage}
    rows = [
        [
            f"{name} *" if name == metrics["kept"] else name,
            *(f"{test[metric]:.2f}" for metric in _METRICS),
            *(f"{test[group][metric]:.2f}" for group in groups for metric in _IN_GROUPS[group]),
        ]
        for name, test in stages.items()
    ]
    header = ["test, percent", *_METRICS, *(f"{group} {metric}" for group in groups for metric in _IN_GROUPS[group])]
    table(f"{corpus.name}: {len(corpus.test):,} test documents; * is the model that predicts", header, rows)
    if "pvae" in metrics:
        error, ratio = metrics["pvae"]["relative_mean_error"], metrics["pvae"]["variance_ratio"]
        note(f"Generated features: relative mean error {error:.3f} (best: 0), variance ratio {ratio:.3f} (best: 1)")
    times = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in metrics["seconds"].items())
    # Times of a run that was continued are those of all its commands.
    rest = seconds - sum(metrics["seconds"].values())
    other = f", reading, collecting and scoring {rest:.0f} s" if rest >= 1 else ""
    note(f"Time: {times}{other}; this command {seconds:.0f} s. All metrics: {folder / 'metrics.json'}")
