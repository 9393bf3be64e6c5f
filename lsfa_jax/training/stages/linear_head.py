"""A linear one-versus-rest head on one feature a document, adjusted on L_BCE + L_Augmented (Eq. 19)."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.model import augmentation
from lsfa_jax.model.classifier import binary_cross_entropy
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.stages.adjustment import Generated, deal_generated
from lsfa_jax.training.state import TrainState, after_step
from lsfa_jax.util import sharding

Array = Any
"""NumPy's on the host; JAX's once a batch is on the device."""

NAME = "adjustment"


class Documents(NamedTuple):
    """A batch of documents, padded."""

    features: Array
    """float32[B, D]."""
    label_ids: Array
    """int32[B, K]."""
    label_mask: Array
    """bool[B, K]."""
    mask: Array
    """bool[B]."""


class Frozen(NamedTuple):
    """What makes the generated features, and is not trained."""

    pvae: Any
    """Parameters of the PVAE."""
    prototypes: Array
    """float32[L, D]."""
    shift: Array
    """float32[D], what is added to a generated feature to stand where the documents' features do."""
    key: jax.Array
    """PRNG key of the augmented sets."""


Decode = Callable[[Any], Callable[[jax.Array, jax.Array], jax.Array]]
Step = Callable[[TrainState, tuple[Documents, Generated], Frozen], TrainState]


def make_step(
    decoder: Decode, latent_size: int, augmented_weight: float, optimizer: optax.GradientTransformation
) -> Step:
    """Compiles one step on {"coef": float32[L, D], "intercept": float32[L]}; the intercept may be missing."""

    def loss(head: Any, documents: Documents, generated: Generated, frozen: Frozen) -> tuple[jax.Array, jax.Array]:
        bias = head.get("intercept")
        logits = documents.features @ head["coef"].T + (0.0 if bias is None else bias)
        bce = binary_cross_entropy(logits, documents.label_ids, documents.label_mask, documents.mask)
        ids = generated.label_ids
        features = frozen.shift + augmentation.sample_features(
            decoder(frozen.pvae), frozen.key, ids, generated.indices, frozen.prototypes[ids], latent_size
        )
        own_bias = None if bias is None else bias[ids]
        augmented = augmentation.augmented_loss(features, head["coef"][ids], own_bias, generated.mask)
        # Both are divided alike, so an epoch is the paper's sum. Not by labels too: Adam's epsilon would weigh in.
        losses = jnp.stack([bce, augmented]) / jnp.maximum(jnp.sum(documents.mask), 1)
        return losses[0] + augmented_weight * losses[1], losses

    def step(state: TrainState, batch: tuple[Documents, Generated], frozen: Frozen) -> TrainState:
        grads, losses = jax.grad(loss, has_aux=True)(state.params, *batch, frozen)
        return after_step(state, grads, losses, optimizer)

    return jax.jit(step, donate_argnums=0)


def make_stage(
    step: Step,
    features: np.ndarray,
    labels: Ragged,
    num_labels: int,
    tail: np.ndarray,
    num_augmented: int,
    frozen: Frozen,
    mesh: Mesh,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> Stage:
    """Returns the head's training over N documents' features float32[N, D]; `tail` lists the labels to augment.

    An epoch meets each document once, and each of the `num_augmented` features of a tail label.
    """
    # The order of documents and the padding of their labels are those of texts, here without a word.
    split = Split(Ragged.from_sizes(np.zeros(0, np.int32), np.zeros(len(features), np.int64)), labels)
    documents = Batches(split, num_labels, batch_size, [1], mesh.size)

    def batches(epoch: int, start: int) -> Iterator[tuple[Documents, Generated]]:
        plan = documents.epoch(seed, epoch)
        dealt = deal_generated(tail, num_augmented, len(plan), seed, epoch, mesh.size)
        for batch, generated in zip(documents.load(plan, start), dealt[start:], strict=True):
            own = Documents(features[batch.rows], batch.label_ids, batch.label_mask, batch.document_mask)
            yield sharding.shard_batch(mesh, (own, generated))

    return Stage(
        name=NAME,
        epochs=epochs,
        steps_per_epoch=documents.steps_per_epoch,
        items_per_epoch=len(features),
        unit="documents",
        batches=batches,
        step=lambda state, batch, epoch, number: step(state, batch, frozen),
        loss_names=("bce", "augmented"),
    )
