"""The scorer: one compiled pass over a split for rankings within groups, the threshold histogram and counts per label.

Validation, test, the choice of the threshold, bin/evaluate and the predictor all use `score_batch`.

Shapes: N documents of a split, B documents of a batch, L labels of the model, G groups of labels, K labels kept of each
ranking.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain, pairwise
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.data.prefetch import prefetch
from lsfa_jax.evaluation import thresholded
from lsfa_jax.evaluation.groups import Scores
from lsfa_jax.evaluation.ranking import NUM_RANKED, Bools
from lsfa_jax.evaluation.thresholded import DEFAULT_THRESHOLD, GRID
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.model.top_k import top_k
from lsfa_jax.sparse.fusion import LinearAlone
from lsfa_jax.util import processes, sharding
from lsfa_jax.util.console import progress

Out = TypeVar("Out")


class BatchScores(NamedTuple):
    """What the scorer computes for one batch."""

    top: jax.Array
    """int32[G, B, K], the best labels of each group, best first; -1 where a group has fewer."""
    probabilities: jax.Array
    """float32[B, K], of the first group's best labels; 0 where there are fewer."""
    histogram: jax.Array
    """int32[2, 100], how many probabilities reach 0, ..., 99 of the thresholds of `GRID`: all, those of true labels."""
    counts: jax.Array
    """int32[2, L or more], how often each label is predicted at the threshold, and how often rightly."""


@functools.partial(jax.jit, static_argnums=(0, 1))
def score_batch(
    model: Lsfa, num_ranked: int, params: Any, batch: Batch, groups: jax.Array, threshold: jax.Array | float
) -> BatchScores:
    """Computes all that is measured of a batch; XLA removes what a caller within `jit` does not use.

    Args:
        model: the classifier.
        num_ranked: K.
        params: its parameters; for batches with a linear model's lists, also "fusion", the weights of the fused score.
        batch: B documents.
        groups: bool[G, num_rows of the model]; the first is ranked with probabilities.
        threshold: the least probability at which a label is predicted.
    """
    logits, label_ids = scored_labels(model, params, batch)
    top, best = best_labels(logits, groups, num_ranked, label_ids, model.label_shards)
    probabilities = jax.nn.sigmoid(logits)
    counted = batch.document_mask[:, None] & (logits > -jnp.inf)
    reached = (probabilities >= jnp.float32(threshold)) & counted
    true = _is_true(batch, logits.shape[1], label_ids)
    return BatchScores(
        top=top,
        probabilities=jax.nn.sigmoid(best),
        histogram=_histogram(probabilities, true, counted),
        counts=_counts(reached, true, model.num_labels, label_ids),
    )


def scored_labels(model: Lsfa, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array | None]:
    """Computes the logits of all labels, or of the candidates: the network's, or fused with the linear model's.

    Where the linear model decides alone, the candidates are the labels that it lists.

    Returns:
        float32[B, C], -inf where a document has fewer labels and where one is excluded; and the labels, int32[B, C],
        None where they are all L, with the padding of the model's tables.
    """
    if batch.ranked is not None and isinstance(params["fusion"], LinearAlone):
        return _of_candidates(batch, batch.ranked.label_ids, params["fusion"](batch.ranked))
    lsfa = model.bind({"params": params})
    states = lsfa.states(batch.words, batch.lengths, stored=batch.states, hidden=batch.hidden)
    if batch.candidates is None:
        logits = lsfa.scores(states, batch.lengths)
        logits = logits if batch.ranked is None else params["fusion"](logits, batch.ranked)
        return _without_excluded(batch, jnp.where(model.is_label, logits, -jnp.inf)), None
    label_ids, logits = lsfa.predicted_candidates(states, batch.lengths, batch.candidates)
    if batch.ranked is not None:
        label_ids, logits = params["fusion"].of_candidates(label_ids, logits, batch.ranked)
    return _of_candidates(batch, label_ids, logits)


