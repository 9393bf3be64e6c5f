"""A trained classifier as files: settings, words, labels, weights. Nothing is executed, every byte is checked.

A run folder is one (`bin/train` adds its checkpoints and figures); `LSFA.save` writes the bare five files.
"""

import hashlib
import json
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

FORMAT = 1
"""Raised by one when an older version could no longer read what this one writes."""

ADVICE = "make room, or choose another --output"
"""What to do about a folder that cannot be written."""

_MANIFEST = "model.json"
_FILES = ("config.toml", "vocabulary", "labels", "weights.safetensors")
_COUNTS = "label_counts"


@dataclass(frozen=True)
class TrainedModel:
    """What predicting needs, on the host."""

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


def write(folder: Path, model: TrainedModel) -> None:
    """Writes a model into a folder, which may hold other files. The manifest comes last: without it there is no model.

    Raises:
        UserError: the folder cannot be written.
    """
    texts = text_files(model.words, model.labels) | {"config.toml": to_toml(model.config)}
    arrays = {_COUNTS: model.label_counts} | flatten_dict({"params": model.params}, sep="/")
    content = {name: text.encode() for name, text in texts.items()}
    # A run's list goes on with labels that only its test documents have, and stays as it is.
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
    content[_MANIFEST] = (json.dumps(manifest | {"sha256": _own_digest(manifest)}, indent=2) + "\n").encode()
    invalidate(folder)
    for name, data in content.items():
        atomic.write_bytes(folder / name, data, ADVICE)


def invalidate(folder: Path) -> None:
    """Says that the folder's files are no model any more, because some of them are about to change.

    Raises:
        UserError: the folder cannot be written.
    """
    with atomic.errors(folder, ADVICE):
        (folder / _MANIFEST).unlink(missing_ok=True)


def read(folder: Path) -> TrainedModel:
    """Reads a model.

    Raises:
        UserError: the folder holds no finished model, one that another version wrote, or one with a file that is
            missing, cut off or changed; the message names the file.
    """
    manifest = _read_manifest(folder)
    content = {name: _checked(folder / name, manifest["files"][name]) for name in _FILES}
    arrays = _arrays(folder, content["weights.safetensors"])
    # Lines end at "\n" alone: a name may hold what `splitlines` takes for an end. A run's list goes on with labels that
    # only its test documents have.
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
            else f"{folder}: no model here (no {_MANIFEST}); give the --output folder of a bin/train"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise _damaged(path, "it is no JSON") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(found, int) and found != FORMAT:
        raise UserError(
            f"{path}: written by lsfa_jax {manifest.get('lsfa_jax')} in format {found}, and this is lsfa_jax "
            f"{version('lsfa_jax')}, which reads format {FORMAT}. Use that version, or train anew."
        )
    if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _own_digest(manifest):
        raise _damaged(path, "its checksum is another")
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


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: changed or damaged since it was written ({what}). Copy the folder again, or train anew.")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _own_digest(manifest: dict[str, Any]) -> str:
    return _digest(json.dumps(manifest, sort_keys=True).encode())
