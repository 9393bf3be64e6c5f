"""The best labels of documents, of scores that are sharded over documents and labels.

XLA gathers what `jax.lax.top_k` reads on every device. So it is partitioned explicitly, and computed in two stages: the
best labels of each shard, then the best of these. Only the second stage's k values of a shard leave its device.
"""

import functools

import chex
import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lsfa_jax.types import Array, PyTree


def top_k(scores: Array, k: int, shards: int = 1) -> tuple[Array, Array]:
    """Returns what `jax.lax.top_k` returns.

    Args:
        scores: float32[B, L].
        k: at most L.
        shards: equal parts of the labels, over which the scores are sharded.

    Returns:
        float32[B, k], best first, and int32[B, k], their labels.
    """
    chex.assert_rank(scores, 2)
    rows, shard_size = len(scores), scores.shape[1] // shards

    def by_document(x: Array) -> Array:
        return x.reshape(shards, rows, -1).swapaxes(0, 1).reshape(rows, -1)

    # Rows of the first shard first: in this order the rows of a device are consecutive.
    by_shard = scores.reshape(rows, shards, shard_size).swapaxes(0, 1).reshape(-1, shard_size)
    values, label_ids = _top_k_of_rows(by_shard, min(k, shard_size))
    label_ids += shard_size * (jnp.arange(len(by_shard)) // rows)[:, None]
    values, places = _top_k_of_rows(by_document(values), k)
    return values, jnp.take_along_axis(by_document(label_ids), places, axis=1)


@functools.partial(custom_partitioning, static_argnums=(1,))
def _top_k_of_rows(scores: Array, k: int) -> tuple[Array, Array]:
    values, places = jax.lax.top_k(scores, k)
    return values, places


def _partition(k: int, mesh: Mesh, arguments: tuple[PyTree], results: PyTree) -> tuple:
    """Each device computes the rows that it has."""
    rows = NamedSharding(arguments[0].sharding.mesh, P(*arguments[0].sharding.spec[:1], None))
    return mesh, lambda scores: tuple(jax.lax.top_k(scores, k)), (rows, rows), (rows,)


_top_k_of_rows.def_partition(partition=_partition, sharding_rule="b l -> b k, b k", need_replication_factors=("l", "k"))
