from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.config import Optimizer
from lsfa_jax.training import sparse_step
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.state import after_step, init_state
from tests.reference.agreement import assert_equal

L, D = 6, 3
LOSSES = jnp.array([1.0, 2.0])


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), jnp.float32)


def make(optimizer, steps=3):
    """Two tables and a matrix, after some dense steps: moments and norms are there."""
    params = {"table": normal(L, D), "bias": normal(L), "matrix": normal(D, D)}
    state = init_state(jax.random.key(0), params, optimizer, extra={"kept": normal(2)}, average=True)
    for step in range(steps):
        grads = jax.tree.map(lambda x, step=step: normal(*x.shape, seed=step), params)
        state = after_step(state, grads, LOSSES, optimizer)
    return state


def tree(label_ids):
    label_ids = jnp.array(label_ids, jnp.int32)
    return {"table": label_ids, "bias": label_ids, "matrix": None}


@pytest.mark.parametrize("clip", ["running", "global", "none"])
def test_rows_that_take_part_step_as_in_the_dense_step_and_others_stay(clip):
    optimizer = make_optimizer(Optimizer(clip=clip, clip_factor=0.5), 0.1)
    state, own = make(optimizer), tree([4, 0, 7, 9])
    grads = sparse_step.taken(
        {"table": normal(L, D, seed=9), "bias": normal(L, seed=9), "matrix": normal(D, D, seed=9)}, own
    )
    outside = [1, 2, 3, 5]
    # The dense step, whose gradient is zero outside; it moves rows there, but those with a gradient as it should.
    dense = {name: jnp.zeros_like(x).at[jnp.array([4, 0])].set(grads[name][:2]) for name, x in state.params.items()}
    expected = after_step(state, dense | {"matrix": grads["matrix"]}, LOSSES, optimizer)
    after = jax.jit(lambda state, grads: sparse_step.after_sparse_step(state, grads, LOSSES, optimizer, own))(
        state, grads
    )

    def check(before, after, expected):
        if before.shape[:1] != (L,):
            np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
            return
        np.testing.assert_allclose(after[jnp.array([4, 0])], expected[jnp.array([4, 0])], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(after[jnp.array(outside)], before[jnp.array(outside)])

    kept = ("params", "opt_state", "step", "loss_sums", "loss_steps")
    jax.tree.map(check, *({name: getattr(s, name) for name in kept} for s in (state, after, expected)))
    assert np.any(after.params["matrix"] != state.params["matrix"])
    assert_equal((after.extra, after.average, after.best), (state.extra, state.average, state.best))


def test_all_rows_in_any_order_are_the_dense_step():
    optimizer = make_optimizer(Optimizer(), 0.1)
    state, own = make(optimizer), tree([3, 5, 1, 0, 2, 4, 6, 7])
    grads = {"table": normal(L, D, seed=9), "bias": normal(L, seed=9), "matrix": normal(D, D, seed=9)}
    after = sparse_step.after_sparse_step(state, sparse_step.taken(grads, own), LOSSES, optimizer, own)
    expected = after_step(state, grads, LOSSES, optimizer)
    key = {"key": jax.random.key_data(state.key)}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
        replace(after, **key),
        replace(expected, **key),
    )


def test_without_rows_it_is_the_dense_step_bit_for_bit():
    optimizer = make_optimizer(Optimizer(), 0.1)
    state, none = make(optimizer), dict.fromkeys(("table", "bias", "matrix"))
    grads = jax.tree.map(lambda x: 2 * x, state.params)
    assert sparse_step.taken(grads, none) == grads
    assert_equal(
        sparse_step.after_sparse_step(state, grads, LOSSES, optimizer, none).params,
        after_step(state, grads, LOSSES, optimizer).params,
    )


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, L - 1), min_size=1, max_size=8))
def test_distinct_names_each_row_once_and_tells_where_it_stands(row_ids):
    row_ids = np.array([row_ids, row_ids[::-1]], np.int32)
    found, places = sparse_step.distinct(row_ids, L)
    assert found.shape == (row_ids.size,)
    assert len(set(found.tolist())) == row_ids.size
    assert set(found[found < L].tolist()) == set(row_ids.ravel().tolist())
    np.testing.assert_array_equal(found[places], row_ids)


def test_no_row_is_read_or_written_beyond_the_end():
    table = {"t": normal(L, D)}
    np.testing.assert_array_equal(sparse_step.taken(table, {"t": jnp.array([2, L, 100])})["t"][1:], 0.0)
    flags = sparse_step.taken({"t": jnp.ones(3, bool)}, {"t": jnp.array([0, 3])})["t"]
    np.testing.assert_array_equal(flags, [True, False])
