import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.config import Optimizer
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.sparse_step import after_sparse_step, gather_rows, scatter_rows, unique_rows
from lsfa_jax.training.state import TrainState, after_step, init_state
from tests.reference.agreement import assert_equal

L, D = 6, 3
LOSSES = {"bce": jnp.float32(1.0), "psc": jnp.float32(2.0)}


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), jnp.float32)


def normal_tree(seed: int) -> dict[str, jax.Array]:
    """Two tables with a row a label and a matrix without."""
    return {"table": normal(L, D, seed=seed), "bias": normal(L, seed=seed), "matrix": normal(D, D, seed=seed)}


def state_after_dense_steps(optimizer: optax.GradientTransformation, steps: int = 3) -> TrainState:
    """Its moments and recorded norms are not zero."""
    state = init_state(
        jax.random.key(0), normal_tree(0), optimizer, tuple(LOSSES), extra={"kept": normal(2)}, average=True
    )
    for step in range(steps):
        state = dense_step(optimizer, state, normal_tree(step))
    return state


@functools.partial(jax.jit, static_argnums=0)
def dense_step(optimizer: optax.GradientTransformation, state: TrainState, grads: dict[str, jax.Array]) -> TrainState:
    return after_step(state, grads, LOSSES, optimizer)


def label_rows(label_ids: list[int]) -> dict[str, jax.Array | None]:
    row_ids = jnp.array(label_ids, jnp.int32)
    return {"table": row_ids, "bias": row_ids, "matrix": None}


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["running", "global", "none"])
def test_gathered_rows_step_as_in_the_dense_step_and_other_rows_stay(clip):
    optimizer = make_optimizer(Optimizer(clip=clip, clip_factor=0.5), 0.1)
    state, rows = state_after_dense_steps(optimizer), label_rows([4, 0, 7, 9])
    grads = gather_rows(normal_tree(9), rows)
    inside, outside = jnp.array([4, 0]), jnp.array([1, 2, 3, 5])
    # The dense step with zero gradients outside moves rows there too, but those inside as it should.
    dense = {name: jnp.zeros_like(x).at[inside].set(grads[name][:2]) for name, x in state.params.items()}
    expected = dense_step(optimizer, state, dense | {"matrix": grads["matrix"]})
    after = jax.jit(lambda state, grads: after_sparse_step(state, grads, LOSSES, optimizer, rows))(state, grads)

    def check(before: jax.Array, after: jax.Array, expected: jax.Array) -> None:
        if before.shape[:1] != (L,):
            np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
            return
        np.testing.assert_allclose(after[inside], expected[inside], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(after[outside], before[outside])

    changed = ("params", "opt_state", "step", "loss_sums", "loss_steps")
    jax.tree.map(check, *({name: getattr(s, name) for name in changed} for s in (state, after, expected)))
    assert np.any(after.params["matrix"] != state.params["matrix"])
    assert_equal((after.extra, after.average, after.best), (state.extra, state.average, state.best))


def test_all_rows_in_any_order_are_the_dense_step():
    optimizer = make_optimizer(Optimizer(), 0.1)
    state, rows, grads = state_after_dense_steps(optimizer), label_rows([3, 5, 1, 0, 2, 4, 6, 7]), normal_tree(9)
    after = jax.jit(lambda state, grads: after_sparse_step(state, grads, LOSSES, optimizer, rows))(
        state, gather_rows(grads, rows)
    )
    expected = dense_step(optimizer, state, grads)
    key = {"key": jax.random.key_data(state.key)}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
        replace(after, **key),
        replace(expected, **key),
    )


def test_without_rows_it_is_the_dense_step_bit_for_bit():
    optimizer = make_optimizer(Optimizer(), 0.1)
    state, all_of_it = state_after_dense_steps(optimizer), dict.fromkeys(("table", "bias", "matrix"))
    grads = jax.tree.map(lambda x: 2 * x, state.params)
    assert gather_rows(grads, all_of_it) == grads
    assert_equal(
        jax.jit(lambda state, grads: after_sparse_step(state, grads, LOSSES, optimizer, all_of_it))(
            state, grads
        ).params,
        dense_step(optimizer, state, grads).params,
    )


UNIQUE_ROWS = jax.jit(unique_rows, static_argnums=1)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([1, 3, 8]).flatmap(lambda size: st.lists(st.integers(0, L - 1), min_size=size, max_size=size)))
def test_unique_rows_lists_each_row_once_and_where_it_is(row_ids):
    row_ids = np.array([row_ids, row_ids[::-1]], np.int32)
    rows, places = UNIQUE_ROWS(row_ids, L)
    assert rows.shape == (row_ids.size,)
    assert len(set(rows.tolist())) == row_ids.size
    assert set(rows[rows < L].tolist()) == set(row_ids.ravel().tolist())
    np.testing.assert_array_equal(rows[places], row_ids)


def test_rows_beyond_the_end_are_gathered_as_zeros_and_dropped_when_scattered():
    table = {"t": normal(L, D)}
    rows = {"t": jnp.array([2, L, 100])}
    gathered = gather_rows(table, rows)["t"]
    np.testing.assert_array_equal(gathered[0], table["t"][2])
    np.testing.assert_array_equal(gathered[1:], 0.0)
    scattered = scatter_rows(table, {"t": gathered + 1.0}, rows)["t"]
    np.testing.assert_array_equal(scattered, table["t"].at[2].add(1.0))
    flags = gather_rows({"t": jnp.ones(3, bool)}, {"t": jnp.array([0, 3])})["t"]
    np.testing.assert_array_equal(flags, [True, False])
