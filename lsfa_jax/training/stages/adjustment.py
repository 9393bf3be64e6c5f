"""Stage 3: classifiers adjusted on L_BCE + gamma L_Augmented, with a frozen encoder (Eq. 18-19).

Rivals to generated features (`adjust.method`) change other parts of the same step: class-balanced retraining which
documents it reads, logit adjustment the loss.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lsfa_jax.config import Config
from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.data.class_balance import balanced_documents
from lsfa_jax.evaluation.groups import Metrics
from lsfa_jax.model import augmentation
from lsfa_jax.model.generators import Generator
from lsfa_jax.model.label_loss import has_label_rows
from lsfa_jax.model.lsfa import Lsfa, classifier_rows
from lsfa_jax.training import candidates, shortlist
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.optimizer import constant_rates, for_adjustment
from lsfa_jax.training.placement import placed
from lsfa_jax.training.sparse_step import after_sparse_step, gather_rows, unique_rows
from lsfa_jax.training.state import TrainState, after_step, averaged, current_params, init_state, stepped
from lsfa_jax.training.storage import in_float32, with_tables_in
from lsfa_jax.types import AnyArray, Array, PyTree
from lsfa_jax.util import sharding
from lsfa_jax.util.random_streams import Stream, stream


class Generated(NamedTuple):
    """Which features of the augmented sets D^l a step uses; they are generated on the device and never stored."""

    label_ids: AnyArray
    """int32[P], tail labels l."""
    indices: AnyArray
    """int32[P], numbers j within D^l."""
    mask: AnyArray
    """bool[P], false at padding."""


class FrozenParams(NamedTuple):
    """Inputs of the step that are not trained."""

    params: dict[str, PyTree]
    """Parameters of encoder and label attention."""
    prototypes: Array
    """float32[L, D]."""
    learned: PyTree
    """What stage 2 has learned, with which the generator draws features."""
    key: Array
    """PRNG key of the augmented sets."""
    offsets: Array | None = None
    """float32[L], what logit adjustment adds to the logits in the loss."""


def adjustment_step(
    model: Lsfa,
    config: Config,
    optimizer: optax.GradientTransformation,
    generator: Generator,
    state: TrainState,
    batch: tuple[Batch, Generated],
    frozen: FrozenParams,
    real: bool,
    augment: bool,
) -> TrainState:
    """Trains the classifiers on a batch of documents, if `real`, and of generated features, if `augment`.

    Both losses are sums with the same divisor, the number of documents x labels. Over an epoch, which uses each
    document and each generated feature once, they add up to the paper's L_BCE + gamma x the sum over all D^l, except
    that the last batch of a length bucket, which may have fewer documents, weighs as much as any other.
    """
    documents, generated = batch
    cells = jnp.maximum(jnp.sum(documents.document_mask), 1) * model.num_labels
    states = _states(model, config, frozen, state, documents) if real else None  # Eq. 1

    def loss(classifier: PyTree) -> tuple[Array, dict[str, Array]]:
        bce = augmented = jnp.zeros(())
        if states is not None:
            lsfa = _bound(model, frozen.params, classifier, frozen.offsets)
            bce = _cross_entropy(lsfa, states, documents) / cells  # Eq. 6
        if augment:
            rows = model.num_rows, generated.label_ids
            augmented = _augmented(config, generator, frozen, generated, classifier, *rows) / cells  # Eq. 18-19
        return bce + config.adjust.augmented_weight * augmented, {"bce": bce, "augmented": augmented}

    grads, losses = jax.grad(loss, has_aux=True)(in_float32(state.params))
    return after_step(state, grads, losses, optimizer)


def shortlist_step(
    model: Lsfa,
    config: Config,
    optimizer: optax.GradientTransformation,
    generator: Generator,
    state: TrainState,
    batch: tuple[Batch, Generated],
    frozen: FrozenParams,
    real: bool,
    augment: bool,
) -> TrainState:
    """Trains as `adjustment_step`, with a shortlist of labels in place of all; its rows alone are read and written.

    The loss on documents is an unbiased estimate of that over all labels. The rows are those of the shortlist and of
    the labels of the generated features.
    """
    documents, generated = batch
    cells = jnp.maximum(jnp.sum(documents.document_mask), 1) * model.num_labels
    states = _states(model, config, frozen, state, documents)  # Eq. 1
    params = frozen.params | {"classifier": state.params}
    (label_ids, weights), listed = shortlist.choose(model, params, states, documents)
    # A row without a part in the losses is not read: the optimiser would move it by its momentum.
    takes_part = jnp.concatenate([jnp.full(len(label_ids), real), generated.mask & augment])
    row_ids = jnp.where(takes_part, jnp.concatenate([label_ids, generated.label_ids]), model.num_rows)
    row_ids, places = unique_rows(row_ids, model.num_rows)
    of_shortlist, of_generated = jnp.split(places, [len(label_ids)])
    rows = jax.tree.map(lambda table: row_ids if has_label_rows(table, model.num_rows) else None, state.params)
    queries = frozen.params["labels"]["queries"].at[label_ids].get(mode="fill", fill_value=0)
    labels = frozen.params["labels"] | {"queries": queries}
    offsets = None if frozen.offsets is None else frozen.offsets.at[label_ids].get(mode="fill", fill_value=0)

    def loss(classifier: PyTree) -> tuple[Array, dict[str, Array]]:
        bce = augmented = jnp.zeros(())
        if real:
            listed_rows = jax.tree.map(
                lambda table, ids: table if ids is None else table[of_shortlist], classifier, rows
            )
            lsfa = model.clone(num_labels=len(label_ids), label_shards=1)
            lsfa = _bound(lsfa, frozen.params | {"labels": labels}, listed_rows, offsets)
            targets = listed.label_ids, listed.label_mask, listed.document_mask
            bce = lsfa.loss(states, listed.lengths, *targets, weights) / cells  # Eq. 6
        if augment:
            augmented = _augmented(config, generator, frozen, generated, classifier, len(row_ids), of_generated) / cells
        return bce + config.adjust.augmented_weight * augmented, {"bce": bce, "augmented": augmented}

    grads, losses = jax.grad(loss, has_aux=True)(in_float32(gather_rows(state.params, rows)))
    return after_sparse_step(state, grads, losses, optimizer, rows)


def _states(model: Lsfa, config: Config, frozen: FrozenParams, state: TrainState, documents: Batch) -> Array:
    """Eq. 1 by the frozen encoder, or as they are stored: token states float32[B, T, 2H]."""
    dropout = {"dropout": jax.random.fold_in(state.key, state.step)}
    lsfa = model.bind({"params": frozen.params | {"classifier": state.params}}, rngs=dropout)
    train = config.adjust.encoder_dropout
    return lsfa.states(documents.words, documents.lengths, train, documents.states, documents.hidden)


def _augmented(
    config: Config,
    generator: Generator,
    frozen: FrozenParams,
    generated: Generated,
    classifier: PyTree,
    num_rows: int,
    row_ids: Array,
) -> Array:
    """Eq. 18-19: the loss of generated features, a sum; `row_ids` are the rows of their labels in the classifiers."""
    label_ids, mask = generated.label_ids, generated.mask
    features = augmentation.draw_features(
        generator(frozen.learned), frozen.key, label_ids, generated.indices, frozen.prototypes[label_ids]
    )
    weights, bias = classifier_rows(classifier, num_rows, row_ids)
    loss = augmentation.augmented_loss(features, weights, bias, mask)
    if not config.adjust.negative_weight:
        return loss
    negatives = augmentation.negative_loss(features, weights, bias, label_ids, mask)
    return loss + config.adjust.negative_weight * negatives


def _bound(model: Lsfa, params: dict[str, PyTree], classifier: dict[str, Array], offsets: Array | None) -> Lsfa:
    """Binds the parameters, and the offsets of logit adjustment as a part of the classifiers' bias."""
    if offsets is not None:
        model = model.clone(classifier_bias=True)
        classifier = classifier | {"bias": classifier.get("bias", 0.0) + offsets}
    return model.bind({"params": params | {"classifier": classifier}})


