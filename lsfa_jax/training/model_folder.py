"""A trained classifier as files: settings, vocabulary, labels, weights. Reading executes nothing and checks every byte.

Every run folder is a model folder, with checkpoints and metrics beside the files of the model; `LSFA.save` writes
these (five, and with a fused score those of the linear model in linear/) and estimator.json. With a pretrained encoder,
tokenizer.json is in place of the vocabulary. model.json has a checksum of each other file, and in its last line but one
that of its other lines.
Checksums find damage. Against a file that was changed with its checksum, reading also checks that words, labels and
weights have the shapes that the settings describe.
"""

import hashlib
import json
import re
import shlex
import shutil
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError

from lsfa_jax import __version__
from lsfa_jax.config import Config, to_toml, validated
from lsfa_jax.data.pieces import Pieces
from lsfa_jax.data.tokenizer import Tokenizer
from lsfa_jax.data.vocabulary import NUM_SPECIAL, Vocabulary, Words
from lsfa_jax.model.encoders import EncoderShape
from lsfa_jax.model.encoders.interface import Architecture
from lsfa_jax.model.lsfa import init_params, make_model
from lsfa_jax.sparse import fusion as fused_score
from lsfa_jax.sparse import linear as linear_models
from lsfa_jax.sparse.fusion import Fusion
from lsfa_jax.sparse.linear import LinearModel
from lsfa_jax.util import atomic
from lsfa_jax.util.console import UserError, first_line
from lsfa_jax.util.folder_lock import FolderLock

FORMAT = 7
"""The format that is written, and the only one that is read."""

ADVICE = "make room, or choose another --output"
"""What to do about a folder that cannot be written."""

_MANIFEST = "model.json"
_WEIGHTS = "weights.safetensors"
_VOCABULARY, _TOKENIZER = "vocabulary", "tokenizer.json"
_COUNTS = "label_counts"
_LINEAR, _FUSION = "linear/", "fusion/"
_LINEAR_NAME = re.compile(rf"{_LINEAR}(tree/)?\w[\w.-]*")
_EMBEDDING = "params/encoder/embedding"


@dataclass(frozen=True)
class TrainedModel:
    """A trained model in host memory: everything that prediction needs."""

    config: Config
    words: list[str]
    """The vocabulary; word i has the id `vocabulary.NUM_SPECIAL + i`. Empty with a pretrained encoder."""
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
    tokenizer: str = field(default="", repr=False)
    """The tokenizer of a pretrained encoder, as the JSON of the library `tokenizers`; "" with a vocabulary of words."""
    architecture: Architecture | None = None
    """The sizes of a pretrained encoder."""
    linear: LinearModel | None = field(default=None, repr=False)
    """The linear model that proposes labels, or whose score is fused; None where the network decides alone."""
    fusion: Fusion | None = field(default=None, repr=False)
    """The weights of the fused score; None where the network's is not fused."""

    @property
    def linear_alone(self) -> str:
        """Says that the linear model ranks labels alone; "" where the network has a part in the score."""
        if self.linear is None or self.fusion is None or not self.fusion.leaves_network_out:
            return ""
        return fused_score.alone(self.linear.kind)

    @property
    def scoring_params(self) -> dict[str, Any]:
        """The parameters that the scorer takes: those of the network, and the weights of the fused score."""
        return self.params | ({"fusion": self.fusion.for_scoring} if self.fusion else {})

    @property
    def encoder_shape(self) -> EncoderShape:
        """What the encoder is built for."""
        if self.architecture:
            return EncoderShape(self.architecture.vocabulary_size, self.architecture.hidden_size, self.architecture)
        return EncoderShape(*self.params["encoder"]["embedding"].shape)

    def vocabulary(self) -> Vocabulary:
        """Returns the function from texts to token ids."""
        data = self.config.data
        words = Tokenizer.from_settings(data)
        if self.tokenizer:
            return Pieces(self.tokenizer, words, data.max_words)
        return Words(self.words, words, data.max_words)


def text_files(words: list[str], labels: list[str], tokenizer: str = "") -> dict[str, str]:
    """Returns the content of `labels` (a JSON string a line) and of `vocabulary` (a word a line) or tokenizer.json."""
    vocabulary = {_TOKENIZER: tokenizer} if tokenizer else {_VOCABULARY: "".join(f"{word}\n" for word in words)}
    return vocabulary | {"labels": "".join(f"{json.dumps(label, ensure_ascii=False)}\n" for label in labels)}


