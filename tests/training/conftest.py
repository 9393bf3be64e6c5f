from collections.abc import Iterator

import jax
import pytest

from tests import training_corpus


@pytest.fixture(scope="session", autouse=True)
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Equal programs are compiled once in all tests."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.getbasetemp() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module")
def shared_steps() -> Iterator[None]:
    """Runs of the module with equal settings share their compiled steps."""
    with training_corpus.shared_steps():
        yield


@pytest.fixture(scope="session")
def tiny():
    """The tiny corpus."""
    return training_corpus.build()
