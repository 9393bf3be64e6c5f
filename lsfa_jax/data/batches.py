"""Splits to padded batches: length buckets, a shuffled order, positive pairs.

Shapes: B documents (rows), T words, K label slots of a document, H hidden units a direction, L labels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from lsfa_jax.data.corpus import AnySplit
from lsfa_jax.data.negative_sampling import ShortlistPool
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import Ranked
from lsfa_jax.types import AnyArray, HostArray


class Batch(NamedTuple):
    """Documents padded to one shape. On the host, then on the devices."""

    words: AnyArray | None
    """int32[B, T], word ids, 0 beyond the length; None where the split has token or hidden states."""
    lengths: AnyArray
    """int32[B], words of each document; 0 for padding rows."""
    label_ids: AnyArray
    """int32[B, K], the document's labels that the model knows, the positive pairs; 0 beyond them."""
    label_mask: AnyArray
    """bool[B, K], true at labels."""
    document_mask: AnyArray
    """bool[B], false at padding rows."""
    rows: AnyArray
    """int32[B], each document's index in its split; 0 at padding rows."""
    states: AnyArray | None = None
    """[B, T, 2H], token states, 0 beyond the length; None where the split has word ids."""
    hidden: AnyArray | None = None
    """[B, R, H], hidden states of the encoder's frozen layers; None where the split has none."""
    ranked: Ranked | None = None
    """The linear model's lists of the documents; None where the score is the network's alone."""
    candidates: AnyArray | None = None
    """int32[B, candidates], labels that a linear model proposes for each document, best first, -1 where there are
    fewer; in training `data.candidates.with_labels` puts the document's labels in front. None: all labels count."""
    sample: AnyArray | None = None
    """int32[R], labels that represent those outside the candidates in the loss; the same for all documents."""
    excluded: AnyArray | None = None
    """int32[B, X], labels that are neither predicted for each document nor counted, -1 where there are fewer."""
    shortlist_pool: ShortlistPool | None = None
    """Labels from which the shortlist of a sampled loss is chosen."""


def length_buckets(lengths: Iterable[int], longest: int) -> list[int]:
    """Returns the lengths that documents of up to `longest` words are padded to, increasing; `longest` is the last.

    Args:
        lengths: the setting `data.length_buckets`. Those beyond `longest` are not needed: a corpus of short documents
            compiles fewer programs and pads less.
        longest: words of the longest document; at least 1 is assumed.
    """
    longest = max(1, longest)
    return sorted({length for length in lengths if length < longest} | {longest})


