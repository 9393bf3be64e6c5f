"""The compiled program of a model in bfloat16: of which kind its products are."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax import config
from lsfa_jax.model import lsfa
from lsfa_jax.model.attention import product
from lsfa_jax.model.encoders import EncoderShape
from tests.reference.agreement import assert_agrees, optimized_jit
from tests.reference.inputs import normal

V, E, H, D, L = 50, 20, 8, 24, 70
B, T, K = 4, 32, 4

DOT = re.compile(r"= (?P<result>\w+)\[\S+ dot\(%(?P<left>[\w.-]+), %(?P<right>[\w.-]+)\), (?P<rest>.*)")

IN_FLOAT32 = ("bl,bld->ld",)
"""Products that stay in float32, as they are a sum of few numbers each: the gradient of the classifiers, over the
documents of a tile."""


class Dot(NamedTuple):
    """A product of the compiled program."""

    result: str
    factors: tuple[str, str]
    left_rows_are_summed: bool
    """Whether the left factor is column-major, which XLA on a CPU multiplies slowly in bfloat16."""
    text: str


def dots(function, *arguments):
    """Lists the products in the compiled program of a function."""
    text = optimized_jit(function).lower(*arguments).compile().as_text()
    every = []
    for computation in text.split("\n\n"):
        dtypes = dict(re.findall(r"%([\w.-]+) = (\w+)\[", computation))
        for line in computation.splitlines():
            if match := DOT.search(line):
                batch = re.search(r"lhs_batch_dims={([\d,]*)}", match["rest"])
                num_batch = len(batch[1].split(",")) if batch else 0
                summed = re.search(r"lhs_contracting_dims={(\d+)", match["rest"])
                factors = dtypes[match["left"]], dtypes[match["right"]]
                every.append(Dot(match["result"], factors, int(summed[1]) == num_batch, line.strip()))
    return every


def loss_and_gradients(kind, dtype):
    """A function whose compiled program has every product of a training step, and its argument."""
    encoder = {"kind": kind, "hidden_size": H, "feature_size": D}
    settings = config.Config(encoder=encoder, precision=dtype, classifier={"bias": True})
    model = lsfa.make_model(settings, EncoderShape(V, E), L)
    words, lengths = np.ones((B, T), np.int32), np.array([T, 5, 0, 9], np.int32)
    label_ids, label_mask = np.tile(np.arange(K), (B, 1)), np.ones((B, K), bool)

    def loss(params):
        bound = model.bind({"params": params}, rngs={"dropout": jax.random.key(1)})
        states = bound.states(words, lengths, train=True)
        features = bound.positive_features(states, lengths, label_ids)
        return bound.loss(states, lengths, label_ids, label_mask, lengths > 0) + jnp.sum(features**2)

    return jax.value_and_grad(loss), lsfa.init_params(model, jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bilstm", "cnn"])
def test_every_product_of_a_step_in_bfloat16_has_factors_in_bfloat16_and_a_result_in_float32(kind):
    every = dots(*loss_and_gradients(kind, "bfloat16"))
    assert len(every) >= 20
    in_float32 = [dot for dot in every if dot.factors != ("bf16", "bf16")]
    assert all(dot.result == "f32" for dot in every)
    assert len(in_float32) <= len(IN_FLOAT32), [dot.text for dot in in_float32]
    slow = [dot.text for dot in every if dot.left_rows_are_summed and dot not in in_float32]
    assert not slow


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [("ni,ng->ig", ((8, 5), (8, 3))), ("blt,bld->btd", ((2, 9, 4), (2, 9, 3))), ("ni,ng->ig", ((11, 5), (11, 3)))],
    ids=["even", "a batch", "a prime number of rows"],
)
def test_a_product_over_rows_in_bfloat16_is_that_of_the_rounded_factors(spec, shapes):
    a, b = (np.asarray(jnp.asarray(normal(*shape), jnp.bfloat16), np.float32) for shape in shapes)
    expected = np.einsum(spec, a, b, dtype=np.float64)
    for compute in (product, jax.jit(product, static_argnums=(0, 3))):
        np.testing.assert_allclose(compute(spec, a, b, jnp.bfloat16), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "shapes"), [("nh,hd->nd", ((6, 4), (4, 3))), ("btd,ld->blt", ((2, 4, 3), (5, 3)))], ids=["matrix", "batch"]
)
def test_gradients_of_a_product_in_bfloat16_are_products_of_the_rounded_cotangent(spec, shapes):
    a, b = (np.asarray(jnp.asarray(normal(*shape), jnp.bfloat16), np.float32) for shape in shapes)
    out, pullback = jax.vjp(lambda a, b: product(spec, a, b, jnp.bfloat16), a, b)
    d_out = normal(*out.shape, seed=5)
    rounded = np.asarray(jnp.asarray(d_out, jnp.bfloat16), np.float32)
    expected = jax.vjp(lambda a, b: product(spec, a, b), a, b)[1](rounded)
    for actual, wanted in zip(pullback(d_out), expected, strict=True):
        assert actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)


def test_a_product_in_float32_and_its_gradients_are_those_of_einsum():
    assert_agrees(
        lambda a, b: product("ni,ng->ig", a, b), lambda a, b: np.einsum("ni,ng->ig", a, b), normal(6, 4), normal(6, 3)
    )
