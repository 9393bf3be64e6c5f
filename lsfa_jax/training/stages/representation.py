"""Stage 1: representation learning on L_BCE + alpha L_PSC (Eq. 6 and 9)."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lsfa_jax.config import Config, Psc
from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.evaluation.groups import Metrics
from lsfa_jax.model import prototypes
from lsfa_jax.model.candidate_loss import sample_weights
from lsfa_jax.model.contrastive import candidate_contrastive, prototypical_contrastive, sum_over_pairs
from lsfa_jax.model.lsfa import Lsfa, label_rows
from lsfa_jax.training import candidates, collection, shortlist
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.optimizer import learning_rates
from lsfa_jax.training.partition import join
from lsfa_jax.training.placement import placed
from lsfa_jax.training.sparse_step import after_sparse_step, gather_rows
from lsfa_jax.training.state import TrainState, after_step, averaged, current_params, init_state, stepped
from lsfa_jax.training.storage import in_float32, with_tables_in
from lsfa_jax.types import Array, PyTree
from lsfa_jax.util import sharding
from lsfa_jax.util.random_streams import Stream, stream

Validate = Callable[[PyTree], Metrics]
"""Computes the metrics of parameters on the validation documents."""


class Sums(NamedTuple):
    """Both losses of a batch."""

    bce: Array
    """float32 scalar, a sum over documents and all labels."""
    psc: Array
    """float32 scalar, a sum over positive pairs; 0 where the contrastive loss takes no part."""


def objective(sums: Sums, batch: Batch, psc: Psc, num_labels: int) -> tuple[Array, dict[str, Array]]:
    """Computes L_BCE + alpha L_PSC of a batch.

    Both losses are sums divided by documents x labels, so that alpha weighs them as in the paper. With `psc.reduction`
    = released, L_PSC is the mean over pairs divided by the number of documents, as in the released code.

    Args:
        sums: both losses.
        batch: documents and their labels.
        psc: settings of the contrastive loss.
        num_labels: L.

    Returns:
        The objective, and the losses to report: `bce` per document and label, `psc` per positive pair.
    """
    documents = jnp.maximum(jnp.sum(batch.document_mask), 1)
    cells, pairs = documents * num_labels, jnp.maximum(jnp.sum(batch.label_mask), 1)
    divisor = cells if psc.reduction == "sum" else pairs * documents
    bce = sums.bce / cells
    return bce + psc.weight * sums.psc / divisor, {"bce": bce, "psc": sums.psc / pairs}


def sums_over_labels(
    lsfa: Lsfa,
    states: Array,
    batch: Batch,
    extra: dict[str, Array],
    psc: Psc,
    contrast: bool,
    label_weights: Array | None = None,
) -> Sums:
    """Computes both losses over all labels of the tables.

    Args:
        lsfa: the classifier, bound to its parameters.
        states: float32[B, T, 2H], token states of Eq. 1.
        batch: documents and their labels.
        extra: the prototypes float32[L, D] and which of them are `present`, bool[L].
        psc: settings of the contrastive loss.
        contrast: whether the contrastive loss takes part.
        label_weights: float32[L], the weight of each label in the sums; None: 1.
    """
    targets = batch.label_ids, batch.label_mask, batch.document_mask
    bce = lsfa.loss(states, batch.lengths, *targets, label_weights)  # Eq. 2-6
    if not contrast:
        return Sums(bce, jnp.zeros(()))
    features = lsfa.positive_features(states, batch.lengths, batch.label_ids)  # Eq. 2-4
    total = sum_over_pairs(  # Eq. 9
        lambda features, label_ids, mask: prototypical_contrastive(
            features,
            label_ids,
            mask,
            extra["prototypes"],
            extra["present"],
            psc.temperature,
            psc.normalize,
            psc.denominator,
            label_weights,
        ),
        features.reshape(-1, features.shape[-1]),
        batch.label_ids.reshape(-1),
        batch.label_mask.reshape(-1),
    )
    return Sums(bce, total)


def sums_over_candidates(
    lsfa: Lsfa, states: Array, batch: Batch, extra: dict[str, Array], psc: Psc, contrast: bool
) -> Sums:
    """Estimates `sums_over_labels` from the candidates of each document, its labels first, and the batch's sample."""
    assert batch.candidates is not None
    assert batch.sample is not None
    labels, num_positive = (batch.candidates, batch.sample), jnp.sum(batch.label_mask, axis=1)
    rows = batch.lengths, *labels, num_positive, batch.document_mask
    bce, features = lsfa.candidate_loss(states, *rows)  # Eq. 2-6
    if not contrast:
        return Sums(bce, jnp.zeros(()))
    slots = batch.label_ids.shape[1]
    total = candidate_contrastive(  # Eq. 9
        features[:, :slots],
        jnp.arange(slots) < num_positive[:, None],
        extra["prototypes"],
        extra["present"],
        *labels,
        sample_weights(*labels, lsfa.num_labels),
        psc.temperature,
        psc.normalize,
        psc.denominator,
    )
    return Sums(bce, total)


