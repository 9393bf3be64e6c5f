"""The optimiser's state for the tables with one row per label, which are most of a model where labels are many.

Adam keeps two numbers beside each weight. For the L x D numbers of such a table this may be less:

- adam: first moment m and second moment v of each number (Kingma and Ba 2015, algorithm 1).
- row_adam: one second moment a row, v_l = b2 v_l + (1 - b2) mean_d g_ld^2, of which Adam's equations use the root for
  all numbers of the row. It is the row factor of Adafactor's second moment (Shazeer and Stern 2018, section 3), whose
  column factor all labels would share.
- sgd: no second moment; m = b1 m + g (momentum), as Renee (Jain et al. 2023) and ELMO (Zhang et al. 2025) train
  classifiers of millions of labels.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lsfa_jax.config import LabelRows
from lsfa_jax.types import Array, PyTree

# Adam's constants.
_B1, _B2, _EPSILON = 0.9, 0.999, 1e-8

_MATRIX = 2
_TABLES = ("queries", "weights")


def is_table(path: tuple[Any, ...], array: Array) -> bool:
    """Whether an array of a parameter tree has one row per label: queries and classifiers, unless one is for all."""
    name = getattr(path[-1], "key", "") if path else ""
    return name in _TABLES and array.ndim == _MATRIX and len(array) > 1


def scale_by_moments(kind: LabelRows) -> optax.GradientTransformation:
    """Returns the direction of a step: Adam's, of which label tables have the second moment that `kind` names.

    The state is an `optax.ScaleByAdamState`. The second moment of a label table [L, D] is [L, 1], unless it is Adam's:
    `update` takes the mean of the squares over D then. With "sgd" it stays 0 and is not used.
    """
    if kind == "adam":
        return optax.scale_by_adam(_B1, _B2, _EPSILON)

    def init(params: PyTree) -> optax.ScaleByAdamState:
        def second_moment(path: tuple[Any, ...], x: Array) -> Array:
            return jnp.zeros((len(x), 1), jnp.float32) if is_table(path, x) else jnp.zeros_like(x)

        nu = jax.tree_util.tree_map_with_path(second_moment, params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params), nu)

    def update(
        updates: PyTree, state: optax.ScaleByAdamState, params: PyTree = None
    ) -> tuple[PyTree, optax.ScaleByAdamState]:
        del params
        count = optax.safe_increment(state.count)
        first, second = 1 - _B1**count, 1 - _B2**count

        def has_momentum_alone(nu: Array, g: Array) -> bool:
            return kind == "sgd" and nu.shape != g.shape

        def of_first(g: Array, m: Array, v: Array) -> Array:
            return _B1 * m + (g if has_momentum_alone(v, g) else (1 - _B1) * g)

        def of_second(g: Array, v: Array) -> Array:
            squares = jnp.square(g) if v.shape == g.shape else jnp.mean(jnp.square(g), axis=-1, keepdims=True)
            return v if has_momentum_alone(v, g) else _B2 * v + (1 - _B2) * squares

        def direction(m: Array, v: Array) -> Array:
            return m if has_momentum_alone(v, m) else (m / first) / (jnp.sqrt(v / second) + _EPSILON)

        mu = jax.tree.map(of_first, updates, state.mu, state.nu)
        nu = jax.tree.map(of_second, updates, state.nu)
        return jax.tree.map(direction, mu, nu), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def scaled(updates: PyTree, learning_rate: float, of_tables: float) -> PyTree:
    """Multiplies updates by minus the learning rate; that of label tables may be another one."""

    def scale(path: tuple[Any, ...], update: Array) -> Array:
        return -(of_tables if is_table(path, update) else learning_rate) * update

    return jax.tree_util.tree_map_with_path(scale, updates)
