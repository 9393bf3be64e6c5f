"""How many epochs of stage 1 a time limit allows: a few steps are timed before it begins."""

import time
from typing import NamedTuple

import jax

from lsfa_jax.config import Config
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.state import TrainState
from lsfa_jax.util.console import note, warn
from lsfa_jax.util.duration import in_words

# Steps that are timed: at least so many, for at least so many seconds, and no more once they took the last number.
_STEPS, _SECONDS, _MOST_SECONDS = 8, 3.0, 30.0

# A pass that computes no gradients takes this share of one that does (backward passes are twice the forward ones).
_FORWARD = 1 / 3

# The share of the remaining time that the plan leaves free.
_FREE = 0.15


class Timing(NamedTuple):
    """What was measured before a stage, in seconds."""

    epoch: float
    """The steps of an epoch, without validation."""
    compilation: float
    """The compilation of all programs of the steps."""


class Sizes(NamedTuple):
    """Documents of each split."""

    train: int
    validation: int
    test: int


def time_steps(stage: Stage, state: TrainState, epoch: int = 1) -> Timing:
    """Times the first steps of an epoch, whose batches are in random order, so that their mean is that of the epoch.

    Args:
        stage: the stage.
        state: its initial state, whose memory is donated; it is trained on and thrown away.
        epoch: for which the steps are taken: later ones may have more losses.
    """
    seen: set[str] = set()
    compilation, seconds = 0.0, []

    def step(state: TrainState, batch: object) -> tuple[TrainState, float]:
        start = time.monotonic()
        state = jax.block_until_ready(stage.step(state, batch, epoch, 1))
        return state, time.monotonic() - start

    for batch in stage.batches(epoch, 0):
        shapes = str([x.shape for x in jax.tree.leaves(batch)])
        if shapes not in seen:
            seen.add(shapes)
            state, first = step(state, batch)
            compilation += first
        state, once = step(state, batch)
        seconds.append(once)
        if (len(seconds) >= _STEPS and sum(seconds) >= _SECONDS) or sum(seconds) >= _MOST_SECONDS:
            break
    return Timing(stage.steps_per_epoch * sum(seconds) / len(seconds), compilation)


def plan(timing: Timing, sizes: Sizes, adjustment_epochs: int) -> tuple[float, float]:
    """Estimates a run from the time of its steps.

    Each epoch collects prototypes and validates. Once, features are collected for stage 2, stage 3 passes over the
    documents, both models and the fused score are scored, and the programs of both stages are compiled, in about the
    time of those of stage 1, which the disk keeps.

    Args:
        timing: of the steps of stage 1.
        sizes: of the splits.
        adjustment_epochs: of stage 3.

    Returns:
        The seconds of an epoch of stage 1, and of all that comes once.
    """
    forward = _FORWARD * timing.epoch / sizes.train
    scored = sizes.validation + sizes.test
    epoch = timing.epoch + forward * (sizes.train + sizes.validation)
    adjustment = adjustment_epochs * (sizes.train + sizes.validation)
    return epoch, timing.compilation + forward * (sizes.train + adjustment + 3 * scored + sizes.validation)


def epochs_that_fit(seconds: float, epoch: float, once: float, most: int) -> int:
    """Returns the largest number of epochs, from 1 to `most`, for which 85 % of the seconds suffice."""
    return min(most, max(1, int(((1 - _FREE) * seconds - once) / epoch)))


def fitted_epochs(stage: Stage, state: TrainState, config: Config, sizes: Sizes, most: int, deadline: float) -> int:
    """Times steps, prints the plan and returns the epochs of stage 1 with which the run ends before the deadline.

    Args:
        stage: stage 1.
        state: its initial state, whose memory is donated.
        config: all settings.
        sizes: of the splits.
        most: epochs that are returned at most.
        deadline: on the clock of `time.monotonic`.
    """
    timing = time_steps(stage, state, max(1, config.psc.start_epoch))
    epoch, once = plan(timing, sizes, config.adjust.epochs)
    left = deadline - time.monotonic()
    epochs = epochs_that_fit(left, epoch, once, most)
    total = in_words(epochs * epoch + once)
    if epochs * epoch + once > left:
        warn(f"--time-limit: not even one epoch fits; with one, the run takes about {total} more")
    else:
        note(f"--time-limit: at most {epochs} epochs of about {in_words(epoch)}; with the rest, {total} more")
    return epochs
