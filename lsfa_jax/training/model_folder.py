"""A trained classifier as files: settings, words, labels, weights. Reading executes nothing and checks every byte.

Every run folder is a model folder, with checkpoints and metrics beside the five files of the model; `LSFA.save` writes
only these five.
"""

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError

from lsfa_jax.config import Config, to_toml, validated
from lsfa_jax.util import atomic
from lsfa_jax.util.console import UserError

FORMAT = 2
"""Increased when older versions cannot read the new format. Format 1 had flat parameter names."""

ADVICE = "make room, or choose another --output"
"""What to do about a folder that cannot be written."""

_MANIFEST = "model.json"
_FILES = ("config.toml", "vocabulary", "labels", "weights.safetensors")
_COUNTS = "label_counts"
_FORMAT_1_NAMES = (
    (r"params/embedding", "params/encoder/embedding"),
    (r"params/lstm_(forward|backward)_(\w+)", r"params/encoder/\1/\2"),
    (r"params/label_queries", "params/labels/queries"),
    (r"params/head_(kernel|bias)", r"params/labels/head/\1"),
)


@dataclass(frozen=True)
class TrainedModel:
    """A trained model in host memory: everything that prediction needs."""

    config: Config
    words: list[str]
    """The vocabulary; word i has the id `vocabulary.NUM_SPECIAL + i`."""
    labels: list[str]
    """The names of the L labels, most frequent first."""
    label_counts: np.ndarray = field(repr=False)
    """int64[L], documents of each label in the published training split."""
    num_documents: int
    """Documents of the published training split."""
    threshold: float
    """The probability from which a label is predicted, chosen on validation documents."""
    params: dict[str, Any] = field(repr=False)
    """float32 arrays, as `Lsfa` names them."""


def text_files(words: list[str], labels: list[str]) -> dict[str, str]:
    """Returns the content of `vocabulary` (a word a line) and `labels` (a JSON string a line)."""
    return {
        "vocabulary": "".join(f"{word}\n" for word in words),
        "labels": "".join(f"{json.dumps(label, ensure_ascii=False)}\n" for label in labels),
    }


def paths(folder: Path) -> list[Path]:
    """Returns the files that a model is read from."""
    return [folder / name for name in (_MANIFEST, *_FILES)]


def write(folder: Path, model: TrainedModel) -> None:
    """Writes a model into a folder, which may have other files. The manifest comes last: without it there is no model.

    Raises:
        UserError: the folder cannot be written.
    """
    texts = text_files(model.words, model.labels) | {"config.toml": to_toml(model.config)}
    arrays = {_COUNTS: model.label_counts} | flatten_dict({"params": model.params}, sep="/")
    content = {name: text.encode() for name, text in texts.items()}
    # In a run folder, the file also lists the labels that occur only in test documents: they are kept.
    if (folder / "labels").is_file() and (longer := (folder / "labels").read_bytes()).startswith(content["labels"]):
        content["labels"] = longer
    content["weights.safetensors"] = safetensors.numpy.save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    )
    manifest = {
        "format": FORMAT,
        "lsfa_jax": version("lsfa_jax"),
        "corpus": model.config.dataset,
        "num_labels": len(model.labels),
        "num_documents": model.num_documents,
        "threshold": model.threshold,
        "files": {name: {"bytes": len(content[name]), "sha256": _digest(content[name])} for name in _FILES},
    }
    content[_MANIFEST] = (json.dumps(manifest | {"sha256": _manifest_digest(manifest)}, indent=2) + "\n").encode()
    invalidate(folder)
    for name, data in content.items():
        atomic.write_bytes(folder / name, data, ADVICE)


def invalidate(folder: Path) -> None:
    """Deletes the manifest before other files change: the folder has no model until it is written again.

    Raises:
        UserError: the folder cannot be written.
    """
    with atomic.errors(folder, ADVICE):
        (folder / _MANIFEST).unlink(missing_ok=True)


def read(folder: Path) -> TrainedModel:
    """Reads a model.

    Raises:
        UserError: no model in the folder, one of a later format, or a missing, truncated or modified file; the message
            names it.
    """
    manifest = _read_manifest(folder)
    content = {name: _checked(folder / name, manifest["files"][name]) for name in _FILES}
    arrays = _arrays(folder, content["weights.safetensors"])
    if manifest["format"] == 1:
        arrays = {_from_format_1(name): array for name, array in arrays.items()}
    # Split at "\n" only: `splitlines` would also split at characters that a name may contain. In a run folder the list
    # continues with the labels that occur only in test documents.
    labels = [json.loads(line) for line in content["labels"].decode().split("\n")[: manifest["num_labels"]]]
    return TrainedModel(
        config=validated(tomllib.loads(content["config.toml"].decode()), str(folder / "config.toml")),
        words=content["vocabulary"].decode().split("\n")[:-1],
        labels=labels,
        label_counts=arrays.pop(_COUNTS),
        num_documents=manifest["num_documents"],
        threshold=manifest["threshold"],
        params=unflatten_dict(arrays, sep="/")["params"],
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        unfinished = (folder / "config.toml").is_file()
        raise UserError(
            f"{folder}: holds a run that has no model yet; finish it with bin/train --output {folder} --resume"
            if unfinished
            else f"{folder}: no model in this folder (no {_MANIFEST}); give the --output folder of a bin/train"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    written = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(written, int) and not 1 <= written <= FORMAT:
        raise UserError(
            f"{path}: written by lsfa_jax {manifest.get('lsfa_jax')} in format {written}, and this is lsfa_jax "
            f"{version('lsfa_jax')}, which reads formats up to {FORMAT}. Use that version, or train again."
        )
    if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _manifest_digest(manifest):
        raise _damaged(path, "its checksum differs")
    return manifest


def _checked(path: Path, expected: dict[str, Any]) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _damaged(path, f"it cannot be read: {error.strerror}") from None
    if len(data) != expected["bytes"]:
        raise _damaged(path, f"it has {len(data):,} bytes instead of {expected['bytes']:,}")
    if _digest(data) != expected["sha256"]:
        raise _damaged(path, "its bytes are not the ones that were written")
    return data


def _arrays(folder: Path, data: bytes) -> dict[str, Any]:
    try:
        return dict(safetensors.numpy.load(data))
    except SafetensorError as error:
        raise _damaged(folder / "weights.safetensors", str(error)) from None


def _from_format_1(name: str) -> str:
    """Returns the path of a parameter of format 1 in the parameter tree."""
    for pattern, path in _FORMAT_1_NAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, path, name)
    return name


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: changed or damaged since it was written ({what}). Copy the folder again, or train again."
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _manifest_digest(manifest: dict[str, Any]) -> str:
    return _digest(json.dumps(manifest, sort_keys=True).encode())
