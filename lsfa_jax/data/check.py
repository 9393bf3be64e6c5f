"""What is in people's files and what is wrong with them, before anything is trained on them."""

import shlex
from array import array
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from lsfa_jax.data.reading import documents
from lsfa_jax.data.reading.documents import ReadOptions, ReadReport, Source
from lsfa_jax.data.vocabulary import count_words
from lsfa_jax.util import console
from lsfa_jax.util.console import note, table, warn

_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
_EXAMPLES = 5


@dataclass
class Findings:
    """What was found in one split."""

    report: ReadReport = field(default_factory=ReadReport)
    lengths: array = field(default_factory=lambda: array("q"))
    """Words of each document, whole texts."""
    num_labels: array = field(default_factory=lambda: array("q"))
    """Labels of each document."""
    labels: dict[str, int] = field(default_factory=dict)
    """Documents of each label."""
    texts: set[bytes] = field(default_factory=set)
    """Digests of the texts that are not empty."""
    repeated: int = 0
    """Documents whose text came before in the same split."""


def check(path: Path, options: ReadOptions) -> dict[str, Findings]:
    """Reads a folder or a file to the end and prints what is in it.

    Raises:
        UserError: a split has nothing that can be used, or what is in the folder is not clear.
    """
    found = {}
    for split, source in documents.find_splits(path).items():
        found[split] = examine(source, options, split)
        note(f"{split}: {source}: {found[split].report.summary()}")
    _print_sizes(found)
    _print_labels(found)
    if any(findings.report.skipped for findings in found.values()):
        warn("bin/train stops at the first row that is skipped here; mend them, or give it --data.bad-rows skip")
    options_given = "".join(
        f" --data.{name.replace('_', '-')} {shlex.quote(str(getattr(options, name)))}"
        for name in ("format", "text_field", "labels_field", "label_separator")
        if getattr(options, name) not in ("", "auto")
    )
    note(f"Train on it: bin/train --data-dir {shlex.quote(str(path))}{options_given}")
    return found


def examine(source: Source, options: ReadOptions, split: str = "train") -> Findings:
    """Reads one split."""
    findings = Findings()
    with console.progress(f"Checking {split}", None, unit="documents") as advance:
        for number, document in enumerate(documents.read_documents(source, options=options, report=findings.report), 1):
            findings.lengths.append(count_words(document.text))
            findings.num_labels.append(len(document.labels))
            for label in document.labels:
                findings.labels[label] = findings.labels.get(label, 0) + 1
            if document.text.strip():
                digest = blake2b(document.text.encode(), digest_size=12).digest()
                findings.repeated += digest in findings.texts
                findings.texts.add(digest)
            if number % 100 == 0:
                advance(100)
    return findings


def _print_sizes(found: dict[str, Findings]) -> None:
    rows = [
        (split, f"{x.report.read:,}", f"{x.report.kept:,}", f"{x.report.skipped.total():,}", f"{x.repeated:,}")
        for split, x in found.items()
    ]
    table("Rows", ("split", "read", "kept", "skipped", "same text as an earlier one"), rows)
    header = ("", "least", "5 %", "half", "95 %", "most", "mean")
    quantiles = [
        (f"{split}, {what}", *(f"{q:,.0f}" for q in np.quantile(values, _QUANTILES)), f"{np.mean(values):,.2f}")
        for split, x in found.items()
        for what, values in (("words", x.lengths), ("labels", x.num_labels))
    ]
    table("Words and labels a document", header, quantiles)


def _print_labels(found: dict[str, Findings]) -> None:
    train = found["train"]
    counts = np.array(sorted(train.labels.values(), reverse=True), np.int64)
    if not len(counts):
        warn("no training document has a label: there is nothing to learn")
        return
    most = sorted(train.labels, key=lambda label: (-train.labels[label], label))[:_EXAMPLES]
    shown = ", ".join(f"{label!r} {train.labels[label]:,}" for label in most)
    note(f"Labels of training: {len(counts):,}, the most frequent {shown}")
    few = ", ".join(f"{(counts <= n).sum():,} with {'one' if n == 1 else f'{n} at most'}" for n in (1, 10, 50))
    note(f"Labels with few training documents: {few}")
    for split, x in found.items():
        if split == "train":
            continue
        unseen = [label for label in x.labels if label not in train.labels]
        examples = f" (e.g. {', '.join(map(repr, unseen[:_EXAMPLES]))})" if unseen else ""
        note(f"Labels of {split} that training lacks: {len(unseen):,} of {len(x.labels):,}{examples}")
        both = len(x.texts & train.texts)
        if both:
            warn(f"{both:,} texts of {split} are in training too")