class Batches:
    """The batches of one split. Which documents share a batch depends on length buckets and a random order.

    The number of batches an epoch is fixed, so a number of steps determines the place in a run.

    Attributes:
        split: the documents.
        num_labels: L.
        batch_size: documents a batch.
        rows: B of a full batch, `batch_size` rounded up to a multiple of the mesh's data shards.
        buckets: int[buckets], the lengths that documents are padded to, increasing.
        bucket_of: uint[N], the bucket of each document.
        slots: the numbers of label slots K that batches are padded to.
    """

    def __init__(
        self,
        split: AnySplit,
        num_labels: int,
        batch_size: int,
        buckets: Sequence[int],
        multiple: int = 1,
        *,
        longest: int | None = None,
        few_rows: Sequence[int] = (),
        ranked: Ranked | None = None,
        candidates: HostArray | None = None,
        rows_read: Callable[[int], HostArray] | None = None,
        excluded: Ragged | None = None,
    ) -> None:
        """Sorts documents into buckets.

        Args:
            split: the N documents.
            num_labels: L; labels with larger ids are not in training and never positive pairs.
            batch_size: documents a batch.
            buckets: the setting `data.length_buckets`.
            multiple: rows are padded to a multiple of this, the size of the mesh's axis `data`.
            longest: words of the longest document, the split's by default. Splits that arrive one after another, such
                as chunks of a stream, share their shapes and so their compiled programs if they share this.
            few_rows: numbers of rows below a full batch that a batch with few documents may be padded to instead, each
                times `multiple`: for chunks of few documents.
            ranked: the linear model's lists of the N documents, which the batches carry.
            candidates: int32[N, candidates], the labels that a linear model proposes for each document, best first,
                each once, -1 where there are fewer.
            rows_read: returns bool[B], the rows of a batch of B rows whose tokens are read; the others are 0. For one
                of several processes, which puts only some rows on its devices. None: all.
            excluded: labels that are neither predicted for each of the N documents nor counted; None: none.

        Raises:
            ValueError: the candidates are of another number of documents, or there are labels from L on.
        """
        if candidates is not None:
            _check_candidates(candidates, len(split), num_labels)
        self._candidates = candidates
        self._rows_read = rows_read
        self._excluded = excluded
        self._most_excluded = 0 if excluded is None else int(excluded.sizes.max(initial=0))
        self.split = split
        self._ranked = ranked
        self.num_labels = num_labels
        self.batch_size = batch_size
        self.rows = -(-batch_size // multiple) * multiple
        self._row_counts = [*sorted(multiple * rows for rows in few_rows if multiple * rows < self.rows), self.rows]
        self.buckets = np.array(
            length_buckets(buckets, int(split.lengths.max(initial=1)) if longest is None else longest)
        )
        # Of each document this object holds five bytes; `split.lengths` is computed from the offsets of all.
        self._lengths = split.lengths.astype(np.int32)
        buckets_of = np.searchsorted(self.buckets, np.maximum(self._lengths, 1))
        self.bucket_of = _without_small_buckets(
            buckets_of.astype(np.min_scalar_type(len(self.buckets))), len(self.buckets), batch_size
        )
        self.slots = label_slots(split)

    @property
    def has_candidates(self) -> bool:
        """Whether batches have candidates."""
        return self._candidates is not None

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch."""
        return int(sum(-(-count // self.batch_size) for count in np.bincount(self.bucket_of)))

    @property
    def padding(self) -> float:
        """Words computed in an epoch, padding included, for each real one."""
        batches = -(-np.bincount(self.bucket_of, minlength=len(self.buckets)) // self.batch_size)
        return float(self.rows * (batches @ self.buckets) / max(1, self._lengths.sum()))

    def epoch(self, random: np.random.Generator) -> list[np.ndarray]:
        """Returns the document indices of each batch of one epoch, shuffled; each document is in exactly one batch."""
        order = random.permutation(len(self.split))
        plan = self._chunks(order)
        return [plan[i] for i in random.permutation(len(plan))]

    def drawn(self, documents: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
        """Returns the document indices of each batch of int[M] documents that may repeat, in random order.

        There are ceil(M / `batch_size`) of them, whichever documents were drawn: a batch may hold documents of several
        buckets and is padded to the longest.
        """
        order = documents[np.argsort(self.bucket_of[documents], kind="stable")]
        plan = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        return [plan[i] for i in random.permutation(len(plan))]

    def in_order(self) -> list[np.ndarray]:
        """Returns the document indices of each batch of one pass in order of length, one bucket a batch."""
        return self._chunks(self._by_length())

    def consecutive(self) -> list[np.ndarray]:
        """Returns the document indices of each batch of one pass in order of length, in as few batches as possible.

        A batch may hold documents of several buckets and is padded to the longest. Where there are few documents this
        computes, and compiles, less than a batch for each bucket does.
        """
        order = self._by_length()
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def _by_length(self) -> np.ndarray:
        return np.argsort(self._lengths, kind="stable")

    def _chunks(self, order: np.ndarray) -> list[np.ndarray]:
        plan = []
        for bucket in range(len(self.buckets)):
            rows = order[self.bucket_of[order] == bucket]
            plan += [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        return plan

    def load(self, plan: list[np.ndarray], start: int = 0) -> Iterator[Batch]:
        """Yields the batches of a plan, from index `start` on."""
        for rows in plan[start:]:
            yield self.gather(rows)

    def gather(self, rows: np.ndarray) -> Batch:
        """Returns one batch of documents, by int[at most `batch_size`] numbers."""
        num_rows = next(count for count in self._row_counts if count >= len(rows))
        num_words = int(self.buckets[self.bucket_of[rows].max()])
        padded = np.zeros(num_rows, np.int32)
        padded[: len(rows)] = rows
        document_mask = np.arange(num_rows) < len(rows)
        labels, lengths = self.split.labels, np.zeros(num_rows, np.int32)
        lengths[: len(rows)] = self._lengths[rows]
        read = rows if self._rows_read is None else np.where(self._rows_read(num_rows)[: len(rows)], rows, -1)
        tokens, _ = _padded(self.split.tokens, read, num_rows, self.split.num_rows(num_words))
        most = int((labels.offsets[rows + 1] - labels.offsets[rows]).max(initial=0))
        slots = next(size for size in self.slots if size >= most)
        label_ids, counts = _padded(labels, rows, num_rows, slots)
        label_mask = (np.arange(slots) < counts[:, None]) & (label_ids < self.num_labels)
        candidates = None
        if self._candidates is not None:
            candidates = np.where(document_mask[:, None], self._candidates[padded], -1).astype(np.int32)
        excluded = None
        if self._excluded is not None:
            ids, counts = _padded(self._excluded, rows, num_rows, self._most_excluded)
            excluded = np.where(np.arange(self._most_excluded) < counts[:, None], ids, -1).astype(np.int32)
        kind = self.split.kind
        return Batch(
            words=tokens if kind == "words" else None,
            states=tokens if kind == "states" else None,
            hidden=tokens if kind == "hidden" else None,
            lengths=lengths,
            label_ids=np.where(label_mask, label_ids, 0),
            label_mask=label_mask,
            document_mask=document_mask,
            rows=padded,
            ranked=None if self._ranked is None else self._ranked.take(padded),
            candidates=candidates,
            excluded=excluded,
        )


def _check_candidates(candidates: HostArray, num_documents: int, num_labels: int) -> None:
    if candidates.ndim != 2 or len(candidates) != num_documents:
        raise ValueError(f"candidates of the shape {candidates.shape}: expected a row for each of {num_documents:,}")
    if candidates.max(initial=-1) >= num_labels:
        raise ValueError(f"candidates up to label {candidates.max()}: expected labels below {num_labels:,}, or -1")


def _without_small_buckets(bucket_of: np.ndarray, num_buckets: int, batch_size: int) -> np.ndarray:
    """Moves the documents of a bucket into rows of the next longer one that would be padding, where all of them fit.

    A batch is padded to all its rows, so that this computes less, and compiles less.

    Args:
        bucket_of: uint[N], the bucket of each document.
        num_buckets: number of buckets, in order of length.
        batch_size: documents a batch.
    """
    counts = np.bincount(bucket_of, minlength=num_buckets)
    moved_to = np.arange(num_buckets, dtype=bucket_of.dtype)
    used = np.flatnonzero(counts)
    for bucket, longer in pairwise(used):
        if counts[bucket] <= -counts[longer] % batch_size:
            counts[longer] += counts[bucket]
            moved_to[moved_to == bucket] = longer
    return moved_to[bucket_of]


def _padded(ragged: Ragged, rows: np.ndarray, num_rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Copies rows into [num_rows, width, ...], padded with 0; returns it and the rows' sizes, int32[num_rows].

    Number -1 is no row: its place stays 0.
    """
    padded = np.zeros((num_rows, width, *ragged.values.shape[1:]), ragged.values.dtype)
    sizes = np.zeros(num_rows, np.int32)
    for place in np.flatnonzero(rows >= 0):
        entries = ragged.row(rows[place])
        padded[place, : len(entries)] = entries
        sizes[place] = len(entries)
    return padded, sizes


def label_slots(split: AnySplit) -> list[int]:
    """Returns the widths K that positive pairs are padded to: few, so that a run compiles few programs.

    One width is enough for a corpus whose documents have up to 32 labels; the few documents with hundreds of labels get
    wider batches.
    """
    most = max(1, int(split.labels.sizes.max(initial=1)))
    widths = [32 * 4**i for i in range(16) if 32 * 4**i < most]
    return [*widths, -(-most // 8) * 8]
