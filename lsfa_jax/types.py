"""Type aliases of the package, in one place.

`lsfa_jax.data` uses them too and starts without JAX, whose import takes most of a second: only type checkers import JAX
through this file, and at run time these aliases are `Any`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import jax
    from jax.typing import ArrayLike as _ArrayLike
    from jax.typing import DTypeLike as _DTypeLike

    Array: TypeAlias = jax.Array
    """On the devices, or traced."""
    ArrayLike: TypeAlias = _ArrayLike
    """What `jax.numpy` accepts: arrays of either kind and numbers."""
    DTypeLike: TypeAlias = _DTypeLike
    """What names a dtype: jnp.float32, "bfloat16", np.dtype."""
else:
    Array = ArrayLike = DTypeLike = Any

HostArray: TypeAlias = np.ndarray
"""In the memory of the host."""

AnyArray: TypeAlias = Any
"""A `HostArray` until it is copied to the devices, then an `Array`."""

PyTree: TypeAlias = Any
"""Nested tuples, lists and dicts of arrays; `None` is an empty tree."""

Params: TypeAlias = Mapping[str, Any]
"""Parameters by name, nested."""

ParamDict: TypeAlias = dict[str, Any]
"""`Params` that can be joined by `|`."""
