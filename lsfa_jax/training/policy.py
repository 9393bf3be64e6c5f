"""Which settings follow from the corpus: one policy for `bin/train` and `LSFA`.

It acts with the quick preset, and only on settings that are not chosen; the full preset has the paper's numbers.
"""

import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from lsfa_jax.config import Config, get, with_values
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.model.encoders.windows import windows_of
from lsfa_jax.training import candidates
from lsfa_jax.util.console import note, plural

SETTINGS = (
    "classifier.weights_start",
    "data.length_buckets",
    "optimizer.batch_size",
    "optimizer.learning_rate",
    "optimizer.swa_start_epoch",
    "optimizer.swa_every",
    "optimizer.swa_recency",
    "psc.start_epoch",
    "representation.epochs",
    "representation.patience",
    "pvae.head_threshold",
    "pvae.epochs",
    "adjust.epochs",
    "adjust.num_augmented",
)
"""The settings that the policy decides."""

# A corpus below this size gets smaller batches; one below the second, fewer lengths to compile programs for, and a
# higher learning rate: with 255 documents and 54 labels, N@5 on validation was 43.7 after 6 epochs, at 0.002 43.4 after
# 11.
SMALL, TINY = 10_000, 1_000
_SMALL_BATCH, _TINY_RATE = 16, 4e-3

# Epochs at most, and at least, where the words of all epochs decide. Two cores train on 30,000 words a second (RCV1,
# 101 labels, 128 units).
_MOST_EPOCHS, _FEWEST_EPOCHS, _WORDS = 40, 4, 15_000_000
_LABELS_THAT_COST_A_WORD, _UNITS = 1_000, 128

# With so many labels, or more than documents, most have few documents to learn a classifier from in the few epochs of
# fine-tuning. N@5 on validation with discriminants and with random weights: EUR-Lex-4K (2,937 labels, one layer, two
# epochs) 66.7 and 63.7, openings of EU laws (187 labels, three layers, two epochs) 79.3 and 79.4; 510 laws with 1,050
# labels (frozen) 42.8 and 41.5.
_MANY_LABELS = 1_000

# Epochs at most on the states of a frozen encoder, which are computed once: validation ends most runs before.
FROZEN_EPOCHS = 20

# Sets of weights that enter the average in an epoch, and how much newer ones count: the mean is over about the last
# quarter of the steps at any time, so that training may stop at any time.
_AVERAGED_PER_EPOCH, _RECENCY = 4, 3.0

# Validations without a gain before stage 1 stops: averaged weights gain steadily, so that few are enough.
_PATIENCE = 3

# Steps of the PVAE, which learns from few features in many passes.
_PVAE_STEPS = 500

# Steps of stage 3, within the preset's epochs: EUR-Lex-4K gains up to the tenth epoch of 505 steps.
_ADJUSTMENT_STEPS, _FEWEST_ADJUSTMENT_EPOCHS = 5_000, 3

# Generated features per training document of a label that is just not rare, and their number at most (AAPD's).
_AUGMENTED_SHARE, _FEWEST_AUGMENTED, _MOST_AUGMENTED = 0.3, 10, 500

# Lengths are padded to multiples of this, so that similar corpora share compiled programs. A second length is worth
# compiling each program twice where it saves this share of the computed words.
_LENGTH_STEP, _SAVED = 16, 0.3

# Shorter lengths at most where a pretrained encoder is fine-tuned, and the word pieces that one has to save in a pass:
# in the passes of four epochs, what is computed in the time that the programs of one more length take to compile.
_SHORTER, _SAVED_PIECES = 3, 5_000


def resolved(config: Config, corpus: Corpus, chosen: Collection[str]) -> Config:
    """Returns the settings with those of `SETTINGS` that are not chosen fitted to the corpus, and prints them.

    Args:
        config: all settings so far.
        corpus: the documents.
        chosen: the dotted names of settings with a value in the corpus's file, in that of --config, or in an option.
    """
    if not config.follows_corpus:
        return config
    values = {name: value for name, value in _fitted(config, corpus, chosen).items() if name not in chosen}
    if text := summary(values):
        note(f"From the corpus: {text}")
    return with_values(config, values)


