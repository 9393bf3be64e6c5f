"""The content of a corpus as checksums: a run continues on the same documents wherever they are, and on no others."""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.training.initial_encoder import InitialEncoder

_SPLITS = {"train": "training", "validation": "validation", "test": "test"}


def digests(corpus: Corpus, encoder: InitialEncoder) -> dict[str, str]:
    """Returns a SHA-256 of each part of what a run reads, by the part's name in messages.

    Args:
        corpus: the documents; arrays may be mapped from the disk.
        encoder: what the encoder starts from.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for name, adjective in _SPLITS.items():
        split = getattr(corpus, name)
        bags = [] if split.bags is None else [*_arrays(Ragged(split.bags.indices, split.bags.indptr)), split.bags.data]
        parts[f"texts of the {adjective} documents"] = [*_arrays(split.words), *bags]
        excluded = [] if split.excluded is None else _arrays(split.excluded)
        parts[f"labels of the {adjective} documents"] = [*_arrays(split.labels), *excluded]
    parts["vocabulary"] = [_text(corpus.words), _text(corpus.bag_terms)]
    parts["label names"] = [_text(corpus.labels)]
    published = np.array([corpus.num_labels, corpus.published_documents], np.int64)
    parts["label frequencies"] = [published, np.asarray(corpus.published_counts, np.int64)]
    arrays = [np.asarray(array, np.float32) for array in jax.tree.leaves(encoder.params)]
    parts[encoder.name] = [_text([encoder.computed_from])] if encoder.computed_from else arrays
    if encoder.shape.architecture:
        parts[encoder.name].append(_text([repr(encoder.shape.architecture)]))
    # hashlib releases the GIL.
    with ThreadPoolExecutor() as pool:
        return dict(zip(parts, pool.map(_digest, parts.values()), strict=True))


def changed(stored: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Lists the parts whose checksums differ."""
    return [name for name in now if stored.get(name) != now[name]]


def _arrays(rows: Ragged) -> list[np.ndarray]:
    return [np.asarray(rows.offsets, np.int64), np.asarray(rows.values, np.int32)]


def _text(names: Iterable[str]) -> np.ndarray:
    # Each name ends with a character that no name has, so that "ab", "c" and "a", "bc" differ.
    return np.frombuffer("".join(f"{name}\0" for name in names).encode("utf-8", "surrogatepass"), np.uint8)


def _digest(arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()
