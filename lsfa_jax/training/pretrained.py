"""A pretrained transformer from a folder as the Hugging Face hub has it: config.json, safetensors, tokenizer.

Only these files are read, and nothing in them is executed: weights that are pickled (pytorch_model.bin) are refused.
"""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from lsfa_jax.data.pieces import Pieces, read_tokenizer
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER
from lsfa_jax.model.encoders.hugging_face import Family, params_from_hugging_face
from lsfa_jax.model.encoders.interface import Architecture
from lsfa_jax.types import HostArray, PyTree
from lsfa_jax.util.console import UserError, warn

_FAMILIES: dict[str, Family] = {
    "bert": "bert",
    "distilbert": "distilbert",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
    "camembert": "roberta",
}
"""By `model_type` in config.json."""

_ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh", "relu"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

_WEIGHTS, _INDEX, _CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
_FLOATS = ("F64", "F32", "F16", "BF16")

# Beyond these a number in config.json is an error, not a model.
_MAX_SIZE = 10**7
_MAX_LAYERS = 100

# The least share of the embedding's rows that a tokenizer uses: tables are padded to round sizes.
_MIN_SHARE = 0.9

_LAYER = re.compile(r"\blayer\.(\d{1,4})\.")

_CONVERT = (
    "import glob, torch, safetensors.torch as s; s.save_file({k: v.clone().contiguous() for f in "
    "glob.glob('pytorch_model*.bin') for k, v in torch.load(f, map_location='cpu', weights_only=True).items()}, "
    f"'{_WEIGHTS}')"
)


class Pretrained(NamedTuple):
    """A pretrained encoder."""

    architecture: Architecture
    params: dict[str, PyTree]
    """float32 NumPy arrays by the names of the encoder's parameters."""


def read(folder: Path) -> Pretrained:
    """Reads a pretrained transformer of the BERT family.

    Args:
        folder: with config.json; model.safetensors, or its parts and model.safetensors.index.json, in float32, float16
            or bfloat16; and a tokenizer (`lsfa_jax.data.pieces.read_tokenizer`).

    Raises:
        UserError: a file is missing, cannot be read, or does not fit the others; or the architecture is not supported.
    """
    family, architecture = _architecture(folder)
    tensors = {name: tensor for file in _weight_files(folder) for name, tensor in _tensors(file)}
    layers = {int(match[1]) for name in tensors if (match := _LAYER.search(name))}
    if layers and max(layers) >= architecture.num_layers:
        raise UserError(
            f"{folder}: the weights have {max(layers) + 1} layers, and {_CONFIG} {architecture.num_layers}; they are "
            "not of the same model."
        )
    try:
        params = params_from_hugging_face(tensors, architecture, family)
    except ValueError as error:
        raise UserError(f"{folder}: the weights do not fit {_CONFIG}: {error}.") from None
    return Pretrained(architecture, params)


def _architecture(folder: Path) -> tuple[Family, Architecture]:
    """Returns what config.json and the tokenizer say."""
    path = folder / _CONFIG
    config = _json_object(path)
    family = _FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise _unsupported(path, config, "model_type", list(_FAMILIES))
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise _unsupported(path, config, "position_embedding_type", ["absolute"])
    if config.get("is_decoder"):
        raise _unsupported(path, config, "is_decoder", [False])
    sizes = _sizes(path, config, family)
    pieces = Pieces(read_tokenizer(folder), DEFAULT_TOKENIZER, max_words=1)
    if pieces.size > sizes["vocabulary_size"]:
        raise UserError(
            f"{folder}: the tokenizer has ids up to {pieces.size - 1:,}, and the embedding table of {_CONFIG} "
            f"{sizes['vocabulary_size']:,} rows (vocab_size). They are not of the same model."
        )
    if pieces.size < _MIN_SHARE * sizes["vocabulary_size"]:
        warn(
            f"{folder}: the tokenizer has {pieces.size:,} pieces, and the embedding table {sizes['vocabulary_size']:,} "
            "rows: is it the tokenizer of this model?"
        )
    return family, Architecture(
        **sizes,
        activation=_activation(path, config, family),
        norm_epsilon=_norm_epsilon(path, config),
        first_id=pieces.first_id,
        last_id=pieces.last_id,
    )


