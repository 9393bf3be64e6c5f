"""The loop that every stage runs: steps, validation, early stopping, checkpoints, interruption."""

import abc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import ClassVar, Generic, TypeVar

import jax
import jax.numpy as jnp

from lsfa_jax.data.prefetch import prefetch
from lsfa_jax.evaluation.groups import Metrics
from lsfa_jax.training.checkpoints import Checkpoints, NoCheckpoints
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.state import TrainState, after_validation, completed, improves, mean_losses
from lsfa_jax.types import PyTree
from lsfa_jax.util import compilation_cache, interrupts, known_sums, processes
from lsfa_jax.util.console import UserError, note, plural, progress
from lsfa_jax.util.duration import in_words

BatchT = TypeVar("BatchT")

# Seconds of steps that are timed before the stage's time is estimated; stages below a minute get no estimate.
_SECONDS_TO_ESTIMATE, _SHORT = 10.0, 60.0

# From this estimate on, in seconds, the advice about a slow stage is printed.
_SLOW = 20 * 60.0

# Reading a loss makes the host wait for the device, so progress shows it every 25 steps only.
_STEPS_BETWEEN_LOSSES = 25

_NOWHERE = NoCheckpoints()

OnValidation = Callable[[str, float, Metrics], None]
"""Called after a validation with the stage's name, the epochs that are done and the metrics; what it raises ends the
run."""


class Stage(abc.ABC, Generic[BatchT]):
    """One stage of training. Epochs count from 1; a subclass sets the attributes and defines the methods."""

    name: ClassVar[str]
    unit: ClassVar[str] = "documents"
    """Plural name of the items of an epoch, for messages."""
    epochs: int
    steps_per_epoch: int
    items_per_epoch: int
    select: str = "N@5"
    """The validation metric that decides which parameters are kept."""
    validate_every: int = 0
    """Steps between validations; 0: at the end of each epoch."""
    patience: int = 0
    """Validations without improvement before the stage stops."""
    first_stop: int = 1
    """The first epoch after which the stage may stop early."""

    @abc.abstractmethod
    def batches(self, epoch: int, start: int) -> Iterator[BatchT]:
        """Yields the batches of an epoch from step `start` of it on. Called in a prefetching thread."""

    @abc.abstractmethod
    def step(self, state: TrainState, batch: BatchT, epoch: int, number: int) -> TrainState:
        """Returns the state after step `number` (from 1, over all epochs) on one batch; `state` is donated."""

    def before_epoch(self, state: TrainState, epoch: int) -> TrainState:
        """Prepares an epoch before its first step. Deterministic: a run that resumes at that step calls it again."""
        return state

    def validate(self, state: TrainState) -> tuple[PyTree, Metrics] | None:
        """Returns the parameters that were validated and their metrics; None in a stage without validation."""
        return None

    def learning_rates(self, step: int) -> dict[str, float]:
        """Returns the learning rates of step `step`, from 1, by name."""
        return {}


def run(
    stage: Stage,
    state: TrainState,
    checkpoints: Checkpoints | NoCheckpoints = _NOWHERE,
    folder: RunFolder | None = None,
    advice: str = "",
    on_validation: OnValidation | None = None,
) -> TrainState:
    """Runs a stage from the step of `state` to its end and saves it as complete.

    Args:
        stage: the stage.
        state: the initial or restored state; its memory is donated.
        checkpoints: where states are saved; by default nowhere.
        folder: where the history is written; None: nowhere.
        advice: printed once if the stage may take longer than 20 minutes.
        on_validation: called after each validation that has metrics.

    Raises:
        Interrupted: after a signal; the state is saved.
        UserError: a loss or a parameter is not finite; such a state is not saved.
    """
    known_sums.check()
    step = int(state.step)
    if folder:
        # A killed run may have written the line of a validation after its last checkpoint; this run repeats it.
        folder.drop_history(stage.name, after=int(state.validated))
    meter = _Meter(stage, step)
    items, done = stage.epochs * stage.items_per_epoch, round(meter.items(step))
    if step < stage.epochs * stage.steps_per_epoch:
        # Compilation may take half a minute, in which no progress can be printed.
        each = f"{stage.items_per_epoch:,} {stage.unit}"
        note(f"{stage.name}: at most {plural(stage.epochs, 'epoch')} of {each}; compiling the first step")
    queued: jax.Array | None = None
    with (
        closing(prefetch(_all_batches(stage, step))) as batches,
        progress(stage.name, items, stage.unit, done=done) as advance,
    ):
        try:
            while True:
                if _validation_is_due(stage, state, step):
                    state = _validate(stage, state, step, meter, folder, on_validation)
                if _is_over(stage, state, step):
                    break
                processes.check_interrupts()
                epoch = step // stage.steps_per_epoch + 1
                if step % stage.steps_per_epoch == 0:
                    state = stage.before_epoch(state, epoch)
                batch = meter.wait_for(batches)
                step += 1
                with meter.compilation() as compiling:
                    state = stage.step(state, batch, epoch, step)
                # The device has one step queued while the host prepares the next; more would only hold memory.
                # A copy, because the state's memory is donated to the next step.
                jax.block_until_ready(queued)
                queued = state.step + 0
                advance(meter.items(1), meter.status(stage, state, step), compiling())
                meter.estimate(stage, step, bool(compiling()), advice)
                if processes.from_first(checkpoints.due):
                    _save(stage, state, step, checkpoints)
                    meter.restart_step()
        except interrupts.Interrupted:
            _save(stage, state, step, checkpoints)
            raise
    meter.report(stage, step)
    checkpoints.save(completed(state), complete=True)
    return state