def _cross_entropy(lsfa: Lsfa, states: Array, batch: Batch) -> Array:
    """Eq. 6, a sum over documents and all labels, or its estimate from candidates where the batch has a sample."""
    if batch.sample is None:
        return lsfa.loss(states, batch.lengths, batch.label_ids, batch.label_mask, batch.document_mask)
    assert batch.candidates is not None
    labels, num_positive = (batch.candidates, batch.sample), jnp.sum(batch.label_mask, axis=1)
    return lsfa.candidate_loss(states, batch.lengths, *labels, num_positive, batch.document_mask)[0]


def distribute_generated(
    tail: np.ndarray, num_augmented: int, steps: int, seed: int, epoch: int, multiple: int = 1
) -> list[Generated]:
    """Distributes the N_a features of each tail label over the steps of an epoch, in random order, each once.

    Args:
        tail: int[number of tail labels], their ids.
        num_augmented: N_a.
        steps: of the epoch.
        seed: with `epoch`, determines the order.
        epoch: from 1.
        multiple: rows are padded to a multiple of this, the shards of the axis `data`.
    """
    total = len(tail) * num_augmented
    most = -(-total // steps)
    rows = -(-max(most, 1) // multiple) * multiple
    order = stream(Stream.GENERATED_FEATURES, seed, epoch).permutation(total)
    ends = np.arange(steps + 1) * total // steps  # also where there are fewer features than steps
    parts = []
    for step in range(steps):
        chosen = order[ends[step] : ends[step + 1]]
        pairs = np.zeros(rows, np.int64)
        pairs[: len(chosen)] = chosen
        mask = np.arange(rows) < len(chosen)
        label, index = np.divmod(pairs, max(num_augmented, 1))
        label_ids = tail[label] if total else np.zeros(rows)
        parts.append(Generated(np.where(mask, label_ids, 0).astype(np.int32), index.astype(np.int32), mask))
    return parts


def takes_part(config: Config, epoch: int) -> tuple[bool, bool]:
    """Returns whether an epoch (from 1) uses the documents, and whether it uses the generated features."""
    settings = config.adjust
    if settings.schedule == "joint":
        return True, True
    generated_only = epoch >= settings.alternate_from and (epoch - settings.alternate_from) % 2 == 1
    return not generated_only, generated_only


class Adjustment(Stage[tuple[Batch, Generated]]):
    """Trains the classifiers on documents and on generated features of tail labels."""

    name = "adjustment"

    def __init__(
        self,
        model: Lsfa,
        config: Config,
        train: Batches,
        tail: np.ndarray,
        frozen: FrozenParams,
        generator: Generator,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
        validate: Callable[[PyTree], Metrics] | None = None,
    ) -> None:
        """Compiles nothing yet.

        Args:
            model: the classifier.
            config: all settings.
            train: the training documents, as token ids or as token states.
            tail: int[number of tail labels], the labels to augment.
            frozen: what is not trained.
            generator: what generates features.
            optimizer: the stage's optimiser.
            mesh: the devices.
            validate: measures all parameters on validation documents; None without any.
        """
        self.config, self.train, self.frozen = config, train, frozen
        self.optimizer, self.mesh, self._validate = optimizer, mesh, validate
        settings = config.adjust
        self.epochs, self.patience, self.select = settings.epochs, settings.patience, settings.select
        alternates = settings.schedule == "alternate" and settings.alternate_from < settings.epochs
        self.first_stop = settings.alternate_from + 1 if alternates else 1
        self.steps_per_epoch, self.items_per_epoch = train.steps_per_epoch, len(train.split)
        if settings.method == "crt":
            self.steps_per_epoch = -(-len(train.split) // train.batch_size)
        self.augments = (
            settings.method == "augment"
            and config.transfer.method != "none"
            and len(tail) > 0
            and settings.num_augmented > 0
            and settings.augmented_weight > 0
        )
        self.tail = tail if self.augments else tail[:0]
        is_shortlisted = not candidates.in_use(config, train) and shortlist.size(config, model.num_labels) > 0
        step = shortlist_step if is_shortlisted else adjustment_step
        partial = functools.partial(step, model, config, optimizer, generator)
        self._step = jax.jit(partial, static_argnums=(3, 4), donate_argnums=0)

    def init(self, key: Array, classifier: PyTree) -> TrainState:
        """Returns the state before the first step, with a copy of the classifiers: the state's memory is donated."""
        losses = ("bce", "augmented") if self.augments else ("bce",)
        params = with_tables_in(self.config.optimizer.label_precision, jax.tree.map(jnp.array, classifier))
        return init_state(key, params, self.optimizer, losses, average=self.config.adjust.average)

    def batches(self, epoch: int, start: int) -> Iterator[tuple[Batch, Generated]]:
        seed, num_augmented = self.config.seed, self.config.adjust.num_augmented
        random = stream(Stream.ADJUSTMENT_ORDER, seed, epoch)
        if self.config.adjust.method == "crt":
            labels = self.train.split.labels
            plan = self.train.drawn(balanced_documents(labels, len(self.train.split), random), random)
        else:
            plan = self.train.epoch(random)
        parts = distribute_generated(self.tail, num_augmented, len(plan), seed, epoch, self.mesh.shape["data"])
        streams = Stream.ADJUSTMENT_SAMPLE, Stream.ADJUSTMENT_NEGATIVES
        for number, batch in enumerate(self.train.load(plan, start), start):
            real = placed(self.mesh, batch, self.config, self.train, *streams, epoch, number)
            yield real, sharding.shard_batch(self.mesh, parts[number])

    def step(self, state: TrainState, batch: tuple[Batch, Generated], epoch: int, number: int) -> TrainState:
        real, augment = takes_part(self.config, epoch) if self.augments else (True, False)
        state = stepped(self._step, state, batch, self.frozen, real, augment)
        # The classifiers are already trained, so averaging starts at once.
        average_now = self.config.adjust.average and number % self.config.optimizer.swa_every == 0
        return averaged(state) if average_now else state

    def learning_rates(self, step: int) -> dict[str, float]:
        return constant_rates(for_adjustment(self.config.optimizer), self.config.adjust.learning_rate)

    def validate(self, state: TrainState) -> tuple[PyTree, Metrics] | None:
        params = current_params(state)
        return (params, self._validate(self.frozen.params | {"classifier": params})) if self._validate else None
