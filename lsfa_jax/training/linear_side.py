"""The linear models of a run: trained once, before the network, and kept in the run folder.

The lists of validation documents come from models that were not trained on them; the models that are kept are trained
on all published training documents. Features are computed for a block of documents at a time and lists are mapped from
the disk: what memory holds does not depend on the number of documents, except within the libraries that train.
"""

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.config import Config
from lsfa_jax.data import cache
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import Ranked
from lsfa_jax.evaluation import ranking
from lsfa_jax.sparse import linear
from lsfa_jax.sparse.linear import Kind, LinearModel
from lsfa_jax.util import array_file, atomic, interrupts, processes
from lsfa_jax.util.array_file import ArrayFile
from lsfa_jax.util.console import UserError, note, progress, warn

# A tree is drawn at random; the SVMs are preferred unless it is better by more than this, in N@5 on validation.
_TREE_ADVANTAGE = 0.5

_SPLITS = ("train", "validation", "test")

# Of label ids and logits.
_DTYPES = np.int32, np.float32

_CHECKSUM = "sha256"


@dataclass(frozen=True)
class LinearSide:
    """The linear models of a run."""

    model: LinearModel
    """The one that is fused, trained on all published training documents."""
    lists: dict[Kind, dict[str, Ranked]]
    """The lists of each split, by each model that was trained.

    Of training documents, as many labels as candidates are needed. Training and validation documents are listed by a
    model that was trained without the validation documents.
    """

    def ranked(self, split: str) -> Ranked:
        """Returns the lists of a split by the model that is fused."""
        return self.lists[self.model.kind][split]


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
                with atomic.folder(folder / kind, advice=advice) as new:
                    _train(kind, corpus, num_candidates, new)
            except UserError as error:
                if isinstance(error.__cause__, OSError):  # the folder cannot be written
                    raise
                interrupts.check()  # Ctrl-C ends the library's process too
                warn(f"no {linear.TITLES[kind]}: {error}")
                continue
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


def _train(kind: Kind, corpus: Corpus, num_candidates: int, folder: Path) -> None:
    """Trains a model without and, where they are published training documents, with the validation documents.

    Writes the model, and the lists of all splits, into the empty folder.
    """
    train, validation = corpus.train, corpus.validation
    terms, num_labels = corpus.bag_terms, corpus.num_labels
    assert train.bags is not None
    assert validation.bags is not None
    title = linear.TITLES[kind]
    documents = f"{corpus.published_documents:,} documents, {len(terms):,} words and pairs of words"
    note(f"{title[0].upper()}{title[1:]} on TF-IDF: {documents}")
    drawn = len(train) < corpus.published_documents
    model = first = linear.train(kind, [train.bags], terms, train.labels, num_labels)
    if drawn:
        labels = _joined(train.labels, validation.labels)
        model = linear.train(kind, [train.bags, validation.bags], terms, labels, num_labels)
    interrupts.check()
    _rank(first, train.bags if num_candidates else train.bags[:0], terms, folder / "train", num_candidates)
    _rank(first, validation.bags, terms, folder / "validation")
    _rank(model, corpus.test.bags, terms, folder / "test")
    for name, data in model.files().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / _CHECKSUM).write_bytes(_checksum(folder))


def _rank(
    model: LinearModel, bags: csr_matrix | None, terms: list[str], path: Path, most: int = linear.MOST_LISTED
) -> None:
    """Writes the lists of a split, a block of documents at a time."""
    assert bags is not None
    shape = bags.shape[0], min(model.num_labels, most)
    with (
        progress(f"{linear.TITLES[model.kind]}: predicting", bags.shape[0], "documents") as advance,
        ExitStack() as stack,
    ):
        files = [ArrayFile(each, shape, dtype) for each, dtype in zip(_lists(path), _DTYPES, strict=True)]
        arrays, first = [stack.enter_context(file.filling()) for file in files], 0
        for features in linear.feature_blocks(model, bags, terms):
            for array, of_block in zip(arrays, model.rank(features, advance, most), strict=True):
                array[first : first + len(of_block)] = of_block
            first += features.shape[0]


def _lists(path: Path) -> list[Path]:
    """Returns the files of the lists of a split."""
    return [path.with_name(f"{path.name}_{name}.npy") for name in Ranked._fields]


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


def _read(folder: Path) -> tuple[LinearModel, dict[str, Ranked]]:
    try:
        if (folder / _CHECKSUM).read_bytes() != _checksum(folder):
            raise ValueError("its bytes are not the ones that were written")
        lists = {split: Ranked(*map(array_file.read, _lists(folder / split))) for split in _SPLITS}
        files = {name: (folder / name).read_bytes() for name in _names(folder) if not name.endswith(".npy")}
        return linear.from_files(files), lists
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: damaged ({error}); remove it, and the model is trained again") from None


def _names(folder: Path) -> list[str]:
    """Lists the files of a folder but the one with their checksum."""
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return sorted(name for name in names if name != _CHECKSUM)


def _checksum(folder: Path) -> bytes:
    digests = {name: cache.digest(folder / name, "full") for name in _names(folder)}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest().encode()
