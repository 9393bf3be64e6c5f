"""The trained model that a run starts from (`--from`): its encoder, its words, and the labels that it knows by name.

Until the first step the run computes what the model computes. A word that the model does not know starts with the
vector of the unknown word, as which the model reads it. A label that it does not know starts with a query of zero,
which attends to all words evenly, and as classifier with the linear discriminant of the mean token states
(`discriminants`), which is the classifier of just that feature.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lsfa_jax.config import Config, get
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.same_text import in_both
from lsfa_jax.data.vocabulary import NUM_SPECIAL, UNKNOWN
from lsfa_jax.model.encoders import EncoderShape
from lsfa_jax.model.lsfa import label_rows
from lsfa_jax.training import model_folder
from lsfa_jax.training.initial_encoder import InitialEncoder
from lsfa_jax.training.model_folder import TrainedModel
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.types import AnyArray, HostArray, ParamDict
from lsfa_jax.util.console import UserError, note, plural, warn

# Of the labels that are dropped, the most frequent.
_SHOWN = 5

_OF_THE_MODEL = (
    *("encoder.kind", "encoder.pretrained", "encoder.window", "encoder.kernel_width", "encoder.residual_blocks"),
    *("encoder.embedding_size", "encoder.hidden_size", "encoder.label_attention", "encoder.feature_head"),
    *("encoder.attention", "encoder.attention_size"),
    *("encoder.feature_size", "encoder.append_embedding", "classifier.weights", "classifier.bias"),
    *("data.tokenizer", "data.html"),
)
"""The settings that the parameters depend on, or how a text becomes tokens."""

_USUAL = ("encoder.train", "data.max_words")
"""Settings that are the model's unless others are chosen."""


def settings(model: Config) -> dict[str, Any]:
    """Returns the settings that a run takes from the model that it starts from, by dotted name."""
    # Its word vectors are in its encoder.
    return {name: get(model, name) for name in (*_OF_THE_MODEL, *_USUAL)} | {"vectors": "none"}


def read(config: Config, folder: RunFolder) -> TrainedModel | None:
    """Reads the model that a run starts from, in a run that continues from its folder; None without one.

    Raises:
        UserError: the folder has no model, or the settings describe another one.
    """
    if not config.start:
        return None
    # A run that was killed early has no copy, or half of one.
    has_copy = model_folder.paths(folder.start)[0].is_file()
    model = model_folder.read(folder.start if has_copy else Path(config.start))
    for name in (*_OF_THE_MODEL, "vectors"):
        expected, value = settings(model.config)[name], get(config, name)
        if value != expected:
            raise UserError(
                f"--from {config.start}: its model has {name} = {expected!r}, and {value!r} needs another model; leave "
                f"out --{name.replace('_', '-')}, or train without --from"
            )
    return model


def initial_encoder(model: TrainedModel, corpus: Corpus) -> InitialEncoder:
    """Returns the model's encoder, with vectors for the words that the corpus has beside those of the model."""
    shape, params = model.encoder_shape, model.params["encoder"]
    if not shape.architecture:
        table = params["embedding"]
        others = NUM_SPECIAL + len(corpus.words) - len(table)
        table = np.concatenate([table, np.repeat(table[UNKNOWN : UNKNOWN + 1], others, axis=0)])
        shape, params = EncoderShape(*table.shape), params | {"embedding": table}
    return InitialEncoder("model of --from", shape, params)


def known_rows(model: TrainedModel, labels: Sequence[str], num_rows: int) -> HostArray:
    """Returns int64[num_rows], the row that each label has in the model's tables; -1: none, and at padding."""
    places = {label: row for row, label in enumerate(model.labels)}
    rows = np.full(num_rows, -1)
    rows[: len(labels)] = [places.get(label, -1) for label in labels]
    return rows


def with_known_labels(params: ParamDict, model: TrainedModel, rows: HostArray) -> ParamDict:
    """Returns parameters with the model's feature head and its tables' rows of known labels; other queries are zero.

    Args:
        params: initial ones, with classifiers for the labels that the model does not know.
        model: the model.
        rows: of `known_rows`.
    """
    zeros = jnp.zeros_like(params["labels"]["queries"])
    fresh = {"labels": params["labels"] | {"queries": zeros}, "classifier": params["classifier"]}
    trained = {name: model.params[name] for name in fresh}

    def merged(of_model: HostArray, of_labels: HostArray | None, other: AnyArray) -> AnyArray:
        if of_labels is None:
            return of_model
        is_known = np.expand_dims(of_labels >= 0, tuple(range(1, of_model.ndim)))
        return jnp.where(is_known, of_model[of_labels], other)

    return params | jax.tree.map(merged, trained, label_rows(trained, len(model.labels), rows), fresh)


def texts(config: Config, corpus: Corpus) -> HostArray:
    """Returns the digests of the texts that the model of a run is trained on, uint64[N, 2]: also those of its start."""
    of_start = [RunFolder(Path(config.start)).read_texts()] if config.start else []
    assert corpus.train.digests is not None
    return np.concatenate([*of_start, corpus.train.digests])


def report(config: Config, model: TrainedModel, corpus: Corpus) -> None:
    """Prints what a run takes from the model that it starts from, and warns of what it loses or measures too well."""
    labels = set(corpus.labels[: corpus.num_labels])
    dropped = [label for label in model.labels if label not in labels]
    kept = len(model.labels) - len(dropped)
    note(f"From {config.start}: {plural(kept, 'label')} kept, {len(labels) - kept:,} new")
    if dropped:
        shown = ", ".join(map(repr, dropped[:_SHOWN]))
        more = f" and {len(dropped) - _SHOWN:,} more" if len(dropped) > _SHOWN else ""
        warn(f"{plural(len(dropped), 'label')} dropped, which no training document has: {shown}{more}")
    if not model.tokenizer:
        _report_words(model, corpus)
    before = RunFolder(Path(config.start)).read_texts()
    for name, split in (("validation", corpus.validation), ("test", corpus.test)):
        if split.digests is not None and (both := in_both(split.digests, before)):
            warn(
                f"{name} documents that {config.start} was trained on: {both:,} of {len(split):,}; metrics on them "
                "are too good"
            )


def _report_words(model: TrainedModel, corpus: Corpus) -> None:
    """Prints the share of the texts' words that a model knows."""
    words = corpus.train.words.values
    known = np.mean((words > UNKNOWN) & (words < NUM_SPECIAL + len(model.words)))
    others = len(corpus.words) - len(model.words)
    started = f"; {plural(others, 'new word')} of the vocabulary start as the unknown one" if others else ""
    note(f"It knows {100 * known:.1f} % of the texts' words{started}")
