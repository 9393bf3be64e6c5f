"""One mesh over all local devices: batches are sharded over its axis `data`, tables with a row per label over `label`.

The engine is `jit` with sharded arguments: a step is written for the full batch, and the compiler partitions it. One
device is the mesh of size one, not a second code path.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lsfa_jax.types import AnyArray, PyTree
from lsfa_jax.util.console import UserError

Tree = TypeVar("Tree")


def make_mesh(devices: Sequence[jax.Device] | None = None, labels: int = 1) -> Mesh:
    """Returns the mesh of the given devices, by default all local ones, with axes `data` and `label`.

    Args:
        devices: N x M of them.
        labels: M, the size of the axis `label`.

    Raises:
        UserError: M does not divide the number of devices.
    """
    devices = jax.local_devices() if devices is None else devices
    if len(devices) % labels:
        raise UserError(f"--devices.labels {labels}: expected a divisor of the number of devices, {len(devices)}")
    shape = len(devices) // labels, labels
    # The default, AxisType.Explicit, rejects segment sums and gathers of sharded arrays.
    return jax.make_mesh(shape, ("data", "label"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """Puts a copy of each array on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def shard_batch(mesh: Mesh, tree: Tree) -> Tree:
    """Splits the first axis of each array over the axis `data`; its size must be a multiple of that of the axis."""
    return jax.device_put(tree, NamedSharding(mesh, P("data")))


def place(mesh: Mesh, tree: Tree, num_rows: int) -> Tree:
    """Splits the arrays with `num_rows` rows, one per label, over the axis `label`; copies others to every device."""
    return jax.device_put(tree, jax.tree.map(lambda x: _placement(mesh, x, num_rows), tree))


def abstract(mesh: Mesh, tree: Tree, num_rows: int) -> Tree:
    """Returns `jax.ShapeDtypeStruct`s of a tree that `place` places: shapes, dtypes and sharding without values."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_placement(mesh, x, num_rows)), tree)


def created(mesh: Mesh, num_rows: int, create: Callable[..., Tree], *arguments: PyTree) -> Tree:
    """Returns `create(*arguments)`, computed where `place` would put it.

    An array with one row per label that fits into memory only if it is split never exists whole.
    """
    shapes = jax.eval_shape(create, *arguments)
    placements = jax.tree.map(lambda x: _placement(mesh, x, num_rows), shapes)
    return jax.jit(create, out_shardings=placements)(*arguments)


def zeros(mesh: Mesh, shapes: Tree, num_rows: int) -> Tree:
    """Returns zeros of the shapes and dtypes of a tree, created where `place` would put them."""
    placed = abstract(mesh, shapes, num_rows)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), placed)


def _placement(mesh: Mesh, x: PyTree, num_rows: int) -> NamedSharding:
    has_label_rows = x.ndim > 0 and len(x) == num_rows
    # Results of a program are never sharded over an axis of size 1: its next call would be compiled again.
    return NamedSharding(mesh, P("label") if has_label_rows and mesh.shape["label"] > 1 else P())


def pad_rows(tree: Tree, num_rows: int) -> Tree:
    """Pads each array with zeros to `num_rows` rows; those of the host stay there."""

    def pad(x: AnyArray) -> AnyArray:
        padding = ((0, num_rows - len(x)), *((0, 0),) * (x.ndim - 1))
        return np.pad(x, padding) if isinstance(x, np.ndarray) else jnp.pad(x, padding)

    return jax.tree.map(pad, tree)


def pmapped(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Maps `function(constants, *rows)` over the local devices: each gets all constants and its share of the rows.

    For code that prefers explicit mapping over devices; training uses the mesh. `jax.pmap` is a wrapper over
    `jit(shard_map)`.

    Args:
        function: takes a pytree that is replicated, then pytrees of arrays whose first axis is split; returns a pytree
            of arrays with the same first axis.

    Returns:
        A function of the same arguments on full arrays. If the number of devices does not divide the first axis, the
        arrays are padded and the results cut.
    """
    num_devices = jax.local_device_count()
    mapped = jax.pmap(lambda constants, rows: function(constants, *rows), in_axes=(None, 0))

    def call(constants: PyTree, *rows: PyTree) -> PyTree:
        num_rows = len(jax.tree.leaves(rows)[0])
        share = -(-num_rows // num_devices)

        def split(x: jax.Array) -> jax.Array:
            padding = ((0, num_devices * share - num_rows), *((0, 0),) * (x.ndim - 1))
            return jnp.pad(x, padding).reshape(num_devices, share, *x.shape[1:])

        out = mapped(constants, jax.tree.map(split, rows))
        return jax.tree.map(lambda x: x.reshape(num_devices * share, *x.shape[2:])[:num_rows], out)

    return call


def to_host(tree: PyTree) -> PyTree:
    """Copies a tree of arrays from the devices to NumPy arrays."""
    return jax.tree.map(np.asarray, jax.device_get(tree))
