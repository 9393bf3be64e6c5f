"""A linear one-versus-rest head on one feature a document, adjusted on L_BCE + gamma L_Augmented (Eq. 18-19)."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

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
from lsfa_jax.training.stages.adjustment import Generated, distribute_generated
from lsfa_jax.training.state import TrainState, after_step, init_state
from lsfa_jax.types import AnyArray, Array, PyTree
from lsfa_jax.util import sharding
from lsfa_jax.util.random_streams import Stream, stream


class DocumentFeatures(NamedTuple):
    """A batch of documents with one feature vector each, padded to B rows."""

    features: AnyArray
    """float32[B, D]."""
    label_ids: AnyArray
    """int32[B, K]."""
    label_mask: AnyArray
    """bool[B, K]."""
    mask: AnyArray
    """bool[B]."""


class FrozenInputs(NamedTuple):
    """Inputs of the step that are not trained: what generates features."""

    learned: PyTree
    """Variables of the PVAE, or what another generator draws features with."""
    prototypes: Array
    """float32[L, D]."""
    shift: Array
    """float32[D], added to a generated feature to bring it into the space of the documents' features."""
    key: Array
    """PRNG key of the augmented sets."""


class HeadSettings(NamedTuple):
    """How a head is adjusted."""

    epochs: int
    batch_size: int
    """Documents a step."""
    augmented_weight: float
    """gamma."""
    num_augmented: int
    """N_a."""
    seed: int


def head_step(
    generator: Callable[[PyTree], augmentation.Sampler],
    settings: HeadSettings,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: tuple[DocumentFeatures, Generated],
    frozen: FrozenInputs,
) -> TrainState:
    """Trains {"coef": float32[L, D], "intercept": float32[L]} on one batch; `intercept` is optional."""
    documents, generated = batch
    ids = generated.label_ids

    def loss(head: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        bias = head.get("intercept")
        logits = documents.features @ head["coef"].T + (0.0 if bias is None else bias)
        bce = binary_cross_entropy(logits, documents.label_ids, documents.label_mask, documents.mask)
        features = frozen.shift + augmentation.draw_features(
            generator(frozen.learned), frozen.key, ids, generated.indices, frozen.prototypes[ids]
        )
        label_bias = None if bias is None else bias[ids]
        augmented = augmentation.augmented_loss(features, head["coef"][ids], label_bias, generated.mask)
        # One divisor, so that an epoch is the paper's sum, but for a last batch of fewer documents. Not divided by
        # labels: beside so small gradients Adam's epsilon would no longer be negligible.
        count = jnp.maximum(jnp.sum(documents.mask), 1)
        losses = {"bce": bce / count, "augmented": augmented / count}
        return losses["bce"] + settings.augmented_weight * losses["augmented"], losses

    grads, losses = jax.grad(loss, has_aux=True)(state.params)
    return after_step(state, grads, losses, optimizer)


class LinearHead(Stage[tuple[DocumentFeatures, Generated]]):
    """Trains a head on documents and on generated features of tail labels; each comes once an epoch."""

    name = "adjustment"

    def __init__(
        self,
        generator: Callable[[PyTree], augmentation.Sampler],
        settings: HeadSettings,
        features: np.ndarray,
        labels: Ragged,
        num_labels: int,
        tail: np.ndarray,
        frozen: FrozenInputs,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
    ) -> None:
        """Compiles nothing yet.

        Args:
            generator: returns the sampler of features, given what was learned.
            settings: of the training.
            features: float32[N, D], one for each document.
            labels: of the N documents.
            num_labels: L.
            tail: int[number of tail labels], the labels to augment.
            frozen: what generates features.
            optimizer: the head's optimiser.
            mesh: the devices.
        """
        self.settings, self.features, self.tail, self.frozen = settings, features, tail, frozen
        self.optimizer, self.mesh = optimizer, mesh
        # Batches order the documents and pad their labels as for texts; these documents have no words.
        no_words = Ragged.of_empty_rows(len(features))
        self._documents = Batches(Split(no_words, labels), num_labels, settings.batch_size, [1], mesh.shape["data"])
        self.epochs = settings.epochs
        self.steps_per_epoch, self.items_per_epoch = self._documents.steps_per_epoch, len(features)
        self._step = jax.jit(functools.partial(head_step, generator, settings, optimizer), donate_argnums=0)

    def init(self, key: Array, head: dict[str, np.ndarray]) -> TrainState:
        """Returns the state before the first step."""
        params = jax.tree.map(jnp.asarray, head)
        return init_state(key, params, self.optimizer, ("bce", "augmented"), keep_best=False)

    def batches(self, epoch: int, start: int) -> Iterator[tuple[DocumentFeatures, Generated]]:
        plan = self._documents.epoch(stream(Stream.ADJUSTMENT_ORDER, self.settings.seed, epoch))
        parts = distribute_generated(
            self.tail, self.settings.num_augmented, len(plan), self.settings.seed, epoch, self.mesh.shape["data"]
        )
        for batch, generated in zip(self._documents.load(plan, start), parts[start:], strict=True):
            documents = DocumentFeatures(
                self.features[batch.rows], batch.label_ids, batch.label_mask, batch.document_mask
            )
            yield sharding.shard_batch(self.mesh, (documents, generated))

    def step(self, state: TrainState, batch: tuple[DocumentFeatures, Generated], epoch: int, number: int) -> TrainState:
        return self._step(state, batch, self.frozen)
