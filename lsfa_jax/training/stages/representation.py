"""Stage 1: representation learning on L_BCE + L_PSC (Eq. 6 and 9)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lsfa_jax.config import Config
from lsfa_jax.data import negative_sampling
from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.data.negative_sampling import Candidates
from lsfa_jax.model import prototypes, shortlist
from lsfa_jax.model.contrastive import prototypical_contrastive, sum_over_pairs
from lsfa_jax.model.lsfa import Lsfa, label_rows, word_side
from lsfa_jax.training import sparse_step
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.stages import transfer
from lsfa_jax.training.state import TrainState, averaged, weights_to_use
from lsfa_jax.util import sharding

NAME = "representation"

# Up to so many labels the loss is over all of them, beyond it over a shortlist of so many.
_MOST_LABELS, _SHORTLIST = 30_000, 4096


def make_step(
    model: Lsfa, config: Config, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Batch, bool], TrainState]:
    """Compiles one training step; its last argument says whether the contrastive loss takes part.

    Losses are sums divided by documents x labels, so that alpha weighs them as in the paper. Where the batch has
    candidates, a shortlist of labels stands for all of them, and only its rows are read and written.
    """
    psc = config.psc

    def apply(params: Any, *arguments: Any, **options: Any) -> Any:
        # Some rows of the label tables make a model of so many labels.
        own = model.clone(num_labels=len(params["label_queries"]))
        return own.apply({"params": params}, *arguments, **options)

    def loss(
        params: Any, states: jax.Array, batch: Batch, extra: Any, weights: jax.Array | None, contrast: bool
    ) -> tuple[jax.Array, jax.Array]:
        documents = jnp.maximum(jnp.sum(batch.document_mask), 1)
        cells = documents * model.num_labels
        targets = batch.label_ids, batch.label_mask, batch.document_mask
        total = apply(params, states, batch.lengths, *targets, weights, method=Lsfa.loss)
        bce = total / cells
        if not contrast:
            return bce, jnp.stack([bce, 0.0])
        features = apply(params, states, batch.lengths, batch.label_ids, method=Lsfa.positive_features)
        mask = batch.label_mask.reshape(-1)
        total = sum_over_pairs(
            lambda features, label_ids, mask: prototypical_contrastive(
                features,
                label_ids,
                mask,
                extra["prototypes"],
                extra["present"],
                psc.temperature,
                psc.normalize,
                psc.denominator,
                weights,
            ),
            features.reshape(-1, model.feature_size),
            batch.label_ids.reshape(-1),
            mask,
        )
        per = cells if psc.reduction == "sum" else jnp.maximum(jnp.sum(mask), 1) * documents
        return bce + psc.weight * total / per, jnp.stack([bce, total / jnp.maximum(jnp.sum(mask), 1)])

    def chosen(params: Any, states: jax.Array, batch: Batch, candidates: Candidates) -> shortlist.Shortlist:
        logits = apply(params, states, batch.lengths, candidates.pool, method=Lsfa.estimates)
        hardness = shortlist.hardness(logits, batch.document_mask)
        return shortlist.choose(*candidates, hardness, model.num_labels)

    def step(state: TrainState, batch: Batch, contrast: bool) -> TrainState:
        params, extra = state.params, state.extra
        dropout = {"dropout": jax.random.fold_in(state.key, state.step)}

        def encode(own: Any) -> Any:
            words = batch.words, batch.lengths
            return apply(params | own, *words, train=True, rngs=dropout, method=Lsfa.states)

        # Two parts: the token states choose the labels, in whose rows the loss is then differentiated.
        states, pull_back = jax.vjp(encode, word_side(params))
        label_ids = weights = None
        if batch.candidates is not None:
            label_ids, weights = chosen(params, states, batch, batch.candidates)
            extra = sparse_step.taken(extra, dict.fromkeys(extra, label_ids))
            batch = batch._replace(label_ids=shortlist.positions(batch.candidates.positives, batch.label_ids))
        own_rows = label_rows(model, params, label_ids)
        gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
        (grads, d_states), losses = gradient(
            sparse_step.taken(params, own_rows), states, batch, extra, weights, contrast
        )
        grads |= pull_back(d_states)[0]
        if config.encoder.embedding_trainable == "after_collection":
            grads["embedding"] *= jnp.any(state.extra["present"])
        return sparse_step.after_sparse_step(state, grads, losses, optimizer, own_rows)

    return jax.jit(step, static_argnums=2, donate_argnums=0)


def shortlist_size(config: Config, num_labels: int) -> int:
    """Returns S, the labels that a step looks at; 0 where it is all of them."""
    size = config.representation.shortlist
    if size == "auto":
        size = _SHORTLIST if num_labels > _MOST_LABELS else 0
    return size if size < num_labels else 0


def uses_contrast(config: Config, epoch: int) -> bool:
    """Whether the contrastive loss takes part in an epoch (from 1)."""
    psc = config.psc
    return psc.weight > 0 and epoch >= psc.start_epoch and (epoch - psc.start_epoch) % psc.every == 0


def first_stop(config: Config) -> int:
    """Returns the first epoch after which training may stop early: SWA and the contrastive loss have begun by then."""
    if not config.representation.wait_for_stages:
        return 1
    begun = [config.optimizer.swa_start_epoch, config.psc.start_epoch if config.psc.weight > 0 else 1]
    return max([1, *(epoch for epoch in begun if epoch <= config.representation.epochs)])


def make_stage(
    model: Lsfa,
    config: Config,
    train: Batches,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    validate: Callable[[Any], dict[str, float]] | None,
) -> Stage:
    """Returns the stage for `loop.run`; `validate` gives the metrics of weights on the validation documents."""
    train_step = make_step(model, config, optimizer)
    collect = transfer.make_collector(model)
    swa = config.optimizer
    size = shortlist_size(config, model.num_labels)

    def batches(epoch: int, start: int) -> Iterator[Batch]:
        for number, batch in enumerate(train.load(train.epoch(config.seed, epoch), start), start):
            placed = sharding.shard_batch(mesh, batch)
            if size:
                label_ids = batch.label_ids[batch.label_mask]
                drawn = negative_sampling.sample_candidates(
                    label_ids, model.num_labels, size, config.seed, epoch, number
                )
                placed = placed._replace(candidates=sharding.replicate(mesh, drawn))
            yield placed

    def step(state: TrainState, batch: Batch, epoch: int, number: int) -> TrainState:
        state = train_step(state, batch, uses_contrast(config, epoch))
        if epoch >= swa.swa_start_epoch and number % swa.swa_every == 0:
            state = averaged(state)
        return state

    def before_epoch(state: TrainState, epoch: int) -> TrainState:
        if not uses_contrast(config, epoch):
            return state
        sums = transfer.collect_features(collect, state.params, train, model.feature_size, mesh)
        extra = {"prototypes": prototypes.prototypes(sums), "present": sums.counts > 0}
        return replace(state, extra=sharding.replicate(mesh, extra))

    def validated(state: TrainState) -> tuple[Any, dict[str, float]]:
        weights = weights_to_use(state)
        return weights, validate(weights) if validate else {}

    own = config.representation
    return Stage(
        name=NAME,
        epochs=own.epochs,
        steps_per_epoch=train.steps_per_epoch,
        items_per_epoch=len(train.split),
        unit="documents",
        batches=batches,
        step=step,
        loss_names=("bce", "psc" if config.psc.weight > 0 else ""),
        before_epoch=before_epoch,
        validate=validated if validate else None,
        select=own.select,
        validate_every=own.validate_every,
        patience=own.patience,
        first_stop=first_stop(config),
    )


def no_prototypes(model: Lsfa) -> dict[str, jax.Array]:
    """Returns what the state carries before prototypes are first collected."""
    return {
        "prototypes": jnp.zeros((model.num_labels, model.feature_size)),
        "present": jnp.zeros(model.num_labels, bool),
    }
