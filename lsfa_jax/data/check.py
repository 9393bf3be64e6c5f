"""A check of the files of a corpus before training: rows, texts, labels, and what is wrong with them."""

import shlex
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lsfa_jax.config import Data, usual_data
from lsfa_jax.data.build_corpus import merged_rows, overlap
from lsfa_jax.data.reading.documents import ReadReport, read_documents
from lsfa_jax.data.reading.options import SETTINGS, ReadOptions
from lsfa_jax.data.reading.splits import Source, find_splits
from lsfa_jax.data.same_text import Rows, in_both, same_texts
from lsfa_jax.data.similar_labels import alike
from lsfa_jax.data.text_advice import TextAdvice, unread_words
from lsfa_jax.data.tokenizer import Tokenizer
from lsfa_jax.util import console
from lsfa_jax.util.console import note, table, warn

_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
_EXAMPLES = 5

# From so many labels on, one document each is a sign that they are ids, dates or titles.
_SINGLE = 10


@dataclass
class SplitReport:
    """The N documents of one split in numbers; rows of one document are merged."""

    rows: ReadReport = field(default_factory=ReadReport)
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64[N], words of each document, before texts are cut."""
    num_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64[N], labels of each document."""
    labels: dict[str, int] = field(default_factory=dict)
    """Documents of each label."""
    digests: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.uint64))
    """uint64[N, 2], of the texts."""
    merged: str = ""
    """How many documents the rows are, where rows were merged."""

    @property
    def repeated(self) -> int:
        """Documents with the text of an earlier one in the same split."""
        return int((same_texts(self.digests) != np.arange(len(self.digests))).sum())


def check(path: Path, options: ReadOptions, data: Data | None = None) -> dict[str, SplitReport]:
    """Reads a folder or a file to the end and prints what is in it.

    Args:
        path: of the folder or file.
        options: how it is read.
        data: the settings of training, for words and their limit; None: those of bin/train without options.

    Raises:
        UserError: a split has no usable row, or it is not clear which files are its splits.
    """
    usual = usual_data()
    data = data or usual
    reports = {}
    advice = TextAdvice(Tokenizer.from_settings(data), data.max_words)
    for split, source in find_splits(path).items():
        reports[split] = check_split(source, options, data, advice, split)
        note(f"{split}: {source}: {reports[split].rows.summary()}")
        if reports[split].merged:
            note(reports[split].merged)
    _print_sizes(reports)
    _print_unread(reports, data.max_words)
    for warning in advice.warnings():
        warn(warning)
    if not reports["train"].labels:
        warn(
            "no training document has a label, and bin/train needs some: name their column with --data.labels-field, "
            "or add them to the file; bin/predict takes texts alone"
        )
        return reports
    _print_labels(reports)
    broken = any(report.rows.skipped for report in reports.values())
    if broken:
        warn("bin/train stops at the first of the skipped rows; correct them, or use --data.bad-rows skip")
    given = "".join(
        f" --data.{name.replace('_', '-')} {shlex.quote(str(getattr(options, name)))}"
        for name in SETTINGS
        if getattr(options, name) not in ("", "auto")
    )
    given += "".join(
        f" --data.{name.replace('_', '-')} {getattr(data, name)}"
        for name in ("tokenizer", "html", "max_words")
        if getattr(data, name) != getattr(usual, name)
    )
    given += " --data.bad-rows skip" if broken else ""
    note(f"Train on it: bin/train --data-dir {shlex.quote(str(path))}{given}")
    return reports


def check_split(
    source: Source, options: ReadOptions, data: Data, advice: TextAdvice, split: str = "train"
) -> SplitReport:
    """Reads one split."""
    report, tokenizer = SplitReport(), Tokenizer.from_settings(data)
    rows, lengths = Rows(tokenizer, data.max_words), array("q")
    with console.progress(f"Checking {split}", None, unit="documents") as advance:
        for document in console.counted(read_documents(source, options=options, report=report.rows), advance):
            words = tokenizer.first_words(document.text, data.max_words)
            cut = len(words) == data.max_words
            lengths.append(tokenizer.count_words(document.text) if cut else len(words))
            rows.add(document, words)
            advice.add(document.text, words)
    is_first, labels = rows.documents()
    labels = labels.take(is_first)
    report.lengths = np.array(lengths, np.int64)[is_first]
    report.num_labels = labels.sizes
    counts = np.bincount(labels.values, minlength=len(rows.label_ids)).tolist()
    report.labels = dict(zip(rows.label_ids, counts, strict=True))
    report.digests = rows.digests[is_first]
    report.merged = merged_rows(split, is_first)
    return report


def _print_unread(reports: dict[str, SplitReport], max_words: int) -> None:
    lengths = np.concatenate([report.lengths for report in reports.values()])
    unread = np.maximum(lengths - max_words, 0)
    if line := unread_words(len(lengths), int((unread > 0).sum()), int(lengths.sum()), int(unread.sum()), max_words):
        note(line)


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
    most = sorted(train.labels, key=lambda label: (-train.labels[label], label))[:_EXAMPLES]
    shown = ", ".join(f"{label!r} {train.labels[label]:,}" for label in most)
    note(f"Labels of training: {len(counts):,}, the most frequent {shown}")
    if len(counts) >= _SINGLE and counts.max() == 1 and train.num_labels.max() == 1:
        warn(
            "every document has a label that no other has: if that is not the column of labels, name it with "
            "--data.labels-field"
        )
    few = ", ".join(f"{(counts <= n).sum():,} with {'one' if n == 1 else f'{n} at most'}" for n in (1, 10, 50))
    note(f"Labels with few training documents: {few}")
    every_count: Counter[str] = Counter()
    for report in reports.values():
        every_count.update(report.labels)
    for warning in alike(every_count):
        warn(warning)
    for split, report in reports.items():
        if split == "train":
            continue
        unseen = [label for label in report.labels if label not in train.labels]
        examples = f" (e.g. {', '.join(map(repr, unseen[:_EXAMPLES]))})" if unseen else ""
        note(f"Labels of {split} that training lacks: {len(unseen):,} of {len(report.labels):,}{examples}")
        if both := in_both(report.digests, train.digests):
            warn(overlap(split, both, len(report.digests)))
