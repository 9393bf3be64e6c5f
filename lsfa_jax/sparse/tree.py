"""A linear label tree (library Omikuji) with its defaults: three balanced trees, beam 10."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.util import cores
from lsfa_jax.util.console import UserError, progress

if TYPE_CHECKING:
    import omikuji

# Trained in a separate process, which Ctrl-C ends and whose progress bar is shown as the package's.
_PROGRAM = "import sys, omikuji; omikuji.Model.train_on_data(sys.argv[1]).save(sys.argv[2])"

# The library's bar of trees; its fast bars of examples and labels, which come first, start with those words.
_PERCENT = re.compile(rb"\d+ / \d+ .* (\d+\.\d+) %")


def is_installed() -> bool:
    """Whether the library is there: it has no wheel for some platforms."""
    return find_spec("omikuji") is not None


def check() -> None:
    """Checks that Omikuji is installed.

    Raises:
        UserError: it is not; the message has the command that installs it.
    """
    if not is_installed():
        raise UserError("a label tree needs the library omikuji: pip install omikuji")


class Tree:
    """A trained tree: the files that the library reads."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Takes the content of each file by its name; the library reads them when it first predicts."""
        self.files = dict(files)

    @cached_property
    def _model(self) -> "omikuji.Model":
        check()
        with tempfile.TemporaryDirectory(prefix="lsfa-") as folder, _quiet():
            import omikuji

            for name, data in self.files.items():
                (Path(folder) / name).write_bytes(data)
            try:
                return omikuji.Model.load(folder)
            except RuntimeError:
                raise UserError("the files of the label tree are damaged; copy or train the model again") from None

    def __getstate__(self) -> dict[str, object]:
        # The library's model cannot be copied.
        return {"files": self.files}

    def ranked(self, features: csr_matrix, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields each document's `most` best labels among those that the beam reaches, and their probabilities.

        Args:
            features: float32 [N, terms].
            most: labels of a document at most.

        Yields:
            int32[W], best first; float32[W], from 0 to 1.

        Raises:
            UserError: the library is not installed, or cannot read the files.
        """
        model = self._model

        def rank(row: int) -> list[tuple[int, float]]:
            place = slice(features.indptr[row], features.indptr[row + 1])
            terms = zip(features.indices[place].tolist(), features.data[place].tolist(), strict=True)
            scores: list[tuple[int, float]] = model.predict(list(terms), top_k=most)
            return scores

        # The library works without the GIL.
        with ThreadPoolExecutor(cores.available()) as threads:
            for scores in threads.map(rank, range(features.shape[0])):
                yield (
                    np.array([label for label, _ in scores], np.int32),
                    np.array([score for _, score in scores], np.float32),
                )


def train(features: Iterable[csr_matrix], labels: Ragged, num_labels: int) -> Tree:
    """Trains a tree. The library draws its clusters at random, without a seed: no two trees are quite the same.

    Args:
        features: of the training documents, in blocks of float32 [documents, terms].
        labels: their labels.
        num_labels: L.

    Raises:
        UserError: the library is not installed, or failed; the message has its last words.
    """
    check()
    with tempfile.TemporaryDirectory(prefix="lsfa-") as folder:
        path, model = Path(folder) / "train.txt", Path(folder) / "model"
        write_features(path, features, labels, num_labels)
        train_file(path, model)
        return Tree({file.name: file.read_bytes() for file in sorted(model.iterdir())})


def write_features(path: Path, features: Iterable[csr_matrix], labels: Ragged, num_labels: int) -> None:
    """Writes documents in the format of the extreme classification repository, without those that have no feature.

    The library reads no line without a feature. `features` are blocks of documents, one at least.
    """
    from sklearn.datasets import dump_svmlight_file

    first = num_documents = num_terms = 0
    with path.open("wb") as file:
        file.write(_header(0, 0, 0))
        for block in features:
            rows = np.flatnonzero(np.diff(block.indptr))
            of_block = labels.take(first + rows)
            targets = (np.ones(len(of_block.values), np.int8), of_block.values, of_block.offsets)
            dump_svmlight_file(block[rows], csr_matrix(targets, (len(rows), num_labels)), file, multilabel=True)
            first, num_documents, num_terms = first + block.shape[0], num_documents + len(rows), block.shape[1]
        file.seek(0)
        file.write(_header(num_documents, num_terms, num_labels))


def _header(*sizes: int) -> bytes:
    """Returns the first line, documents, terms and labels, as long for all of them."""
    return " ".join(f"{size:012}" for size in sizes).encode() + b"\n"


def train_file(data: Path, model: Path, program: str = _PROGRAM) -> None:
    """Trains a tree on a file of `write_features` and saves it; shows the progress.

    Args:
        data: the file.
        model: the folder to save into.
        program: the Python program that trains, with the two paths as its arguments.

    Raises:
        UserError: the program failed; the message has the end of what it wrote to its standard error.
    """
    command = [sys.executable, "-P", "-c", program, str(data), str(model)]  # nothing from the current folder
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process,
        progress("label tree: training", 100, "percent") as advance,
    ):
        assert process.stderr is not None
        descriptor, done, unfinished = process.stderr.fileno(), 0.0, b""
        try:
            for percent, rest in percentages(iter(lambda: os.read(descriptor, 2**16), b"")):
                advance(percent - done)
                done, unfinished = percent, rest
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise UserError(f"omikuji could not train a label tree: {unfinished.decode(errors='replace').strip()}")


def percentages(chunks: Iterable[bytes]) -> Iterator[tuple[float, bytes]]:
    """Parses the library's progress bars, of which each state ends in a carriage return.

    Args:
        chunks: its standard error, cut anywhere.

    Yields:
        After each chunk the percentage so far, which never falls, and the last 500 bytes of the unfinished state.
    """
    done, last = 0.0, b""
    for chunk in chunks:
        *states, last = (last + chunk).split(b"\r")
        done = max([done, *(float(match[1]) for state in states if (match := _PERCENT.match(state)))])
        last = last[-500:]
        yield done, last


@contextmanager
def _quiet() -> Iterator[None]:
    """Redirects the process's standard output to nowhere: the library writes to it without Python."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
