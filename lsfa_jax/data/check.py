"""A check of the files of a corpus before training: rows, texts, labels, and what is wrong with them."""

import shlex
from array import array
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from lsfa_jax.data.reading.detect import ReadOptions
from lsfa_jax.data.reading.documents import ReadReport, read_documents
from lsfa_jax.data.reading.splits import Source, find_splits
from lsfa_jax.data.vocabulary import count_words
from lsfa_jax.util import console
from lsfa_jax.util.console import note, plural, table, warn

_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
_EXAMPLES = 5


@dataclass
class SplitReport:
    """The documents of one split in numbers."""

    rows: ReadReport = field(default_factory=ReadReport)
    lengths: array = field(default_factory=lambda: array("q"))
    """Words of each document, before texts are cut."""
    num_labels: array = field(default_factory=lambda: array("q"))
    """Labels of each document."""
    labels: dict[str, int] = field(default_factory=dict)
    """Documents of each label."""
    texts: set[bytes] = field(default_factory=set)
    """Digests of the texts that are not empty."""
    repeated: int = 0
    """Documents with the text of an earlier one in the same split."""


def check(path: Path, options: ReadOptions) -> dict[str, SplitReport]:
    """Reads a folder or a file to the end and prints what is in it.

    Raises:
        UserError: a split has no usable row, or it is not clear which files are its splits.
    """
    reports = {}
    for split, source in find_splits(path).items():
        reports[split] = check_split(source, options, split)
        note(f"{split}: {source}: {reports[split].rows.summary()}")
    _print_sizes(reports)
    _print_labels(reports)
    broken = any(report.rows.skipped for report in reports.values())
    if broken:
        warn("bin/train stops at the first of the skipped rows; correct them, or use --data.bad-rows skip")
    given = "".join(
        f" --data.{name.replace('_', '-')} {shlex.quote(str(getattr(options, name)))}"
        for name in ("format", "text_field", "labels_field", "label_separator")
        if getattr(options, name) not in ("", "auto")
    )
    given += " --data.bad-rows skip" if broken else ""
    note(f"Train on it: bin/train --data-dir {shlex.quote(str(path))}{given}")
    return reports


def check_split(source: Source, options: ReadOptions, split: str = "train") -> SplitReport:
    """Reads one split."""
    report = SplitReport()
    with console.progress(f"Checking {split}", None, unit="documents") as advance:
        for number, document in enumerate(read_documents(source, options=options, report=report.rows), 1):
            report.lengths.append(count_words(document.text))
            report.num_labels.append(len(document.labels))
            for label in document.labels:
                report.labels[label] = report.labels.get(label, 0) + 1
            if document.text.strip():
                digest = blake2b(document.text.encode(), digest_size=12).digest()
                report.repeated += digest in report.texts
                report.texts.add(digest)
            if number % 100 == 0:
                advance(100)
    return report


def _print_sizes(reports: dict[str, SplitReport]) -> None:
    rows = [
        (
            split,
            f"{report.rows.read:,}",
            f"{report.rows.kept:,}",
            f"{report.rows.skipped.total():,}",
            f"{report.repeated:,}",
        )
        for split, report in reports.items()
    ]
    table("Rows", ("split", "read", "kept", "skipped", "same text as an earlier one"), rows)
    header = ("", "least", "5 %", "half", "95 %", "most", "mean")
    quantiles = [
        (f"{split}, {what}", *(f"{q:,.0f}" for q in np.quantile(values, _QUANTILES)), f"{np.mean(values):,.2f}")
        for split, report in reports.items()
        for what, values in (("words", report.lengths), ("labels", report.num_labels))
    ]
    table("Words and labels a document", header, quantiles)


def _print_labels(reports: dict[str, SplitReport]) -> None:
    train = reports["train"]
    counts = np.array(sorted(train.labels.values(), reverse=True), np.int64)
    if not len(counts):
        warn("no training document has a label: there is nothing to learn")
        return
    most = sorted(train.labels, key=lambda label: (-train.labels[label], label))[:_EXAMPLES]
    shown = ", ".join(f"{label!r} {train.labels[label]:,}" for label in most)
    note(f"Labels of training: {len(counts):,}, the most frequent {shown}")
    few = ", ".join(f"{(counts <= n).sum():,} with {'one' if n == 1 else f'{n} at most'}" for n in (1, 10, 50))
    note(f"Labels with few training documents: {few}")
    for split, report in reports.items():
        if split == "train":
            continue
        unseen = [label for label in report.labels if label not in train.labels]
        examples = f" (e.g. {', '.join(map(repr, unseen[:_EXAMPLES]))})" if unseen else ""
        note(f"Labels of {split} that training lacks: {len(unseen):,} of {len(report.labels):,}{examples}")
        both = len(report.texts & train.texts)
        if both:
            warn(f"{plural(both, 'text')} of {split} {'is' if both == 1 else 'are'} in training too")