def dense_step(
    sums_of: Callable[..., Sums],
    model: Lsfa,
    config: Config,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    contrast: bool,
    frozen: PyTree = None,
) -> TrainState:
    """Trains on one batch with the losses that `sums_of` computes; `frozen` are the parameters that are not trained."""

    def loss(params: PyTree) -> tuple[Array, dict[str, Array]]:
        dropout = {"dropout": jax.random.fold_in(state.key, state.step)}
        lsfa = model.bind({"params": join(frozen, params)}, rngs=dropout)
        states = lsfa.states(batch.words, batch.lengths, _drops(config), batch.states, batch.hidden)  # Eq. 1
        sums = sums_of(lsfa, states, batch, state.extra, config.psc, contrast)
        return objective(sums, batch, config.psc, model.num_labels)

    grads, losses = jax.grad(loss, has_aux=True)(in_float32(state.params))
    return after_step(state, _freeze_embedding(config, state, grads), losses, optimizer)


full_step = functools.partial(dense_step, sums_over_labels)
"""Trains on one batch, with the loss over all labels."""

# Adam on all rows: with 100 candidates, 20 documents and 4,108 labels, `after_sparse_step` takes as long; with 30,000
# labels and D = 256 it would save about a fifth of a step, and leave the moments of other rows stale.
candidate_step = functools.partial(dense_step, sums_over_candidates)
"""Trains on one batch, with an unbiased estimate of the loss from the candidates of each document."""


def shortlist_step(
    model: Lsfa,
    config: Config,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    contrast: bool,
    frozen: PyTree = None,
) -> TrainState:
    """Trains on one batch with a shortlist of labels; only its rows are read and written.

    The losses are unbiased estimates of those over all labels. In two parts, because the token states choose the
    labels: first the states, then the loss on the chosen rows.
    """
    dropout = {"dropout": jax.random.fold_in(state.key, state.step)}

    def encode(encoder: PyTree) -> Array:
        lsfa = model.bind({"params": join(frozen, state.params | {"encoder": encoder})}, rngs=dropout)
        return lsfa.states(batch.words, batch.lengths, _drops(config), batch.states, batch.hidden)

    states, encoder_vjp = jax.vjp(encode, state.params["encoder"])
    (label_ids, weights), listed = shortlist.choose(model, state.params, states, batch)
    rows = label_rows(state.params, model.num_rows, label_ids)
    extra = gather_rows(state.extra, dict.fromkeys(state.extra, label_ids))

    def loss(params: PyTree, states: Array) -> tuple[Array, dict[str, Array]]:
        lsfa = model.clone(num_labels=len(label_ids), label_shards=1).bind({"params": params})
        sums = sums_over_labels(lsfa, states, listed, extra, config.psc, contrast, weights)
        return objective(sums, batch, config.psc, model.num_labels)

    gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (grads, d_states), losses = gradient(in_float32(gather_rows(state.params, rows)), states)
    grads = _freeze_embedding(config, state, grads | {"encoder": encoder_vjp(d_states)[0]})
    return after_sparse_step(state, grads, losses, optimizer, rows)


def _drops(config: Config) -> bool:
    """Whether the encoder has dropout: not if frozen, when its stored states may stand in for it."""
    return config.encoder.train != "frozen"


def _freeze_embedding(config: Config, state: TrainState, grads: dict[str, Any]) -> dict[str, Any]:
    """Zeroes the word vectors' gradient until prototypes exist, if the settings say so."""
    if config.encoder.embedding_trainable != "after_collection" or "embedding" not in grads["encoder"]:
        return grads
    encoder, used = grads["encoder"], jnp.any(state.extra["present"])
    return grads | {"encoder": encoder | {"embedding": jax.tree.map(lambda grad: grad * used, encoder["embedding"])}}


def uses_contrast(config: Config, epoch: int) -> bool:
    """Whether the contrastive loss takes part in an epoch (from 1)."""
    psc = config.psc
    return psc.weight > 0 and epoch >= psc.start_epoch and (epoch - psc.start_epoch) % psc.every == 0


