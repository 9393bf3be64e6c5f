"""How many epochs of stage 1 a time limit allows: a few steps are timed before it begins."""

import functools
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from lsfa_jax.config import Config
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.state import TrainState
from lsfa_jax.util import processes
from lsfa_jax.util.console import note, plural, progress, warn
from lsfa_jax.util.duration import in_words

# At least 8 steps and 3 seconds of steps are timed, and none after 30 seconds.
_STEPS, _SECONDS, _MOST_SECONDS = 8, 3.0, 30.0

# A pass that computes no gradients takes this share of one that does (backward passes are twice the forward ones), and
# one over stored token states, which trains only classifiers, this share.
_FORWARD, _STORED = 1 / 3, 0.1

# The share of the remaining time that the plan leaves free.
_FREE = 0.1


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

    with progress("compiling and timing", None, "steps") as advance:
        for batch in stage.batches(epoch, 0):
            shapes = str([x.shape for x in jax.tree.leaves(batch)])
            if shapes not in seen:
                seen.add(shapes)
                state, first = step(state, batch)
                compilation += first
            state, once = step(state, batch)
            seconds.append(once)
            advance()
            enough = (len(seconds) >= _STEPS and sum(seconds) >= _SECONDS) or sum(seconds) >= _MOST_SECONDS
            # Of several processes the first decides for all, which have to take the same steps.
            if processes.from_first(functools.partial(bool, enough)):
                break
    return Timing(stage.steps_per_epoch * sum(seconds) / len(seconds), compilation)


def seconds_of(epochs: int, timing: Timing, sizes: Sizes, config: Config, stores_states: bool) -> float:
    """Estimates how long a run takes, from the time of its steps.

    Each epoch validates once, or every `representation.validate_every` steps, and collects prototypes where the
    contrastive loss takes part. Once, features of all splits are collected, those of training documents also for
    classifiers to start from, and the programs of the later stages are compiled, in about the time of those of stage 1,
    which the disk keeps. Stage 3 and the three results then pass over the stored states.

    Args:
        epochs: of stage 1.
        timing: of the steps of stage 1.
        sizes: of the splits.
        config: all settings.
        stores_states: whether stage 3 and the results need no encoder.
    """
    document = timing.epoch / sizes.train
    forward = _FORWARD * document
    later = _STORED * document if stores_states else forward
    # A pass over the prototypes before each epoch with the contrastive loss.
    from_start = epochs - min(config.psc.start_epoch, epochs) + 1
    with_contrast = math.ceil(from_start / config.psc.every) if config.psc.weight > 0 else 0
    steps = epochs * math.ceil(sizes.train / config.optimizer.batch_size)
    validate_every = config.representation.validate_every
    validations = math.ceil(steps / validate_every) if validate_every else epochs
    in_stage_1 = epochs * timing.epoch + forward * (validations * sizes.validation + with_contrast * sizes.train)
    scored = sizes.validation + sizes.test
    passes = 2 if config.classifier.weights_start == "discriminant" else 1
    once = forward * (passes * sizes.train + scored)
    adjustment = config.adjust.epochs * (sizes.train + sizes.validation)
    return timing.compilation + in_stage_1 + once + later * (adjustment + 3 * scored + sizes.validation)


def epochs_that_fit(seconds: float, seconds_of_epochs: Callable[[int], float], most: int) -> int:
    """Returns the largest number of epochs, from 1 to `most`, for which 90 % of the seconds suffice."""
    available = (1 - _FREE) * seconds
    return max((epochs for epochs in range(2, most + 1) if seconds_of_epochs(epochs) <= available), default=1)


def fitted_epochs(
    stage: Stage, state: TrainState, config: Config, sizes: Sizes, most: int, deadline: float, stores_states: bool
) -> int:
    """Times steps, prints the plan and returns the epochs of stage 1 with which the run ends before the deadline.

    Args:
        stage: stage 1.
        state: its initial state, whose memory is donated.
        config: all settings.
        sizes: of the splits.
        most: epochs that are returned at most.
        deadline: on the clock of `time.monotonic`.
        stores_states: whether stage 3 and the results need no encoder.
    """
    note("Compiling and timing a few steps, by which --time-limit is planned")
    timing = time_steps(stage, state, max(1, config.psc.start_epoch))

    def seconds_of_epochs(epochs: int) -> float:
        return seconds_of(epochs, timing, sizes, config, stores_states)

    left = deadline - time.monotonic()
    epochs = processes.from_first(lambda: epochs_that_fit(left, seconds_of_epochs, most))
    total = in_words(seconds_of_epochs(epochs))
    if seconds_of_epochs(epochs) > left:
        faster = "--encoder bilstm" if config.encoder.pretrained else "a smaller --data.max-words"
        warn(f"--time-limit: not even one epoch fits; with one, the run takes about {total} more ({faster} takes less)")
    else:
        note(f"--time-limit: at most {plural(epochs, 'epoch')} of about {in_words(timing.epoch)}; in all {total} more")
    return epochs
