"""Optimiser steps that read and write some rows of large tables, and no others."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lsfa_jax.training.state import TrainState, after_step


def distinct(row_ids: jax.Array, num_rows: int) -> tuple[jax.Array, jax.Array]:
    """Says which rows are named, each once, and where each name's row then stands.

    Args:
        row_ids: int32[...], R of them in all, rows of a table; a row may be named often.
        num_rows: rows of the table.

    Returns:
        int32[R], the named rows in ascending order, then `num_rows` and more, all different; and places in it, shaped
        as `row_ids`.
    """
    found, places = jnp.unique(row_ids, return_inverse=True, size=row_ids.size, fill_value=num_rows)
    return jnp.where(found < num_rows, found, num_rows + jnp.arange(row_ids.size)), places


def taken(tree: Any, rows: Any) -> Any:
    """Gathers rows.

    Args:
        tree: arrays.
        rows: a tree of the same structure: for each array int32[R], the rows that are wanted, or None for all of it. A
            row beyond the end reads as zeros.
    """
    return jax.tree.map(lambda x, own: x if own is None else x.at[own].get(mode="fill", fill_value=0), tree, rows)


def _put(tree: Any, parts: Any, rows: Any) -> Any:
    def put(x: jax.Array, part: jax.Array, own: jax.Array | None) -> jax.Array:
        return part if own is None else x.at[own].set(part, mode="drop", unique_indices=True)

    return jax.tree.map(put, tree, parts, rows)


def after_sparse_step(
    state: TrainState, grads: Any, losses: jax.Array, optimizer: optax.GradientTransformation, rows: Any
) -> TrainState:
    """Returns the state after one optimiser step on some rows.

    Adam is lazy here, like PyTorch's SparseAdam: a row that takes no part keeps its value and its moments, where the
    dense one would move it on by fading momentum. The bias correction counts all steps, also for a row's first one.

    Args:
        state: whose `params` are the whole tables.
        grads: gradients of `taken(state.params, rows)`.
        losses: float32[2], to be summed up.
        optimizer: of the stage.
        rows: as for `taken`, each row of an array once.
    """
    moments = optax.tree.map_params(
        optimizer, lambda _, own: own, state.opt_state, rows, transform_non_params=lambda _: None
    )
    part = replace(state, params=taken(state.params, rows), opt_state=taken(state.opt_state, moments))
    part = after_step(part, grads, losses, optimizer)
    return replace(
        part,
        params=_put(state.params, part.params, rows),
        opt_state=_put(state.opt_state, part.opt_state, moments),
    )
