from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax.config import Optimizer
from lsfa_jax.training import state as states
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.util import sharding
from tests.reference.agreement import assert_equal

SGD = optax.sgd(0.5)


def make(**options) -> states.TrainState:
    params = {"w": jnp.arange(3.0), "b": jnp.float32(2.0)}
    return states.init_state(jax.random.key(3), params, SGD, ("bce", "psc"), **options)


def losses(bce: float, psc: float) -> dict[str, jax.Array]:
    return {"bce": jnp.float32(bce), "psc": jnp.float32(psc)}


def test_the_state_before_the_first_step():
    state = make(extra={"seen": jnp.ones(2)}, average=True)
    assert_equal(state.average, state.params)
    assert_equal(state.best, state.params)
    assert float(state.best_score) == -np.inf
    for count in (state.step, state.num_averaged, state.since_best, state.validated, state.loss_steps):
        assert count.dtype == jnp.int32
        assert int(count) == 0
    assert_equal(state.loss_sums, losses(0.0, 0.0))
    plain = make(keep_best=False)
    assert plain.average is None
    assert plain.best is None
    assert plain.extra is None


@pytest.mark.parametrize("clip", ["running", "global", "none"])
def test_a_restored_state_runs_the_program_of_the_initial_one(clip):
    """Weak types would be lost in a checkpoint, and the step compiled again for the restored state."""
    optimizer = make_optimizer(Optimizer(clip=clip), 0.1)
    params = {"w": jnp.arange(3.0)}
    state = states.init_state(jax.random.key(3), params, optimizer, ("bce",), jnp.ones(2), average=True)
    step = jax.jit(lambda state: states.after_step(state, state.params, {"bce": jnp.float32(1.0)}, optimizer))
    for leaf in jax.tree.leaves([replace(each, key=None) for each in (state, jax.eval_shape(step, state))]):
        assert not leaf.weak_type


def test_a_completed_state_has_the_parameters_that_are_read_and_no_more():
    """Those of the best validation, else the mean, else the last ones; the form is known before the first step."""
    for score in (1.0, -np.inf):
        for averages in (0, 1):
            state = states.after_validation(make(average=True), {"w": jnp.ones(3), "b": jnp.float32(5.0)}, score)
            state = (
                states.averaged(replace(state, params=jax.tree.map(lambda x: x + 1, state.params)))
                if averages
                else state
            )
            completed = states.completed(state)
            assert_equal(states.best_params(completed), states.best_params(state))
            assert (completed.params, completed.opt_state, completed.average) == (None, None, None)
            form = jax.eval_shape(lambda: states.without_training(make(average=True)))
            assert jax.tree.structure(form) == jax.tree.structure(completed)
    last = make(keep_best=False)
    assert_equal(states.completed(last).params, last.params)


def test_average_and_best_outlive_the_parameters_that_a_step_donates():
    state = make(average=True)
    expected = jax.tree.map(np.array, state.params)
    jax.jit(lambda params: jax.tree.map(lambda x: x + 1, params), donate_argnums=0)(state.params)
    assert_equal(state.average, expected)
    assert_equal(state.best, expected)


def test_a_step_moves_parameters_and_sums_losses():
    state = make(extra="old")
    grads = {"w": jnp.array([1.0, 0.0, -2.0]), "b": jnp.float32(4.0)}
    state = states.after_step(state, grads, losses(3.0, 0.25), SGD)
    state = states.after_step(state, grads, losses(1.0, 0.5), SGD)
    np.testing.assert_array_equal(state.params["w"], [-1.0, 1.0, 4.0])
    assert float(state.params["b"]) == -2.0
    assert (int(state.step), int(state.loss_steps)) == (2, 2)
    assert_equal(state.loss_sums, losses(4.0, 0.75))
    assert states.mean_losses(state) == {"bce": 2.0, "psc": 0.375}
    assert state.extra == "old"
    assert states.after_step(state, grads, losses(0.0, 0.0), SGD, extra="new").extra == "new"