def _of_candidates(batch: Batch, label_ids: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _without_excluded(batch, jnp.where(label_ids >= 0, logits, -jnp.inf), label_ids), label_ids


def _without_excluded(batch: Batch, logits: jax.Array, label_ids: jax.Array | None = None) -> jax.Array:
    """Gives the excluded labels of each document the logit -inf: they rank last and are never predicted."""
    if batch.excluded is None:
        return logits
    if label_ids is not None:
        is_excluded = jnp.any(label_ids[:, :, None] == batch.excluded[:, None], axis=2)
        return jnp.where(is_excluded, -jnp.inf, logits)
    # A negative index would count from the end: -1 becomes one out of bounds, which is dropped.
    columns = jnp.where(batch.excluded < 0, logits.shape[1], batch.excluded)
    return logits.at[jnp.arange(len(logits))[:, None], columns].set(-jnp.inf, mode="drop")


def best_labels(
    logits: jax.Array, groups: jax.Array, num_ranked: int, label_ids: jax.Array | None = None, shards: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Ranks labels within groups.

    Args:
        logits: float32[B, C].
        groups: bool[G, L].
        num_ranked: K.
        label_ids: int32[B, C], the labels of the columns; None where they are all L.
        shards: number of equal parts of all L labels, `top_k`.

    Returns:
        int32[G, B, K], best first, -1 where a group has fewer; float32[B, K], the logits of the first group's best
        labels, -inf where it has fewer.
    """
    kept = min(num_ranked, logits.shape[1])
    padding = ((0, 0), (0, num_ranked - kept))

    def of_group(group: jax.Array) -> tuple[jax.Array, jax.Array]:
        inside = group if label_ids is None else group[label_ids]
        values, ids = top_k(jnp.where(inside, logits, -jnp.inf), kept, shards if label_ids is None else 1)
        if label_ids is not None:
            ids = jnp.take_along_axis(label_ids, ids, axis=1)
        ids = jnp.where(values > -jnp.inf, ids, -1).astype(jnp.int32)
        return jnp.pad(ids, padding, constant_values=-1), jnp.pad(values, padding, constant_values=-jnp.inf)

    # One group after the other: all groups at once would need G x B x L.
    top, values = jax.lax.map(of_group, groups)
    return top, values[0]


def _is_true(batch: Batch, num_columns: int, label_ids: jax.Array | None) -> jax.Array:
    """Returns bool[B, C], which of the scored labels a document has."""
    if label_ids is not None:
        return jnp.any((label_ids[:, :, None] == batch.label_ids[:, None]) & batch.label_mask[:, None], axis=2)
    rows = jnp.arange(len(batch.label_ids))[:, None]
    return jnp.zeros((len(rows), num_columns), bool).at[rows, batch.label_ids].max(batch.label_mask)


def _histogram(probabilities: jax.Array, true: jax.Array, counted: jax.Array) -> jax.Array:
    reached = jnp.searchsorted(jnp.asarray(GRID), probabilities, side="right")
    counted = jnp.broadcast_to(counted, reached.shape)
    empty = jnp.zeros(len(GRID) + 1, jnp.int32)
    return jnp.stack([empty.at[reached].add(counted), empty.at[reached].add(true & counted)])


def _counts(reached: jax.Array, true: jax.Array, num_labels: int, label_ids: jax.Array | None) -> jax.Array:
    if label_ids is not None:  # where a document has fewer, -1 would count as the last label
        reached = reached & (label_ids >= 0)
    cells = jnp.stack([reached, reached & true]).astype(jnp.int32)
    if label_ids is None:
        return cells.sum(axis=1)
    return jnp.zeros((2, num_labels), jnp.int32).at[:, label_ids].add(cells)


def score_split(
    model: Lsfa,
    params: Any,
    batches: Batches,
    mesh: Mesh,
    groups: Bools,
    num_ranked: int = NUM_RANKED,
    threshold: float = DEFAULT_THRESHOLD,
    title: str = "scoring",
) -> Scores:
    """Computes the scores of a split in one pass.

    Args:
        model: the classifier, of `model.num_labels` labels.
        params: its parameters, on the devices of `mesh`.
        batches: the N documents.
        mesh: the devices.
        groups: bool [G, L or more]; labels from `model.num_labels` on are those that training never saw.
        num_ranked: K.
        threshold: the least probability at which a label is predicted.
        title: of the progress bar.
    """
    num_labels, known = groups.shape[1], model.num_labels
    of_rows = np.pad(groups[:, :known], ((0, 0), (0, model.num_rows - known)))
    on_devices = sharding.replicate(mesh, (of_rows, np.float32(threshold)))
    top = np.full((len(groups), len(batches.split), num_ranked), -1, np.int32)
    probabilities = np.zeros(top.shape[1:], np.float32)
    histogram = np.zeros((2, len(GRID) + 1), np.int64)
    predicted, right = np.zeros((2, num_labels), np.int64)

    def compute(batch: Batch) -> BatchScores:
        return score_batch(model, num_ranked, params, batch, *on_devices)

    for batch, scores in over_split(compute, batches, mesh, title):
        documents = batch.rows[batch.document_mask]
        top[:, documents] = scores.top[:, batch.document_mask]
        probabilities[documents] = scores.probabilities[batch.document_mask]
        histogram += scores.histogram
        predicted[:known] += scores.counts[0, :known]
        right[:known] += scores.counts[1, :known]
    true = np.bincount(batches.split.labels.values, minlength=num_labels)
    return Scores(top, thresholded.from_counts(right, predicted, true), histogram, probabilities)


def over_split(
    compute: Callable[[Batch], Out], batches: Batches, mesh: Mesh, title: str
) -> Iterator[tuple[Batch, Out]]:
    """Yields each batch of a split once, with what `compute` returns for it, brought to the host; shows the progress.

    A thread prepares the next batches and the device computes one of them meanwhile, so memory holds a few batches
    whatever N is.
    """
    with (
        closing(
            prefetch((batch, sharding.shard_batch(mesh, batch)) for batch in batches.load(batches.in_order()))
        ) as loaded,
        progress(title, len(batches.split), "documents") as advance,
    ):
        computed: Iterator[Any] = ((batch, compute(placed)) for batch, placed in loaded)
        # The device works on the next batch while the host handles this one.
        for (batch, out), _ in pairwise(chain(computed, [None])):
            processes.check_interrupts()
            yield batch, sharding.to_host(out)
            advance(int(batch.document_mask.sum()))
