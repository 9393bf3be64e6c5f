"""Converts the tensors of a Hugging Face model of the BERT family to the parameters of `transformer`."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from lsfa_jax.model.encoders.interface import Architecture
from lsfa_jax.model.encoders.transformer import layer_name
from lsfa_jax.types import HostArray, PyTree

Family = Literal["bert", "distilbert", "roberta"]
"""How the tensors of a Hugging Face folder are named."""


class _LayerNames(NamedTuple):
    """Names of the tensors of a layer, without `.weight` and `.bias`; {} stands for the number of the layer."""

    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    inner: str
    output: str
    norm: str


_BERT = _LayerNames(
    query="encoder.layer.{}.attention.self.query",
    key="encoder.layer.{}.attention.self.key",
    value="encoder.layer.{}.attention.self.value",
    attention_output="encoder.layer.{}.attention.output.dense",
    attention_norm="encoder.layer.{}.attention.output.LayerNorm",
    inner="encoder.layer.{}.intermediate.dense",
    output="encoder.layer.{}.output.dense",
    norm="encoder.layer.{}.output.LayerNorm",
)
_DISTILBERT = _LayerNames(
    query="transformer.layer.{}.attention.q_lin",
    key="transformer.layer.{}.attention.k_lin",
    value="transformer.layer.{}.attention.v_lin",
    attention_output="transformer.layer.{}.attention.out_lin",
    attention_norm="transformer.layer.{}.sa_layer_norm",
    inner="transformer.layer.{}.ffn.lin1",
    output="transformer.layer.{}.ffn.lin2",
    norm="transformer.layer.{}.output_layer_norm",
)
_LAYER_NAMES: dict[Family, _LayerNames] = {"bert": _BERT, "distilbert": _DISTILBERT, "roberta": _BERT}

# RoBERTa counts positions from its padding id + 1.
_UNUSED_POSITIONS = {"bert": 0, "distilbert": 0, "roberta": 2}


def _old_name(name: str) -> str:
    """Returns the name that a tensor has in old files."""
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


class _Tensors:
    """Looks tensors up by name and checks their shapes."""

    def __init__(self, tensors: Mapping[str, HostArray], family: Family) -> None:
        """Accepts names with and without the family's prefix."""
        self._tensors = tensors
        prefix = f"{family}."
        self._prefix = prefix if any(name.startswith(prefix) for name in tensors) else ""

    def get(self, name: str, *shape: int | None) -> HostArray:
        """Returns a tensor as float32; its size along an axis may be any where `shape` has None.

        Raises:
            ValueError: it is missing, or its shape is another one.
        """
        name = self._prefix + name
        tensor = self._tensors.get(name, self._tensors.get(_old_name(name)))
        if tensor is None:
            raise ValueError(f"tensor {name} is missing")
        if tensor.ndim != len(shape) or any(n not in (m, None) for m, n in zip(tensor.shape, shape, strict=True)):
            expected = ", ".join("any" if n is None else str(n) for n in shape)
            raise ValueError(f"tensor {name} has shape {list(tensor.shape)}: expected [{expected}]")
        return np.asarray(tensor, np.float32)

    def norm(self, name: str, size: int) -> dict[str, HostArray]:
        """Returns the parameters of a layer norm."""
        return {"scale": self.get(f"{name}.weight", size), "bias": self.get(f"{name}.bias", size)}

    def dense(self, names: tuple[str, ...], rows: int, columns: int) -> dict[str, HostArray]:
        """Returns the parameters of dense layers with the same input, side by side."""
        kernels = [self.get(f"{name}.weight", columns, rows).T for name in names]
        return {
            "kernel": np.concatenate(kernels, axis=1),
            "bias": np.concatenate([self.get(f"{name}.bias", columns) for name in names]),
        }


def params_from_hugging_face(
    tensors: Mapping[str, HostArray], architecture: Architecture, family: Family
) -> dict[str, PyTree]:
    """Converts the tensors of a Hugging Face model to the parameters of `transformer`.

    Token type 0 is added to the positions, and the positions that RoBERTa never uses are cut off. Tensors after the
    last layer (pooler, heads) are ignored.

    Args:
        tensors: by their names, with or without the prefix `bert.`, `distilbert.` or `roberta.`.
        architecture: sizes.
        family: how tensors are named.

    Returns:
        The parameters, float32.

    Raises:
        ValueError: a tensor is missing or has another shape.
    """
    source = _Tensors(tensors, family)
    params = {"embedding": _convert_embedding(source, architecture, family)}
    for i in range(architecture.num_layers):
        names = _LayerNames(*(name.format(i) for name in _LAYER_NAMES[family]))
        params[layer_name(i)] = _convert_layer(source, architecture, names)
    return params


def _convert_embedding(source: _Tensors, architecture: Architecture, family: Family) -> PyTree:
    hidden, unused = architecture.hidden_size, _UNUSED_POSITIONS[family]
    positions = source.get("embeddings.position_embeddings.weight", architecture.num_positions + unused, hidden)[
        unused:
    ]
    if family != "distilbert":
        positions = positions + source.get("embeddings.token_type_embeddings.weight", None, hidden)[0]
    return {
        "words": source.get("embeddings.word_embeddings.weight", architecture.vocabulary_size, hidden),
        "positions": positions,
        "norm": source.norm("embeddings.LayerNorm", hidden),
    }


def _convert_layer(source: _Tensors, architecture: Architecture, names: _LayerNames) -> PyTree:
    hidden, inner = architecture.hidden_size, architecture.intermediate_size
    return {
        "attention": {
            "qkv": source.dense((names.query, names.key, names.value), hidden, hidden),
            "output": source.dense((names.attention_output,), hidden, hidden),
            "norm": source.norm(names.attention_norm, hidden),
        },
        "feed_forward": {
            "inner": source.dense((names.inner,), hidden, inner),
            "output": source.dense((names.output,), inner, hidden),
            "norm": source.norm(names.norm, hidden),
        },
    }
