"""The linear models of a run: trained once, before the network, and kept in the run folder.

The lists of validation documents come from models that were not trained on them; the models that are kept are trained
on all published training documents.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from scipy.sparse import csr_matrix, vstack

from lsfa_jax.config import Config
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import Ranked
from lsfa_jax.evaluation import ranking
from lsfa_jax.sparse import linear
from lsfa_jax.sparse.linear import Kind, LinearModel
from lsfa_jax.util import atomic, interrupts, processes
from lsfa_jax.util.console import UserError, note, progress, warn

# A tree is drawn at random; the machines are preferred unless it is better by more than this, in N@5 on validation.
_TREE_ADVANTAGE = 0.5

_SPLITS = ("train", "validation", "test")

_NO_LISTS = Ranked(np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float32))

_LISTS, _CHECKSUM = ".safetensors", "sha256"


@dataclass(frozen=True)
class LinearSide:
    """The linear models of a run."""

    model: LinearModel
    """The one that is fused, trained on all published training documents."""
    lists: dict[Kind, dict[str, Ranked]]
    """The lists of each split, by each model that was trained; of training documents, as many labels as candidates are
    needed."""

    @property
    def train(self) -> Ranked:
        """The lists of the training documents, by the model of `validation`: no validation document shaped them."""
        return self.lists[self.model.kind]["train"]

    @property
    def validation(self) -> Ranked:
        """The lists of the validation documents, by a model that was not trained on them."""
        return self.lists[self.model.kind]["validation"]

    @property
    def test(self) -> Ranked:
        """The lists of the test documents."""
        return self.lists[self.model.kind]["test"]


def train(config: Config, corpus: Corpus, num_candidates: int, folder: Path, advice: str) -> LinearSide | None:
    """Trains the linear models that the settings name, or reads them where the run has them already.

    Args:
        config: all settings.
        corpus: the documents.
        num_candidates: labels that are listed for each training document; 0 where they are not needed.
        folder: where the models and lists are kept.
        advice: what to do if it cannot be written.

    Returns:
        None where the settings ask for none, or none can be trained; a warning says why.

    Raises:
        UserError: a model cannot be written, or what is kept of one is damaged.
    """
    kinds = processes.from_first(lambda: _train_missing(config, corpus, num_candidates, folder, advice))
    if not kinds:
        return None
    read = {kind: _read(folder / kind) for kind in kinds}
    lists = {kind: of_splits for kind, (_, of_splits) in read.items()}
    return LinearSide(read[_best(corpus, lists)][0], lists)


def _train_missing(config: Config, corpus: Corpus, num_candidates: int, folder: Path, advice: str) -> list[Kind]:
    """Trains and writes the models that are not in the folder yet; returns those that are in it then."""
    trained = []
    for kind in _kinds(config, corpus):
        if not (folder / kind).is_dir():
            try:
                new = _train(kind, corpus, num_candidates)
            except UserError as error:
                interrupts.check()  # Ctrl-C ends the library's process too
                warn(f"no {linear.TITLES[kind]}: {error}")
                continue
            _write(folder / kind, *new, advice)
        trained.append(kind)
    return trained


def _kinds(config: Config, corpus: Corpus) -> list[Kind]:
    if config.linear == "none":
        return []
    if not len(corpus.bag_terms):
        warn("no word is in two training texts: there is no linear model beside the network")
        return []
    if config.linear != "auto":
        return [config.linear]
    affordable = linear.affordable(corpus.published_documents, len(corpus.bag_terms), corpus.num_labels)
    if not affordable:
        warn(
            "no linear model is trained beside the network: the library omikuji is not installed (pip install "
            "omikuji), and one machine for each label would take long (--linear svm)"
        )
    return affordable


def _train(kind: Kind, corpus: Corpus, num_candidates: int) -> tuple[LinearModel, dict[str, Ranked]]:
    """Trains a model without and, where they are published training documents, with the validation documents."""
    train, validation = corpus.train, corpus.validation
    terms, num_labels = corpus.bag_terms, corpus.num_labels
    assert train.bags is not None
    assert validation.bags is not None
    title = linear.TITLES[kind]
    documents = f"{corpus.published_documents:,} documents, {len(terms):,} words and pairs of words"
    note(f"{title[0].upper()}{title[1:]} on TF-IDF: {documents}")
    drawn = len(train) < corpus.published_documents
    model = first = linear.train(kind, train.bags, terms, train.labels, num_labels)
    if drawn:
        model = linear.train(
            kind,
            vstack([train.bags, validation.bags], format="csr"),
            terms,
            _joined(train.labels, validation.labels),
            num_labels,
        )
    interrupts.check()
    return model, {
        "train": _rank(first, train.bags, terms, num_candidates) if num_candidates else _NO_LISTS,
        "validation": _rank(first, validation.bags, terms),
        "test": _rank(model, corpus.test.bags, terms),
    }


def _rank(model: LinearModel, bags: csr_matrix | None, terms: list[str], most: int = linear.MOST_LISTED) -> Ranked:
    assert bags is not None
    with progress(f"{linear.TITLES[model.kind]}: predicting", bags.shape[0], "documents") as advance:
        return model.rank(linear.features_of(model, bags, terms), advance, most)


def _joined(first: Ragged, second: Ragged) -> Ragged:
    return Ragged.from_sizes(np.concatenate([first.values, second.values]), np.concatenate([first.sizes, second.sizes]))


def _best(corpus: Corpus, lists: dict[Kind, dict[str, Ranked]]) -> Kind:
    """Chooses the model with the best N@5 on validation."""
    truth = corpus.validation.labels

    def quality(kind: Kind) -> float:
        top = lists[kind]["validation"].label_ids[:, : ranking.NUM_RANKED]
        top = np.pad(top, ((0, 0), (0, ranking.NUM_RANKED - top.shape[1])), constant_values=-1)
        value = ranking.ndcg_at_k(ranking.hits(top, truth), truth, ranking.NUM_RANKED)[-1]
        return float(value) - (_TREE_ADVANTAGE if kind == "tree" else 0)

    return max(lists, key=quality)


def _write(folder: Path, model: LinearModel, lists: dict[str, Ranked], advice: str) -> None:
    files = model.files()
    for split, ranked in lists.items():
        files[f"{split}{_LISTS}"] = safetensors.numpy.save(ranked._asdict())
    files[_CHECKSUM] = _checksum(files)
    with atomic.folder(folder, advice=advice) as new:
        for name, data in files.items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_bytes(data)


def _read(folder: Path) -> tuple[LinearModel, dict[str, Ranked]]:
    try:
        files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        if files.pop(_CHECKSUM, b"") != _checksum(files):
            raise ValueError("its bytes are not the ones that were written")
        lists = {split: Ranked(**safetensors.numpy.load(files.pop(f"{split}{_LISTS}"))) for split in _SPLITS}
        return linear.from_files(files), lists
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: damaged ({error}); remove it, and the model is trained again") from None


def _checksum(files: Mapping[str, bytes]) -> bytes:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest().encode()
