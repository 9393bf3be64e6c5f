"""The folder for what is kept from run to run: fetched files, prepared corpora, compiled programs."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_dir() -> Path:
    """Returns the folder that the environment variable LSFA_DATA names, else one in the user's cache folder."""
    chosen = os.environ.get("LSFA_DATA")
    return Path(chosen).expanduser() if chosen else user_cache_path("lsfa_jax", appauthor=False)