def _sizes(path: Path, config: dict[str, Any], family: Family) -> dict[str, int]:
    """Returns the sizes of an `Architecture`."""
    if family == "distilbert":
        names = ("dim", "n_layers", "n_heads", "hidden_dim")
    else:
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    hidden_size, num_layers, num_heads, intermediate_size = (_positive(path, config, name) for name in names)
    if hidden_size % num_heads:
        raise UserError(f"{path}: {names[0]} = {hidden_size} is not a multiple of {names[2]} = {num_heads}")
    if num_layers > _MAX_LAYERS:
        raise UserError(f"{path}: {names[1]} = {num_layers:,}, expected {_MAX_LAYERS:,} at most")
    num_positions = _positive(path, config, "max_position_embeddings")
    if family == "roberta":
        # Positions are counted from the one behind the padding's id.
        if config.get("pad_token_id", 1) != 1:
            raise _unsupported(path, config, "pad_token_id", [1])
        num_positions -= 2
    if num_positions < 3:
        raise UserError(f"{path}: max_position_embeddings leaves {num_positions} tokens, expected 3 or more")
    return {
        "vocabulary_size": _positive(path, config, "vocab_size"),
        "hidden_size": hidden_size,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "intermediate_size": intermediate_size,
        "num_positions": num_positions,
    }


def _positive(path: Path, config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    if type(value) is not int or not 1 <= value <= _MAX_SIZE:
        actual = "missing" if value is None else f"{value!r:.40}"
        raise UserError(f"{path}: {name} is {actual}, expected a whole number from 1 to {_MAX_SIZE:,}")
    return value


def _activation(path: Path, config: dict[str, Any], family: Family) -> Literal["gelu", "gelu_tanh", "relu"]:
    name = "activation" if family == "distilbert" else "hidden_act"
    activation = _ACTIVATIONS.get(str(config.get(name, "gelu")))
    if activation is None:
        raise _unsupported(path, config, name, list(_ACTIVATIONS))
    return activation


def _norm_epsilon(path: Path, config: dict[str, Any]) -> float:
    value = config.get("layer_norm_eps", 1e-12)
    if not isinstance(value, float) or not 0 < value < 1:
        raise UserError(f"{path}: layer_norm_eps is {value!r:.40}, expected a number between 0 and 1")
    return value


def _unsupported(path: Path, config: dict[str, Any], name: str, supported: list[Any]) -> UserError:
    names = ", ".join(map(str, supported))
    return UserError(f"{path}: {name} = {config.get(name)!r:.80} is not supported; supported: {names}.")


def _weight_files(folder: Path) -> list[Path]:
    """Returns the files with the weights."""
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if (folder / _INDEX).is_file():
        return _shards(folder / _INDEX)
    if any(folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"{folder}: no {_WEIGHTS}, only pytorch_model.bin, a pickle that could execute anything. Convert it, where "
            f'PyTorch is installed: cd {shlex.quote(str(folder.absolute()))} && python -c "{_CONVERT}"'
        )
    raise UserError(f"{folder}: no weights there. Expected {_WEIGHTS}, or its parts and {_INDEX}.")


def _shards(index: Path) -> list[Path]:
    """Returns the files that the index of sharded weights names."""
    mapping = _json_object(index).get("weight_map")
    names = set(mapping.values()) if isinstance(mapping, dict) else set()
    if not names:
        raise UserError(f"{index}: no weight_map from tensors to files in it")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{index}: {name!r:.80} is not the name of a safetensors file beside it")
        if not (index.parent / name).is_file():
            raise UserError(f"{index.parent / name}: missing; {index.name} names it. Fetch all parts of the weights.")
    return [index.parent / name for name in sorted(names)]


def _tensors(path: Path) -> Iterator[tuple[str, HostArray]]:
    """Yields the names and values float32 of the tensors of floating point in a safetensors file."""
    try:
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118, the file is no mapping
                if file.get_slice(name).get_dtype() not in _FLOATS:
                    continue
                tensor = file.get_tensor(name).astype(np.float32)
                if not np.isfinite(tensor).all():
                    raise UserError(f"{path}: the tensor {name!r:.80} has values that are not finite numbers")
                yield name, tensor
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}). Fetch it again.") from None


def _json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file with an object."""
    if not path.is_file():
        raise UserError(f"{path}: no such file. Expected the folder of a pretrained encoder, with {_CONFIG}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object")
    return content
