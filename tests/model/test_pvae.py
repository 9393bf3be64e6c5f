import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from lsfa_jax.model import pvae
from tests.reference import pvae as reference
from tests.reference.agreement import assert_agrees, assert_equal
from tests.reference.inputs import normal

P, D, HIDDEN, Z = 5, 3, 4, 2


def model(**switches):
    return pvae.Pvae(feature_size=D, hidden_size=HIDDEN, latent_size=Z, **switches)


# Unlike initial parameters, no bias is zero: tests detect a bias that is left out.
SHAPES = {
    "encoder_hidden": (2 * D, HIDDEN),
    "encoder_mu": (HIDDEN, Z),
    "encoder_log_variance": (HIDDEN, Z),
    "decoder_hidden": (Z + D, HIDDEN),
    "decoder_out": (HIDDEN, D),
}
PARAMS = {
    name: {"kernel": normal(*shape, seed=i), "bias": normal(shape[1], seed=i)}
    for i, (name, shape) in enumerate(SHAPES.items())
}
SCALE = {"centre": normal(D, seed=23), "deviation": np.float32(0.6)}
FEATURES, PROTOTYPES, NOISE = 2 * normal(P, D, seed=20), 2 * normal(P, D, seed=21), normal(P, Z, seed=22)
MASK = np.array([True, True, False, True, True])


def encode(features, prototypes, params=PARAMS, **switches):
    return model(**switches).apply({"params": params, "scale": SCALE}, features, prototypes, method="encode")


def decode(z, prototypes, params=PARAMS, **switches):
    return model(**switches).apply({"params": params, "scale": SCALE}, z, prototypes, method="decode")


def test_parameters_are_those_of_the_encoder_and_the_decoder():
    variables = model().init(jax.random.key(0), FEATURES, PROTOTYPES, NOISE)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, {"params": PARAMS, "scale": SCALE})
    plain = model(residual=False).init(jax.random.key(0), FEATURES, PROTOTYPES, NOISE)
    assert jax.tree.map(np.shape, plain) == {"params": jax.tree.map(np.shape, PARAMS)}


@pytest.mark.parametrize("residual", [True, False])
def test_encoder_is_equations_11_and_12(residual):
    scale = SCALE if residual else None
    assert_agrees(
        lambda params, features, prototypes: jnp.concatenate(
            encode(features, prototypes, params, residual=residual), axis=1
        ),
        lambda *arguments: np.concatenate(reference.encode(*arguments, scale), axis=1),
        PARAMS,
        FEATURES,
        PROTOTYPES,
    )


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("nonnegative", [True, False])
def test_decoder_is_equation_15(nonnegative, residual):
    assert_agrees(
        lambda params, z, prototypes: decode(z, prototypes, params, nonnegative=nonnegative, residual=residual),
        lambda params, z, prototypes: reference.decode(params, z, prototypes, nonnegative, SCALE if residual else None),
        PARAMS,
        NOISE,
        PROTOTYPES,
    )


def test_the_latent_is_equations_13_and_14():
    assert_agrees(pvae.reparameterize, reference.reparameterize, normal(P, Z), normal(P, Z, seed=1), NOISE)


@pytest.mark.parametrize("kl_weight", ["auto", 0.005, 0.0])
def test_objective_and_its_gradient_in_all_parameters_are_equations_11_to_17(kl_weight):
    def objective(params, features, prototypes):
        variables = {"params": params, "scale": SCALE}
        reconstruction, mu, log_variance = model().apply(variables, features, prototypes, NOISE)
        return pvae.negative_elbo(features, reconstruction, mu, log_variance, MASK, kl_weight)

    def expected(params, features, prototypes):
        mu, log_variance = reference.encode(params, features, prototypes, SCALE)
        z = reference.reparameterize(mu, log_variance, NOISE.astype(np.float64))
        reconstruction = reference.decode(params, z, prototypes, scale=SCALE)
        return reference.negative_elbo(features, reconstruction, mu, log_variance, MASK, kl_weight)

    assert_agrees(objective, expected, PARAMS, FEATURES, PROTOTYPES)


