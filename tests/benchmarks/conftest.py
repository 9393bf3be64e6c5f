import jax.numpy as jnp
import pytest

from benchmarks.cases import SHAPES
from benchmarks.ours.model import Ours, make


@pytest.fixture(scope="module")
def ours() -> Ours:
    """A tiny model and its documents."""
    initial = make(SHAPES["tiny"], 0)
    # Biases of zero would hide one that a peer does not copy.
    bias = jnp.linspace(-0.5, 0.5, initial.shape.feature_size)
    labels = initial.params["labels"]
    labels = labels | {"head": labels["head"] | {"bias": bias}}
    return initial._replace(params=initial.params | {"labels": labels})
