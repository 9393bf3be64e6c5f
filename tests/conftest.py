import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests import compilation

# Four devices on the CPU, set before the first array is created: sharding is tested on every machine.
jax.config.update("jax_num_cpu_devices", 4)
# Commands that tests start keep no compiled programs, unless the test sets a folder for them.
os.environ["JAX_COMPILATION_CACHE_DIR"] = ""
jax.config.update("jax_compilation_cache_dir", "")
# What a test needs as users compile it, it asks for: `optimized_programs`, and `reference.agreement.optimized_jit` for
# equations and sums.
compilation.quickly()
# Tracing creates millions of objects that live on; by default Python looks for garbage among them after every 700.
gc.set_threshold(50_000, 20, 20)

# No limits in seconds: they fail on a slow or busy machine. In CI the examples are the same in every run.
hypothesis_settings.register_profile(
    "lsfa_jax", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
hypothesis_settings.load_profile("lsfa_jax")

# A shell starts background jobs with SIGINT ignored, and processes inherit that: tests that send SIGINT would hang.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Each takes about a minute or more.
LONGEST = ("test_learning.py", "test_train.py", "test_run.py", "test_encoders.py", "test_label_axis.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest start first, so that no worker waits for one alone at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def _temporary_cache() -> tempfile.TemporaryDirectory:
    """Returns a cache with links to the user's downloads; what tests prepare is removed with it."""
    from lsfa_jax.data import download
    from lsfa_jax.util.cache_dir import cache_dir

    folder = tempfile.TemporaryDirectory(prefix="lsfa-tests-")
    for artifact in (download.RCV1, download.GLOVE_50D, download.MINILM):
        downloaded = cache_dir() / artifact.folder
        if downloaded.is_dir():
            (Path(folder.name) / artifact.folder).symlink_to(downloaded)
    os.environ["LSFA_DATA"] = folder.name
    return folder


# Before the test modules are imported; removed when the process ends.
_cache = _temporary_cache()


from tests import training_corpus  # noqa: E402 - after the cache is chosen


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Equal programs are compiled once in all tests; the environment variables with which a process shares them."""
    folder = tmp_path_factory.getbasetemp()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ  # its folder is in that of all workers
    with pytest.MonkeyPatch.context() as patch:
        # JAX's method writes a program in place, where another worker could read half of it.
        patch.setattr("jax._src.lru_cache.LRUCache.put", _put_whole)
        yield training_corpus.compile_into((folder.parent if is_worker else folder) / "compiled")


def _put_whole(cache: Any, key: str, program: bytes) -> None:
    """Stores a program by an atomic rename."""
    part = Path(cache.path) / f"{key}-{os.getpid()}"
    part.write_bytes(program)
    part.replace(Path(cache.path) / f"{key}-cache")


@pytest.fixture(scope="module")
def optimized_programs() -> Iterator[None]:
    """The module's programs are compiled as users compile them; JAX forgets the others, which round differently."""
    with pytest.MonkeyPatch.context() as patch:
        compilation.as_users_do(patch)
        jax.clear_caches()
        yield
    jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def _products_in_float32() -> Iterator[None]:
    """Equations are compared in float32, which accelerators otherwise round to TF32 or bfloat16 in matrix products."""
    with jax.default_matmul_precision("highest") if jax.default_backend() != "cpu" else nullcontext():
        yield


@pytest.fixture(scope="module")
def shared_steps() -> Iterator[None]:
    """Runs of the module with equal settings share their compiled steps."""
    with training_corpus.shared_steps():
        yield


@pytest.fixture(scope="session")
def tiny():
    """The tiny corpus."""
    return training_corpus.build()


@pytest.fixture(scope="module")
def module_on_one_device(shared_steps: None) -> Iterator[None]:
    """Runs of the module use one device, and share their compiled steps."""
    with training_corpus.one_device():
        yield


@pytest.fixture
def one_device() -> Iterator[None]:
    """Runs use one device."""
    with training_corpus.one_device():
        yield
