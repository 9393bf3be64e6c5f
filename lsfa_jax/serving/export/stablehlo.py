"""The network as StableHLO by `jax.export`: an artefact that JAX runs on other platforms and in later versions."""

from pathlib import Path

import jax
from jax import export

from lsfa_jax.serving.export.network import Network, Program
from lsfa_jax.types import HostArray

ANY_LENGTH = True
"""Whether a program takes texts of any number of tokens."""

PLATFORMS = ("cpu", "cuda", "tpu")
"""Where the programs run."""


def convert(network: Network, program: Program) -> bytes:
    """Returns a program as the bytes that `jax.export.deserialize` reads."""
    return bytes(export.export(jax.jit(network), platforms=PLATFORMS)(*program.shapes).serialize())


def run(path: Path, token_ids: HostArray, lengths: HostArray) -> jax.Array:
    """Computes a program of a file."""
    return export.deserialize(bytearray(path.read_bytes())).call(token_ids, lengths)
