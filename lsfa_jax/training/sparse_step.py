"""Optimiser steps that read and write some rows of large tables and leave the others unchanged."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax

from lsfa_jax.training.state import TrainState, after_step
from lsfa_jax.types import Array, DTypeLike, PyTree


def unique_rows(row_ids: Array, num_rows: int) -> tuple[Array, Array]:
    """Finds the distinct rows among row ids, in a static shape.

    Args:
        row_ids: int32[...], R in all, rows of a table, in any order and repeated.
        num_rows: rows of the table.

    Returns:
        int32[R], the distinct rows in ascending order, padded with distinct out-of-range numbers; and the position of
        each row id in it, of the shape of `row_ids`.
    """
    rows, places = jnp.unique(row_ids, return_inverse=True, size=row_ids.size, fill_value=num_rows)
    return jnp.where(rows < num_rows, rows, num_rows + jnp.arange(row_ids.size)), places


def gather_rows(tree: PyTree, rows: PyTree) -> PyTree:
    """Gathers rows of each array of a tree.

    Args:
        tree: arrays.
        rows: a tree of the same structure: int32[R] rows of the array, or None for all of it. A row beyond the end of
            the array is gathered as zeros.
    """

    def gather(table: Array, row_ids: Array | None) -> Array:
        if row_ids is None:
            return table
        return _as(table.dtype, _bits(table).at[row_ids].get(mode="fill", fill_value=0))

    return jax.tree.map(gather, tree, rows)


def scatter_rows(tree: PyTree, updates: PyTree, rows: PyTree) -> PyTree:
    """Writes rows into each array of a tree, the inverse of `gather_rows`; rows beyond the end are dropped."""

    def scatter(table: Array, update: Array, row_ids: Array | None) -> Array:
        if row_ids is None:
            return update
        return _as(table.dtype, _bits(table).at[row_ids].set(_bits(update), mode="drop", unique_indices=True))

    return jax.tree.map(scatter, tree, updates, rows)


def _bits(x: Array) -> Array:
    """Returns bfloat16 as integers: XLA on CPUs would convert the whole table to float32 to move some rows."""
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def _as(dtype: DTypeLike, x: Array) -> Array:
    return x if x.dtype == dtype else jax.lax.bitcast_convert_type(x, dtype)


def after_sparse_step(
    state: TrainState, grads: PyTree, losses: dict[str, Array], optimizer: optax.GradientTransformation, rows: PyTree
) -> TrainState:
    """Returns the state after one optimiser step on some rows.

    Adam is lazy, like PyTorch's SparseAdam: a row without a gradient keeps its value and its moments, where dense Adam
    would decay the moments and move the row. The bias correction counts all steps, also for a row's first one.

    Args:
        state: its `params` are the full tables.
        grads: gradients of `gather_rows(state.params, rows)`.
        losses: the losses of the step.
        optimizer: the stage's optimiser.
        rows: as for `gather_rows`, each row of an array once.
    """
    moments = optax.tree.map_params(
        optimizer, lambda _, row_ids: row_ids, state.opt_state, rows, transform_non_params=lambda _: None
    )
    part = replace(state, params=gather_rows(state.params, rows), opt_state=gather_rows(state.opt_state, moments))
    part = after_step(part, grads, losses, optimizer)
    return replace(
        part,
        params=scatter_rows(state.params, part.params, rows),
        opt_state=scatter_rows(state.opt_state, part.opt_state, moments),
    )