def kept(config: Config, started: Config, chosen: Collection[str]) -> Config:
    """Returns the settings of a run that continues: what is not chosen now is as it was when the run began."""
    if not config.follows_corpus:
        return config
    return with_values(config, {name: get(started, name) for name in SETTINGS if name not in chosen})


def most_epochs_in_time(config: Config, chosen: Collection[str]) -> int:
    """Returns the most epochs of a run with a time limit, which bounds them in place of the words of the corpus."""
    is_fitted = config.follows_corpus and not config.encoder.pretrained and "representation.epochs" not in chosen
    return _MOST_EPOCHS if is_fitted else config.representation.epochs


def as_planned(config: Config, started: Config) -> Config:
    """Returns the settings with the epochs of stage 1 of a run that began, and what starts within them."""
    names = ("representation.epochs", "optimizer.swa_start_epoch", "psc.start_epoch")
    return with_values(config, {name: get(started, name) for name in names})


def with_epochs(config: Config, epochs: int, chosen: Collection[str]) -> Config:
    """Returns the settings with `epochs` epochs of stage 1; averaging and the contrastive loss start within them."""
    starts = {name: min(get(config, name), epochs) for name in ("optimizer.swa_start_epoch", "psc.start_epoch")}
    kept_starts = {name: value for name, value in starts.items() if name not in chosen}
    return with_values(config, {"representation.epochs": epochs} | kept_starts)


def _fitted(config: Config, corpus: Corpus, chosen: Collection[str]) -> dict[str, Any]:
    """Returns a value for every setting that the policy decides; values follow from each other where one is chosen."""
    # Fine-tuning takes few epochs whatever the size: its file has what is measured for it.
    if config.encoder.pretrained:
        values = _fine_tuning(config, corpus, chosen)
    else:
        values = _training_from_the_start(config, corpus, chosen)

    def value(name: str) -> Any:
        return get(config, name) if name in chosen else values.get(name, get(config, name))

    epochs, steps = value("representation.epochs"), math.ceil(len(corpus.train) / value("optimizer.batch_size")) or 1
    starts = {name: min(value(name), epochs) for name in ("optimizer.swa_start_epoch", "psc.start_epoch")}
    counts = corpus.label_counts
    values["pvae.head_threshold"] = max(2, math.ceil(counts.sum() / len(counts)))
    pair_steps = math.ceil(counts.sum() / config.pvae.batch_size)
    sizes = {
        "optimizer.swa_every": math.ceil(steps / _AVERAGED_PER_EPOCH),
        "pvae.epochs": max(config.pvae.epochs, math.ceil(_PVAE_STEPS / pair_steps)),
        "adjust.epochs": int(
            np.clip(round(_ADJUSTMENT_STEPS / steps), _FEWEST_ADJUSTMENT_EPOCHS, config.adjust.epochs)
        ),
        "adjust.num_augmented": num_augmented(value("pvae.head_threshold")),
    }
    return values | starts | sizes


def _fine_tuning(config: Config, corpus: Corpus, chosen: Collection[str]) -> dict[str, Any]:
    """Returns the epochs and the classifiers' start on a pretrained encoder, and how few documents are batched."""
    documents, batch_size, epochs = len(corpus.train), config.optimizer.batch_size, config.representation.epochs
    values: dict[str, Any] = {}
    if config.encoder.train == "frozen" and "representation.epochs" not in chosen:
        epochs = FROZEN_EPOCHS
        values |= {"representation.epochs": epochs, "representation.patience": _PATIENCE}
    many = corpus.num_labels >= min(_MANY_LABELS, documents)
    if many:
        values["classifier.weights_start"] = "discriminant"
    if documents < SMALL:
        # Twice the steps in the same time (docs/recipe.md).
        values["optimizer.batch_size"] = min(batch_size, _SMALL_BATCH)
    if documents >= TINY:
        return values
    rows = functools.partial(_rows_of_windows, window=config.encoder.window)
    lengths, choices = corpus.train.lengths, config.data.length_buckets
    return values | {
        "data.length_buckets": few_lengths(lengths, choices, _SHORTER, _SAVED_PIECES, rows),
        "optimizer.swa_start_epoch": epochs - epochs // 5,
    }


def _rows_of_windows(length: int, window: int) -> int:
    """Returns the word pieces that a transformer computes of a text of so many, with those that windows share."""
    windows = windows_of(length, window - 2)
    return windows.number * (windows.size + 2)


