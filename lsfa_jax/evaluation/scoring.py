"""One pass of a classifier over a split: rankings within groups of labels, and outcomes at a threshold."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.evaluation import thresholded
from lsfa_jax.evaluation.groups import Scored
from lsfa_jax.evaluation.ranking import Bools
from lsfa_jax.evaluation.scorer import best, over_split
from lsfa_jax.model.lsfa import Lsfa


def score_split(
    model: Lsfa, params: Any, batches: Batches, mesh: Mesh, members: Bools, num_ranked: int, threshold: float
) -> Scored:
    """Ranks labels within groups, and counts what becomes of each label at a threshold.

    Counts come from the probabilities of all labels, summed up batch by batch.

    Args:
        model: the classifier, of `model.num_labels` labels.
        params: its weights, on the devices of `mesh`.
        batches: the N documents.
        mesh: the devices.
        members: bool [G, L], the groups; labels from `model.num_labels` on are those that training never saw.
        num_ranked: K.
        threshold: the least probability at which a label is given.
    """
    num_labels, known = members.shape[1], model.num_labels
    compute = _make_scorer(model, members[:, :known], num_ranked, threshold)
    top = np.full((len(members), len(batches.split), num_ranked), -1, np.int32)
    given, right = np.zeros((2, num_labels), np.int64)
    for batch, (ranked, counts) in over_split(lambda placed: compute(params, placed), batches, mesh, "scoring"):
        top[:, batch.rows[batch.document_mask]] = ranked[:, batch.document_mask]
        given[:known] += counts[0]
        right[:known] += counts[1]
    true = np.bincount(batches.split.labels.values, minlength=num_labels)
    return Scored(top, thresholded.from_counts(right, given, true))


def _make_scorer(model: Lsfa, members: Bools, num_ranked: int, threshold: float) -> Any:
    groups, least = jnp.asarray(members), np.float32(threshold)

    @jax.jit
    def compute(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns int32[G, B, K], the best labels, and int32[2, L], how often each is given and is so rightly."""
        logits: Any = model.apply({"params": params}, batch.words, batch.lengths)
        reached = (jax.nn.sigmoid(logits) >= least) & batch.document_mask[:, None]
        own = jnp.take_along_axis(reached, batch.label_ids, axis=1) & batch.label_mask
        right = jnp.zeros(logits.shape[1], jnp.int32).at[batch.label_ids].add(own)
        return best(logits, groups, num_ranked), jnp.stack([reached.sum(axis=0, dtype=jnp.int32), right])

    return compute
