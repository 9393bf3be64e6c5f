"""Our training steps and epochs."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from benchmarks.cases import Shape
from benchmarks.documents import step_rows
from benchmarks.harness.work import Part, Work, per_call
from benchmarks.ours.model import Ours, make
from lsfa_jax import config
from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.model import prototypes
from lsfa_jax.training.collection import collect
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.stages.representation import Representation
from lsfa_jax.training.state import init_state
from lsfa_jax.types import Params
from lsfa_jax.util import sharding


class Trainer:
    """Stage 1, one batch at a time."""

    def __init__(self, ours: Ours, psc: bool) -> None:
        """Places the initial state; every label has a random prototype."""
        num_labels = ours.shape.num_labels
        self._ours, self._mesh = ours, sharding.make_mesh()
        self._config = ours.config if psc else ours.config.model_copy(update={"psc": config.Psc(weight=0)})
        self._optimizer = make_optimizer(self._config.optimizer, self._config.optimizer.learning_rate)
        extra = {
            "prototypes": jax.random.uniform(jax.random.key(1), (num_labels, ours.model.feature_size)),
            "present": jnp.ones(num_labels, bool),
        }
        losses = ("bce", "psc") if psc else ("bce",)
        # Without mean and best weights, which `Representation.init` adds: the plain peer stores none.
        state = init_state(jax.random.key(0), ours.params, self._optimizer, losses, extra, keep_best=False)
        # Placed as `bin/train` places it: otherwise the second step would be compiled again.
        self._state = sharding.replicate(self._mesh, state)

    def on(self, documents: Split, num_words: int) -> Callable[[], None]:
        """Returns a function that trains on one batch, padded to `num_words`, and waits for the result."""
        batches = self._ours.batches(documents, num_words)
        stage = Representation(self._ours.model, self._config, batches, self._optimizer, self._mesh)

        def run() -> None:
            for number, batch in enumerate(stage.batches(1, 0), 1):
                self._state = stage.step(self._state, batch, 1, number)
            jax.block_until_ready(self._state.params)

        return run


def step(
    shape: Shape,
    seed: int,
    psc: bool = False,
    num_words: int | None = None,
    shortlist: int = 0,
    candidates: int = 0,
    kind: str = "bilstm",
    precision: str = "float32",
) -> Work:
    """Forward, backward and Adam on one batch of documents that nearly fill the padded length."""
    representation = config.Representation(shortlist=shortlist, num_candidates=candidates or 1)
    which = "linear" if candidates else "all"
    ours = make(shape, seed, kind=kind, precision=precision, representation=representation, candidates=which)
    documents = ours.split.take(step_rows(ours.documents, shape, num_words))
    num_words = num_words or shape.step_words
    computed = num_words * len(documents) / documents.lengths.sum()
    return per_call(Trainer(ours, psc).on(documents, num_words), computed_per_real_word=float(computed))


def epoch(shape: Shape, seed: int, psc: bool = False) -> Work:
    """An epoch in length buckets, added up from a batch of each; with `psc`, prototypes are collected first."""
    ours = make(shape, seed)
    batches = ours.batches(ours.split)
    trainer = Trainer(ours, psc)
    parts = []
    for bucket in _bucket_batches(ours, batches):
        parts.append(Part(bucket.batches_per_epoch, trainer.on(bucket.documents, bucket.num_words)))
        if psc:
            parts.append(Part(bucket.batches_per_epoch, _collection(ours, bucket.documents, bucket.num_words)))
    padded = sum(len(rows) * batches.buckets[batches.bucket_of[rows[0]]] for rows in batches.in_order())
    computed = float(padded / ours.split.lengths.sum())
    return Work(parts, {"computed_per_real_word": computed, "lengths": len(batches.buckets)})


class _BucketBatch(NamedTuple):
    documents: Split
    num_words: int
    batches_per_epoch: float


def _bucket_batches(ours: Ours, batches: Batches) -> Iterator[_BucketBatch]:
    """Yields a batch of each length bucket."""
    for bucket, num_words in enumerate(batches.buckets):
        members = np.flatnonzero(batches.bucket_of == bucket)
        if len(members):
            # A bucket with few documents is measured with a full batch, too: they repeat.
            documents = ours.split.take(np.resize(members, ours.shape.batch_size))
            number = -(-len(members) * ours.documents.scale // ours.shape.batch_size)
            yield _BucketBatch(documents, int(num_words), float(number))


def _collection(ours: Ours, documents: Split, num_words: int) -> Callable[[], None]:
    """Returns a function that adds the features of a batch to the sums of their labels."""
    sums = prototypes.zero_sums(ours.shape.num_labels, ours.model.feature_size)
    batches = ours.batches(documents, num_words)
    # A copy of the weights: training steps donate their buffers.
    params = jax.tree.map(jnp.copy, ours.params)

    def run() -> None:
        nonlocal sums
        batch = batches.gather(np.arange(len(documents)))
        sums, features, _ = collect(ours.model, params, batch, sums, ours.model.encoder.stored_dtype)
        jax.block_until_ready((sums, features))

    return run


def lwan_epoch(shape: Shape, seed: int, equal: bool) -> Work:
    """An epoch of LibMultiLabel's LWAN on our code: no feature head, biases; in length buckets, or of equal lengths."""
    ours = make(shape, seed, lwan=True)
    trainer = Trainer(ours, psc=False)
    if not equal:
        buckets = _bucket_batches(ours, ours.batches(ours.split))
        return Work([Part(each.batches_per_epoch, trainer.on(each.documents, each.num_words)) for each in buckets])
    batch_size, num_words = shape.batch_size, shape.step_words
    words = np.random.default_rng(0).integers(2, shape.vocabulary_size, batch_size * num_words).astype(np.int32)
    labels = ours.split.labels.take(np.arange(batch_size))
    documents = Split(Ragged.from_sizes(words, np.full(batch_size, num_words)), labels)
    return Work([Part(shape.num_documents / batch_size, trainer.on(documents, num_words))])


def weights(params: Params) -> dict[str, np.ndarray]:
    """Returns our weights by path, such as "encoder/forward/w_input", as NumPy arrays, for a peer to copy."""
    return {path: np.asarray(x) for path, x in flatten_dict(dict(params), sep="/").items()}
