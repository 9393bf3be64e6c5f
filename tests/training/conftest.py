from collections.abc import Iterator

import pytest

from tests import training_corpus


@pytest.fixture(scope="session", autouse=True)
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Equal programs are compiled once in all tests."""
    training_corpus.compile_into(tmp_path_factory.getbasetemp() / "compiled")


@pytest.fixture(scope="module")
def shared_steps() -> Iterator[None]:
    """Runs of the module with equal settings share their compiled steps."""
    with training_corpus.shared_steps():
        yield


@pytest.fixture(scope="session")
def tiny():
    """The tiny corpus."""
    return training_corpus.build()


@pytest.fixture
def compiled_fast(_compiled) -> Iterator[None]:
    """Runs take one device and hasty compilation."""
    with training_corpus.compiled_fast():
        yield
