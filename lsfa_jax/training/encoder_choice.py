"""Which encoder learns most within minutes on a corpus, and which word vectors it starts from.

On hundreds to thousands of English documents a pretrained transformer is far ahead of the encoders that start from
nothing (docs/encoders.md); it is chosen where fine-tuning it, or its last layers, takes minutes on these devices.
"""

import json
import math
from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from lsfa_jax.config import Config, get
from lsfa_jax.data import named
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.pieces import folder_of, read_tokenizer
from lsfa_jax.data.vocabulary import NUM_SPECIAL
from lsfa_jax.training import policy
from lsfa_jax.util import cores
from lsfa_jax.util.console import UserError, note, plural, warn
from lsfa_jax.util.duration import in_words

PRETRAINED = "minilm"
_LAYERS = 6

# With fewer documents fine-tuning has too few steps. With 275 abstracts, N@5 on test documents was 67.5 and 68.5 (two
# seeds) with the transformer, and 46.6 and 50.9 with the label tree, which decided alone beside the BiLSTM.
_FEWEST_DOCUMENTS = 200

# Share of the words that the transformer's vocabulary has as one piece: 0.9 in English, less than half in other
# languages.
_LEAST_KNOWN = 0.65

# Seconds that fine-tuning may take, and its share of a time limit. Seconds a word piece, forward and backward through
# all layers, on two cores of an AMD EPYC (Zen 5) in bfloat16, padding included.
_SECONDS, _SHARE, _SECONDS_PER_PIECE, _CORES = 700, 0.8, 3.9e-4, 2
_PIECES_PER_WORD = 1.25

# Pieces that a document is padded to at least; seconds to compile and to train the linear models.
_LEAST_PIECES, _START = 30, 90

Plans = tuple[tuple[int, int], ...]
"""Layers to fine-tune and epochs, the best first: the first that fit are chosen."""

_PLANS: Plans = ((_LAYERS, 4), (_LAYERS, 3), (3, 4), (3, 3), (2, 4), (2, 3), (1, 4))

# Where no layer can be fine-tuned within a time limit: the states of fewer documents than `policy.SMALL` are computed
# once, and what reads them is trained; seconds to compile that and train the linear models.
_FROZEN_START = 40

# Below `policy.TINY` documents the last layers, in more steps, are more accurate in half the time (docs/recipe.md).
_PLANS_OF_FEW: Plans = ((2, 6), (2, 4), (1, 4))


def is_open(config: Config, chosen: Collection[str]) -> bool:
    """Whether a new run's encoder is to be chosen for the corpus: with the quick preset, on texts of a language.

    Args:
        config: all settings so far.
        chosen: the dotted names of settings with a value in the corpus's file, in that of --config, or in an option.
            Whoever chooses word vectors or a setting of the encoder has chosen the encoder.
    """
    is_language = not named.entry(config.dataset).shape
    has_chosen = config.vectors != "auto" or any(name.startswith("encoder.") for name in chosen)
    return config.follows_corpus and is_language and not has_chosen


def settings(corpus: Corpus, time_limit: float = math.inf) -> dict[str, Any]:
    """Returns the settings of the encoder for a corpus of words, by dotted name, and prints which it is and why.

    {} stands for the BiLSTM. With a time limit, the epochs are the most that its layers are fine-tuned for: the run
    itself measures how many fit.

    Args:
        corpus: the documents, as words.
        time_limit: of the run that trains it, in seconds; of a search, that of one trial.
    """
    chosen, reason = _choose(corpus, time_limit)
    note(f"--encoder auto: {PRETRAINED if chosen else 'bilstm'} ({reason})")
    return chosen


def resolved(config: Config) -> dict[str, Any]:
    """Returns what `settings` returned for a run with these settings."""
    if config.encoder.pretrained != PRETRAINED:
        return {}
    names = ("encoder.kind", "encoder.pretrained", "encoder.train", "representation.epochs")
    return {name: get(config, name) for name in names}


def with_vectors(config: Config, corpus: Corpus) -> Config:
    """Returns the settings with `vectors = auto` resolved to `minilm` or `none`, and prints which it is and why."""
    if config.vectors != "auto":
        return config
    reason = "generated words" if named.entry(config.dataset).shape else _too_small(corpus) or _unread(corpus)
    vectors = "none" if reason else PRETRAINED
    note(f"--vectors auto: {vectors}" + (f" ({reason})" if reason else ""))
    return config.model_copy(update={"vectors": vectors})


