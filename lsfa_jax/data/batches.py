"""Splits to padded batches: length buckets, an order that follows from seed and epoch alone, positive pairs."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lsfa_jax.data.corpus import Split
from lsfa_jax.data.negative_sampling import Candidates
from lsfa_jax.data.ragged import Ragged

Array = Any
"""NumPy's on the host; JAX's once a batch is on the device."""


class Batch(NamedTuple):
    """Documents padded to one shape. B rows, T words, K label slots."""

    words: Array
    """int32[B, T], ids; or float16[B, T, 2H], what an encoder has made of each word; 0 beyond the length."""
    lengths: Array
    """int32[B], words of each document; 0 for padding rows."""
    label_ids: Array
    """int32[B, K], the document's labels that the model knows, the positive pairs; 0 beyond them."""
    label_mask: Array
    """bool[B, K], true at labels."""
    document_mask: Array
    """bool[B], false at padding rows."""
    rows: Array
    """int32[B], each document's number in its split; 0 at padding rows."""
    candidates: Candidates | None = None
    """Labels that a sampled loss may look at; None where the loss is over all."""


class Batches:
    """The batches of one split: which documents share one is decided by length bucket, seed and epoch.

    The number of batches an epoch is fixed, so one step count says where a run stands.
    """

    def __init__(
        self, split: Split, num_labels: int, batch_size: int, buckets: Sequence[int], multiple: int = 1
    ) -> None:
        """Sorts documents into buckets.

        Args:
            split: the documents.
            num_labels: L; labels from there on are not in training and never positive pairs.
            batch_size: documents a batch.
            buckets: lengths that documents are padded to; must reach the longest.
            multiple: rows are padded to a multiple of this, the number of devices.
        """
        self.split = split
        self.num_labels = num_labels
        self.batch_size = batch_size
        self.rows = -(-batch_size // multiple) * multiple
        # No bucket is longer than the longest document: short corpora compile less and pad less.
        longest = max(1, int(split.lengths.max(initial=1)))
        self.buckets = np.unique([min(size, longest) for size in buckets])
        self.bucket_of = np.searchsorted(self.buckets, np.maximum(split.lengths, 1))
        self.slots = label_slots(split)

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch."""
        return int(sum(-(-count // self.batch_size) for count in np.bincount(self.bucket_of)))

    @property
    def padding(self) -> float:
        """Words computed in an epoch, padding and all, for each real one."""
        batches = -(-np.bincount(self.bucket_of, minlength=len(self.buckets)) // self.batch_size)
        return float(self.rows * (batches @ self.buckets) / max(1, self.split.lengths.sum()))

    def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Returns the rows of each batch of one epoch, shuffled; each document is in exactly one."""
        random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        order = random.permutation(len(self.split))
        plan = self._chunks(order)
        return [plan[i] for i in random.permutation(len(plan))]

    def in_order(self) -> list[np.ndarray]:
        """Returns the rows of each batch of one pass in order of length, nothing shuffled."""
        return self._chunks(np.argsort(self.split.lengths, kind="stable"))

    def _chunks(self, order: np.ndarray) -> list[np.ndarray]:
        plan = []
        for bucket in range(len(self.buckets)):
            rows = order[self.bucket_of[order] == bucket]
            plan += [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        return plan

    def load(self, plan: list[np.ndarray], start: int = 0) -> Iterator[Batch]:
        """Makes the batches of a plan, from number `start` on."""
        for rows in plan[start:]:
            yield self.gather(rows)

    def gather(self, rows: np.ndarray) -> Batch:
        """Makes one batch of the given documents."""
        num_words = int(self.buckets[self.bucket_of[rows].max()])
        padded = np.zeros(self.rows, np.int32)
        padded[: len(rows)] = rows
        document_mask = np.arange(self.rows) < len(rows)
        words, lengths = _padded(self.split.words, rows, self.rows, num_words)
        labels = self.split.labels
        most = int((labels.offsets[rows + 1] - labels.offsets[rows]).max(initial=0))
        slots = next(size for size in self.slots if size >= most)
        label_ids, counts = _padded(labels, rows, self.rows, slots)
        label_mask = (np.arange(slots) < counts[:, None]) & (label_ids < self.num_labels)
        return Batch(
            words=words,
            lengths=lengths,
            label_ids=np.where(label_mask, label_ids, 0),
            label_mask=label_mask,
            document_mask=document_mask,
            rows=padded,
        )


def _padded(ragged: Ragged, rows: np.ndarray, num_rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Copies rows into [num_rows, width, ...], padded with 0; returns it and the rows' sizes, int32[num_rows]."""
    padded = np.zeros((num_rows, width, *ragged.values.shape[1:]), ragged.values.dtype)
    sizes = np.zeros(num_rows, np.int32)
    for place, row in enumerate(rows):
        entries = ragged.row(row)
        padded[place, : len(entries)] = entries
        sizes[place] = len(entries)
    return padded, sizes


def label_slots(split: Split) -> list[int]:
    """Lists the widths K that positive pairs are padded to: few, so that a run compiles few programs.

    One width does for a corpus whose documents have up to 32 labels; a few with hundreds get wider ones to themselves.
    """
    most = max(1, int(split.labels.sizes.max(initial=1)))
    widths = [32 * 4**i for i in range(16) if 32 * 4**i < most]
    return [*widths, -(-most // 8) * 8]
