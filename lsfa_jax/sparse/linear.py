"""The linear model beside the network: TF-IDF features, and a label tree or one-versus-rest machines on them.

It reads every word of a text, and pairs of words at its beginning, and trains in seconds. Its scores are lists: of each
document the best W labels. Shapes: N documents, L labels, V terms (words and pairs of words), W listed labels.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError
from scipy.sparse import csr_matrix, vstack

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import FLOOR, Ranked
from lsfa_jax.data.tokenizer import Tokenizer
from lsfa_jax.sparse import svm, tf_idf, tree
from lsfa_jax.sparse.svm import Svm
from lsfa_jax.sparse.tf_idf import TfIdf
from lsfa_jax.sparse.tree import Tree
from lsfa_jax.util.console import UserError

Kind = Literal["tree", "svm"]

TITLES: dict[Kind, str] = {"tree": "label tree", "svm": "one-versus-rest SVM"}

MOST_LISTED = 512
"""W is not larger: fewer of a tree's labels have a probability that matters."""

# One-versus-rest machines are trained where they take seconds and megabytes: labels x documents, and labels x terms.
_MOST_PAIRS, _MOST_WEIGHTS = 6_000_000, 25_000_000

# Documents that the machines score at a time.
_ROWS = 2048

_ARRAYS, _TERMS, _TREE = "model.safetensors", "words", "tree/"


@dataclass(frozen=True)
class LinearModel:
    """A trained linear model. It can be copied and pickled."""

    features: TfIdf
    num_labels: int
    trained: Tree | Svm

    @property
    def kind(self) -> Kind:
        """Which model it is."""
        return "tree" if isinstance(self.trained, Tree) else "svm"

    def rank(self, features: csr_matrix, advance: Callable[[], None] = lambda: None, most: int = MOST_LISTED) -> Ranked:
        """Ranks the labels of N documents by their features, float32[N, V], and lists the `most` best.

        A tree calls `advance` after each document.

        Raises:
            UserError: it is a tree, and the library omikuji is not installed.
        """
        width = min(self.num_labels, most)
        ranked = Ranked(
            np.full((features.shape[0], width), -1, np.int32), np.full((features.shape[0], width), FLOOR, np.float32)
        )
        if isinstance(self.trained, Tree):
            for row, (ids, probabilities) in enumerate(self.trained.ranked(features, width)):
                ranked.label_ids[row, : len(ids)] = ids
                ranked.logits[row, : len(ids)] = _logits(probabilities)
                advance()
            return ranked
        for start in range(0, features.shape[0], _ROWS):  # no array of all documents and labels exists
            rows = slice(start, start + _ROWS)
            decisions = np.maximum(self.trained.decisions(features[rows]), FLOOR)
            order = np.argsort(-decisions, axis=1, kind="stable")[:, :width]
            ranked.label_ids[rows, : order.shape[1]] = self.trained.label_ids[order]
            ranked.logits[rows, : order.shape[1]] = np.take_along_axis(decisions, order, axis=1)
        return ranked

    def rank_texts(self, texts: Iterable[str], tokenizer: Tokenizer) -> Ranked:
        """Ranks the labels of texts."""
        return self.rank(self.features.of_texts(texts, tokenizer))

    def files(self) -> dict[str, bytes]:
        """Returns the model as files, by name."""
        arrays = {"idf": self.features.idf, "num_labels": np.array([self.num_labels])}
        files = {_TERMS: json.dumps(self.features.terms, ensure_ascii=False).encode()}
        if isinstance(self.trained, Tree):
            files |= {_TREE + name: data for name, data in self.trained.files.items()}
        else:
            arrays |= self.trained._asdict()
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return files | {_ARRAYS: safetensors.numpy.save(arrays)}


