"""TrainState: everything a stage needs to continue training, as one pytree."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from lsfa_jax.training.optimizer import add_to_mean
from lsfa_jax.training.storage import in_float32, rounded_like
from lsfa_jax.types import Array, PyTree
from lsfa_jax.util import sharding
from lsfa_jax.util.random_streams import Stream


@struct.dataclass
class TrainState:
    """Parameters, optimiser state and counters of a stage.

    The order of batches follows from the seed and `step`, so the state and the settings determine the rest of a run.
    """

    step: Array
    """int32, steps completed; with a fixed number of steps an epoch this is also the position in the data."""
    key: Array
    """PRNG key of the stage; each step uses `fold_in(key, step)`."""
    params: PyTree
    """Trained parameters; those in bfloat16 are rounded stochastically after each step, and so are their moments. None
    in a completed stage of which `best` is kept."""
    opt_state: optax.OptState
    extra: PyTree
    """Other arrays of the stage: prototypes, collections of a module that are not trained."""
    average: PyTree
    """Running mean of the parameters (SWA), float32; None in a stage without it."""
    num_averaged: Array
    """int32, number of parameter trees in the mean."""
    best: PyTree
    """Parameters with the best validation score, float32; None in a stage without validation."""
    best_score: Array
    """float32, that score."""
    since_best: Array
    """int32, validations since the best one."""
    validated: Array
    """int32, the step of the last validation, which a resumed run does not repeat; -1 where the state before the first
    step is to be validated."""
    loss_sums: dict[str, Array]
    """float32 each, sums of the named losses over the steps since the last validation."""
    loss_steps: Array
    """int32, the number of these steps."""


def init_state(
    key: Array,
    params: PyTree,
    optimizer: optax.GradientTransformation,
    losses: Sequence[str],
    extra: PyTree = None,
    average: bool = False,
    keep_best: bool = True,
) -> TrainState:
    """Returns the state before the first step.

    Args:
        key: PRNG key of the stage.
        params: initial parameters.
        optimizer: the stage's optimiser.
        losses: names of the losses that each step reports.
        extra: other arrays of the stage.
        average: whether the parameters are averaged (SWA).
        keep_best: whether the parameters with the best validation score are kept.
    """

    def copied() -> PyTree:
        return jax.tree.map(jnp.array, in_float32(params))

    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params=params,
        opt_state=jax.jit(optimizer.init)(params),  # one program instead of one a shape
        extra=extra,
        average=copied() if average else None,
        num_averaged=jnp.zeros((), jnp.int32),
        best=copied() if keep_best else None,
        best_score=jnp.full((), -jnp.inf, jnp.float32),
        since_best=jnp.zeros((), jnp.int32),
        validated=jnp.zeros((), jnp.int32),
        loss_sums={name: jnp.zeros(()) for name in losses},
        loss_steps=jnp.zeros((), jnp.int32),
    )


def after_step(
    state: TrainState,
    grads: PyTree,
    losses: Mapping[str, Array],
    optimizer: optax.GradientTransformation,
    extra: PyTree = None,
) -> TrainState:
    """Returns the state after one optimiser step; `losses` has the names passed to `init_state`."""
    params, opt_state = in_float32((state.params, state.opt_state))
    updates, opt_state = optimizer.update(grads, opt_state, params)
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), int(Stream.ROUNDING))
    new = optax.apply_updates(params, updates), opt_state
    params, opt_state = rounded_like((state.params, state.opt_state), new, key)
    return replace(
        state,
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        extra=state.extra if extra is None else extra,
        loss_sums={name: total + losses[name] for name, total in state.loss_sums.items()},
        loss_steps=state.loss_steps + 1,
    )


def stepped(step: Callable[..., TrainState], state: TrainState, *arguments: PyTree) -> TrainState:
    """Runs a jitted step without the average and the best parameters, which it neither reads nor writes.

    They stay where they are, in the memory of the devices or of the host.
    """
    after = step(replace(state, average=None, best=None), *arguments)
    return replace(after, average=state.average, best=state.best)


def with_best_on_host(state: TrainState) -> TrainState:
    """Returns the state with the mean and the best parameters in the memory of the host."""
    return replace(state, average=sharding.on_host(state.average), best=sharding.on_host(state.best))


_add_to_mean = jax.jit(add_to_mean)


def averaged(state: TrainState, recency: float = 0.0) -> TrainState:
    """Returns the state with the current parameters added to the running mean (`add_to_mean`)."""
    mean = _add_to_mean(sharding.on_devices(state.average), state.num_averaged, state.params, recency)
    return replace(state, average=sharding.moved_like(mean, state.average), num_averaged=state.num_averaged + 1)


def current_params(state: TrainState) -> PyTree:
    """Returns the averaged parameters if averaging has started, else the last ones; float32, on the devices."""
    return sharding.on_devices(state.average) if int(state.num_averaged) > 0 else in_float32(state.params)


def best_params(state: TrainState) -> PyTree:
    """Returns the parameters with the best validation score; without validation, `current_params`."""
    return sharding.on_devices(state.best) if _has_best(state) else current_params(state)


def _has_best(state: TrainState) -> bool:
    return state.params is None or bool(np.isfinite(float(state.best_score)))


def completed(state: TrainState) -> TrainState:
    """Returns what is read of a completed stage: its best parameters, or the last ones where a stage keeps no best."""
    is_kept = state.best is None or _has_best(state)
    return without_training(state if is_kept else replace(state, best=current_params(state)))


def without_training(state: TrainState) -> TrainState:
    """Returns a state in the form of `completed`, which only further steps would need more of."""
    state = replace(state, opt_state=None, average=None)
    return state if state.best is None else replace(state, params=None)


def mean_losses(state: TrainState) -> dict[str, float]:
    """Returns the mean of each loss over the steps since the last validation."""
    steps = max(int(state.loss_steps), 1)
    return {name: float(np.asarray(total) / steps) for name, total in state.loss_sums.items()}


def improves(state: TrainState, score: float) -> bool:
    """Whether a validation score is above the best one, in the precision in which that is kept."""
    return bool(np.float32(score) > np.asarray(state.best_score))


def after_validation(state: TrainState, params: PyTree, score: float) -> TrainState:
    """Returns the state after a validation: keeps better parameters, counts validations since, resets the losses."""
    better = improves(state, score)

    def placed(value: float, old: Array) -> Array:
        # On the devices of the old value: another sharding would compile the next step again.
        return sharding.put(np.asarray(value, old.dtype), old.sharding)

    return replace(
        state,
        best=sharding.copied_like(params, state.best) if better else state.best,
        best_score=placed(score, state.best_score) if better else state.best_score,
        since_best=placed(0, state.since_best) if better else state.since_best + 1,
        validated=state.step + 0,
        loss_sums={name: placed(0.0, total) for name, total in state.loss_sums.items()},
        loss_steps=placed(0, state.loss_steps),
    )
