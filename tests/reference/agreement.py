"""Compares a JAX function in float32 with its NumPy reference in float64: the value and every gradient."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lsfa_jax.types import PyTree
from tests.compilation import AS_USERS

STEP = 1e-5
"""Step of central differences in float64: truncation and rounding errors are both near 1e-10."""

optimized_jit = functools.partial(jax.jit, compiler_options=AS_USERS)
"""jax.jit as users have it: elsewhere tests compile quickly."""


def float64(tree: PyTree) -> PyTree:
    """Returns a tree with a float64 copy of each array."""
    return jax.tree.map(lambda x: np.array(x, np.float64), tree)


def cotangent(shape: tuple[int, ...]) -> np.ndarray:
    """Returns distinct weights of both signs, with which an array is summed to a scalar."""
    return np.cos(1.0 + np.arange(np.prod(shape, dtype=int))).reshape(shape)


def central_differences(function: Callable[..., Any], *arguments: PyTree) -> tuple[PyTree, ...]:
    """Computes the gradient of the sum of `function` x `cotangent` in each entry of each argument."""
    arguments = float64(arguments)

    def weighted_sum() -> float:
        out = np.asarray(function(*arguments))
        return float(np.sum(out * cotangent(out.shape)))

    def gradient(x: np.ndarray) -> np.ndarray:
        result = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            value = x[index]
            x[index] = value + STEP
            above = weighted_sum()
            x[index] = value - STEP
            below = weighted_sum()
            x[index] = value
            result[index] = (above - below) / (2 * STEP)
        return result

    return jax.tree.map(gradient, arguments)


def value_and_gradients(
    function: Callable[..., Any], *arguments: PyTree, jit: Callable[..., Any] = jax.jit
) -> tuple[PyTree, tuple[PyTree, ...]]:
    """Computes, compiled, the value of `function` and by JAX the gradients of its sum x `cotangent`."""

    @jit
    def compiled(*arguments: PyTree) -> PyTree:
        out, pullback = jax.vjp(function, *arguments)
        return out, pullback(cotangent(out.shape).astype(out.dtype))

    return compiled(*arguments)


def assert_agrees(function: Callable[..., Any], reference: Callable[..., Any], *arguments: PyTree) -> None:
    """Asserts that both functions have the same value and gradients at `arguments` (trees of float32 arrays)."""
    arguments = jax.tree.map(lambda x: np.asarray(x, np.float32), arguments)
    value, gradients = value_and_gradients(function, *arguments, jit=optimized_jit)
    np.testing.assert_allclose(value, reference(*float64(arguments)), rtol=1e-5, atol=1e-5)
    expected_gradients = central_differences(reference, *arguments)
    assert jax.tree.structure(gradients) == jax.tree.structure(expected_gradients)
    for actual, expected in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def assert_equal(actual: PyTree, expected: PyTree) -> None:
    """Asserts that two trees have the same structure and equal numbers (0 equals -0, nan equals nan)."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