def from_files(files: Mapping[str, bytes]) -> LinearModel:
    """Returns the model that `LinearModel.files` returned as files.

    Raises:
        ValueError: a file is missing, or their contents do not go together.
    """
    try:
        arrays, terms = safetensors.numpy.load(files[_ARRAYS]), json.loads(files[_TERMS])
        trees = {name.removeprefix(_TREE): data for name, data in files.items() if name.startswith(_TREE)}
        features, num_labels = TfIdf(terms, arrays["idf"]), int(arrays["num_labels"][0])
        trained = Tree(trees) if trees else Svm(*(arrays[name] for name in Svm._fields))
    except (
        KeyError,
        IndexError,
        json.JSONDecodeError,
        UnicodeDecodeError,
        SafetensorError,
        TypeError,
        RecursionError,
    ) as error:
        raise ValueError(f"no linear model ({error})") from None
    if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
        raise ValueError("its terms are not a list of strings")
    if len(set(terms)) < len(terms):
        raise ValueError("a term is listed twice")
    if not (_are_numbers(features.idf, (len(terms),)) and num_labels > 0 and _fits(trained, num_labels, len(terms))):
        raise ValueError("its arrays do not fit its terms and labels")
    return LinearModel(features, num_labels, trained)


def _fits(trained: Tree | Svm, num_labels: int, num_terms: int) -> bool:
    """Whether machines are of labels below L and have a weight for each term; the library checks a tree."""
    if isinstance(trained, Tree):
        return True
    ids = trained.label_ids
    if ids.dtype != np.int32 or ids.ndim != 1:
        return False
    ascending = bool(np.all(np.diff(ids, prepend=-1, append=num_labels) > 0))
    shapes = {"weights": (len(ids), num_terms), "intercepts": (len(ids),)}
    return ascending and all(_are_numbers(getattr(trained, name), shape) for name, shape in shapes.items())


def _are_numbers(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    return array.shape == shape and array.dtype == np.float32 and bool(np.isfinite(array).all())


def paths(folder: Path) -> list[Path]:
    """Returns the files of a model that were written into a folder by the names of `LinearModel.files`."""
    return [folder / _ARRAYS, folder / _TERMS, *sorted((folder / _TREE).glob("*"))]


def train(kind: Kind, counts: Sequence[csr_matrix], terms: list[str], labels: Ragged, num_labels: int) -> LinearModel:
    """Trains a linear model.

    Args:
        kind: of the model.
        counts: int32[.., W] each, the bags of the training documents.
        terms: the W terms.
        labels: the labels of the documents, ids below L.
        num_labels: L.

    Raises:
        UserError: no word is in two of the documents, or the tree's library is missing or failed.
    """
    features, kept = tf_idf.fit(counts, terms)
    if not len(kept):
        raise UserError("no word is in two of its training texts")
    rows = (features(block[:, kept]) for block in tf_idf.blocks_of_rows(counts))
    if kind == "tree":
        return LinearModel(features, num_labels, tree.train(rows, labels, num_labels))
    return LinearModel(features, num_labels, svm.train(vstack(list(rows), format="csr"), labels, num_labels))


def affordable(documents: int, terms: int, num_labels: int) -> list[Kind]:
    """Returns the linear models that train in little time on documents with so many terms and labels."""
    kinds: list[Kind] = ["tree"] if tree.is_installed() else []
    if documents * num_labels <= _MOST_PAIRS and terms * num_labels <= _MOST_WEIGHTS:
        kinds.append("svm")
    return kinds


def feature_blocks(model: LinearModel, counts: csr_matrix, terms: list[str]) -> Iterator[csr_matrix]:
    """Yields the features of documents, float32[n, V], from their bags, int32[N, W], of the W terms of a corpus.

    A block of documents at a time, in their order.
    """
    columns = _columns(model, terms)
    for block in tf_idf.blocks_of_rows([counts]):
        yield model.features(block[:, columns])


def _columns(model: LinearModel, terms: list[str]) -> list[int]:
    place = {term: column for column, term in enumerate(terms)}
    return [place[term] for term in model.features.terms]


def _logits(probabilities: np.ndarray) -> np.ndarray:
    inside = np.clip(probabilities.astype(np.float64), 1e-9, 1 - 1e-3)
    return np.maximum(np.log(inside) - np.log1p(-inside), FLOOR).astype(np.float32)