def _choose(corpus: Corpus, time_limit: float) -> tuple[dict[str, Any], str]:
    if reason := _too_small(corpus) or _unread(corpus):
        return {}, reason
    documents = len(corpus.train)
    on_cpu = jax.default_backend() == "cpu"
    pieces = float(np.maximum(_PIECES_PER_WORD * corpus.train.lengths, _LEAST_PIECES).sum())
    seconds = _SHARE * (time_limit - _START) if math.isfinite(time_limit) else _SECONDS
    plans = _PLANS_OF_FEW if documents < policy.TINY else _PLANS
    plan = affordable_plan(plans, pieces, cores.available(), seconds) if on_cpu else plans[0]
    if not plan and documents < policy.SMALL and math.isfinite(time_limit):
        frozen: Plans = ((0, policy.FROZEN_EPOCHS),)
        plan = affordable_plan(frozen, pieces, cores.available(), _SHARE * (time_limit - _FROZEN_START))
    if not plan:
        why = f"does not fit in {in_words(time_limit)}" if math.isfinite(time_limit) else "would take too long"
        return {}, f"fine-tuning on {documents:,} documents {why}; --encoder {PRETRAINED} does it"
    layers, epochs = plan
    if math.isfinite(time_limit) and layers:
        epochs = max(number for of_layers, number in plans if of_layers == layers)
    descriptions = {_LAYERS: ("all", "all of it"), 1: (1, "its last layer"), 0: ("frozen", "frozen")}
    train, trained = descriptions.get(layers, (layers, f"its last {layers} layers"))
    encoder = {"kind": "transformer", "pretrained": PRETRAINED, "train": train}
    values = {f"encoder.{name}": value for name, value in encoder.items()} | {"representation.epochs": epochs}
    how_long = f"within {in_words(time_limit)}" if math.isfinite(time_limit) else f"in {epochs} epochs"
    return values, f"{trained} {how_long}"


def _too_small(corpus: Corpus) -> str:
    """Returns why a corpus is too small to gain by the transformer; "" if it is not."""
    documents = len(corpus.train)
    if documents >= _FEWEST_DOCUMENTS:
        return ""
    return f"{plural(documents, 'training document')}, fewer than {_FEWEST_DOCUMENTS:,}"


def _unread(corpus: Corpus) -> str:
    """Returns why the transformer does not read a corpus, after fetching it; "" if it does.

    Warns where it cannot be fetched.
    """
    try:
        known = known_share(corpus, json.loads(read_tokenizer(folder_of(PRETRAINED)))["model"]["vocab"])
    except UserError as error:
        warn(f"{PRETRAINED} is not used: {error}")
        return f"{PRETRAINED} cannot be fetched"
    return "" if known >= _LEAST_KNOWN else f"{PRETRAINED} reads English, and knows {100 * known:.0f} % of these words"


def affordable_plan(plans: Plans, pieces: float, num_cores: int, seconds: float) -> tuple[int, int] | None:
    """Returns the first plan that fits in the time, layers to fine-tune and epochs, on so many pieces; None if none."""
    whole = pieces * _SECONDS_PER_PIECE * _CORES / num_cores
    return next((plan for plan in plans if whole * share_of_passes(*plan) <= seconds), None)


def share_of_passes(layers: int, epochs: int) -> float:
    """Returns the passes that fine-tuning the last layers takes, in passes forward and backward through all layers.

    The layers below are passed once, forward. Beside the epochs there are passes forward before the first, for the
    prototypes of those with the contrastive loss (from the third on) and after the last. A pass backward costs twice as
    much as one forward.
    """
    forward = 1 + max(1, epochs - 2) + 1
    return ((_LAYERS - layers) + layers * (3 * epochs + forward)) / (3 * _LAYERS)


def known_share(corpus: Corpus, vocabulary: dict[str, int]) -> float:
    """Returns the share of the running words of the training documents that are one piece of a vocabulary."""
    counts = np.bincount(corpus.train.words.values, minlength=NUM_SPECIAL + len(corpus.words))[NUM_SPECIAL:]
    known = np.array([word in vocabulary for word in corpus.words], bool)
    return float(counts[known].sum() / max(1, counts.sum()))
