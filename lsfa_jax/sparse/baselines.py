"""Linear baselines on TF-IDF: a label tree (library Omikuji) and one-versus-rest support vector machines (LIBLINEAR).

Features: scikit-learn's `TfidfVectorizer` with its own words (lower-cased runs of two or more letters, digits or
underscores), `sublinear_tf`, `min_df=2`, fitted on the training texts, none of them cut short. Training documents are
the published training split, held-out validation documents included.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import thresholded
from lsfa_jax.evaluation.groups import Scored, best_of_groups
from lsfa_jax.evaluation.ranking import Bools
from lsfa_jax.util.console import UserError, progress

Baseline = Literal["tree", "svm"]

TITLES: dict[Baseline, str] = {"tree": "label tree", "svm": "one-versus-rest SVM"}

_TREE_THRESHOLD = 0.5

RULES: dict[Baseline, str] = {
    "tree": f"from the tree's own score {_TREE_THRESHOLD} on",
    "svm": "where the decision of their machine is positive",
}
"""When a label is given."""

T = TypeVar("T")

# Labels whose decisions are merged into the rankings at a time.
_BLOCK = 64


def check(baseline: Baseline) -> None:
    """Makes sure that the baseline's library is there.

    Raises:
        UserError: it is not, with the command that installs it.
    """
    if baseline == "tree" and find_spec("omikuji") is None:
        raise UserError("--baseline tree needs the library omikuji: pip install 'lsfa_jax[baseline]'")


def tf_idf(train: Iterable[str], test: Iterable[str]) -> tuple[Any, Any]:
    """Computes the features of training and test texts, sparse float32 [documents, words] each, rows of length 1.

    Raises:
        UserError: no word is in two training texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, dtype=np.float32)
    try:
        return vectorizer.fit_transform(train), vectorizer.transform(test)
    except ValueError as error:
        raise UserError(f"the baseline finds no words in the training texts ({error})") from None


def tree(train: Any, labels: Ragged, test: Any, truth: Ragged, members: Bools, num_ranked: int) -> Scored:
    """Trains Omikuji's label tree with its defaults (three balanced trees, beam 10) and scores the test documents.

    It ranks the labels that its beam reaches; those of a group are ranked among them.

    Args:
        train: features of the N training documents, sparse float32 [N, words].
        labels: their labels.
        test: features of the test documents.
        truth: their labels.
        members: bool [G, L], the groups of labels.
        num_ranked: K.
    """
    with _quiet():
        import omikuji

    num_labels = members.shape[1]
    with tempfile.TemporaryDirectory(prefix="lsfa-") as folder:
        path = Path(folder) / "train.txt"
        _write_features(path, train, labels, num_labels)
        _train_tree(path, Path(folder) / "model")
        with _quiet():
            model = omikuji.Model.load(str(Path(folder) / "model"))
    top = np.full((len(members), test.shape[0], num_ranked), -1, np.int32)
    given: list[np.ndarray] = []
    with progress("label tree: predicting", test.shape[0], "documents") as advance:
        for row in range(test.shape[0]):
            own = test[row]
            pairs = list(zip(own.indices.tolist(), own.data.tolist(), strict=True))
            scores = model.predict(pairs, top_k=num_labels)
            listed = np.array([[label for label, _ in scores]], np.int32).reshape(1, -1)
            top[:, row] = best_of_groups(listed, members, num_ranked)[:, 0]
            given.append(np.array([label for label, score in scores if score >= _TREE_THRESHOLD], np.int32))
            advance()
    return Scored(top, thresholded.count(Ragged.from_rows(given), truth, num_labels))


