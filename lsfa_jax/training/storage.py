"""Parameters and moments that are stored in bfloat16 and computed with in float32.

A weight in bfloat16 has 8 bits: the update of a step is often below half of the last one, and rounding to the nearest
would lose it. Stochastic rounding is unbiased: of the two neighbours of x, each is chosen with a probability that makes
x the mean, so that many small updates add up (Gupta et al. 2015; classifiers of ELMO, Zhang et al. 2025).

What is stored in bfloat16 is seen from the dtypes of the arrays; all others pass unchanged.
"""

from typing import Any

import jax
import jax.numpy as jnp

from lsfa_jax.training.label_rows import is_table
from lsfa_jax.types import Array, DTypeLike, PyTree

_LOST_BITS = 16


def with_tables_in(dtype: DTypeLike, params: PyTree) -> PyTree:
    """Returns parameters with the tables with one row per label in another dtype."""

    def stored(path: tuple[Any, ...], x: Array) -> Array:
        return x.astype(dtype) if is_table(path, x) else x

    return jax.tree_util.tree_map_with_path(stored, params)


def in_float32(tree: PyTree) -> PyTree:
    """Returns a tree with its bfloat16 arrays in float32, which is exact."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


def rounded_like(stored: PyTree, computed: PyTree, key: Array) -> PyTree:
    """Rounds computed arrays to bfloat16 where the stored ones are, stochastically; other arrays stay as they are."""
    leaves, structure = jax.tree.flatten(computed)
    rounded = [
        stochastic_round(jax.random.fold_in(key, number), new) if old.dtype == jnp.bfloat16 else new
        for number, (old, new) in enumerate(zip(jax.tree.leaves(stored), leaves, strict=True))
    ]
    return jax.tree.unflatten(structure, rounded)


def stochastic_round(key: Array, x: Array) -> Array:
    """Rounds float32 to bfloat16, up or down with probabilities in proportion to the distances, so that E[result] = x.

    bfloat16 is the upper half of a float32. A random number is added to the lower half; where it carries over, the
    result is the neighbour with the larger magnitude. Infinite numbers and NaN stay what they are.
    """
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    upper = (jax.lax.bitcast_convert_type(x, jnp.uint32) + noise) >> _LOST_BITS
    rounded = jax.lax.bitcast_convert_type(upper.astype(jnp.uint16), jnp.bfloat16)
    return jnp.where(jnp.isfinite(x), rounded, x.astype(jnp.bfloat16))
