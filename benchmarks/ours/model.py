"""A model with random weights and random documents, at a benchmark's shape."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Shape
from benchmarks.documents import Documents, documents
from lsfa_jax.config import Classifier, Config, Encoder, Psc
from lsfa_jax.data.batches import Batch, Batches, length_buckets
from lsfa_jax.data.corpus import EncodedSplit, Split
from lsfa_jax.model.encoders import EncoderShape
from lsfa_jax.model.lsfa import Lsfa, make_model
from lsfa_jax.types import Params


class Ours(NamedTuple):
    """A model and documents."""

    shape: Shape
    config: Config
    model: Lsfa
    params: Params
    documents: Documents
    split: Split
    """The same documents."""

    def batch(self, rows: np.ndarray, num_words: int) -> Batch:
        """Returns documents padded to `num_words`."""
        return self.batches(self.split.take(rows), num_words).gather(np.arange(len(rows)))

    def batches(
        self, split: Split | EncodedSplit, num_words: int | None = None, batch_size: int | None = None
    ) -> Batches:
        """Returns the batches of a split in the settings' length buckets, or one batch of `num_words` words."""
        number = self.config.representation.num_candidates
        has_candidates = self.config.candidates == "linear"
        proposed = random_candidates(self.shape.num_labels, number, len(split), 0) if has_candidates else None
        if num_words:
            batches = Batches(split, self.shape.num_labels, len(split), [num_words], candidates=proposed)
            # `Batches` shortens a bucket to the longest document of the split.
            batches.buckets = np.array([num_words])
            return batches
        longest = self.shape.max_words
        buckets = length_buckets(self.config.data.length_buckets, longest)
        size = batch_size or self.shape.batch_size
        return Batches(split, self.shape.num_labels, size, buckets, candidates=proposed)


def random_candidates(num_labels: int, number: int, num_documents: int, seed: int) -> np.ndarray:
    """Returns different labels for each document, int32[N, number]."""
    random = np.random.default_rng(seed)
    return np.array([random.choice(num_labels, number, replace=False) for _ in range(num_documents)], np.int32)


def make(shape: Shape, seed: int, lwan: bool = False, kind: str = "bilstm", **settings: Any) -> Ours:
    """Builds a model of the paper's sizes.

    Args:
        shape: of corpus and model.
        seed: of weights and documents.
        lwan: without a feature head and with biases, as LibMultiLabel's LWAN.
        kind: of encoder.
        settings: further settings of `Config`.
    """
    config = Config(
        seed=seed,
        encoder=Encoder(
            kind=kind,
            embedding_size=shape.embedding_size,
            hidden_size=shape.hidden_size,
            feature_size=shape.feature_size,
            feature_head=not lwan,
        ),
        classifier=Classifier(bias=lwan),
        psc=Psc(start_epoch=1),
        **settings,
    )
    model = make_model(config, EncoderShape(shape.vocabulary_size, shape.embedding_size), shape.num_labels)
    one_word = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
    params = jax.jit(model.init)(jax.random.key(seed), *one_word)["params"]
    drawn = documents(shape, seed)
    return Ours(shape, config, model, params, drawn, Split(drawn.words, drawn.labels))