def computes_contrast(config: Config, epoch: int) -> bool:
    """Whether the program of an epoch's steps computes the contrastive loss.

    Before its first epoch no label has a prototype and it is zero. Where every later epoch uses it, the epochs before
    run the same program: a second one for each length takes longer to compile than the loss to compute.
    """
    psc = config.psc
    starts_later = psc.weight > 0 and psc.every == 1 and epoch < psc.start_epoch <= config.representation.epochs
    return uses_contrast(config, epoch) or starts_later


def first_stop(config: Config) -> int:
    """Returns the first epoch after which training may stop early: SWA and the contrastive loss have begun by then."""
    if not config.representation.wait_for_stages:
        return 1
    begun = [config.optimizer.swa_start_epoch, config.psc.start_epoch if config.psc.weight > 0 else 1]
    return max([1, *(epoch for epoch in begun if epoch <= config.representation.epochs)])


class Representation(Stage[Batch]):
    """Trains encoder, label attention and classifiers. Epochs with the contrastive loss begin with new prototypes."""

    name = "representation"

    def __init__(
        self,
        model: Lsfa,
        config: Config,
        train: Batches,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
        validate: Validate | None = None,
        frozen: PyTree = None,
    ) -> None:
        """Compiles nothing yet.

        Args:
            model: the classifier.
            config: all settings.
            train: the training documents, as token ids or, with a frozen encoder, as token states.
            optimizer: the stage's optimiser.
            mesh: the devices.
            validate: measures all parameters on validation documents; None without any.
            frozen: the parameters that are not trained, as `partition.split` returns them; None: all are trained.
        """
        self.model, self.config, self.train, self.optimizer, self.mesh = model, config, train, optimizer, mesh
        self._validate, self._frozen = validate, frozen
        settings = config.representation
        self.epochs, self.patience, self.select = settings.epochs, settings.patience, settings.select
        self.validate_every = settings.validate_every
        self.first_stop = first_stop(config)
        self.steps_per_epoch, self.items_per_epoch = train.steps_per_epoch, len(train.split)
        step: Callable[..., TrainState] = full_step
        if candidates.in_use(config, train):
            step = candidate_step
        elif shortlist.size(config, model.num_labels):
            step = shortlist_step
        self._step = jax.jit(functools.partial(step, model, config, optimizer), static_argnums=2, donate_argnums=0)

    def init(self, key: Array, params: PyTree) -> TrainState:
        """Returns the state before the first step; no label has a prototype yet."""
        shape = self.model.num_rows, self.model.feature_size
        extra = {"prototypes": jnp.zeros(shape), "present": jnp.zeros(shape[0], bool)}
        losses = ("bce", "psc") if self.config.psc.weight > 0 else ("bce",)
        params = with_tables_in(self.config.optimizer.label_precision, params)
        return init_state(key, params, self.optimizer, losses, extra, average=True)

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        plan = self.train.epoch(stream(Stream.REPRESENTATION_ORDER, self.config.seed, epoch))
        streams = Stream.CANDIDATE_SAMPLE, Stream.NEGATIVE_SAMPLING
        for number, batch in enumerate(self.train.load(plan, start), start):
            yield placed(self.mesh, batch, self.config, self.train, *streams, epoch, number)

    def before_epoch(self, state: TrainState, epoch: int) -> TrainState:
        if not uses_contrast(self.config, epoch):
            return state
        sums = collection.collect_features(self.model, join(self._frozen, state.params), self.train, self.mesh)
        extra = {"prototypes": prototypes.prototypes(sums), "present": sums.counts > 0}
        return replace(state, extra=sharding.place(self.mesh, extra, self.model.num_rows))

    def step(self, state: TrainState, batch: Batch, epoch: int, number: int) -> TrainState:
        state = stepped(self._step, state, batch, computes_contrast(self.config, epoch), self._frozen)
        swa = self.config.optimizer
        average_now = epoch >= swa.swa_start_epoch and number % swa.swa_every == 0
        return averaged(state, swa.swa_recency) if average_now else state

    def learning_rates(self, step: int) -> dict[str, float]:
        return learning_rates(self.config.optimizer, step, self.epochs * self.steps_per_epoch)

    def validate(self, state: TrainState) -> tuple[PyTree, Metrics] | None:
        params = current_params(state)
        return (params, self._validate(join(self._frozen, params))) if self._validate else None
