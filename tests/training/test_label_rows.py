"""Moments and precision of the tables with one row per label, against plain NumPy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax.config import Optimizer
from lsfa_jax.training import label_rows, storage
from lsfa_jax.training.optimizer import make_fine_tuning_optimizer, make_optimizer
from lsfa_jax.training.sparse_step import after_sparse_step, gather_rows
from lsfa_jax.training.state import after_step, init_state
from tests.reference.agreement import assert_equal

L, D = 5, 3
RATE, OF_TABLES = 0.1, 0.7
LOSSES = {"bce": jnp.float32(1.0)}


def tree(seed):
    """Parameters of the names of a model's: two tables with a row a label, and others."""
    random = np.random.default_rng(seed)
    return {
        "encoder": {"kernel": random.normal(size=(L, D))},
        "labels": {"queries": random.normal(size=(L, 4)), "head": {"bias": random.normal(size=D)}},
        "classifier": {"weights": random.normal(size=(L, D)), "bias": random.normal(size=L)},
    }


def on_device(values):
    return jax.tree.map(jnp.float32, values)


def trained(kind, gradients):
    """The equations in float64, number by number but for the mean over a row."""

    def of_array(path, start):
        x, m = start.copy(), np.zeros_like(start)
        table = path[-1].key in ("queries", "weights")
        v = np.zeros_like(start)
        for t, gradient in enumerate(gradients, 1):
            g = gradient
            for key in path:
                g = g[key.key]
            rate = OF_TABLES if table else RATE
            if table and kind == "sgd":
                m = 0.9 * m + g
                x = x - rate * m
                continue
            squares = g**2
            if table and kind == "row_adam":
                squares = np.array([[np.mean(row**2)] * len(row) for row in g])
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * squares
            x = x - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return x

    return jax.tree_util.tree_map_with_path(of_array, tree(0))


@pytest.mark.parametrize("kind", ["adam", "row_adam", "sgd"])
@pytest.mark.parametrize("fine_tuned", [False, True])
def test_label_tables_have_the_moments_and_the_rate_of_the_settings(kind, fine_tuned):
    encoder = {"encoder_learning_rate": 0.01} if fine_tuned else {}
    settings = Optimizer(clip="none", learning_rate=RATE, label_rows=kind, label_learning_rate=OF_TABLES, **encoder)
    adam = make_fine_tuning_optimizer(settings, 9) if fine_tuned else make_optimizer(settings, RATE)
    gradients = [tree(seed) for seed in range(1, 6)]
    params = on_device(tree(0))
    state, update = adam.init(params), jax.jit(adam.update)
    for gradient in gradients:
        updates, state = update(on_device(gradient), state, params)
        params = optax.apply_updates(params, updates)
    actual, expected = (
        {name: x for name, x in each.items() if not fine_tuned or name != "encoder"}
        for each in (params, trained(kind, gradients))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected)
    moments = state[1] if fine_tuned else state[1][0]
    assert moments.nu["classifier"]["weights"].shape == ((L, D) if kind == "adam" else (L, 1))
    assert moments.nu["encoder"]["kernel"].shape == (L, D)


def test_a_classifier_that_all_labels_share_is_no_label_table():
    moments = label_rows.scale_by_moments("row_adam").init({"weights": jnp.zeros((1, D))})
    assert moments.nu["weights"].shape == (1, D)


# --- rounding


