"""The XLA flag without which some versions of jaxlib compute wrong sums on CPUs.

jaxlib hands loops of products and sums to the library YNNPACK, and compiles some of these loops wrongly, without an
error. The flag takes sums out of them; matrix products stay, because they are fast and right. `known_sums` checks.
"""

import os

from jaxlib.version import __version__ as jaxlib_version

AFFECTED = ("0.10.2", "0.11.0", "0.11.1", "0.11.2", "0.12.0", "0.12.0.1")
"""Versions of jaxlib that compute one of `known_sums` wrong without the flag and right with it; each was tried.

A list and not a range: XLA ends the process at a flag that it does not know.
"""

_NAME = "--xla_cpu_experimental_ynn_fusion_type"
FLAG = f"{_NAME}=-reduce"
"""For the environment variable XLA_FLAGS."""


def avoid_wrong_sums() -> None:
    """Adds the flag to XLA_FLAGS if this version of jaxlib needs it; a value that the user set stays.

    XLA reads XLA_FLAGS when JAX first uses a device; later the flag has no effect on this process.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    # XLA reads a value without a leading minus as the name of a file of flags.
    names_file = flags and not flags.startswith("-")
    if jaxlib_version in AFFECTED and not names_file and _NAME not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}".lstrip()
