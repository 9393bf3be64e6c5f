"""The network as ONNX by jax2onnx, for ONNX Runtime."""

import logging
from pathlib import Path
from typing import Any

from lsfa_jax.serving.export.network import Network, Program
from lsfa_jax.types import HostArray

ANY_LENGTH = False
"""Whether a program takes texts of any number of tokens; jax2onnx 0.17 converts no loop over a symbolic number."""

OPSET = 23


def convert(network: Network, program: Program) -> bytes:
    """Returns a program as an ONNX model."""
    # They log plugins and shapes that no network needs; errors are raised.
    for library in ("jax2onnx", "onnx_ir"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    from jax2onnx import to_onnx

    model: Any = to_onnx(network, inputs=list(program.shapes), input_names=["token_ids", "lengths"], opset=OPSET)
    return bytes(model.SerializeToString())


def write_weights(network: Network, folder: Path) -> None:
    """Writes nothing: each program has the weights inside."""


def run(path: Path, token_ids: HostArray, lengths: HostArray) -> HostArray:
    """Computes a program of a file."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # errors: it warns of constants that it removes
    session = onnxruntime.InferenceSession(path)
    result: HostArray = session.run(None, {"token_ids": token_ids, "lengths": lengths})[0]
    return result
