from collections.abc import Iterator

import jax
import pytest

from tests import training_corpus


@pytest.fixture(scope="module", autouse=True)
def _few_optimizations(_compiled: None) -> Iterator[None]:
    """These tests spend their time compiling; the equations are also tested fully optimised, in tests/model."""
    with training_corpus.compiled_fast(devices=jax.local_device_count()):
        yield
