"""Compares a JAX function in float32 with its NumPy reference in float64: the value, and every gradient."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

STEP = 1e-5
"""Of central differences in float64: truncation and rounding both stay near 1e-10."""


def float64(tree: Any) -> Any:
    """Turns every array of a tree into a float64 copy."""
    return jax.tree.map(lambda x: np.array(x, np.float64), tree)


def cotangent(shape: tuple[int, ...]) -> np.ndarray:
    """Returns weights, all different and of both signs, that turn an array into one number."""
    return np.cos(1.0 + np.arange(np.prod(shape, dtype=int))).reshape(shape)


def central_differences(function: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
    """Computes the gradient of the sum of `function` x `cotangent` for each entry of each argument, one by one."""
    arguments = float64(arguments)

    def number() -> float:
        out = np.asarray(function(*arguments))
        return float(np.sum(out * cotangent(out.shape)))

    def gradient(x: np.ndarray) -> np.ndarray:
        result = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            here = x[index]
            x[index] = here + STEP
            above = number()
            x[index] = here - STEP
            below = number()
            x[index] = here
            result[index] = (above - below) / (2 * STEP)
        return result

    return jax.tree.map(gradient, arguments)


def value_and_gradients(function: Callable[..., Any], *arguments: Any) -> tuple[Any, tuple[Any, ...]]:
    """Computes, compiled, what `function` returns and the gradients of its sum x `cotangent` by JAX."""

    @jax.jit
    def both(*arguments: Any) -> Any:
        out, pullback = jax.vjp(function, *arguments)
        return out, pullback(cotangent(out.shape).astype(out.dtype))

    return both(*arguments)


def assert_agrees(function: Callable[..., Any], reference: Callable[..., Any], *arguments: Any) -> None:
    """Asserts that both functions have the same value and gradients at `arguments` (trees of float32 arrays)."""
    arguments = jax.tree.map(lambda x: np.asarray(x, np.float32), arguments)
    value, gradients = value_and_gradients(function, *arguments)
    np.testing.assert_allclose(value, reference(*float64(arguments)), rtol=1e-5, atol=1e-5)
    expected = central_differences(reference, *arguments)
    assert jax.tree.structure(gradients) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def assert_equal(ours: Any, theirs: Any) -> None:
    """Asserts that two trees of arrays are equal number by number (0 and -0 are the same number)."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
