"""Two sums that some versions of jaxlib compute wrong on CPUs, checked before training; `xla_flags` avoids it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lsfa_jax.types import Array
from lsfa_jax.util.console import warn
from lsfa_jax.util.xla_flags import FLAG, jaxlib_version


@functools.cache
def check() -> None:
    """Warns, once a process, if a known sum is wrong. Takes 0.1 s on a CPU; computes nothing on other devices."""
    if jax.default_backend() != "cpu":
        return
    for actual, expected in (sum_in_last_row(), sum_beside_constant_factor()):
        if not abs(actual - expected) <= 1e-3 * expected:
            warn(
                f"jaxlib {jaxlib_version} computes some sums wrong on this CPU ({actual:,.6g} instead of "
                f"{expected:,.6g}); a model trained now may learn from wrong numbers. Before Python starts, set "
                f'export XLA_FLAGS="$XLA_FLAGS {FLAG}"; or, in a program, import lsfa_jax before JAX is first used'
            )
            return


def sum_in_last_row() -> tuple[float, float]:
    """Returns a sum that jaxlib 0.10.2 computes wrong in rows from 32,768 on, and its right value.

    See https://github.com/jax-ml/jax/issues/39103.
    """

    @jax.jit
    def squared_norms(x: Array, m: Array) -> Array:
        return jax.vmap(lambda row: jnp.sum((m @ row) ** 2))(x)

    # Distinct rows: the wrong sum is that of another row.
    x = np.zeros((32_769, 3), np.float32)
    x[:, 0] = np.arange(len(x))
    return float(squared_norms(x, np.eye(3, dtype=np.float32))[-1]), 32_768.0**2


def sum_beside_constant_factor() -> tuple[float, float]:
    """Returns a sum that all versions in `xla_flags.AFFECTED` compute wrong, and its right value.

    In a batch of products with a constant factor, as in gradients of sums, the constant is read as if it were a matrix.
    """

    @jax.jit
    def weighted(x: Array) -> Array:
        return jnp.sum((x @ jnp.full_like(x, 0.5)) * x)

    x = np.ones((5, 60, 60), np.float32)
    return float(weighted(x)), 0.5 * 5 * 60**3
