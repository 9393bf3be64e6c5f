"""Steps over a sampled shortlist of labels, in place of all labels: how long it is, and how a step chooses it."""

from jax.sharding import Mesh

from lsfa_jax.config import Config
from lsfa_jax.data import negative_sampling
from lsfa_jax.data.batches import Batch
from lsfa_jax.model import shortlist
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.model.shortlist import Shortlist
from lsfa_jax.types import Array, Params
from lsfa_jax.util import sharding
from lsfa_jax.util.random_streams import Stream

MOST_LABELS = 30_000
"""With more labels, a step computes the loss over a shortlist."""

_SHORTLIST = 4096


def size(config: Config, num_labels: int) -> int:
    """Returns S, the labels that a step computes; 0 where it is all of them."""
    chosen = config.representation.shortlist
    if chosen == "auto":
        chosen = _SHORTLIST if num_labels > MOST_LABELS else 0
    return chosen if chosen < num_labels else 0


def placed(mesh: Mesh, batch: Batch, config: Config, num_labels: int, use: Stream, epoch: int, step: int) -> Batch:
    """Puts a training batch on the devices, with the labels from which a step chooses its shortlist."""
    label_ids, number = batch.label_ids[batch.label_mask], size(config, num_labels)
    pool = negative_sampling.sample_pool(label_ids, num_labels, number, config.seed, epoch, step, use)
    return sharding.shard_batch(mesh, batch)._replace(shortlist_pool=sharding.replicate(mesh, pool))


def choose(model: Lsfa, params: Params, states: Array, batch: Batch) -> tuple[Shortlist, Batch]:
    """Chooses the labels of a step by their estimated loss.

    Args:
        model: the classifier.
        params: its parameters.
        states: float32[B, T, 2H], token states of Eq. 1.
        batch: documents with a pool.

    Returns:
        S labels with their weights, and the batch with its labels as positions among them.
    """
    assert batch.shortlist_pool is not None
    positives, pool = batch.shortlist_pool
    logits = model.bind({"params": params}).estimates(states, batch.lengths, pool)
    hardness = shortlist.hardness(logits, batch.document_mask)
    chosen = shortlist.choose(positives, pool, hardness, model.num_labels)
    return chosen, batch._replace(label_ids=shortlist.positions(positives, batch.label_ids))
