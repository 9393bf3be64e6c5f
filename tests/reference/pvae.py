"""Eq. 11-17 in plain loops, float64; `params` is the parameter dict of the module.

With a `scale`, the perceptrons see and generate deviations from the prototype in its units.
"""

import numpy as np


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def relu(x):
    return np.maximum(x, 0.0)


UNIT = {"centre": 0.0, "deviation": 1.0}


def condition(p, scale):
    return p if scale is None else (p - scale["centre"]) / scale["deviation"]


def encode(params, features, prototypes, scale=UNIT):
    """Eq. 11-12: mu and log sigma^2 of each feature."""
    mu, log_variance = [], []
    for v, p in zip(features, prototypes, strict=True):
        x = v if scale is None else (v - p) / scale["deviation"]
        hidden = relu(dense(params["encoder_hidden"], np.concatenate([x, condition(p, scale)])))
        mu.append(dense(params["encoder_mu"], hidden))
        log_variance.append(np.clip(dense(params["encoder_log_variance"], hidden), -10.0, 10.0))
    return np.stack(mu), np.stack(log_variance)


def decoder_output(params, z, prototypes, scale=UNIT):
    """Eq. 15 before the last ReLU."""
    out = []
    for latent, p in zip(z, prototypes, strict=True):
        hidden = relu(dense(params["decoder_hidden"], np.concatenate([latent, condition(p, scale)])))
        output = dense(params["decoder_out"], hidden)
        out.append(output if scale is None else p + scale["deviation"] * output)
    return np.stack(out)


def decode(params, z, prototypes, nonnegative=True, scale=UNIT):
    """Eq. 15; ends in a ReLU where features are nonnegative."""
    out = decoder_output(params, z, prototypes, scale)
    return relu(out) if nonnegative else out


def reparameterize(mu, log_variance, noise):
    """Eq. 14."""
    sigma = np.sqrt(np.exp(log_variance))
    return mu + noise * sigma


def kl_divergence(mu, log_variance):
    """KL(N(mu, sigma^2) || N(0, 1)) = log(1 / sigma) + (sigma^2 + mu^2) / 2 - 1 / 2, summed over dimensions."""
    kl = np.zeros(mu.shape[:-1])
    for index in np.ndindex(mu.shape):
        sigma = np.sqrt(np.exp(log_variance[index]))
        kl[index[:-1]] += np.log(1 / sigma) + (sigma**2 + mu[index] ** 2) / 2 - 0.5
    return kl


def negative_elbo(features, reconstruction, mu, log_variance, mask, kl_weight="auto"):
    """Eq. 16-17 as a mean over unmasked features; the error and the KL are 0 without any."""
    rows = np.flatnonzero(mask)
    size = features.shape[1]
    errors = [(features[i, d] - reconstruction[i, d]) ** 2 for i in rows for d in range(size)]
    mse = np.mean(errors) if errors else 0.0
    kl = np.mean([kl_divergence(mu[i], log_variance[i]) for i in rows]) if errors else 0.0
    if kl_weight == "auto":
        return size / 2 * np.log(mse + 1e-8) + kl
    return mse + kl_weight * kl