def test_the_average_is_the_mean_of_the_parameters_that_entered_it():
    state, entered = make(average=True), []
    assert_equal(states.current_params(state), state.params)
    for i in range(5):
        state = replace(state, params={"w": jnp.array([i, i**2, -i]) * 1.0, "b": jnp.float32(3 * i)})
        if i % 2 == 0:
            state = states.averaged(state)
            entered.append(state.params)
            assert int(state.num_averaged) == len(entered)
    for name in ("w", "b"):
        np.testing.assert_allclose(state.average[name], np.mean([x[name] for x in entered], axis=0), rtol=1e-6)
    assert_equal(states.current_params(state), state.average)


def test_mean_and_best_weights_on_the_host_are_those_on_the_devices():
    start = sharding.replicate(sharding.make_mesh(), make(average=True))
    results = []
    for state in (start, states.with_best_on_host(start)):
        kinds = {x.sharding.memory_kind for x in jax.tree.leaves((state.average, state.best))}
        for i in (1.0, 5.0):
            state = replace(state, params=jax.tree.map(lambda x, i=i: i * x, state.params))
            state = states.averaged(state)
        state = states.after_validation(state, states.current_params(state), 3.0)
        assert {x.sharding.memory_kind for x in jax.tree.leaves((state.average, state.best))} == kinds
        assert len(kinds) == 1
        best = states.best_params(state)
        assert {x.sharding.memory_kind for x in jax.tree.leaves(best)} == {start.step.sharding.memory_kind}
        results.append((state.average, state.best, best))
    assert_equal(*results)


def test_a_step_leaves_mean_and_best_weights_where_they_are():
    state = states.with_best_on_host(make(average=True))
    seen = []

    def step(state, factor):
        seen.append((state.average, state.best))
        return replace(state, params=jax.tree.map(lambda x: factor * x, state.params))

    after = states.stepped(step, state, 2.0)
    assert seen == [(None, None)]
    assert after.average is state.average
    assert after.best is state.best
    np.testing.assert_array_equal(after.params["w"], 2 * state.params["w"])


def test_an_equal_score_is_no_better_whatever_its_last_digits():
    score = 200 / 3  # not a number of 32 bits
    assert float(np.float32(score)) < score
    start = states.after_validation(make(), make().params, score)
    assert not states.improves(start, score)
    assert int(states.after_validation(start, start.params, score).since_best) == 1


@pytest.mark.parametrize(("score", "better"), [(50.5, True), (50.0, False), (49.0, False)])
def test_better_parameters_are_kept_and_validations_without_improvement_counted(score, better):
    start = make()
    old = {"w": jnp.full(3, 7.0), "b": jnp.float32(7.0)}
    start = replace(start, step=jnp.int32(6), loss_sums=losses(1.0, 1.0), loss_steps=jnp.int32(3))
    start = states.after_validation(start, old, 50.0)
    assert (int(start.since_best), int(start.validated), int(start.loss_steps)) == (0, 6, 0)
    assert_equal(start.loss_sums, losses(0.0, 0.0))
    assert_equal(start.best, old)

    new = jax.tree.map(lambda x: -x, old)
    after = states.after_validation(replace(start, step=jnp.int32(8)), new, score)
    assert_equal(after.best, new if better else old)
    assert_equal(states.best_params(after), after.best)
    assert float(after.best_score) == max(score, 50.0)
    assert int(after.since_best) == (0 if better else 1)
    assert int(after.validated) == 8
    if better:
        # A copy: the next step donates the parameters.
        assert all(kept is not params for kept, params in zip(after.best.values(), new.values(), strict=True))


@pytest.mark.parametrize("score", [1.0, -1.0])
def test_a_validation_leaves_every_array_on_its_devices_so_that_no_step_is_compiled_again(score):
    state = sharding.replicate(sharding.make_mesh(), replace(make(average=True), best_score=jnp.float32(0.0)))
    after = states.after_validation(state, state.params, score)
    for before, value in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert value.sharding == before.sharding
        assert value.dtype == before.dtype
