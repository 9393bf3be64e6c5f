"""One mesh over all devices: batches are sharded over its axis `data`, tables with a row per label over `label`.

The engine is `jit` with sharded arguments: a step is written for the full batch, and the compiler partitions it. One
device is the mesh of size one, not a second code path. With several processes the mesh has the devices of all of them,
and each puts its part of an array on its devices.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from lsfa_jax.types import AnyArray, Array, HostArray, PyTree
from lsfa_jax.util import processes
from lsfa_jax.util.console import UserError

Tree = TypeVar("Tree")


def devices_of_job() -> list[jax.Device]:
    """Returns the devices of all processes of the job, in the order of the processes."""
    return jax.devices() if processes.count() > 1 else jax.local_devices()


def make_mesh(devices: Sequence[jax.Device] | None = None, labels: int = 1) -> Mesh:
    """Returns the mesh of the given devices, by default all of the job, with axes `data` and `label`.

    Args:
        devices: N x M of them.
        labels: M, the size of the axis `label`.

    Raises:
        UserError: M does not divide the number of devices.
    """
    devices = devices_of_job() if devices is None else devices
    if len(devices) % labels:
        raise UserError(f"--devices.labels {labels}: expected a divisor of the number of devices, {len(devices)}")
    shape = len(devices) // labels, labels
    # The default, AxisType.Explicit, rejects segment sums and gathers of sharded arrays.
    return jax.make_mesh(shape, ("data", "label"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def connect(mesh: Mesh) -> None:
    """Lets the processes of the job meet in a collective over each axis of the mesh.

    Gloo, which connects CPUs, gives up when two processes come to the first collective of their devices more than 30
    seconds apart, such as when one compiles a step while the other loads it from the disk. It waits in later ones.
    """
    if processes.count() == 1:
        return
    processes.wait()

    def meet(x: Array) -> Array:
        return jax.lax.psum(x, ("data", "label")) + jax.lax.psum(x, "data") + jax.lax.psum(x, "label")

    each = P("data", "label")
    one = _put(np.ones(tuple(mesh.shape.values()), np.float32), NamedSharding(mesh, each))
    jax.block_until_ready(jax.jit(jax.shard_map(meet, mesh=mesh, in_specs=each, out_specs=each))(one))
    multihost_utils.sync_global_devices("lsfa_jax")


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """Puts a copy of each array on every device."""
    return put(tree, NamedSharding(mesh, P()))


def shard_batch(mesh: Mesh, tree: Tree) -> Tree:
    """Splits the first axis of each array over the axis `data`; its size must be a multiple of that of the axis."""
    return put(tree, NamedSharding(mesh, P("data")))


def place(mesh: Mesh, tree: Tree, num_rows: int) -> Tree:
    """Splits the arrays with `num_rows` rows, one per label, over the axis `label`; copies others to every device."""
    return put(tree, jax.tree.map(lambda x: _placement(mesh, x, num_rows), tree))


def put(tree: PyTree, shardings: PyTree) -> PyTree:
    """Puts arrays on the devices of `shardings`, one for all or a tree of them; all processes have the same arrays."""
    if processes.count() == 1:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, Sharding):
        return jax.tree.map(lambda x: _put(x, shardings), tree)
    return jax.tree.map(_put, tree, shardings)


def _put(x: PyTree, sharding: Sharding) -> Array:
    is_traced = isinstance(x, jax.core.Tracer)
    if is_traced or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return jax.device_put(x, sharding)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x))
    # jax.device_put would send the values, to compare them with those of the other processes.
    on_host = np.asarray(x)
    return jax.make_array_from_callback(on_host.shape, sharding, lambda index: on_host[index])


def on_host(tree: Tree) -> Tree:
    """Moves arrays from the memory of their devices to that of the host, sharded as they are."""
    return jax.tree.map(lambda x: _moved(x, "pinned_host"), tree)


def on_devices(tree: Tree) -> Tree:
    """Moves arrays that are in the memory of the host to that of their devices; others stay where they are."""
    return jax.tree.map(lambda x: _moved(x, next(iter(x.sharding.device_set)).default_memory().kind), tree)


def moved_like(tree: Tree, like: Tree) -> Tree:
    """Moves arrays to the memory in which those of `like` are; others stay where they are."""
    return jax.tree.map(lambda x, to: _moved(x, to.sharding.memory_kind), tree, like)


def copied_like(tree: Tree, like: Tree) -> Tree:
    """Copies arrays into the memory in which those of `like` are."""
    moved = moved_like(tree, like)
    return jax.tree.map(lambda x, other: jnp.array(x) if other is x else other, tree, moved)


def _moved(x: Array, kind: str | None) -> Array:
    return x if kind is None or x.sharding.memory_kind == kind else jax.device_put(x, x.sharding.with_memory_kind(kind))


def rows_of_process(mesh: Mesh, num_rows: int) -> HostArray:
    """Returns bool[num_rows]: which rows of a batch are on devices of this process."""
    indices = NamedSharding(mesh, P("data")).addressable_devices_indices_map((num_rows,))
    mine = np.zeros(num_rows, bool)
    for index in indices.values():
        mine[index] = True
    return mine


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

    For code that prefers explicit mapping over devices. The package itself does not call it: training and prediction
    are `jit` over a mesh. Encoder, prototypes and decoder are tested to give equal results in this form. `jax.pmap` is
    a wrapper over `jit(shard_map)`.

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
    """Copies a tree of arrays from the devices, of all processes, to NumPy arrays in each."""
    return jax.tree.map(np.asarray, jax.device_get(jax.tree.map(_gathered, tree)))


def _gathered(x: PyTree) -> PyTree:
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return x
    assert isinstance(x.sharding, NamedSharding)
    return jax.device_put(x, NamedSharding(x.sharding.mesh, P()))
