"""Eq. 11-17: the variational autoencoder that learns how features vary around their prototype.

Shapes: P features, D feature size, Z latent size.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array

# exp(+-10) is a standard deviation of 150 or 0.007: outside, the ELBO is all overflow and no information.
_LOG_VARIANCE_LIMIT = 10.0


class Pvae(nn.Module):
    """The encoder f_mu, f_sigma and the decoder f_phi, multilayer perceptrons with one hidden layer each.

    With `residual` the decoder is f_phi([z; p]) = relu(p + MLP([z; p])). The paper leaves f_phi open; a bare
    perceptron sees only head labels' prototypes, and has not learned to give back one that it never saw.
    The other switches bring back what the released code does (see docs/how_it_works.md).
    """

    feature_size: int
    hidden_size: int
    latent_size: int
    nonnegative: bool = True
    """Whether features are (a ReLU made them), so that the decoder ends in a ReLU as well."""
    residual: bool = True
    relu_posterior: bool = False
    decoder_norm: bool = False
    integer_cast: bool = False

    def setup(self) -> None:
        self.encoder_hidden = nn.Dense(self.hidden_size)
        self.encoder_mu = nn.Dense(self.latent_size)
        self.encoder_log_variance = nn.Dense(self.latent_size)
        self.decoder_hidden = nn.Dense(self.hidden_size)
        self.decoder_out = nn.Dense(self.feature_size)
        if self.decoder_norm:
            self.norm = nn.BatchNorm(momentum=0.9)

    def encode(self, features: Array, prototypes: Array) -> tuple[Array, Array]:
        """Computes Eq. 11-12.

        Args:
            features: float32[P, D], v.
            prototypes: float32[P, D], the prototype of each feature's label.

        Returns:
            mu and log sigma^2 of q(z | v, p), both float32[P, Z].
        """
        hidden = nn.relu(self.encoder_hidden(jnp.concatenate([self._cast(features), self._cast(prototypes)], axis=-1)))
        mu, log_variance = self.encoder_mu(hidden), self.encoder_log_variance(hidden)
        if self.relu_posterior:
            return nn.relu(mu), nn.relu(log_variance)
        return mu, jnp.clip(log_variance, -_LOG_VARIANCE_LIMIT, _LOG_VARIANCE_LIMIT)

    def decode(self, z: Array, prototypes: Array, train: bool = False, mask: Array | None = None) -> Array:
        """Computes Eq. 15, float32[P, D], of latents [P, Z] and prototypes [P, D].

        `train` and `mask` [P] (false where a row is padding) concern batch norm alone.
        """
        hidden = nn.relu(self.decoder_hidden(jnp.concatenate([z, self._cast(prototypes)], axis=-1)))
        out = self.decoder_out(hidden)
        if self.residual:
            out = out + self._cast(prototypes)
        if self.decoder_norm:
            rows = None if mask is None else mask[..., None]
            out = self.norm(out, use_running_average=not train, mask=rows)
        return nn.relu(out) if self.nonnegative else out

    def __call__(
        self, features: Array, prototypes: Array, noise: Array, train: bool = True, mask: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """Computes Eq. 11-15: the reconstruction [P, D], mu and log sigma^2 [P, Z], given noise [P, Z]."""
        mu, log_variance = self.encode(features, prototypes)
        return self.decode(reparameterized(mu, log_variance, noise), prototypes, train, mask), mu, log_variance

    def _cast(self, x: Array) -> Array:
        return jnp.trunc(x) if self.integer_cast else x


def reparameterized(mu: Array, log_variance: Array, noise: Array) -> Array:
    """Computes Eq. 14, z = mu + noise * sigma, with the noise of Eq. 13."""
    return mu + noise * jnp.exp(0.5 * log_variance)


def kl_divergence(mu: Array, log_variance: Array) -> Array:
    """Computes KL(N(mu, sigma^2) || N(0, I)) for each row, float32[...], summed over the last axis."""
    return 0.5 * jnp.sum(jnp.exp(log_variance) + mu**2 - 1.0 - log_variance, axis=-1)


def negative_elbo(
    features: Array,
    reconstruction: Array,
    mu: Array,
    log_variance: Array,
    mask: Array,
    kl_weight: Literal["auto"] | float = "auto",
) -> Array:
    """Computes Eq. 16-17 over a batch, as a mean over its features.

    With `auto`, p(v | z, p) is a Gaussian whose variance is the one that makes the batch most likely, the mean squared
    error itself (Rybkin et al. 2021): D/2 log MSE + KL, constants left out. With a number, MSE + number x KL, as in the
    released code.

    Args:
        features: float32[P, D], v.
        reconstruction: float32[P, D], its reconstruction.
        mu: float32[P, Z].
        log_variance: float32[P, Z].
        mask: bool[P], false where the feature is padding.
        kl_weight: `auto` or the weight of the KL.

    Returns:
        float32 scalar.
    """
    count = jnp.maximum(jnp.sum(mask), 1)
    squared = jnp.sum(jnp.where(mask[:, None], (features - reconstruction) ** 2, 0.0))
    mse = squared / (count * features.shape[-1])
    kl = jnp.sum(jnp.where(mask, kl_divergence(mu, log_variance), 0.0)) / count
    if kl_weight == "auto":
        # Where all features are equal the error falls to 0 and its logarithm without end: stop at float32's resolution.
        return 0.5 * features.shape[-1] * jnp.log(mse + 1e-8) + kl
    return mse + kl_weight * kl