@pytest.mark.parametrize("kl_weight", ["auto", 0.005])
@pytest.mark.parametrize(
    "mask", [MASK, np.arange(P) == 2, np.ones(P, bool)], ids=["one masked", "one unmasked", "no padding"]
)
def test_objective_of_a_given_reconstruction_is_equations_16_and_17(mask, kl_weight):
    assert_agrees(
        lambda *arguments: pvae.negative_elbo(*arguments, mask, kl_weight),
        lambda *arguments: reference.negative_elbo(*arguments, mask, kl_weight),
        FEATURES,
        normal(P, D),
        normal(P, Z),
        normal(P, Z, seed=1),
    )


@pytest.mark.parametrize("kl_weight", ["auto", 0.005])
@pytest.mark.parametrize("mask", [MASK, np.zeros(P, bool)], ids=["one masked", "all masked"])
def test_padding_features_change_no_objective_and_no_gradient(mask, kl_weight):
    def run(*arguments):
        return jax.value_and_grad(
            lambda *arguments: pvae.negative_elbo(*arguments, mask, kl_weight), argnums=(0, 1, 2, 3)
        )(*arguments)

    inputs = FEATURES, normal(P, D), normal(P, Z), normal(P, Z, seed=1)
    garbage = [np.where(mask[:, None], x, 50 * normal(*x.shape, seed=9)) for x in inputs]
    loss, gradients = run(*inputs)
    assert_equal(run(*garbage), (loss, gradients))
    assert np.isfinite(loss)
    assert not any(np.any(np.asarray(g)[~mask]) for g in gradients)


def test_a_perfect_reconstruction_has_a_finite_objective_and_gradient():
    mu = np.zeros((P, Z), np.float32)
    loss, gradient = jax.value_and_grad(pvae.negative_elbo, argnums=1)(FEATURES, FEATURES, mu, mu, MASK)
    assert np.isfinite(loss)
    np.testing.assert_array_equal(gradient, np.zeros((P, D)))


@settings(max_examples=30, deadline=None)
@given(mu=st.floats(-3, 3, width=32), log_variance=st.floats(-4, 3, width=32))
def test_kl_is_the_integral(mu, log_variance):
    q = norm(mu, np.exp(log_variance / 2))
    integral, _ = quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - norm.logpdf(z)), q.mean() - 12 * q.std(), q.mean() + 12 * q.std()
    )
    kl = pvae.kl_divergence(np.float32([mu]), np.float32([log_variance]))
    np.testing.assert_allclose(kl, integral, rtol=1e-4, atol=1e-5)


def test_kl_is_summed_over_dimensions():
    assert_agrees(pvae.kl_divergence, reference.kl_divergence, normal(P, Z), normal(P, Z, seed=1))
    np.testing.assert_array_equal(pvae.kl_divergence(np.zeros((P, Z)), np.zeros((P, Z))), np.zeros(P))


elbo_auto = jax.jit(pvae.negative_elbo, static_argnames="kl_weight")


@settings(deadline=None)
@given(variance=st.floats(1e-3, 1e3), error=st.floats(0.01, 10), seed=st.integers(0, 100))
def test_auto_uses_the_maximum_likelihood_noise_variance(variance, error, seed):
    reconstruction = FEATURES + np.float32(error) * normal(P, D, seed=seed)
    flat = np.zeros((P, Z), np.float32)
    auto = float(elbo_auto(FEATURES, reconstruction, flat, flat, MASK))
    squares = ((FEATURES - reconstruction)[MASK].astype(np.float64)) ** 2

    def negative_log_likelihood(variance):
        """Mean over features, without D/2 log(2 pi)."""
        return D / 2 * np.log(variance) + np.sum(squares) / (2 * variance) / np.sum(MASK)

    slack = 1e-4 * (1 + abs(auto))
    np.testing.assert_allclose(auto + D / 2, negative_log_likelihood(np.mean(squares)), atol=slack)
    assert negative_log_likelihood(variance) >= auto + D / 2 - slack


def with_log_variance_bias(bias):
    """Parameters of an encoder whose log variance is `bias` and hardly depends on the input."""
    branch = {"kernel": 0.01 * PARAMS["encoder_log_variance"]["kernel"], "bias": np.full(Z, bias, np.float32)}
    return {**PARAMS, "encoder_log_variance": branch}