def _training_from_the_start(config: Config, corpus: Corpus, chosen: Collection[str]) -> dict[str, Any]:
    """Returns the schedule of an encoder that starts from random weights."""
    documents, settings = len(corpus.train), config.optimizer
    epochs = most_epochs(corpus, config)
    tiny, longest = documents < TINY, int(corpus.train.lengths.max(initial=1))
    steps, saved = range(_LENGTH_STEP, longest, _LENGTH_STEP), _SAVED * documents * longest
    few = few_lengths(corpus.train.lengths, steps, 1, saved) if tiny else config.data.length_buckets
    return {
        "data.length_buckets": few,
        "optimizer.batch_size": min(settings.batch_size, _SMALL_BATCH) if documents < SMALL else settings.batch_size,
        "optimizer.learning_rate": _TINY_RATE if tiny else settings.learning_rate,
        "optimizer.swa_start_epoch": 1,
        # Who chooses the start chooses which weights count.
        "optimizer.swa_recency": 0.0 if "optimizer.swa_start_epoch" in chosen else _RECENCY,
        "psc.start_epoch": 2,
        "representation.epochs": epochs,
        "representation.patience": _PATIENCE,
    }


def most_epochs(corpus: Corpus, config: Config) -> int:
    """Returns a number of epochs that takes some ten minutes at most on two cores; validation stops most runs before.

    A word costs the encoder a fixed amount and the attention one for each label that a document is compared with, both
    in proportion to the units.
    """
    words, labels, settings = int(corpus.train.lengths.sum()), corpus.num_labels, config.representation
    if candidates.resolved(config, labels) == "linear":
        labels = settings.num_candidates + settings.num_sampled
    cost = words * (1 + labels / _LABELS_THAT_COST_A_WORD) * config.encoder.hidden_size / _UNITS
    return int(np.clip(round(_WORDS / max(1, cost)), _FEWEST_EPOCHS, _MOST_EPOCHS))


def num_augmented(head_threshold: int) -> int:
    """Returns N_a for N_t; the paper's pairs are 500 and 200, 1,000 and 500, 50 and 10."""
    return int(np.clip(round(_AUGMENTED_SHARE * head_threshold), _FEWEST_AUGMENTED, _MOST_AUGMENTED))


def few_lengths(
    lengths: np.ndarray,
    choices: Iterable[int],
    most: int,
    saved: float,
    rows: Callable[[int], int] = lambda length: length,
) -> tuple[int, ...]:
    """Returns the lengths that few documents are padded to, so that they compute least and few programs are compiled.

    Args:
        lengths: int[N], tokens of each document.
        choices: increasing; the longest document's length is always one more.
        most: how many of the choices are returned at most.
        saved: rows that each of them has to save, of all documents.
        rows: returns the rows that an encoder computes of a document padded to a length.
    """
    longest, ordered = max(1, int(lengths.max(initial=1))), np.sort(lengths)
    shorter = [length for length in choices if length < longest]

    def cost(chosen: tuple[int, ...]) -> float:
        padded = (*chosen, longest)
        counts = np.diff(np.searchsorted(ordered, padded, "right"), prepend=0)
        return saved * len(chosen) + sum(count * rows(length) for count, length in zip(counts, padded, strict=True))

    number = range(most + 1)
    return (*min((chosen for size in number for chosen in combinations(shorter, size)), key=cost), longest)


def summary(values: Mapping[str, Any]) -> str:
    """Describes settings that the policy decided, in words; those that are seldom changed are left out."""
    texts = {
        "classifier.weights_start": lambda start: f"classifiers start as {start}s",
        "optimizer.batch_size": lambda size: f"batches of {size}",
        "representation.epochs": lambda epochs: f"at most {plural(epochs, 'epoch')}",
        "optimizer.swa_every": lambda steps: "weights averaged every " + (f"{steps:,} steps" if steps > 1 else "step"),
        "pvae.head_threshold": lambda threshold: f"N_t = {threshold:,}",
        "adjust.num_augmented": lambda number: f"N_a = {number:,}",
        "pvae.epochs": lambda epochs: f"{plural(epochs, 'epoch')} of the PVAE",
        "adjust.epochs": lambda epochs: f"at most {epochs} of stage 3",
    }
    return ", ".join(text(values[name]) for name, text in texts.items() if name in values)
