import os
import signal
import tempfile
from pathlib import Path

import jax

# Four devices on the CPU, asked for before the first array is made: what is split over devices is tested everywhere.
jax.config.update("jax_num_cpu_devices", 4)
# Commands keep no compiled programs where the setting is there and empty; tests that want them kept say so.
os.environ["JAX_COMPILATION_CACHE_DIR"] = ""
jax.config.update("jax_compilation_cache_dir", "")

# A shell starts its background jobs with SIGINT ignored, and processes inherit that: tests that interrupt would wait.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _own_cache() -> tempfile.TemporaryDirectory:
    """A cache with what the user's has fetched, so that what tests prepare is not kept."""
    from lsfa_jax.data import sources

    folder = tempfile.TemporaryDirectory(prefix="lsfa-tests-")
    for artifact in (sources.RCV1, sources.GLOVE_50D):
        fetched = sources.cache_dir() / artifact.folder
        if fetched.is_dir():
            (Path(folder.name) / artifact.folder).symlink_to(fetched)
    os.environ["LSFA_DATA"] = folder.name
    return folder


# Before the tests' modules are imported; it goes with the process.
_cache = _own_cache()
