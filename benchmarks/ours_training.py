"""Our training steps and epochs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import ours_model, shapes
from benchmarks.work import Part, Work, once
from lsfa_jax.config import Psc, Representation
from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.model import prototypes
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.stages import representation, transfer
from lsfa_jax.training.state import init_state
from lsfa_jax.util import sharding


class Trainer:
    """Stage 1 on whatever batches it is given."""

    def __init__(self, ours: ours_model.Ours, contrast: bool) -> None:
        own = ours.shape
        self._ours, self._mesh = ours, sharding.make_mesh()
        self._config = ours.config if contrast else ours.config.model_copy(update={"psc": Psc(weight=0)})
        self._optimizer = make_optimizer(self._config.optimizer, self._config.optimizer.learning_rate)
        extra = representation.no_prototypes(ours.model)
        if contrast:
            extra = {
                "prototypes": jax.random.uniform(jax.random.key(1), (own.num_labels, ours.model.feature_size)),
                "present": jnp.ones(own.num_labels, bool),
            }
        # Without a copy of the best weights: the plain peer keeps none.
        state = init_state(jax.random.key(0), ours.params, self._optimizer, extra, validated=False)
        # As the pipeline places it: elsewhere, the second step would be compiled anew.
        self._state = sharding.replicate(self._mesh, state)

    def on(self, documents: Split, num_words: int) -> Callable[[], None]:
        """Returns what trains on a batch of documents, padded to a length, and waits for it."""
        batches = Batches(documents, self._ours.shape.num_labels, len(documents), [num_words])
        # A batch is padded to the longest text of its split where that is shorter.
        batches.buckets = np.array([num_words])
        stage = representation.make_stage(self._ours.model, self._config, batches, self._optimizer, self._mesh, None)

        def run() -> None:
            for number, batch in enumerate(stage.batches(1, 0), 1):
                self._state = stage.step(self._state, batch, 1, number)
            jax.block_until_ready(self._state.params)

        return run


def step(shape: str, seed: int, contrast: bool = False, length: int | None = None, shortlist: int = 0) -> Work:
    """Forward, backward and Adam on one batch of documents that nearly fill the padded length."""
    ours = ours_model.make(shape, seed, representation=Representation(shortlist=shortlist))
    documents = ours.split.take(shapes.step_rows(ours.documents, ours.shape, length))
    num_words = length or ours.shape.step_words
    computed = num_words * len(documents) / len(documents.words.values)
    return once(Trainer(ours, contrast).on(documents, num_words), computed_per_real_word=computed)


def epoch(shape: str, seed: int, contrast: bool = False) -> Work:
    """An epoch in length buckets, added up from a batch of each; with `contrast`, prototypes are collected first."""
    ours = ours_model.make(shape, seed)
    batches = ours.batches()
    trainer = Trainer(ours, contrast)
    parts = []
    for documents, size, times in _bucketed(ours, batches):
        parts.append(Part(times, trainer.on(documents, size)))
        if contrast:
            parts.append(Part(times, _collection(ours, documents, size)))
    padded = sum(len(rows) * batches.buckets[batches.bucket_of[rows[0]]] for rows in batches.in_order())
    return Work(
        parts, {"computed_per_real_word": float(padded / len(ours.split.words.values)), "lengths": len(batches.buckets)}
    )


def _bucketed(ours: ours_model.Ours, batches: Batches) -> list[tuple[Split, int, float]]:
    """Returns a batch of each length bucket, the length, and how many such batches an epoch has."""
    found = []
    for bucket, size in enumerate(batches.buckets):
        members = np.flatnonzero(batches.bucket_of == bucket)
        if len(members):
            # A bucket with few documents is measured with a whole batch of them, too.
            documents = ours.split.take(np.resize(members, ours.shape.batch))
            times = -(-len(members) * ours.documents.scale // ours.shape.batch)
            found.append((documents, int(size), float(times)))
    return found


def _collection(ours: ours_model.Ours, documents: Split, num_words: int) -> Callable[[], None]:
    """Returns what adds the features of a batch to the sums of their labels."""
    collect = transfer.make_collector(ours.model)
    sums = prototypes.zero_sums(ours.shape.num_labels, ours.model.feature_size)
    batches = Batches(documents, ours.shape.num_labels, len(documents), [num_words])
    batches.buckets = np.array([num_words])
    # The weights before training: those are given away step by step.
    params = jax.tree.map(jnp.copy, ours.params)

    def run() -> None:
        nonlocal sums
        sums, features, _ = collect(params, batches.gather(np.arange(len(documents))), sums)
        jax.block_until_ready((sums, features))

    return run


def lwan_epoch(shape: str, seed: int, equal: bool) -> Work:
    """An epoch of LibMultiLabel's LWAN on our code: no feature head, biases; as `epoch`, or all texts of one length."""
    ours = ours_model.make(shape, seed, lwan=True)
    trainer = Trainer(ours, contrast=False)
    if not equal:
        return Work(
            [Part(times, trainer.on(documents, size)) for documents, size, times in _bucketed(ours, ours.batches())]
        )
    own = ours.shape
    documents = ours.split.take(np.arange(own.batch))
    words = np.random.default_rng(0).integers(2, own.vocabulary, own.batch * own.step_words).astype(np.int32)
    documents = Split(Ragged(words, np.arange(own.batch + 1) * own.step_words), documents.labels)
    return Work([Part(own.num_documents / own.batch, trainer.on(documents, own.step_words))])


def weights(params: Any) -> dict[str, np.ndarray]:
    """Returns our weights by name, as NumPy arrays, for a peer to copy."""
    flat = {name: value for name, value in params.items() if name != "classifier"}
    return {name: np.asarray(x) for name, x in (flat | dict(params["classifier"])).items()}
