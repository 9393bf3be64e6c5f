"""One mesh over all local devices: batches are split over `data`, all else is on every device.

The engine is `jit` with sharded arguments: steps are written for the whole batch, and the compiler splits them. One
device is the mesh of size one, not another way to run.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Tree = TypeVar("Tree")


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh over the given devices, all local ones by default; axes `data` and `label` (not split yet)."""
    devices = jax.local_devices() if devices is None else devices
    # Auto is said aloud: the default, Explicit, refuses segment sums and look-ups of sharded arrays.
    return jax.make_mesh((len(devices), 1), ("data", "label"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def on_every_device(mesh: Mesh, tree: Tree) -> Tree:
    """Puts a copy of each array on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def split_rows(mesh: Mesh, tree: Tree) -> Tree:
    """Splits each array's first axis over the devices; it must be a multiple of their number."""
    return jax.device_put(tree, NamedSharding(mesh, P("data")))


def abstract(mesh: Mesh, tree: Tree) -> Tree:
    """Describes a tree of arrays that is on every device: shapes and places, no values."""
    where = NamedSharding(mesh, P())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)


def pmapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Maps `function(constants, *rows)` over devices: each gets all constants and its share of the rows.

    For code that wants explicit device mapping; training uses the mesh. `jax.pmap` is a wrapper over `shard_map`.

    Args:
        function: takes a pytree that every device gets whole, then pytrees of arrays whose first axis is split;
            returns a pytree of arrays with the same first axis.

    Returns:
        A function of the same arguments on whole arrays; a first axis that devices do not divide is padded, then cut.
    """
    devices = jax.local_device_count()
    mapped = jax.pmap(lambda constants, rows: function(constants, *rows), in_axes=(None, 0))

    def call(constants: Any, *rows: Any) -> Any:
        count = len(jax.tree.leaves(rows)[0])
        share = -(-count // devices)

        def dealt(x: jax.Array) -> jax.Array:
            padding = ((0, devices * share - count), *((0, 0),) * (x.ndim - 1))
            return jax.numpy.pad(x, padding).reshape(devices, share, *x.shape[1:])

        out = mapped(constants, jax.tree.map(dealt, rows))
        return jax.tree.map(lambda x: x.reshape(devices * share, *x.shape[2:])[:count], out)

    return call


def host(tree: Any) -> Any:
    """Brings a tree of arrays to the host."""
    return jax.tree.map(np.asarray, jax.device_get(tree))
