"""Every use of randomness, in one table: the uses of one seed never share random numbers.

NumPy generators come from `stream`, JAX keys from `key`. Both are functions of the use, the seed and where needed
counters such as epoch and step, so that a resumed run draws what the uninterrupted run draws.
"""

from enum import IntEnum, unique
from typing import TYPE_CHECKING

import numpy as np

# JAX takes a second to import, and commands about files do without it.
if TYPE_CHECKING:
    import jax


@unique
class Stream(IntEnum):
    """The uses of randomness. A number is never changed or used again: it decides the draws of its use."""

    # Corpora
    SYNTHETIC_LANGUAGE = 1
    SYNTHETIC_TRAIN = 2
    """Counter: block of documents."""
    SYNTHETIC_TEST = 3
    """Counter: block of documents."""
    VALIDATION_SPLIT = 4
    TEST_SPLIT = 5
    WORD_VECTORS = 6
    """Of words that the source of vectors lacks."""

    # Order of training, from NumPy. Counter: epoch.
    REPRESENTATION_ORDER = 11
    TRANSFER_ORDER = 12
    ADJUSTMENT_ORDER = 13
    GENERATED_FEATURES = 14
    """Which generated features are in which step of stage 3."""
    NEGATIVE_SAMPLING = 15
    """Labels of a shortlist that are not the batch's. Counters: epoch, step."""

    CANDIDATE_SAMPLE = 16
    """Labels that represent those outside the candidates, in stage 1. Counters: epoch, step."""
    ADJUSTMENT_SAMPLE = 17
    """The same in stage 3."""
    ADJUSTMENT_NEGATIVES = 18
    """Labels of a shortlist in stage 3 that are not the batch's. Counters: epoch, step."""

    # JAX keys
    MODEL = 21
    """Initial parameters of encoder, label attention and classifiers."""
    REPRESENTATION = 22
    """Dropout of stage 1."""
    PVAE = 23
    """Initial parameters of the PVAE."""
    TRANSFER = 24
    """Latent noise of stage 2."""
    AUGMENTATION = 25
    """Latent variables of generated features."""
    ADJUSTMENT = 26
    """Dropout of stage 3."""
    SCRATCH = 27
    """Initial classifiers of a stage 3 that does not start from stage 1's."""
    ROUNDING = 28
    """Stochastic rounding of what is stored in bfloat16, folded into the key of a step."""

    # The fused score
    FUSION_CELLS = 31
    """Labels that stand for those which neither model ranks high. Counter: batch."""
    FUSION_EVIDENCE = 32
    """Folds and bootstrap samples of validation documents."""

    # Experiments
    EXPERIMENT_BOOTSTRAP = 41
    """Documents and seeds of the intervals on a page; the same for all claims."""
    EXPERIMENT_FEATURES = 42
    """Features of a label that are drawn in a picture."""

    # Search over settings
    TUNING = 51
    """Settings that are drawn for a trial. Counter: number of the trial."""


_MAX_COUNTERS = 2


def stream(use: Stream, seed: int, *counters: int) -> np.random.Generator:
    """Returns a generator of random numbers that no other use, seed or counters share.

    Philox computes its numbers from a key of two 64-bit words and a counter of four, which it increments with each four
    numbers from the first word on. Use and seed are the key. The counters are the last two words of the counter: the
    first two would have to overflow, after 2^130 numbers, before two streams met.

    Args:
        use: what the numbers are for.
        seed: of the run, 0 <= seed < 2^64.
        counters: at most two numbers in the same range, such as epoch and step.
    """
    if len(counters) > _MAX_COUNTERS:
        raise ValueError(f"{len(counters)} counters, expected at most {_MAX_COUNTERS}")
    last_words = [*counters, *[0] * (_MAX_COUNTERS - len(counters))]
    # As uint64: NumPy would make floats of a list with numbers from 2^63 on.
    key = np.array([seed, use], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, *last_words], np.uint64)))


def key(use: Stream, seed: int) -> "jax.Array":
    """Returns the JAX key of a use: the seed's key folded with the number of the use."""
    import jax

    return jax.random.fold_in(jax.random.key(seed), int(use))
