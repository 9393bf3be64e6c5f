"""One pass of the encoder over a split that collects what later stages read: prototypes, features, token states."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.evaluation.scorer import over_split
from lsfa_jax.model import prototypes
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.training.sparse_step import unique_rows
from lsfa_jax.types import Array, DTypeLike, PyTree
from lsfa_jax.util import processes, sharding
from lsfa_jax.util.array_file import ArrayFile

BatchSink = Callable[..., None]
"""Called with a batch, its token or hidden states, None where nothing asked for them, and, where there are any, its
features; stores what it needs."""


@functools.partial(jax.jit, static_argnums=(0, 4), donate_argnums=3)
def collect(
    model: Lsfa, params: PyTree, batch: Batch, sums: prototypes.FeatureSums, states_dtype: DTypeLike
) -> tuple[prototypes.FeatureSums, Array, Array]:
    """Computes the features of a batch's positive pairs and adds them to the sums of their labels.

    Label attention is computed for the labels of each document only (Eq. 2-4).

    Args:
        model: the classifier.
        params: its parameters.
        batch: documents with token ids or token states.
        sums: of the batches so far; their memory is donated.
        states_dtype: of the token states that are returned.

    Returns:
        The new sums, the features float32[B, K, D] and the token states [B, T, 2H].
    """
    lsfa = model.bind({"params": params})
    states = lsfa.states(batch.words, batch.lengths, stored=batch.states, hidden=batch.hidden)
    features = lsfa.positive_features(states, batch.lengths, batch.label_ids)
    # A batch has few of the L labels: only their rows are read and written.
    label_ids, places = unique_rows(batch.label_ids.reshape(-1), model.num_rows)
    new = prototypes.feature_sums(
        features.reshape(-1, model.feature_size), places, batch.label_mask.reshape(-1), len(label_ids)
    )
    total = jax.tree.map(lambda table, rows: table.at[label_ids].add(rows, mode="drop", unique_indices=True), sums, new)
    return total, features, states.astype(states_dtype)


def zero_sums(model: Lsfa, mesh: Mesh) -> prototypes.FeatureSums:
    """Returns the sums over no pairs for the labels of a model and their padding, split over the axis `label`."""
    shapes = jax.eval_shape(lambda: prototypes.zero_sums(model.num_rows, model.feature_size))
    return sharding.zeros(mesh, shapes, model.num_rows)


def collect_features(
    model: Lsfa, params: PyTree, batches: Batches, mesh: Mesh, *sinks: BatchSink, states_dtype: DTypeLike | None = None
) -> prototypes.FeatureSums:
    """Sums the features of all positive pairs of a split in one pass.

    Args:
        model: the classifier.
        params: its parameters.
        batches: the documents.
        mesh: the devices.
        sinks: called with each batch.
        states_dtype: of the token states that the sinks get; None: they get none.
    """
    # One program, whether or not the states are brought to the host.
    dtype = jnp.dtype(model.encoder.stored_dtype if states_dtype is None else states_dtype)
    sums = zero_sums(model, mesh)

    def add(batch: Batch) -> tuple[Array | None, ...]:
        nonlocal sums
        sums, features, states = collect(model, params, batch, sums, dtype)
        # Without sinks one number is enough for the pass to wait for the batch; else the host would queue all batches.
        return (features, None if states_dtype is None else states) if sinks else (features[0, 0, 0],)

    for batch, outcome in over_split(add, batches, mesh, "collecting features"):
        for sink in sinks:
            features, states = outcome
            sink(batch, states, features)
    return sums


@functools.partial(jax.jit, static_argnums=0)
def _hidden(model: Lsfa, params: PyTree, batch: Batch) -> Array:
    assert batch.words is not None
    return model.bind({"params": params}).hidden(batch.words, batch.lengths).astype(model.encoder.stored_dtype)


def store_hidden(model: Lsfa, params: PyTree, batches: Batches, mesh: Mesh, sink: BatchSink) -> None:
    """Computes the hidden states of the encoder's frozen layers in one pass over a split; `sink` stores them."""
    compute = functools.partial(_hidden, model, params)
    for batch, hidden in over_split(compute, batches, mesh, "reading with the frozen layers"):
        sink(batch, hidden)


class PairFeatures(Protocol):
    """Features of positive pairs: what the PVAE is trained on."""

    @property
    def label_ids(self) -> np.ndarray:
        """int32[P], the label of each pair."""

    def __len__(self) -> int:
        """P."""

    def open(self) -> np.ndarray:
        """Returns the features, float32[P, D]."""


class LabelFeatures:
    """Features of the positive pairs of some labels in a file, float32[P, D], because they may not fit in memory."""

    def __init__(self, path: Path, batches: Batches, chosen: np.ndarray, feature_size: int) -> None:
        """Names the file; nothing is written yet.

        Args:
            path: of the file.
            batches: the documents.
            chosen: bool[L], the labels, as `transfer.learns_from` returns them.
            feature_size: D.
        """
        self.path = path
        self._offsets = batches.split.labels.offsets
        ids = batches.split.labels.values
        kept = chosen[ids]
        self.label_ids = ids[kept]
        # The row in the file of each pair of the split; -1 for other labels.
        self._file_rows = np.where(kept, np.cumsum(kept) - 1, -1)
        self._file = ArrayFile(path, (len(self.label_ids), feature_size), np.float32)

    def __len__(self) -> int:
        return len(self.label_ids)

    @contextmanager
    def filling(self) -> Iterator[BatchSink]:
        """Yields the function that stores a batch of the split; the file exists once the block has ended.

        Of several processes, the first writes it.
        """
        if not len(self) or not processes.is_first():
            yield lambda batch, states, features: None
            return
        with self._file.filling() as array:

            def store(batch: Batch, states: Array | None, features: Array) -> None:
                rows, slots = np.nonzero(batch.label_mask)
                places = self._file_rows[self._offsets[batch.rows[rows]] + slots]
                kept = places >= 0
                array[places[kept]] = np.asarray(features)[rows[kept], slots[kept]]

            yield store

    def open(self) -> np.ndarray:
        """Maps the file, float32[P, D]."""
        return self._file.open()


@dataclass(frozen=True)
class FeaturesInMemory:
    """Features of positive pairs in memory."""

    features: np.ndarray
    """float32[P, D]."""
    label_ids: np.ndarray
    """int32[P]."""

    def __len__(self) -> int:
        return len(self.label_ids)

    def open(self) -> np.ndarray:
        """Returns the features."""
        return self.features