def paths(folder: Path) -> list[Path]:
    """Returns the files that a model is read from."""
    names = (_MANIFEST, "config.toml", _VOCABULARY, _TOKENIZER, "labels", _WEIGHTS)
    return [*(folder / name for name in names), *linear_models.paths(folder / _LINEAR)]


def write(folder: Path, model: TrainedModel) -> None:
    """Writes a model into a folder, which may have other files. The manifest comes last: without it there is no model.

    Raises:
        UserError: the folder cannot be written.
    """
    texts = text_files(model.words, model.labels, model.tokenizer) | {"config.toml": to_toml(model.config)}
    arrays = {_COUNTS: np.asarray(model.label_counts, np.int64)} | flatten_dict({"params": model.params}, sep="/")
    content = {name: text.encode() for name, text in texts.items()}
    # In a run folder, the file also lists the labels that occur only in test documents: they are kept.
    if (folder / "labels").is_file() and (longer := (folder / "labels").read_bytes()).startswith(content["labels"]):
        content["labels"] = longer
    if model.linear:
        content |= {_LINEAR + name: data for name, data in model.linear.files().items()}
    if model.fusion:
        arrays |= {_FUSION + name: values for name, values in model.fusion._asdict().items()}
    content[_WEIGHTS] = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    manifest = {
        "format": FORMAT,
        "lsfa_jax": __version__,
        "corpus": model.config.corpus_name,
        "num_labels": len(model.labels),
        "num_documents": model.num_documents,
        "threshold": model.threshold,
        "encoder": model.architecture and model.architecture._asdict(),
        "files": {name: {"bytes": len(data), "sha256": _digest(data)} for name, data in content.items()},
    }
    content[_MANIFEST] = _sealed(manifest)
    invalidate(folder)
    for name in {_VOCABULARY, _TOKENIZER} - content.keys():  # of a model of the other kind
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / _LINEAR, ignore_errors=True)
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
        UserError: no model in the folder, one of another format, or a missing, truncated or modified file; the message
            names it.
    """
    manifest = _read_manifest(folder)
    names = ("config.toml", _TOKENIZER if manifest.encoder else _VOCABULARY, "labels", _WEIGHTS)
    content = {name: _checked(folder / name, manifest.files.get(name)) for name in names}
    config = _config(folder / "config.toml", content["config.toml"])
    words = [] if manifest.encoder else _words(folder / _VOCABULARY, content[_VOCABULARY])
    labels = _labels(folder / "labels", content["labels"], manifest.num_labels)
    arrays = _arrays(folder / _WEIGHTS, content[_WEIGHTS])
    linear = _linear(folder, manifest)
    fusion = {name.removeprefix(_FUSION): arrays.pop(name) for name in list(arrays) if name.startswith(_FUSION)}
    shape = _encoder_shape(folder / _WEIGHTS, manifest, arrays, len(words))
    _check_arrays(folder / _WEIGHTS, arrays, config, shape, len(labels))
    model = TrainedModel(
        config=config,
        words=words,
        labels=labels,
        label_counts=arrays.pop(_COUNTS),
        num_documents=manifest.num_documents,
        threshold=manifest.threshold,
        params=unflatten_dict(arrays, sep="/")["params"],
        tokenizer=_text(folder / _TOKENIZER, content[_TOKENIZER]) if manifest.encoder else "",
        architecture=shape.architecture,
        linear=linear,
        fusion=_fusion(folder / _WEIGHTS, fusion, linear, len(labels)) if fusion else None,
    )
    try:
        size = model.vocabulary().size
    except UserError as error:
        raise _damaged(folder / _TOKENIZER, str(error)) from None
    if size > shape.vocabulary_size:
        raise _damaged(folder / _TOKENIZER, f"it has {size:,} tokens, and the encoder {shape.vocabulary_size:,}")
    return model


def _linear(folder: Path, manifest: "_Manifest") -> LinearModel | None:
    """Reads the linear model; None where the manifest lists none."""
    names = [name for name in manifest.files if name.startswith(_LINEAR)]
    for name in names:
        if not _LINEAR_NAME.fullmatch(name):
            raise _damaged(folder / _MANIFEST, f"it lists a file that no linear model has: {_shown(name)}")
    files = {name.removeprefix(_LINEAR): _checked(folder / name, manifest.files[name]) for name in names}
    if not files:
        return None
    try:
        model = linear_models.from_files(files)
    except ValueError as error:
        raise _damaged(folder / _LINEAR, str(error)) from None
    if model.num_labels != manifest.num_labels:
        raise _damaged(folder / _LINEAR, f"it has {model.num_labels:,} labels, and the model {manifest.num_labels:,}")
    return model


def _fusion(path: Path, arrays: dict[str, np.ndarray], linear: LinearModel | None, num_labels: int) -> Fusion:
    if linear is None:
        raise _damaged(path, f"it has weights of a fused score, and {_MANIFEST} lists no linear model")
    try:
        fusion = Fusion(**arrays)
    except TypeError:
        raise _damaged(path, "the weights of the fused score are not complete") from None
    if any(array.shape != (num_labels,) or array.dtype != np.float32 for array in fusion):
        raise _damaged(path, "the weights of the fused score do not fit the labels")
    if not all(np.isfinite(array).all() for array in fusion):
        raise _damaged(path, "a weight of the fused score is not finite")
    return fusion


def read_config(folder: Path) -> Config:
    """Reads the settings of a model; raises UserError as `read` does."""
    manifest, path = _read_manifest(folder), folder / "config.toml"
    return _config(path, _checked(path, manifest.files.get(path.name)))


def how_it_ends(run: Path) -> str:
    """Returns what completes the model of a run folder: the process that trains it, or a command."""
    if trainer := FolderLock(run).holder():
        return f"it is being trained by {trainer}: wait until that ends"
    return f"finish it with: {resume_command(run)}"


def resume_command(run: Path) -> str:
    """Returns the command that continues a run, for a shell."""
    return f"bin/train --output {shlex.quote(str(run))} --resume"


class _File(BaseModel):
    """Size and checksum of a file."""

    model_config = ConfigDict(strict=True)
    bytes: NonNegativeInt
    sha256: str


class _Manifest(BaseModel):
    """model.json."""

    model_config = ConfigDict(strict=True)
    format: int
    num_labels: PositiveInt
    num_documents: PositiveInt
    threshold: float = Field(ge=0, le=1)
    encoder: Architecture | None = None
    files: dict[str, _File]


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / _MANIFEST
    try:
        data = path.read_bytes()
        values = json.loads(data)
    except FileNotFoundError:
        raise UserError(f"{folder}: {_why_there_is_none(folder)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    if not isinstance(values, dict) or type(values.get("format")) is not int:
        raise _damaged(path, "it names no format")
    if values["format"] != FORMAT:
        raise UserError(
            f"{path}: written by lsfa_jax {_shown(values.get('lsfa_jax'))} in format {_shown(values['format'])}, and "
            f"this is lsfa_jax {__version__}, which reads format {FORMAT}. Train again, or use the "
            "version that wrote it."
        )
    if not _is_sealed(data):
        raise _damaged(path, "its checksum differs")
    try:
        return _Manifest.model_validate(values)
    except (ValidationError, RecursionError) as error:
        raise _damaged(path, _reason(error)) from None


def _why_there_is_none(folder: Path) -> str:
    """Returns why a folder without a manifest holds no model, and what to do."""
    if (folder / "config.toml").is_file():
        return f"holds a run that has no model yet; {how_it_ends(folder)}"
    if (folder / "network.json").is_file():
        return "holds programs that bin/export wrote, which its predict.py runs; give the folder of the model itself"
    return f"no model in this folder (no {_MANIFEST}); give the --output folder of a bin/train"


def _sealed(manifest: dict[str, Any]) -> bytes:
    """Returns model.json: JSON whose last line but one is the SHA-256 of all other lines."""
    *lines, brace, end = [*json.dumps(manifest, indent=2).encode().split(b"\n"), b""]
    lines[-1] += b","
    seal = b'  "sha256": "%s"' % _digest(b"\n".join([*lines, brace, end])).encode()
    return b"\n".join([*lines, seal, brace, end])


def _is_sealed(data: bytes) -> bool:
    """Whether bytes are as `_sealed` returned them."""
    *lines, seal, brace, end = [b"", b"", *data.split(b"\n")]
    others = b"\n".join([*lines[2:], brace, end])
    return seal == b'  "sha256": "%s"' % _digest(others).encode()


def _checked(path: Path, expected: _File | None) -> bytes:
    if expected is None:
        raise _damaged(path.with_name(_MANIFEST), f"it has no checksum of {path.name}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _damaged(path, f"it cannot be read: {error.strerror}") from None
    if len(data) != expected.bytes:
        raise _damaged(path, f"it has {len(data):,} bytes instead of {expected.bytes:,}")
    if _digest(data) != expected.sha256:
        raise _damaged(path, "its bytes are not the ones that were written")
    return data


def _config(path: Path, data: bytes) -> Config:
    try:
        return validated(tomllib.loads(data.decode()), str(path))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and TOMLDecodeError are ValueErrors
        raise _damaged(path, f"it is not TOML: {_reason(error)}") from None


def _words(path: Path, data: bytes) -> list[str]:
    # Split at "\n" only: `splitlines` would also split at characters that a word may contain.
    words = _text(path, data).split("\n")[:-1]
    if len(set(words)) < len(words):
        raise _damaged(path, "a word is listed twice")
    return words


def _labels(path: Path, data: bytes, num_labels: int) -> list[str]:
    # In a run folder the list continues with the labels that occur only in test documents.
    lines = _text(path, data).split("\n")[:-1]
    if len(lines) < num_labels:
        raise _damaged(path, f"it has {len(lines):,} labels, and {_MANIFEST} {num_labels:,}")
    labels = []
    for number, line in enumerate(lines[:num_labels], 1):
        try:
            label = json.loads(line)
            label.encode()  # fails for halves of a surrogate pair, which cannot be printed
        except (ValueError, RecursionError, AttributeError):
            raise _damaged(path, f"line {number:,} is not a JSON string") from None
        labels.append(label)
    if len(set(labels)) < len(labels):
        raise _damaged(path, "a label is listed twice")
    return labels


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, f"it is not UTF-8: {_reason(error)}") from None


def _arrays(path: Path, data: bytes) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, _reason(error)) from None


def _encoder_shape(path: Path, manifest: _Manifest, arrays: dict[str, np.ndarray], num_words: int) -> EncoderShape:
    """Returns the shape of the encoder, from the manifest or from words and weights."""
    if architecture := manifest.encoder:
        # More layers than arrays would take forever to build.
        if not 1 <= architecture.num_layers <= len(arrays) or not architecture.is_possible:
            raise _damaged(path.with_name(_MANIFEST), f"no encoder has these sizes: {_shown(architecture)}")
        return EncoderShape(architecture.vocabulary_size, architecture.hidden_size, architecture)
    embedding = arrays.get(_EMBEDDING)
    if embedding is None or embedding.ndim != 2:
        raise _damaged(path, f"it has no table {_EMBEDDING}")
    return EncoderShape(NUM_SPECIAL + num_words, embedding.shape[1])


def _check_arrays(
    path: Path, arrays: dict[str, np.ndarray], config: Config, shape: EncoderShape, num_labels: int
) -> None:
    """Raises UserError unless the arrays are the counts of the labels and the parameters of the settings' model."""
    expected = _expected_params(path, config, shape, num_labels)
    expected[_COUNTS] = jax.ShapeDtypeStruct((num_labels,), np.int64)
    for name in sorted(expected.keys() | arrays.keys()):
        if name not in expected:
            raise _damaged(path, f"array {_shown(name)} is no part of the model")
        if name not in arrays:
            raise _damaged(path, f"array {name} is missing")
        array, fitting = arrays[name], expected[name]
        if array.shape != fitting.shape or array.dtype != fitting.dtype:
            raise _damaged(
                path,
                f"array {name} is {array.dtype}{list(array.shape)}, and by the settings, words and labels it is "
                f"{fitting.dtype}{list(fitting.shape)}",
            )
        if not np.isfinite(array).all():
            raise _damaged(path, f"array {name} has a number that is not finite")
    if (arrays[_COUNTS] < 0).any():
        raise _damaged(path, f"array {_COUNTS} has a negative number")


def _expected_params(
    path: Path, config: Config, shape: EncoderShape, num_labels: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and dtype of each parameter, by its name in the file."""
    try:
        model = make_model(config, shape, num_labels)
        params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    except Exception as error:  # JAX and Flax raise many kinds for sizes that no array can have
        raise _damaged(path.with_name("config.toml"), f"no model has these settings: {_reason(error)}") from None
    return flatten_dict({"params": params}, sep="/")


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: changed or damaged since it was written ({what}). Copy the folder again, or train again."
    )


def _reason(error: Exception) -> str:
    """Returns an error's message in one short line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return _shown(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    return _shown(first_line(error))


def _shown(value: object) -> str:
    """Returns at most 200 printable characters of something that a file contains."""
    text = str(value)[:200]
    return "".join(character if character.isprintable() else "?" for character in text)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
