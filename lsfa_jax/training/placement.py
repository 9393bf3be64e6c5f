"""Puts training batches on the devices, with the labels that their steps sample."""

from jax.sharding import Mesh

from lsfa_jax.config import Config
from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.training import candidates, shortlist
from lsfa_jax.util import sharding
from lsfa_jax.util.random_streams import Stream


def placed(
    mesh: Mesh, batch: Batch, config: Config, train: Batches, sample: Stream, negatives: Stream, epoch: int, step: int
) -> Batch:
    """Puts a batch on the devices: with candidates, with the labels of a shortlist, or for a loss over all labels.

    Args:
        mesh: the devices.
        batch: training documents.
        config: all settings.
        train: the batches that it is from.
        sample: random stream of the labels that stand for those that are no candidates.
        negatives: random stream of the labels that a shortlist is chosen from.
        epoch: from 1.
        step: within the epoch.
    """
    if candidates.in_use(config, train):
        return candidates.placed(mesh, batch, config, train.num_labels, sample, epoch, step)
    if shortlist.size(config, train.num_labels):
        return shortlist.placed(mesh, batch, config, train.num_labels, negatives, epoch, step)
    return sharding.shard_batch(mesh, batch)
