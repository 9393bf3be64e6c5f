"""Our training steps and epochs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import ours_model, shapes
from benchmarks.work import Part, Work, once
from lsfa_jax.data.batches import Batch
from lsfa_jax.model import prototypes
from lsfa_jax.training import representation, transfer
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.state import init_state


def _stepper(ours: ours_model.Ours, contrast: bool) -> Callable[[Batch], None]:
    """Returns what trains on a batch and waits for it."""
    extra = representation.no_prototypes(ours.model)
    if contrast:
        size = ours.shape.num_labels, ours.shape.feature
        extra = {
            "prototypes": jax.random.uniform(jax.random.key(1), size),
            "present": jnp.ones(ours.shape.num_labels, bool),
        }
    optimizer = make_optimizer(ours.config.optimizer, ours.config.optimizer.learning_rate)
    step = representation.make_step(ours.model, ours.config, optimizer)
    # Without a copy of the best weights: the plain peer keeps none.
    state = init_state(jax.random.key(0), ours.params, optimizer, extra, validated=False)

    def run(batch: Batch) -> None:
        nonlocal state
        state = step(state, batch, contrast)
        jax.block_until_ready(state.params)

    return run


def step(shape: str, seed: int, contrast: bool = False, length: int | None = None, shortlist: bool = False) -> Work:
    """Forward, backward and Adam on one batch of documents that nearly fill the padded length."""
    if shortlist:
        raise NotImplementedError("there is no sampled shortlist yet")
    ours = ours_model.make(shape, seed)
    rows = shapes.step_rows(ours.documents, ours.shape, length)
    batch = ours.batch(rows, length or ours.shape.step_words)
    run = _stepper(ours, contrast)
    ours = ours._replace(params=None)
    return once(lambda: run(batch), computed_per_real_word=batch.words.size / batch.lengths.sum())


def epoch(shape: str, seed: int, contrast: bool = False) -> Work:
    """An epoch in length buckets, added up from a batch of each; with `contrast`, prototypes are collected first."""
    ours = ours_model.make(shape, seed)
    batches = ours.batches()
    run = _stepper(ours, contrast)
    parts: list[Part] = []
    random = np.random.default_rng(seed)

    def some(members: np.ndarray, size: int) -> Batch:
        rows = random.choice(members, min(size, len(members)), replace=False)
        return batches.gather(rows)

    for bucket in range(len(batches.buckets)):
        members = np.flatnonzero(batches.bucket_of == bucket)
        if not len(members):
            continue
        times = -(-len(members) // batches.batch_size) * ours.documents.scale
        parts.append(Part(times, lambda m=members: run(some(m, batches.batch_size))))  # type: ignore[misc]
        if contrast:
            parts.append(Part(times, _collection(ours, lambda m=members: some(m, batches.batch_size))))  # type: ignore[misc]
    padded = sum(len(rows) * batches.buckets[batches.bucket_of[rows[0]]] for rows in batches.in_order())
    return Work(parts, {"computed_per_real_word": float(padded / len(ours.split.words)), "batches": len(parts)})


def _collection(ours: ours_model.Ours, some: Callable[[], Batch]) -> Callable[[], None]:
    """Returns what adds the features of a batch to the sums."""
    collect = transfer.make_collector(ours.model)
    sums = prototypes.no_features(ours.shape.num_labels, ours.model.feature_size)

    def run() -> None:
        nonlocal sums
        sums, features = collect(ours.params, some(), sums)
        jax.block_until_ready((sums, features))

    return run


def lwan_epoch(shape: str, seed: int, equal: bool) -> Work:
    """An epoch of LibMultiLabel's LWAN on our code: no feature head, biases; as `epoch`, or all texts of one length."""
    ours = ours_model.make(shape, seed, lwan=True)
    run = _stepper(ours, False)
    batches = ours.batches()
    own = ours.shape
    if equal:
        batch = equal_batch(ours)
        return Work([Part(own.num_documents / own.batch, lambda: run(batch))])
    parts = []
    for bucket in range(len(batches.buckets)):
        members = np.flatnonzero(batches.bucket_of == bucket)
        if len(members) >= own.batch:
            batch = batches.gather(members[: own.batch])
            times = len(members) / own.batch * ours.documents.scale
            parts.append(Part(times, lambda b=batch: run(b)))  # type: ignore[misc]
    return Work(parts)


def equal_batch(ours: ours_model.Ours) -> Batch:
    """Returns a batch of documents that fill the step's length exactly."""
    own = ours.shape
    batch = ours.batch(shapes.step_rows(ours.documents, own), own.step_words)
    words = np.random.default_rng(0).integers(2, own.vocabulary, batch.words.shape)
    return batch._replace(words=words.astype(np.int32), lengths=np.full_like(batch.lengths, own.step_words))


def weights(params: Any) -> dict[str, np.ndarray]:
    """Returns our weights by name, as NumPy arrays, for a peer to copy."""
    flat = {name: value for name, value in params.items() if name != "classifier"}
    return {name: np.asarray(x) for name, x in (flat | dict(params["classifier"])).items()}
