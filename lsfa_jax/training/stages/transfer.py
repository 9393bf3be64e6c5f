"""Stage 2: features and prototypes of the training documents, and the PVAE on head labels (Eq. 10-17)."""

import functools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lsfa_jax.config import Config
from lsfa_jax.data.batches import Array, Batch, Batches
from lsfa_jax.data.prefetch import prefetch
from lsfa_jax.model import augmentation, prototypes, pvae
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.sparse_step import distinct
from lsfa_jax.training.state import TrainState, after_step
from lsfa_jax.util import interrupts, sharding
from lsfa_jax.util.array_file import ArrayFile
from lsfa_jax.util.console import progress

NAME = "transfer"

# Features generated of each label for the two diagnostics.
_DIAGNOSTIC_SAMPLES = 128

Collector = Callable[[Any, Batch, prototypes.FeatureSums], tuple[prototypes.FeatureSums, jax.Array, jax.Array]]

Keep = Callable[[Batch, jax.Array, jax.Array], None]
"""Takes a batch, its features float32[B, K, D] and its token states float16[B, T, 2H]."""


@functools.cache
def make_collector(model: Lsfa) -> Collector:
    """Compiles the collection of one batch: label attention for its positive pairs only, added to the sums so far.

    The first stage and this one ask for the same: it is made once for a model, and compiled once for a length.

    Returns:
        A function of params, batch and sums, whose memory it takes over, that gives the new sums, the batch's features
        float32[B, K, D] and its token states float16[B, T, 2H].
    """

    @functools.partial(jax.jit, donate_argnums=2)
    def collect(
        params: Any, batch: Batch, sums: prototypes.FeatureSums
    ) -> tuple[prototypes.FeatureSums, jax.Array, jax.Array]:
        variables = {"params": params}
        states: Any = model.apply(variables, batch.words, batch.lengths, method=Lsfa.states)
        features: Any = model.apply(variables, states, batch.lengths, batch.label_ids, method=Lsfa.positive_features)
        # Of few labels beside L: their rows alone are read and written.
        label_ids, places = distinct(batch.label_ids.reshape(-1), model.num_labels)
        new = prototypes.feature_sums(
            features.reshape(-1, model.feature_size), places, batch.label_mask.reshape(-1), len(label_ids)
        )
        total = jax.tree.map(
            lambda all_labels, own: all_labels.at[label_ids].add(own, mode="drop", unique_indices=True), sums, new
        )
        return total, features, states.astype(jnp.float16)

    return collect


def collect_features(
    collect: Collector,
    params: Any,
    batches: Batches,
    feature_size: int,
    mesh: Mesh,
    *keeps: Keep,
) -> prototypes.FeatureSums:
    """Adds up the features of every positive pair in one pass over a split; `keeps` are shown each batch's outcome."""
    sums = sharding.on_every_device(mesh, prototypes.no_features(batches.num_labels, feature_size))
    with (
        closing(
            prefetch((batch, sharding.split_rows(mesh, batch)) for batch in batches.load(batches.in_order()))
        ) as made,
        progress("collecting features", len(batches.split), "documents") as advance,
    ):
        for batch, placed in made:
            interrupts.check()
            # One batch runs while the next is made; without the wait the host would queue up the whole corpus.
            jax.block_until_ready(sums)
            sums, features, states = collect(params, placed, sums)
            for keep in keeps:
                keep(batch, features, states)
            advance(int(batch.document_mask.sum()))
    return sums


class HeadFeatures:
    """Features of the head labels' positive pairs in a file, float32[pairs, D], so that memory does not bound them."""

    def __init__(self, path: Path, batches: Batches, is_head: np.ndarray, feature_size: int) -> None:
        self.path = path
        self._offsets = batches.split.labels.offsets
        ids = batches.split.labels.values
        in_head = is_head[ids]
        self.label_ids = ids[in_head]
        # Where each pair of the split stands in the file.
        self._row_of = np.where(in_head, np.cumsum(in_head) - 1, -1)
        self._file = ArrayFile(path, (len(self.label_ids), feature_size), np.float32)

    def __len__(self) -> int:
        return len(self.label_ids)

    @contextmanager
    def filling(self) -> Iterator[Keep]:
        """Yields what takes each batch of the split in a collection; the file is there when the block has ended."""
        if not len(self):
            yield lambda batch, features, states: None
            return
        with self._file.filling() as array:

            def keep(batch: Batch, features: jax.Array, states: jax.Array) -> None:
                rows, slots = np.nonzero(batch.label_mask)
                places = self._row_of[self._offsets[batch.rows[rows]] + slots]
                wanted = places >= 0
                array[places[wanted]] = np.asarray(features)[rows[wanted], slots[wanted]]

            yield keep

    def open(self) -> np.ndarray:
        """Maps the file."""
        return self._file.open()


@dataclass(frozen=True)
class PairsInMemory:
    """Features of head labels that are at hand, float32[pairs, D] and int32[pairs], as `make_stage` takes them."""

    features: np.ndarray
    label_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.label_ids)

    def open(self) -> np.ndarray:
        return self.features


class PairBatch(NamedTuple):
    """Features of head labels with their prototypes' labels, padded to one shape."""

    features: Array
    """float32[P, D]."""
    label_ids: Array
    """int32[P]."""
    mask: Array
    """bool[P]."""


def make_pvae(config: Config, feature_size: int) -> pvae.Pvae:
    """Returns the PVAE that the settings describe."""
    own = config.pvae
    return pvae.Pvae(
        feature_size=feature_size,
        hidden_size=own.hidden_size,
        latent_size=own.latent_size,
        nonnegative=config.encoder.feature_head,
        residual=own.residual,
        relu_posterior=own.relu_posterior,
        decoder_norm=own.decoder_norm,
        integer_cast=own.integer_cast,
    )


