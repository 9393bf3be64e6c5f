"""Stage 3: classifiers adjusted on L_BCE + L_Augmented, the encoder as it is (Eq. 18-19)."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lsfa_jax.config import Config
from lsfa_jax.data.batches import Array, Batch, Batches
from lsfa_jax.model import augmentation
from lsfa_jax.model.lsfa import CLASSIFIER, Lsfa, pair_weights
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.state import TrainState, after_step, averaged, weights_to_use
from lsfa_jax.util import sharding

NAME = "adjustment"


class Generated(NamedTuple):
    """Which features of the augmented sets D^l a step uses; they are made on the device, never stored."""

    label_ids: Array
    """int32[P], tail labels l."""
    indices: Array
    """int32[P], numbers j within D^l."""
    mask: Array
    """bool[P]."""


class Frozen(NamedTuple):
    """What this stage uses and does not train."""

    encoder: Any
    """Parameters of the encoder."""
    prototypes: jax.Array
    """float32[L, D]."""
    pvae: Any
    """Parameters of the PVAE."""
    pvae_statistics: Any
    """Its batch norm's statistics."""
    key: jax.Array
    """PRNG key of the augmented sets."""


Decode = Callable[[Any, Any], Callable[[jax.Array, jax.Array], jax.Array]]


def make_step(
    model: Lsfa, config: Config, optimizer: optax.GradientTransformation, decoder: Decode
) -> Callable[[TrainState, tuple[Batch, Generated], Frozen, bool, bool], TrainState]:
    """Compiles one step; its last two arguments say whether documents and generated features take part.

    Both losses are sums over one divisor, so an epoch, in which each document and each generated feature comes once, is
    the paper's L_BCE + gamma x the sum over all D^l.
    """

    def loss(
        own: Any, batch: Batch, generated: Generated, frozen: Frozen, key: jax.Array, real: bool, augment: bool
    ) -> tuple[jax.Array, jax.Array]:
        params = frozen.encoder | {CLASSIFIER: own}
        cells = jnp.maximum(jnp.sum(batch.document_mask), 1) * model.num_labels
        bce = augmented = jnp.zeros(())
        if real:
            dropout: dict[str, Any] = {"rngs": {"dropout": key}, "train": True} if config.adjust.encoder_dropout else {}
            variables = {"params": params}
            states: Any = model.apply(variables, batch.words, batch.lengths, **dropout, method=Lsfa.states)
            targets = batch.label_ids, batch.label_mask, batch.document_mask
            # Only the classifiers are trained: no other gradient is computed.
            total: Any = model.apply(variables, states, batch.lengths, *targets, method=Lsfa.loss)
            bce = total / cells
        if augment:
            features = augmentation.sample_features(
                decoder(frozen.pvae, frozen.pvae_statistics),
                frozen.key,
                generated.label_ids,
                generated.indices,
                frozen.prototypes[generated.label_ids],
                config.pvae.latent_size,
            )
            weights, bias = pair_weights(params, generated.label_ids)
            augmented = augmentation.augmented_loss(features, weights, bias, generated.mask) / cells
        return bce + config.adjust.augmented_weight * augmented, jnp.stack([bce, augmented])

    def step(
        state: TrainState, batch: tuple[Batch, Generated], frozen: Frozen, real: bool, augment: bool
    ) -> TrainState:
        key = jax.random.fold_in(state.key, state.step)
        grads, losses = jax.grad(loss, has_aux=True)(state.params, *batch, frozen, key, real, augment)
        return after_step(state, grads, losses, optimizer)

    return jax.jit(step, static_argnums=(3, 4), donate_argnums=0)


def deal_generated(
    tail: np.ndarray, num_augmented: int, steps: int, seed: int, epoch: int, multiple: int = 1
) -> list[Generated]:
    """Deals the N_a features of each tail label over the steps of an epoch, each once, in a shuffled order.

    Args:
        tail: int[number of tail labels], their ids.
        num_augmented: N_a.
        steps: of the epoch.
        seed: with `epoch`, decides the order.
        epoch: from 1.
        multiple: rows are padded to a multiple of this, the number of devices.
    """
    total = len(tail) * num_augmented
    share = -(-total // steps)
    rows = -(-max(share, 1) // multiple) * multiple
    order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(total)
    dealt = []
    for step in range(steps):
        pairs = np.zeros(rows, np.int64)
        here = order[step * share : (step + 1) * share]
        pairs[: len(here)] = here
        mask = np.arange(rows) < len(here)
        label, index = np.divmod(pairs, max(num_augmented, 1))
        label_ids = tail[label] if total else np.zeros(rows)
        dealt.append(Generated(np.where(mask, label_ids, 0).astype(np.int32), index.astype(np.int32), mask))
    return dealt


def takes_part(config: Config, epoch: int) -> tuple[bool, bool]:
    """Whether documents and generated features take part in an epoch (from 1)."""
    own = config.adjust
    if own.schedule == "joint":
        return True, True
    in_turn = epoch >= own.alternate_from and (epoch - own.alternate_from) % 2 == 1
    return not in_turn, in_turn


def make_stage(
    model: Lsfa,
    config: Config,
    train: Batches,
    tail: np.ndarray,
    frozen: Frozen,
    decoder: Decode,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    validate: Callable[[Any], dict[str, float]] | None,
) -> Stage:
    """Returns the stage for `loop.run`; `tail` lists the labels to augment, `validate` measures whole weights."""
    train_step = make_step(model, config, optimizer, decoder)
    own = config.adjust
    augments = len(tail) > 0 and own.num_augmented > 0 and own.augmented_weight > 0

    def batches(epoch: int, start: int) -> Iterator[tuple[Batch, Generated]]:
        plan = train.epoch(config.seed, epoch)
        dealt = deal_generated(tail, own.num_augmented, len(plan), config.seed, epoch, mesh.size)
        for batch, generated in zip(train.load(plan, start), dealt[start:], strict=True):
            yield sharding.shard_batch(mesh, (batch, generated))

    def step(state: TrainState, batch: tuple[Batch, Generated], epoch: int, number: int) -> TrainState:
        real, augment = takes_part(config, epoch) if augments else (True, False)
        state = train_step(state, batch, frozen, real, augment)
        # The classifiers start trained, so the average may begin at once.
        if own.average and number % config.optimizer.swa_every == 0:
            state = averaged(state)
        return state

    def validated(state: TrainState) -> tuple[Any, dict[str, float]]:
        weights = weights_to_use(state)
        return weights, validate(frozen.encoder | {CLASSIFIER: weights}) if validate else {}

    return Stage(
        name=NAME,
        epochs=own.epochs,
        steps_per_epoch=train.steps_per_epoch,
        items_per_epoch=len(train.split),
        unit="documents",
        batches=batches,
        step=step,
        loss_names=("bce", "augmented" if augments else ""),
        validate=validated if validate else None,
        select=own.select,
        patience=own.patience,
        first_stop=own.alternate_from + 1 if own.schedule == "alternate" and own.alternate_from < own.epochs else 1,
    )