def _all_batches(stage: Stage[BatchT], step: int) -> Iterator[BatchT]:
    """Yields the batches of all epochs from a step of the stage on."""
    for epoch in range(step // stage.steps_per_epoch + 1, stage.epochs + 1):
        yield from stage.batches(epoch, step % stage.steps_per_epoch)
        step = 0


def _steps_between_validations(stage: Stage) -> int:
    return stage.validate_every or stage.steps_per_epoch


def _validation_is_due(stage: Stage, state: TrainState, step: int) -> bool:
    due = step % _steps_between_validations(stage) == 0 or step == stage.epochs * stage.steps_per_epoch
    return due and int(state.validated) != step


def _is_over(stage: Stage, state: TrainState, step: int) -> bool:
    """Whether all epochs are done, or `patience` validations have passed without improvement."""
    if step >= stage.epochs * stage.steps_per_epoch:
        return True
    # Before what would wait for the device: between validations nothing has changed.
    is_between = step % _steps_between_validations(stage) > 0
    if is_between or not stage.patience or step < stage.first_stop * stage.steps_per_epoch:
        return False
    has_waited = int(state.since_best) >= stage.patience and int(state.validated) == step
    if not has_waited or not math.isfinite(float(state.best_score)):
        return False
    note(f"{stage.name}: stopped early, no better {stage.select} in {stage.patience} validations")
    return True


def _save(stage: Stage, state: TrainState, step: int, checkpoints: Checkpoints | NoCheckpoints) -> None:
    _finite_losses(stage, state, step)
    checkpoints.save(state)


def _finite_losses(stage: Stage, state: TrainState, step: int) -> dict[str, float]:
    """Returns the mean losses since the last validation; raises UserError if one, or a parameter, is not finite."""
    losses = mean_losses(state)
    infinite = [value for value in losses.values() if not math.isfinite(value)]
    if not infinite and _all_finite(state.params):
        return losses
    what = f"a loss is {infinite[0]}" if infinite else "a weight is not a finite number"
    raise UserError(
        f"{stage.name}: {what} at step {step:,}. The last checkpoint is kept. Lower the learning rate, "
        "or set --optimizer.clip global --optimizer.clip-factor 1, and start again"
    )


@jax.jit
def _all_finite(tree: PyTree) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _losses_text(losses: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in losses.items())


def _validate(
    stage: Stage,
    state: TrainState,
    step: int,
    meter: "_Meter",
    folder: RunFolder | None,
    on_validation: OnValidation | None,
) -> TrainState:
    """Validates the state, appends a line to the history and prints the metrics."""
    losses, speed = _finite_losses(stage, state, step), meter.speed(stage, step)
    params, metrics = stage.validate(state) or (None, {})
    # Hosts of different kinds may round differently, and all have to keep the same weights.
    metrics = processes.from_first(lambda: metrics)
    epoch = step / stage.steps_per_epoch
    if folder:
        place = {"stage": stage.name, "step": step, "epoch": epoch, "time": time.time()}
        line = place | (losses | stage.learning_rates(step) | speed if step else {})
        folder.append_history(line | ({"validation": metrics} if metrics else {}))
    score = metrics.get(stage.select, -math.inf)
    text = f"{stage.name} epoch {epoch:.3g}/{stage.epochs}: {_losses_text(losses) if step else 'before training'}"
    if shown := [f"{name} {metrics[name]:.2f}" for name in ("P@1", "P@5", "N@5", "PSP@5") if name in metrics]:
        text += f" | validation {' '.join(shown)}{' *' if improves(state, score) else ''}"
    # A stage without validation may have hundreds of short epochs, of which ten lines are enough.
    if metrics or epoch in (1, stage.epochs) or epoch % max(1, stage.epochs // 10) == 0:
        note(text)
    if on_validation and metrics:
        on_validation(stage.name, epoch, metrics)
    state = after_validation(state, params, score)
    meter.restart_wait()
    meter.restart_step()
    return state


class _Meter:
    """Measures a stage from the step at which this process began: items a second, time spent waiting for input."""

    def __init__(self, stage: Stage, first_step: int) -> None:
        self._items_per_step = stage.items_per_epoch / stage.steps_per_epoch
        self._first_step = first_step
        self._start = time.monotonic()
        self._waited = 0.0
        self._timed_steps, self._timed_seconds, self._is_estimated = 0, 0.0, False
        self.restart_step()
        self.restart_wait()

    def items(self, steps: int) -> float:
        """Returns the mean number of items in so many steps."""
        return steps * self._items_per_step

    def wait_for(self, batches: Iterator[BatchT]) -> BatchT:
        """Returns the next batch and adds the time until it is there."""
        start = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - start
        return batch

    def restart_wait(self) -> None:
        """Begins a new interval for the share of time spent waiting."""
        self._interval_start, self._waited_before = time.monotonic(), self._waited

    def speed(self, stage: Stage, step: int) -> dict[str, float]:
        """Returns items a second since the start, and the share of the interval's time spent waiting for input."""
        now = time.monotonic()
        return {
            f"{stage.unit}/s": self.items(step - self._first_step) / max(now - self._start, 1e-9),
            "input_wait": (self._waited - self._waited_before) / max(now - self._interval_start, 1e-9),
        }

    def status(self, stage: Stage, state: TrainState, step: int) -> str | None:
        """Returns the text behind the progress bar: losses at the first step and every 25th, a new epoch; else None."""
        epoch = (step - 1) // stage.steps_per_epoch + 1
        if step % _STEPS_BETWEEN_LOSSES == 0 or step == self._first_step + 1:
            losses = " " + _losses_text(_finite_losses(stage, state, step))
        elif (step - 1) % stage.steps_per_epoch == 0:
            losses = ""
        else:
            return None
        return f"epoch {epoch}/{stage.epochs}{losses}"

    @contextmanager
    def compilation(self) -> Iterator[Callable[[], float]]:
        """Yields a function that returns the seconds of the block if a program was compiled in it, else 0.

        The first step of a new shape is compiled, so its time would distort the rate.
        """
        start, programs = time.monotonic(), compilation_cache.programs()
        end = start
        yield lambda: end - start if compilation_cache.programs() > programs else 0.0
        end = time.monotonic()

    def restart_step(self) -> None:
        """Begins the time of a step, after something that belongs to none."""
        self._step_start = time.monotonic()

    def estimate(self, stage: Stage, step: int, compiled: bool, advice: str) -> None:
        """Ends a step; prints once, when enough steps are timed, how long the rest of the stage takes.

        Each time is that from the end of one step to the end of the next, wherever the host waits for the device
        between them. Steps that compile a program are left out.
        """
        if self._is_estimated:
            return
        seconds = time.monotonic() - self._step_start
        self.restart_step()
        if compiled:
            return
        self._timed_steps += 1
        self._timed_seconds += seconds
        if self._timed_seconds < _SECONDS_TO_ESTIMATE:
            return
        self._is_estimated = True
        a_step = self._timed_seconds / self._timed_steps
        rest = stage.epochs * stage.steps_per_epoch - step
        if rest * a_step < _SHORT:
            return
        note(
            f"{stage.name}: {in_words(stage.steps_per_epoch * a_step)} an epoch, at most about "
            f"{in_words(rest * a_step)} for the remaining {rest / stage.steps_per_epoch:.3g} epochs, validation apart"
        )
        if advice and rest * a_step > _SLOW:
            note(advice)

    def report(self, stage: Stage, step: int) -> None:
        """Prints the share of time that was spent waiting for input."""
        if step > self._first_step:
            share = self._waited / max(time.monotonic() - self._start, 1e-9)
            note(f"{stage.name}: waited for input {100 * share:.1f} % of the time")