def svm(train: Any, labels: Ragged, test: Any, truth: Ragged, members: Bools, num_ranked: int) -> Scored:
    """Trains a linear support vector machine for each label (scikit-learn's LinearSVC, C=1) and scores test documents.

    Arguments are those of `tree`. Memory holds a block of labels' decisions, not all of them. A label that no training
    document has is never given and ranked last; one that all have is always given.
    """
    num_labels, num_test = members.shape[1], test.shape[0]
    by_label = _columns(labels, num_labels)
    true_by_label = _columns(truth, num_labels)
    trained = np.flatnonzero(by_label.sizes)
    best = np.full((len(members), num_test, num_ranked), -np.inf, np.float32)
    top = np.full(best.shape, -1, np.int32)
    given, right = np.zeros((2, num_labels), np.int64)

    def decide(label: int) -> np.ndarray:
        own = by_label.row(label)
        return _decisions(train, own, test)

    with (
        progress("one-versus-rest SVM", len(trained), "labels") as advance,
        ThreadPoolExecutor(os.cpu_count()) as threads,
    ):
        for start in range(0, len(trained), _BLOCK):
            block = trained[start : start + _BLOCK]
            scores = np.stack(list(_each(threads, decide, block.tolist(), advance)), axis=1)
            for label, column in zip(block, scores.T, strict=True):
                own = true_by_label.row(label)
                given[label], right[label] = (column > 0).sum(), (column[own] > 0).sum()
            for group, inside in enumerate(members):
                _merge(best[group], top[group], scores[:, inside[block]], block[inside[block]])
    true = true_by_label.sizes
    return Scored(top, thresholded.from_counts(right, given, true))


METHODS: dict[Baseline, Callable[[Any, Ragged, Any, Ragged, Bools, int], Scored]] = {"tree": tree, "svm": svm}


def _decisions(train: Any, positives: np.ndarray, test: Any) -> np.ndarray:
    """Returns float32[test documents], the decisions of a machine that tells the positive rows from the others."""
    from sklearn.svm import LinearSVC

    if len(positives) == train.shape[0]:
        return np.ones(test.shape[0], np.float32)
    targets = np.zeros(train.shape[0], np.int8)
    targets[positives] = 1
    return LinearSVC(C=1.0, random_state=0).fit(train, targets).decision_function(test).astype(np.float32)


def _merge(best: np.ndarray, top: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> None:
    """Puts a block of labels' scores, float32[N, block], into the rankings best and top, [N, K]."""
    all_scores = np.concatenate([best, scores], axis=1)
    all_labels = np.concatenate([top, np.broadcast_to(labels, scores.shape)], axis=1)
    order = np.argsort(-all_scores, axis=1, kind="stable")[:, : best.shape[1]]
    best[:] = np.take_along_axis(all_scores, order, axis=1)
    top[:] = np.take_along_axis(all_labels, order, axis=1)


def _columns(labels: Ragged, num_labels: int) -> Ragged:
    """Returns the documents of each label, in the form in which `labels` has the labels of each document."""
    order = np.argsort(labels.values, kind="stable")
    return Ragged.from_sizes(labels.row_ids[order], np.bincount(labels.values, minlength=num_labels))


def _each(
    threads: ThreadPoolExecutor, function: Callable[[int], T], items: list[int], advance: Callable[[], None]
) -> Iterator[T]:
    for result in threads.map(function, items):
        yield result
        advance()


def _write_features(path: Path, features: Any, labels: Ragged, num_labels: int) -> None:
    """Writes a file as the extreme classification repository has them."""
    from scipy.sparse import csr_matrix
    from sklearn.datasets import dump_svmlight_file

    shape = (features.shape[0], num_labels)
    targets = csr_matrix((np.ones(len(labels.values), np.int8), labels.values, labels.offsets), shape)
    with path.open("wb") as file:
        file.write(f"{features.shape[0]} {features.shape[1]} {num_labels}\n".encode())
        dump_svmlight_file(features, targets, file, multilabel=True)


# In a process of its own, which Ctrl-C ends and whose moving bar becomes ours.
_TRAINING = "import sys, omikuji; omikuji.Model.train_on_data(sys.argv[1]).save(sys.argv[2])"

# Its bars of examples and labels, which come first and go fast, begin with what they count.
_PERCENT = re.compile(rb"\d+ / \d+ .* (\d+\.\d+) %")


def _train_tree(data: Path, model: Path) -> None:
    command = [sys.executable, "-c", _TRAINING, str(data), str(model)]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process,
        progress("label tree: training", 100, "percent") as advance,
    ):
        done, last = 0.0, b""
        try:
            while process.stderr and (said := os.read(process.stderr.fileno(), 2**16)):
                # Each state of a bar ends in a carriage return.
                *states, last = (last + said).split(b"\r")
                found = [_PERCENT.match(state) for state in states]
                percent = max([done, *(float(state[1]) for state in found if state)])
                advance(percent - done)
                done, last = percent, last[-500:]
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise UserError(f"omikuji could not train a label tree: {last.decode(errors='replace').strip()}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps a library from writing to the standard output behind Python's back."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
