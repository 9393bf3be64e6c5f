"""The network as StableHLO by `jax.export`: artefacts that JAX runs on other platforms and in later versions."""

from pathlib import Path

import jax
import numpy as np
from jax import export

from lsfa_jax.serving.export.network import Network, Program
from lsfa_jax.types import HostArray

ANY_LENGTH = True
"""Whether a program takes texts of any number of tokens."""

PLATFORMS = ("cpu", "cuda", "tpu")
"""Where the programs run."""

_WEIGHTS = "weights.npz"


def convert(network: Network, program: Program) -> bytes:
    """Returns a program as the bytes that `jax.export.deserialize` reads: of weights, token ids and lengths."""
    weights = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in network.weights.items()}
    traced = export.export(jax.jit(network.with_weights), platforms=PLATFORMS)(weights, *program.shapes)
    return bytes(traced.serialize())


def write_weights(network: Network, folder: Path) -> None:
    """Writes the weights, which all programs of a folder share."""
    np.savez(folder / _WEIGHTS, **network.weights)


def run(path: Path, token_ids: HostArray, lengths: HostArray) -> jax.Array:
    """Computes a program of a file with the weights beside it."""
    with np.load(path.with_name(_WEIGHTS), allow_pickle=False) as weights:
        return export.deserialize(bytearray(path.read_bytes())).call(dict(weights), token_ids, lengths)
