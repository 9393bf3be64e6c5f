"""TrainState: all that a stage needs to go on, as one pytree."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from lsfa_jax.training.optimizer import add_to_mean

Array = jax.Array


@struct.dataclass
class TrainState:
    """What a stage has learned and where it stands.

    The order of batches follows from the seed and `step`, so this and the settings repeat the rest of a run exactly.
    """

    step: Array
    """int32, steps done; with the fixed number of steps an epoch, the position in the data."""
    key: Array
    """PRNG key of the stage; a step's randomness is its `fold_in`."""
    params: Any
    """What is trained."""
    opt_state: Any
    """Of optax."""
    extra: Any
    """What else the stage carries: prototypes, batch-norm statistics."""
    average: Any
    """Running mean of weights (SWA); None in a stage without it."""
    num_averaged: Array
    """int32, weights in the mean."""
    best: Any
    """The weights with the best validation score so far; None in a stage without validation."""
    best_score: Array
    """float32, that score."""
    waited: Array
    """int32, validations since then."""
    validated: Array
    """int32, the step of the last validation, so that none is done twice after an interruption."""
    loss_sums: Array
    """float32[2], sums of the stage's two losses over the steps since the last validation."""
    loss_steps: Array
    """int32, how many steps that is."""


def init_state(
    key: Array,
    params: Any,
    optimizer: optax.GradientTransformation,
    extra: Any = None,
    average: bool = False,
    validated: bool = True,
) -> TrainState:
    """Returns the state before the first step.

    Args:
        key: PRNG key of the stage.
        params: what is trained.
        optimizer: of the stage.
        extra: what else it carries.
        average: whether weights are averaged (SWA).
        validated: whether the weights with the best validation score are kept.
    """

    def copied() -> Any:
        return jax.tree.map(jnp.array, params)

    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        key=key,
        params=params,
        opt_state=optimizer.init(params),
        extra=extra,
        average=copied() if average else None,
        num_averaged=jnp.zeros((), jnp.int32),
        best=copied() if validated else None,
        best_score=jnp.full((), -jnp.inf, jnp.float32),
        waited=jnp.zeros((), jnp.int32),
        validated=jnp.zeros((), jnp.int32),
        loss_sums=jnp.zeros(2),
        loss_steps=jnp.zeros((), jnp.int32),
    )


def after_step(
    state: TrainState, grads: Any, losses: Array, optimizer: optax.GradientTransformation, extra: Any = None
) -> TrainState:
    """Returns the state after one optimiser step; `losses` are float32[2] to be summed up."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        extra=state.extra if extra is None else extra,
        loss_sums=state.loss_sums + losses,
        loss_steps=state.loss_steps + 1,
    )


@jax.jit
def averaged(state: TrainState) -> TrainState:
    """Returns the state with the current weights taken into the running mean."""
    mean = add_to_mean(state.average, state.num_averaged, state.params)
    return replace(state, average=mean, num_averaged=state.num_averaged + 1)


def weights_to_use(state: TrainState) -> Any:
    """Returns the running mean once it has begun, else the current weights."""
    return state.average if int(state.num_averaged) > 0 else state.params


def after_validation(state: TrainState, weights: Any, score: float) -> TrainState:
    """Returns the state after a validation: better weights are kept, the wait for them counted, losses start anew."""
    better = score > float(state.best_score)

    def placed(value: float | list[float], old: Array) -> Array:
        # Where the old value was, or the next step would be compiled once more for the new place.
        return jax.device_put(np.asarray(value, old.dtype), old.sharding)

    return replace(
        state,
        best=jax.tree.map(jnp.array, weights) if better else state.best,
        best_score=placed(score, state.best_score) if better else state.best_score,
        waited=placed(0, state.waited) if better else state.waited + 1,
        validated=state.step + 0,
        loss_sums=placed([0.0, 0.0], state.loss_sums),
        loss_steps=placed(0, state.loss_steps),
    )
