"""The loop that every stage runs: steps, validation, early stopping, checkpoints, interruption."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lsfa_jax.data.prefetch import prefetch
from lsfa_jax.training.checkpoints import Checkpoints
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.state import TrainState, after_validation
from lsfa_jax.util import compilation_cache, interrupts
from lsfa_jax.util.console import UserError, note, progress

# Looking at a loss makes the host wait for the device, so it is done now and then.
_STEPS_BETWEEN_LOOKS = 25


@dataclass(frozen=True)
class Stage:
    """What differs from stage to stage. Epochs count from 1."""

    name: str
    epochs: int
    steps_per_epoch: int
    items_per_epoch: int
    unit: str
    """What the items are, in the plural."""
    batches: Callable[[int, int], Iterator[Any]]
    """Makes the batches of an epoch, from a step of it on. A thread asks for them, ahead of their use."""
    step: Callable[[TrainState, Any, int, int], TrainState]
    """Trains on one batch; the last two arguments are the epoch, and the steps that are done after it."""
    loss_names: tuple[str, str]
    before_epoch: Callable[[TrainState, int], TrainState] = lambda state, epoch: state
    """Called at the first step of an epoch; again, with the same result, where a run resumes there."""
    validate: Callable[[TrainState], tuple[Any, dict[str, float]]] | None = None
    """Returns the weights that it tried and their metrics."""
    select: str = "N@5"
    """The metric that decides which weights are kept."""
    validate_every: int = 0
    """Steps between validations; 0: at the end of each epoch."""
    patience: int = 0
    """Validations without improvement before the stage stops."""
    first_stop: int = 1
    """The first epoch after which it may stop early."""


def run(stage: Stage, state: TrainState, checkpoints: Checkpoints, folder: RunFolder) -> TrainState:
    """Runs a stage from where `state` stands to its end and saves it as complete.

    Raises:
        Interrupted: after a signal; the state is saved.
        UserError: a loss or a weight that is not a number; the last checkpoint is from before it.
    """
    steps = stage.steps_per_epoch
    total, step = stage.epochs * steps, int(state.step)
    every = stage.validate_every or steps
    # A line may stand there for the validation that this state is still to do.
    folder.forget_history(stage.name, int(state.validated))
    per_step = stage.items_per_epoch / steps
    first, waited, waited_before = step, 0.0, 0.0
    done: Any = None
    started = since = time.monotonic()
    with (
        closing(prefetch(_batches(stage, step))) as batches,
        progress(stage.name, round(total * per_step), stage.unit, done=round(step * per_step)) as advance,
    ):
        try:
            while True:
                due = step > 0 and (step % every == 0 or step == total)
                if due and int(state.validated) != step:
                    now = time.monotonic()
                    speed = {
                        f"{stage.unit}/s": per_step * (step - first) / max(now - started, 1e-9),
                        "input_wait": (waited - waited_before) / max(now - since, 1e-9),
                    }
                    state = _record(stage, state, step, folder, speed)
                    waited_before, since = waited, time.monotonic()
                if step >= total:
                    break
                if _has_waited(stage, state, step):
                    note(f"{stage.name}: stopped early, no better {stage.select} in {stage.patience} validations")
                    break
                interrupts.check()
                epoch = step // steps + 1
                if step % steps == 0:
                    state = stage.before_epoch(state, epoch)
                asked = time.monotonic()
                batch = next(batches)
                given, programs = time.monotonic(), compilation_cache.programs()
                waited += given - asked
                step += 1
                state = stage.step(state, batch, epoch, step)
                # A step of a shape that was not met before is compiled first, which says nothing of those to come.
                compiling = time.monotonic() - given if compilation_cache.programs() > programs else 0.0
                # The device has one step to do while the host prepares the next; further ones would only hold memory.
                # A copy, for the state is given away to the next step.
                jax.block_until_ready(done)
                done = state.step + 0
                status = None
                if step % _STEPS_BETWEEN_LOOKS == 0 or step == first + 1:
                    status = f"epoch {epoch}/{stage.epochs} {_losses_text(stage, _losses(stage, state, step))}"
                advance(per_step, status, compiling)
                if time.monotonic() - checkpoints.last_save >= checkpoints.save_every:
                    _losses(stage, state, step)
                    checkpoints.save(state)
        except interrupts.Interrupted:
            _losses(stage, state, step)
            checkpoints.save(state)
            raise
    if step > first:
        note(f"{stage.name}: waited for input {100 * waited / (time.monotonic() - started):.1f} % of the time")
    checkpoints.save(state, complete=True)
    return state


def _batches(stage: Stage, step: int) -> Iterator[Any]:
    """Makes all batches of a stage from a step of it on."""
    for epoch in range(step // stage.steps_per_epoch + 1, stage.epochs + 1):
        yield from stage.batches(epoch, step % stage.steps_per_epoch)
        step = 0


def _has_waited(stage: Stage, state: TrainState, step: int) -> bool:
    if stage.validate is None or int(state.waited) < stage.patience or int(state.validated) != step:
        return False
    return step >= stage.first_stop * stage.steps_per_epoch


def _losses(stage: Stage, state: TrainState, step: int) -> np.ndarray:
    """Returns the mean losses since the last record; raises UserError where one, or a weight, is not a number."""
    losses = np.asarray(state.loss_sums) / max(int(state.loss_steps), 1)
    finite = np.isfinite(losses)
    if finite.all() and _all_finite(state.params):
        return losses
    what = "the weights are no longer numbers" if finite.all() else f"a loss is {losses[~finite][0]}"
    raise UserError(
        f"{stage.name}: {what} at step {step:,}. Checkpoints from before are kept. Lower the learning rate, "
        "or set --optimizer.clip global --optimizer.clip-factor 1, and start anew"
    )


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _losses_text(stage: Stage, losses: np.ndarray) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in zip(stage.loss_names, losses, strict=True) if name)


def _record(stage: Stage, state: TrainState, step: int, folder: RunFolder, speed: dict[str, float]) -> TrainState:
    losses = _losses(stage, state, step)
    line: dict[str, Any] = {"stage": stage.name, "step": step, "epoch": step / stage.steps_per_epoch}
    line |= {name: float(value) for name, value in zip(stage.loss_names, losses, strict=True) if name}
    line |= speed
    weights, metrics = stage.validate(state) if stage.validate else (None, {})
    score = metrics.get(stage.select, -math.inf)
    better = score > float(state.best_score)
    folder.append_history(line | ({"validation": metrics} if metrics else {}))
    shown = " ".join(f"{name} {metrics[name]:.2f}" for name in ("P@1", "P@5", "N@5", "PSP@5") if name in metrics)
    text = f"{stage.name} epoch {step / stage.steps_per_epoch:.3g}/{stage.epochs}: {_losses_text(stage, losses)}"
    note(f"{text}{' | validation ' + shown if shown else ''}{' *' if shown and better else ''}")
    return after_validation(state, weights, score)