def test_log_variance_stays_between_minus_10_and_10():
    for bias, expected in ((50.0, 10.0), (-50.0, -10.0)):
        _, log_variance = encode(FEATURES, PROTOTYPES, with_log_variance_bias(bias))
        np.testing.assert_array_equal(log_variance, np.full((P, Z), expected))


def test_relu_posterior_applies_a_relu_to_mu_and_log_variance():
    mu, log_variance = encode(FEATURES, PROTOTYPES, residual=False)
    assert np.any(mu < 0), "the test needs negative values"
    assert np.any(log_variance < 0), "the test needs negative values"
    released_mu, released_log_variance = encode(FEATURES, PROTOTYPES, residual=False, relu_posterior=True)
    np.testing.assert_array_equal(released_mu, np.maximum(mu, 0))
    np.testing.assert_array_equal(released_log_variance, np.maximum(log_variance, 0))
    _, large = encode(FEATURES, PROTOTYPES, with_log_variance_bias(50.0), relu_posterior=True)
    assert np.all(large > 40), "the released code does not clip"


def test_integer_cast_truncates_features_and_prototypes():
    # Towards zero, as astype does: -1.9 becomes -1, not -2.
    features, prototypes = FEATURES.astype(int).astype(np.float32), PROTOTYPES.astype(int).astype(np.float32)
    assert np.any(FEATURES < -1)
    raw, cast = {"residual": False}, {"residual": False, "integer_cast": True}  # as in the released code
    assert_equal(encode(FEATURES, PROTOTYPES, **cast), encode(features, prototypes, **raw))
    assert_equal(decode(NOISE, PROTOTYPES, **cast), decode(NOISE, prototypes, **raw))
    assert np.any(np.abs(np.asarray(encode(features, prototypes)[0]) - encode(FEATURES, PROTOTYPES)[0]) > 1e-3)


@pytest.mark.parametrize("mask", [None, MASK], ids=["no padding", "padding"])
def test_decoder_norm_is_batch_norm_before_the_relu(mask):
    net, rows = model(decoder_norm=True), np.ones(P, bool) if mask is None else mask
    scale, bias = np.float32([1.5, 0.5, 2.0]), np.float32([0.1, 0.2, -0.3])
    params = {**PARAMS, "norm": {"scale": scale, "bias": bias}}
    stats = {"norm": {"mean": np.float32([0.3, -0.2, 0.1]), "var": np.float32([1.2, 0.7, 2.0])}}
    initial = net.init(jax.random.key(0), FEATURES, PROTOTYPES, NOISE)
    variables = {"params": params, "batch_stats": stats, "scale": SCALE}
    assert jax.tree.map(np.shape, initial) == jax.tree.map(np.shape, variables)

    garbage = [np.where(rows[:, None], x, 50 * normal(*x.shape, seed=9)) for x in (NOISE, PROTOTYPES)]
    normalized, updates = net.apply(
        variables, *garbage, train=True, mask=mask, method="decode", mutable=["batch_stats"]
    )  # fmt: skip
    out = reference.decoder_output(PARAMS, NOISE.astype(np.float64), PROTOTYPES.astype(np.float64), SCALE)
    mean, variance = out[rows].mean(axis=0), out[rows].var(axis=0)
    expected = np.maximum((out - mean) / np.sqrt(variance + 1e-5) * scale + bias, 0)
    np.testing.assert_allclose(normalized[rows], expected[rows], rtol=1e-4, atol=1e-5)
    running = updates["batch_stats"]["norm"]
    np.testing.assert_allclose(running["mean"], 0.9 * stats["norm"]["mean"] + 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(running["var"], 0.9 * stats["norm"]["var"] + 0.1 * variance, rtol=1e-5, atol=1e-6)

    normalized = net.apply(variables, NOISE, PROTOTYPES, method="decode")
    expected = np.maximum((out - stats["norm"]["mean"]) / np.sqrt(stats["norm"]["var"] + 1e-5) * scale + bias, 0)
    np.testing.assert_allclose(normalized, expected, rtol=1e-4, atol=1e-5)
