"""Eq. 11-17: the PVAE, a variational autoencoder of how features vary around the prototype of their label.

Shapes: P feature-label pairs, D feature, Z latent.
"""

from typing import Literal

import chex
import flax.linen as nn
import jax.numpy as jnp

from lsfa_jax.types import Array

# A standard deviation between exp(-5) = 0.007 and exp(5) = 150; beyond it the ELBO overflows without information.
_LOG_VARIANCE_LIMIT = 10.0


class Pvae(nn.Module):
    """The encoder f_mu, f_sigma and the decoder f_phi, perceptrons with one hidden layer each.

    The paper leaves f_phi and the units of the inputs open. With `residual` the perceptrons see and generate deviations
    from the prototype, in units of the collection `scale`: v becomes (v - p) / s and p becomes (p - c) / s in their
    inputs, and f_phi([z; p]) = relu(p + s MLP). A perceptron alone sees only prototypes of head labels in training and
    does not learn to reproduce that of a tail label. And where features deviate little from their prototypes, as those
    of a pretrained encoder do, it learns to ignore z before it learns from the deviations. The last three switches
    reproduce the released code (docs/how_it_works.md).
    """

    feature_size: int
    """D."""
    hidden_size: int
    """Units of the hidden layer of the encoder and of the decoder."""
    latent_size: int
    """Z."""
    nonnegative: bool = True
    """Features are outputs of a ReLU, so the decoder ends in a ReLU too."""
    residual: bool = True
    """The perceptrons see and generate deviations from the prototype."""
    relu_posterior: bool = False
    """A ReLU on mu and on log sigma^2, which is not clipped."""
    decoder_norm: bool = False
    """Batch norm before the last ReLU of the decoder."""
    integer_cast: bool = False
    """Features and prototypes are truncated to integers."""

    def setup(self) -> None:
        self.encoder_hidden = nn.Dense(self.hidden_size)
        self.encoder_mu = nn.Dense(self.latent_size)
        self.encoder_log_variance = nn.Dense(self.latent_size)
        self.decoder_hidden = nn.Dense(self.hidden_size)
        self.decoder_out = nn.Dense(self.feature_size)
        if self.decoder_norm:
            self.norm = nn.BatchNorm(momentum=0.9)
        if self.residual:
            # Constants that follow from the features (`prototypes.scale`).
            self.centre = self.variable("scale", "centre", jnp.zeros, self.feature_size)
            self.deviation = self.variable("scale", "deviation", jnp.ones, ())

    def encode(self, features: Array, prototypes: Array) -> tuple[Array, Array]:
        """Eq. 11-12: mu and sigma of the posterior q(z | v, p).

        Args:
            features: float32[P, D], v.
            prototypes: float32[P, D], p of each feature's label.

        Returns:
            mu and log sigma^2, both float32[P, Z].
        """
        chex.assert_equal_shape((features, prototypes))
        features, prototypes = self._cast(features), self._cast(prototypes)
        if self.residual:
            features = (features - prototypes) / self.deviation.value
        hidden = nn.relu(self.encoder_hidden(jnp.concatenate([features, self._scaled(prototypes)], axis=-1)))
        mu, log_variance = self.encoder_mu(hidden), self.encoder_log_variance(hidden)
        if self.relu_posterior:
            return nn.relu(mu), nn.relu(log_variance)
        return mu, jnp.clip(log_variance, -_LOG_VARIANCE_LIMIT, _LOG_VARIANCE_LIMIT)

    def decode(self, z: Array, prototypes: Array, train: bool = False, mask: Array | None = None) -> Array:
        """Eq. 15: the features f_phi([z; p]).

        Args:
            z: float32[..., Z], latents.
            prototypes: float32[..., D], p of each latent's label.
            train: whether batch norm uses the statistics of the batch; has no effect without `decoder_norm`.
            mask: bool[...], false where a row is padding, which batch norm leaves out of its statistics.

        Returns:
            float32[..., D].
        """
        chex.assert_equal_rank((z, prototypes))
        prototypes = self._cast(prototypes)
        hidden = nn.relu(self.decoder_hidden(jnp.concatenate([z, self._scaled(prototypes)], axis=-1)))
        out = self.decoder_out(hidden)
        if self.residual:
            out = prototypes + self.deviation.value * out
        if self.decoder_norm:
            rows = None if mask is None else mask[..., None]
            out = self.norm(out, use_running_average=not train, mask=rows)
        return nn.relu(out) if self.nonnegative else out

    def __call__(
        self, features: Array, prototypes: Array, noise: Array, train: bool = True, mask: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """Eq. 11-15: encodes, samples and decodes.

        Args:
            features: float32[P, D], v.
            prototypes: float32[P, D], p of each feature's label.
            noise: float32[P, Z], epsilon of Eq. 13.
            train: as for `decode`.
            mask: as for `decode`.

        Returns:
            The reconstruction float32[P, D], mu and log sigma^2, both float32[P, Z].
        """
        mu, log_variance = self.encode(features, prototypes)
        return self.decode(reparameterize(mu, log_variance, noise), prototypes, train, mask), mu, log_variance

    def _scaled(self, prototypes: Array) -> Array:
        return (prototypes - self.centre.value) / self.deviation.value if self.residual else prototypes

    def _cast(self, x: Array) -> Array:
        return jnp.trunc(x) if self.integer_cast else x


def reparameterize(mu: Array, log_variance: Array, noise: Array) -> Array:
    """Eq. 14: z = mu + epsilon sigma, with epsilon ~ N(0, I) of Eq. 13 as `noise`; all float32[P, Z]."""
    chex.assert_equal_shape((mu, log_variance, noise))
    return mu + noise * jnp.exp(0.5 * log_variance)


def kl_divergence(mu: Array, log_variance: Array) -> Array:
    """First term of Eq. 16: KL(N(mu, sigma^2) || N(0, I)), summed over the last axis, float32[..., Z] -> [...]."""
    chex.assert_equal_shape((mu, log_variance))
    return 0.5 * jnp.sum(jnp.exp(log_variance) + mu**2 - 1.0 - log_variance, axis=-1)


def negative_elbo(
    features: Array,
    reconstruction: Array,
    mu: Array,
    log_variance: Array,
    mask: Array,
    kl_weight: Literal["auto"] | float = "auto",
) -> Array:
    """Eq. 16-17: the negative ELBO of a batch, as a mean over its features.

    With `auto`, p(v | z, p) is a Gaussian with the maximum-likelihood variance of the batch, which is the mean squared
    error itself (sigma-VAE, Rybkin et al. 2021): D/2 log MSE + KL, without constants. With a number w it is
    MSE + w KL, as in the released code.

    Args:
        features: float32[P, D], v.
        reconstruction: float32[P, D].
        mu: float32[P, Z].
        log_variance: float32[P, Z].
        mask: bool[P], false where the feature is padding.
        kl_weight: `auto` or the weight w of the KL divergence.

    Returns:
        float32 scalar.
    """
    chex.assert_equal_shape((features, reconstruction))
    chex.assert_equal_shape_prefix((features, mu, mask), 1)
    count = jnp.maximum(jnp.sum(mask), 1)
    squared_error = jnp.sum(jnp.where(mask[:, None], (features - reconstruction) ** 2, 0.0))
    mse = squared_error / (count * features.shape[-1])
    kl = jnp.sum(jnp.where(mask, kl_divergence(mu, log_variance), 0.0)) / count
    if kl_weight == "auto":
        # The logarithm of an error of 0 is unbounded: 1e-8 is near float32's resolution of squared features.
        return 0.5 * features.shape[-1] * jnp.log(mse + 1e-8) + kl
    return mse + kl_weight * kl