def test_stochastic_rounding_is_unbiased_and_chooses_a_neighbour():
    random = np.random.default_rng(0)
    x = np.float32(random.normal(size=40) * 10.0 ** random.integers(-20, 20, 40))
    draws = jax.vmap(lambda key: storage.stochastic_round(key, x))(jax.random.split(jax.random.key(1), 4000))
    draws = np.asarray(draws, np.float64)
    lower = (x.view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float64)
    upper = ((x.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32).astype(np.float64)
    assert np.all((draws == lower) | (draws == upper))
    # Nearest rounding is off by a quarter of the gap on average; the mean of the draws by 0.4 / sqrt(4000).
    np.testing.assert_allclose((draws.mean(axis=0) - x) / (upper - lower), 0, atol=0.04)


def test_what_bfloat16_holds_stays_and_what_is_not_finite_too():
    x = jnp.array([0.0, -0.0, 1.0, -2.5, 3e38, jnp.inf, -jnp.inf, jnp.nan], jnp.bfloat16)
    for seed in range(20):
        rounded = storage.stochastic_round(jax.random.key(seed), x.astype(jnp.float32))
        np.testing.assert_array_equal(np.asarray(rounded, np.float64), np.asarray(x, np.float64))
        assert rounded.dtype == jnp.bfloat16


def stored_state(kind, rate=1e-4):
    optimizer = make_optimizer(Optimizer(clip="none", label_rows=kind), rate)
    params = storage.with_tables_in("bfloat16", on_device(tree(0)))
    return optimizer, init_state(jax.random.key(3), params, optimizer, tuple(LOSSES), average=True)


@pytest.mark.parametrize("kind", ["row_adam", "sgd"])
def test_small_steps_of_stored_tables_add_up(kind):
    """A step of 1e-4 is a fiftieth of the gap between neighbours near 1: rounded to nearest, nothing would move."""
    optimizer, state = stored_state(kind)
    ones = jax.tree.map(jnp.ones_like, on_device(tree(0)))
    start = jax.tree.map(lambda x: jnp.ones_like(x, dtype=x.dtype), state.params)
    state = replace(state, params=start)
    step = jax.jit(lambda state: after_step(state, ones, LOSSES, optimizer))
    for _ in range(200):
        state = step(state)
    weights, queries = state.params["classifier"]["weights"], state.params["labels"]["queries"]
    assert weights.dtype == queries.dtype == state.opt_state[1][0].mu["labels"]["queries"].dtype == jnp.bfloat16
    assert state.params["encoder"]["kernel"].dtype == state.params["classifier"]["bias"].dtype == jnp.float32
    moved = 1 - np.concatenate([np.asarray(x, np.float64).ravel() for x in (weights, queries)])
    # sgd's step approaches ten times the rate.
    expected = 1e-4 * sum((1 - 0.9**t) * 10 for t in range(1, 201)) if kind == "sgd" else 200 * 1e-4
    np.testing.assert_allclose(moved.mean(), expected, rtol=0.15)
    assert state.average["classifier"]["weights"].dtype == state.best["labels"]["queries"].dtype == jnp.float32


def test_a_stored_state_takes_the_same_step_again():
    optimizer, state = stored_state("row_adam", 2e-3)
    step = jax.jit(lambda state: after_step(state, on_device(tree(1)), LOSSES, optimizer))
    first, again = step(state), step(state)
    assert_equal((first.params, first.opt_state), (again.params, again.opt_state))
    other = step(replace(state, step=state.step + 1))
    assert np.any(other.params["labels"]["queries"] != first.params["labels"]["queries"])


@pytest.mark.parametrize("kind", ["row_adam", "sgd"])
def test_rows_of_a_table_step_alone(kind):
    """As in the dense step, and others stay, also where they are stored in bfloat16."""
    optimizer, state = stored_state(kind)
    row_ids = jnp.array([3, 0, L, L + 1])
    rows = jax.tree.map(lambda _: None, state.params)
    rows["labels"]["queries"] = rows["classifier"]["weights"] = rows["classifier"]["bias"] = row_ids
    grads = gather_rows(on_device(tree(1)), rows)
    after = jax.jit(lambda state: after_sparse_step(state, grads, LOSSES, optimizer, rows))(state)
    outside = jnp.array([1, 2, 4])
    for part, name in (("labels", "queries"), ("classifier", "weights")):
        before, now = state.params[part][name], after.params[part][name]
        np.testing.assert_array_equal(now[outside], before[outside])
        assert now.dtype == before.dtype == jnp.bfloat16
        moments = after.opt_state[1][0]
        expected = np.asarray(gather_rows(on_device(tree(1)), rows)[part][name])[:2]
        factor = 1.0 if kind == "sgd" else 0.1
        np.testing.assert_allclose(
            moments.mu[part][name].astype(jnp.float32)[row_ids[:2]], factor * expected, rtol=1e-2
        )
        if kind == "row_adam":
            squares = 0.001 * np.mean(expected**2, axis=1, keepdims=True)
            np.testing.assert_allclose(moments.nu[part][name][row_ids[:2]], squares, rtol=1e-5)
        np.testing.assert_array_equal(moments.mu[part][name][outside], 0)
