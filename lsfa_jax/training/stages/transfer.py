"""Stage 2: the PVAE learns from the features of head labels how features vary around their prototype (Eq. 11-17).

A rival to the PVAE (`transfer.method`) has nothing to train: what it draws from is computed when the stage begins.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lsfa_jax.config import Config
from lsfa_jax.model import augmentation, gaussian, prototypes, pvae, resampling
from lsfa_jax.model.generators import Generator
from lsfa_jax.training.collection import PairFeatures
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.state import TrainState, after_step, init_state
from lsfa_jax.types import AnyArray, Array, HostArray, PyTree
from lsfa_jax.util import sharding
from lsfa_jax.util.random_streams import Stream, stream

# Features generated per label for the two diagnostics, and labels of which they are generated at a time.
_DIAGNOSTIC_SAMPLES = 128
_DIAGNOSTIC_LABELS = 32

# Labels that are compared at most, evenly spaced among those given: means over more say no more.
_MOST_COMPARED = 4096


class PairBatch(NamedTuple):
    """Features with their labels, padded to P rows."""

    features: AnyArray
    """float32[P, D]."""
    label_ids: AnyArray
    """int32[P]."""
    mask: AnyArray
    """bool[P], false at padding."""


def make_pvae(config: Config, feature_size: int) -> pvae.Pvae:
    """Returns the PVAE that the settings describe."""
    settings = config.pvae
    return pvae.Pvae(
        feature_size=feature_size,
        hidden_size=settings.hidden_size,
        latent_size=settings.latent_size,
        nonnegative=config.encoder.feature_head,
        residual=settings.residual,
        relu_posterior=settings.relu_posterior,
        decoder_norm=settings.decoder_norm,
        integer_cast=settings.integer_cast,
    )


def init_variables(model: pvae.Pvae, key: Array) -> dict[str, PyTree]:
    """Returns initial parameters, as `params`, and the collections that are not trained."""
    one = jnp.zeros((1, model.feature_size))
    return dict(jax.jit(model.init)(key, one, one, jnp.zeros((1, model.latent_size))))


def pvae_step(
    model: pvae.Pvae, config: Config, optimizer: optax.GradientTransformation, state: TrainState, batch: PairBatch
) -> TrainState:
    """Trains the PVAE on one batch; `state.extra` holds the feature sums and the collections that are not trained."""
    # The rows of the batch's labels first: no array of all prototypes is built.
    targets = prototypes.prototypes(jax.tree.map(lambda table: table[batch.label_ids], state.extra["sums"]))
    noise = jax.random.normal(jax.random.fold_in(state.key, state.step), (len(batch.features), model.latent_size))
    features = jnp.trunc(batch.features) if config.pvae.integer_cast else batch.features

    def loss(params: PyTree) -> tuple[Array, tuple[dict[str, Array], PyTree]]:
        (reconstruction, mu, log_variance), updated = model.apply(  # Eq. 11-15
            {"params": params} | state.extra["constants"],
            features,
            targets,
            noise,
            mask=batch.mask,
            mutable=["batch_stats"],
        )
        elbo = pvae.negative_elbo(features, reconstruction, mu, log_variance, batch.mask, config.pvae.kl_weight)
        kl = jnp.sum(jnp.where(batch.mask, pvae.kl_divergence(mu, log_variance), 0.0)) / jnp.sum(batch.mask)
        return elbo, ({"negative_elbo": elbo, "kl": kl}, updated)  # Eq. 16-17

    grads, (losses, updated) = jax.grad(loss, has_aux=True)(state.params)
    extra = state.extra | {"constants": state.extra["constants"] | updated}
    return after_step(state, grads, losses, optimizer, extra)


class Transfer(Stage[PairBatch]):
    """Trains the PVAE on the features of head labels."""

    name = "transfer"
    unit = "features"

    def __init__(
        self,
        model: pvae.Pvae,
        config: Config,
        features: PairFeatures,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
        epochs: int,
    ) -> None:
        """Compiles nothing yet.

        Args:
            model: the PVAE.
            config: all settings.
            features: of the labels that `learns_from` names.
            optimizer: the stage's optimiser.
            mesh: the devices.
            epochs: passes over the features; 0 without head or tail labels, or with a rival.
        """
        self.model, self.config, self.features, self.optimizer, self.mesh = model, config, features, optimizer, mesh
        self.epochs = epochs
        self.steps_per_epoch = max(1, -(-len(features) // config.pvae.batch_size))
        self.items_per_epoch = len(features)
        self._step = jax.jit(functools.partial(pvae_step, model, config, optimizer), donate_argnums=0)

    def init(
        self, key: Array, init_key: Array, sums: prototypes.FeatureSums, of_rival: dict[str, PyTree] | None = None
    ) -> TrainState:
        """Returns the state before the first step, given the feature sums of all labels.

        With what a rival to the PVAE draws from, as `fit_rival` returns it, there are no parameters.
        """
        constants = init_variables(self.model, init_key) if of_rival is None else {"params": {}} | of_rival
        params = constants.pop("params")
        if "scale" in constants:
            constants["scale"] = prototypes.scale(sums)
        extra = {"sums": sums, "constants": constants}
        return init_state(key, params, self.optimizer, ("negative_elbo", "kl"), extra, keep_best=False)

    def batches(self, epoch: int, start: int) -> Iterator[PairBatch]:
        features, size = self.features.open(), self.config.pvae.batch_size
        shards = self.mesh.shape["data"]
        padded = -(-size // shards) * shards
        order = stream(Stream.TRANSFER_ORDER, self.config.seed, epoch).permutation(len(features))
        for first in range(start * size, len(order), size):
            chosen = order[first : first + size]
            rows = np.zeros(padded, np.int64)
            rows[: len(chosen)] = chosen
            batch = PairBatch(features[rows], self.features.label_ids[rows], np.arange(padded) < len(chosen))
            yield sharding.shard_batch(self.mesh, batch)

    def step(self, state: TrainState, batch: PairBatch, epoch: int, number: int) -> TrainState:
        return self._step(state, batch)

    def learning_rates(self, step: int) -> dict[str, float]:
        return {"learning_rate": self.config.pvae.learning_rate}


def learns_from(config: Config, is_head: HostArray) -> HostArray:
    """Returns bool[L], the labels whose features the stage reads; with none it reads no features."""
    method = config.transfer.method
    return np.zeros_like(is_head) if method == "none" else ~is_head if method == "resample" else is_head


def fit_rival(
    config: Config, features: PairFeatures, sums: prototypes.FeatureSums, is_head: HostArray
) -> dict[str, PyTree] | None:
    """Computes what a rival to the PVAE draws features from; None for the PVAE.

    Args:
        config: all settings.
        features: of the labels of `learns_from`.
        sums: of all labels.
        is_head: bool[L].
    """
    method = config.transfer.method if len(features) else ""
    if method == "gaussian":
        centres = sharding.to_host(prototypes.prototypes(sums))
        nearest = config.transfer.nearest_heads
        return {"gaussian": gaussian.fit(features.open(), features.label_ids, centres, is_head, nearest)}
    if method == "resample":
        return {"resample": resampling.fit(features.open(), features.label_ids, len(sums.counts))}
    return empty_rival(config, features, sums, is_head)


def empty_rival(
    config: Config, features: PairFeatures, sums: prototypes.FeatureSums, is_head: HostArray
) -> dict[str, PyTree] | None:
    """Returns zeros of the shapes of `fit_rival`, without reading the features."""
    num_rows, size = sums.totals.shape
    if config.transfer.method == "gaussian":
        num_heads = max(1, int(is_head.sum()))
        return {"gaussian": gaussian.empty(num_rows, num_heads, size, config.transfer.nearest_heads)}
    if config.transfer.method == "resample":
        return {"resample": resampling.empty(num_rows, max(1, len(features)), size)}
    return {} if config.transfer.method == "none" else None


def learned(state: TrainState) -> dict[str, PyTree]:
    """Returns what a `Generator` draws features with: parameters and constants of the stage's last state."""
    return {"params": state.params} | state.extra["constants"]