def init_variables(model: pvae.Pvae, key: jax.Array) -> tuple[Any, Any]:
    """Returns fresh parameters and the batch norm's statistics ({} without it)."""
    one = jnp.zeros((1, model.feature_size))
    variables = jax.jit(model.init)(key, one, one, jnp.zeros((1, model.latent_size)))
    return variables["params"], variables.get("batch_stats", {})


def make_step(
    model: pvae.Pvae, config: Config, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, PairBatch], TrainState]:
    """Compiles one step of the PVAE; `state.extra` holds the batch statistics and the feature sums."""

    def loss(params: Any, batch: PairBatch, targets: jax.Array, noise: jax.Array, statistics: Any) -> tuple[Any, Any]:
        features = jnp.trunc(batch.features) if config.pvae.integer_cast else batch.features
        (reconstruction, mu, log_variance), updated = model.apply(
            {"params": params, "batch_stats": statistics},
            features,
            targets,
            noise,
            mask=batch.mask,
            mutable=["batch_stats"],
        )
        bound = pvae.negative_elbo(features, reconstruction, mu, log_variance, batch.mask, config.pvae.kl_weight)
        kl = jnp.sum(jnp.where(batch.mask, pvae.kl_divergence(mu, log_variance), 0.0)) / jnp.sum(batch.mask)
        return bound, (jnp.stack([bound, kl]), updated.get("batch_stats", {}))

    def step(state: TrainState, batch: PairBatch) -> TrainState:
        targets = prototypes.prototypes(state.extra["sums"])[batch.label_ids]
        key = jax.random.fold_in(state.key, state.step)
        noise = jax.random.normal(key, (len(batch.features), model.latent_size))
        gradient = jax.grad(loss, has_aux=True)
        grads, (losses, statistics) = gradient(state.params, batch, targets, noise, state.extra["batch_stats"])
        return after_step(state, grads, losses, optimizer, state.extra | {"batch_stats": statistics})

    return jax.jit(step, donate_argnums=0)


def make_stage(
    model: pvae.Pvae,
    config: Config,
    features: HeadFeatures | PairsInMemory,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    epochs: int,
) -> Stage:
    """Returns the PVAE's training for `loop.run`."""
    train_step = make_step(model, config, optimizer)
    size = config.pvae.batch_size
    padded = -(-size // mesh.size) * mesh.size

    def batches(epoch: int, start: int) -> Iterator[PairBatch]:
        stored = features.open()
        order = np.random.Generator(np.random.Philox(key=[config.seed, epoch])).permutation(len(features))
        for first in range(start * size, len(order), size):
            rows = np.zeros(padded, np.int64)
            here = order[first : first + size]
            rows[: len(here)] = here
            batch = PairBatch(stored[rows], features.label_ids[rows], np.arange(padded) < len(here))
            yield sharding.split_rows(mesh, batch)

    return Stage(
        name=NAME,
        epochs=epochs,
        steps_per_epoch=max(1, -(-len(features) // size)),
        items_per_epoch=len(features),
        unit="features",
        batches=batches,
        step=lambda state, batch, epoch, number: train_step(state, batch),
        loss_names=("negative_elbo", "kl"),
    )


def decoder(model: pvae.Pvae, params: Any, statistics: Any) -> Callable[[jax.Array, jax.Array], Any]:
    """Returns the decoder G of one latent [Z] and one prototype [D]."""
    variables = {"params": params, "batch_stats": statistics}
    return lambda z, prototype: model.apply(variables, z, prototype, method=pvae.Pvae.decode)


def diagnose(model: pvae.Pvae, state: TrainState, label_ids: np.ndarray, key: jax.Array) -> dict[str, float]:
    """Compares generated with real features of some labels.

    Returns:
        `relative_mean_error`: |mean of the generated - prototype| / |prototype|, the mean over labels; 0 is best.
        `variance_ratio`: variance of the generated over variance of the real features, each summed over dimensions and
        over the labels with two documents or more; 1 is best.
    """
    sums: prototypes.FeatureSums = state.extra["sums"]
    centres, real = prototypes.prototypes(sums), np.asarray(prototypes.variances(sums))

    @jax.jit
    def generated(state: TrainState, label: jax.Array, centre: jax.Array) -> tuple[jax.Array, jax.Array]:
        decode = decoder(model, state.params, state.extra["batch_stats"])
        many = jnp.broadcast_to(centre, (_DIAGNOSTIC_SAMPLES, len(centre)))
        labels = jnp.full(_DIAGNOSTIC_SAMPLES, label)
        drawn = augmentation.sample_features(
            decode, key, labels, jnp.arange(_DIAGNOSTIC_SAMPLES), many, model.latent_size
        )
        off = jnp.linalg.norm(jnp.mean(drawn, axis=0) - centre) / jnp.maximum(jnp.linalg.norm(centre), 1e-12)
        return off, jnp.sum(jnp.var(drawn, axis=0, ddof=1))

    pairs = [generated(state, label, centres[label]) for label in label_ids]
    errors, spread = (np.array([float(pair[i]) for pair in pairs]) for i in (0, 1))
    counted = np.asarray(sums.counts)[label_ids] > 1
    total = real[label_ids][counted].sum()
    return {
        "relative_mean_error": float(errors.mean()) if len(errors) else 0.0,
        "variance_ratio": float(spread[counted].sum() / total) if total > 0 else 0.0,
    }
