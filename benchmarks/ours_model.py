"""Our classifier, its weights and documents at a benchmark's shape."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import shapes
from lsfa_jax.config import Classifier, Config, Encoder, Psc
from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.model.lsfa import Lsfa, make_model


class Ours(NamedTuple):
    """A model with random weights and documents."""

    shape: shapes.Shape
    config: Config
    model: Lsfa
    params: Any
    documents: shapes.Documents
    split: Split
    """The same documents."""

    def batch(self, rows: np.ndarray, num_words: int) -> Batch:
        """Returns documents padded to a length."""
        one = self.split.take(rows)
        return Batches(one, self.shape.num_labels, len(rows), [num_words]).gather(np.arange(len(rows)))

    def batches(self) -> Batches:
        """Returns all documents in the length buckets of the settings."""
        buckets = self.config.data.length_buckets
        return Batches(self.split, self.shape.num_labels, self.shape.batch, buckets)


def make(shape: str, seed: int, lwan: bool = False, **sections: Any) -> Ours:
    """Returns a model of the paper's sizes; with `lwan` as LibMultiLabel's LWAN is: no feature head, biases."""
    own = shapes.SHAPES[shape]
    config = Config(
        seed=seed,
        encoder=Encoder(
            embedding_size=own.embedding, hidden_size=own.hidden, feature_size=own.feature, feature_head=not lwan
        ),
        classifier=Classifier(bias=lwan),
        psc=Psc(start_epoch=1),
        **sections,
    )
    model = make_model(config, own.vocabulary, own.embedding, own.num_labels)
    one = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
    params = jax.jit(model.init)(jax.random.key(seed), *one)["params"]
    made = shapes.documents(own, seed)
    split = Split(Ragged(made.words, made.word_offsets), Ragged(made.labels, made.label_offsets))
    return Ours(own, config, model, params, made, split)
