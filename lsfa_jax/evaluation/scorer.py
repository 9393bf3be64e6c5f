"""Ranks labels for documents and measures the ranking: for all labels, and within head and tail."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain, pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lsfa_jax.config import Report
from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.prefetch import ahead
from lsfa_jax.evaluation import ranking
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.util import interrupts, sharding
from lsfa_jax.util.console import progress

NUM_RANKED = 5
"""Labels kept of each ranking; no metric looks further."""

Ranker = Callable[[Any, Any, Any], jax.Array]


def make_ranker(model: Lsfa, is_head: np.ndarray) -> Ranker:
    """Compiles the ranking of documents' labels.

    Args:
        model: the classifier.
        is_head: bool[L].

    Returns:
        A function of params, words [B, T] and lengths [B] that gives int32[3, B, 5]: the best five of all labels, of
        the head labels, of the tail labels, best first; -1 where a group has fewer.
    """
    groups = jnp.asarray(np.stack([np.ones_like(is_head), is_head, ~is_head]))

    @jax.jit
    def rank(params: Any, words: jax.Array, lengths: jax.Array, groups: jax.Array) -> jax.Array:
        logits: Any = model.apply({"params": params}, words, lengths)
        return best(logits, groups, NUM_RANKED)

    return lambda params, words, lengths: rank(params, words, lengths, groups)


def best(logits: jax.Array, groups: jax.Array, num_ranked: int) -> jax.Array:
    """Ranks labels within groups.

    Args:
        logits: float32[B, L].
        groups: bool[G, L].
        num_ranked: K.

    Returns:
        int32[G, B, K], best first; -1 where a group has fewer.
    """
    kept = min(num_ranked, logits.shape[1])

    def of_group(group: jax.Array) -> jax.Array:
        values, ids = jax.lax.top_k(jnp.where(group, logits, -jnp.inf), kept)
        ids = jnp.where(values > -jnp.inf, ids, -1).astype(jnp.int32)
        return jnp.pad(ids, ((0, 0), (0, num_ranked - kept)), constant_values=-1)

    # One group after the other: the labels of all groups at once would need G x B x L.
    return jax.lax.map(of_group, groups)


def rank_split(ranker: Ranker, params: Any, batches: Batches, mesh: Mesh, title: str) -> np.ndarray:
    """Ranks labels for every document of a split, int32[3, N, 5], in the split's order."""
    top = np.full((3, len(batches.split), NUM_RANKED), -1, np.int32)
    for batch, ranked in over_split(lambda placed: ranker(params, placed.words, placed.lengths), batches, mesh, title):
        top[:, batch.rows[batch.document_mask]] = ranked[:, batch.document_mask]
    return top


def over_split(
    compute: Callable[[Batch], Any], batches: Batches, mesh: Mesh, title: str
) -> Iterator[tuple[Batch, Any]]:
    """Yields each batch of a split once, with what `compute` makes of it on the devices; shows the progress.

    The next batches are made meanwhile, and one of them computed, so memory holds a few batches whatever N is.
    """
    with (
        closing(
            ahead((batch, sharding.shard_batch(mesh, batch)) for batch in batches.load(batches.in_order()))
        ) as made,
        progress(title, len(batches.split), "documents") as advance,
    ):
        computed: Iterator[Any] = ((batch, compute(placed)) for batch, placed in made)
        # The device has one batch to do while the host takes the one before.
        for (batch, out), _ in pairwise(chain(computed, [None])):
            interrupts.check()
            yield batch, jax.device_get(out)
            advance(int(batch.document_mask.sum()))


def head_of_all_labels(corpus: Corpus, is_head: np.ndarray) -> np.ndarray:
    """Extends bool[L] to bool[all labels of the corpus]: labels that training never saw belong to the tail."""
    head = np.zeros(len(corpus.published_counts), bool)
    head[: corpus.num_labels] = is_head
    return head


def measure(
    top: np.ndarray, batches: Batches, corpus: Corpus, report: Report, is_head: np.ndarray | None = None
) -> dict[str, Any]:
    """Computes the metrics of a ranking, in percent; given bool[L] `is_head` also those of "head" and "tail"."""
    truth, counts, number = batches.split.labels, corpus.published_counts, corpus.published_documents
    propensity = ranking.Propensity(report.propensity_a, report.propensity_b)
    result: dict[str, Any] = ranking.evaluate(top[0], truth, counts, number, propensity=propensity)
    if is_head is not None:
        head = head_of_all_labels(corpus, is_head)
        for name, group, own in (("head", head, top[1]), ("tail", ~head, top[2])):
            result[name] = ranking.evaluate_group(top[0], own, truth, group, counts, number, propensity=propensity)
    return result


def bins(top: np.ndarray, batches: Batches, corpus: Corpus, bin_size: int) -> list[float]:
    """Computes macro-averaged P@5 over bins of labels from the most frequent down (Fig. 1b), in percent."""
    hit = ranking.hits(top, batches.split.labels)
    per_label = ranking.macro_precision_at_k(hit, top, len(corpus.published_counts), NUM_RANKED)
    return [float(value) for value in ranking.bin_means(per_label, corpus.published_counts, bin_size)]