def diagnose(generator: Generator, state: TrainState, label_ids: np.ndarray, key: Array) -> dict[str, float]:
    """Compares generated with real features of the given labels.

    Args:
        generator: what generates features.
        state: the stage's last one.
        label_ids: int[M], the labels.
        key: PRNG key of the augmented sets.

    Returns:
        `relative_mean_error`: |mean of the generated - prototype| / |prototype|, the mean over labels; 0 is best.
        `variance_ratio`: variance of the generated over variance of the real features, each summed over dimensions and
        over the labels with two documents or more; 1 is best.
    """
    if not len(label_ids):
        return {"relative_mean_error": 0.0, "variance_ratio": 0.0}
    label_ids = label_ids[:: -(-len(label_ids) // _MOST_COMPARED)]
    sums = jax.tree.map(lambda table: table[label_ids], state.extra["sums"])
    centres = prototypes.prototypes(sums)
    errors, generated, counts, variances = sharding.to_host(
        (
            *_generated_statistics(generator, learned(state), label_ids, centres, key),
            sums.counts,
            prototypes.variances(sums),
        )
    )
    counted = counts > 1
    real = variances[counted].sum()
    return {
        "relative_mean_error": float(errors.mean()),
        "variance_ratio": float(generated[counted].sum() / real) if real > 0 else 0.0,
    }


@functools.partial(jax.jit, static_argnums=0)
def _generated_statistics(
    generator: Generator, learned: dict[str, PyTree], label_ids: Array, centres: Array, key: Array
) -> tuple[Array, Array]:
    """Computes the relative error of the generated features' mean, and their variance, of each label: float32[M]."""
    sample = generator(learned)
    indices = jnp.arange(_DIAGNOSTIC_SAMPLES)

    def statistics(label_and_centre: tuple[Array, Array]) -> tuple[Array, Array]:
        label, centre = label_and_centre
        labels = jnp.full(_DIAGNOSTIC_SAMPLES, label)
        features = augmentation.draw_features(
            sample, key, labels, indices, jnp.broadcast_to(centre, (_DIAGNOSTIC_SAMPLES, len(centre)))
        )
        error = jnp.linalg.norm(jnp.mean(features, axis=0) - centre) / jnp.maximum(jnp.linalg.norm(centre), 1e-12)
        return error, jnp.sum(jnp.var(features, axis=0, ddof=1))

    return jax.lax.map(statistics, (jnp.asarray(label_ids), centres), batch_size=_DIAGNOSTIC_LABELS)
