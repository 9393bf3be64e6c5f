"""Word vectors for a vocabulary, from GloVe or word2vec files; words without one are drawn at random."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from lsfa_jax.config import NAMED_VECTORS, nearest
from lsfa_jax.data.download import glove_50d_files
from lsfa_jax.data.reading.compression import read_lines
from lsfa_jax.util.console import UserError, warn
from lsfa_jax.util.random_streams import Stream, stream

STANDARD_DEVIATION = 0.5
"""Of the entries of vectors that are drawn with none to compare to."""


@dataclass(frozen=True)
class WordVectors:
    """Word vectors for a vocabulary.

    Attributes:
        table: float32 [words, E], a row for each word.
        known: bool [words], whether the row comes from the source and was not drawn.
    """

    table: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]


def load_vectors(source: str, words: Sequence[str], seed: int, size: int) -> WordVectors:
    """Loads the vectors of the given words, and draws one for every word that the source lacks.

    Drawn entries are normal with mean 0 and the standard deviation of all known entries, 0.5 when there are none.

    Args:
        source: 'glove-50d' (GloVe 6B, fetched when needed), 'none' (all rows are drawn), or the path of a text file in
            GloVe or word2vec format, plain, gzip or xz, of any dimension. Of repeated words the first counts.
        words: distinct words, spelled as in the source.
        seed: of the drawn rows.
        size: E for 'none'; elsewhere the source decides.

    Raises:
        UserError: the file is missing, is not a text file of vectors, or holds a row that cannot be used.
    """
    index = {word: row for row, word in enumerate(words)}
    rows: list[int] = []
    if source == "none":
        vectors = np.zeros((0, size), np.float32)
    elif source == "glove-50d":
        rows, vectors = _glove_50d(index)
    else:
        rows, vectors = _text_file(Path(source).expanduser(), index)
    if source != "none" and words and not rows:
        warn(f"{source}: has none of the {len(words):,} words of the vocabulary; all word vectors are random")

    std = vectors.std(dtype=np.float64) if rows else STANDARD_DEVIATION
    drawn = stream(Stream.WORD_VECTORS, seed).standard_normal((len(words), vectors.shape[1]), dtype=np.float32)
    table = drawn * np.float32(std)
    table[rows] = vectors
    known = np.zeros(len(words), bool)
    known[rows] = True
    return WordVectors(table, known)


def _glove_50d(index: dict[str, int]) -> tuple[list[int], npt.NDArray[np.float32]]:
    table_path, words_path = glove_50d_files()
    source_words = pq.read_table(words_path).column("index").to_pylist()
    source_rows = [row for row, word in enumerate(source_words) if word in index]
    table = np.load(table_path, mmap_mode="r", allow_pickle=False)
    return [index[source_words[row]] for row in source_rows], table[source_rows]


def _text_file(path: Path, index: dict[str, int]) -> tuple[list[int], npt.NDArray[np.float32]]:
    if not path.exists():
        raise UserError(
            f"--vectors {path}: no such vectors or file{nearest(path.name, list(NAMED_VECTORS))}. Expected "
            f"{', '.join(NAMED_VECTORS)}, or a text file of GloVe or word2vec."
        )
    row_of_word = {word.encode(): row for word, row in index.items()}
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    dimension = 0
    for number, line, dimension in _vector_lines(path):
        word, *entries = line.rsplit(b" ", dimension)
        row = row_of_word.get(word)
        if row is not None and row not in vectors:
            vectors[row] = _floats(path, number, entries)
    if not dimension:
        raise UserError(f"{path}: holds no word vectors. Expected lines of a word and its numbers.")
    return list(vectors), np.array(list(vectors.values()), np.float32).reshape(-1, dimension)


def _vector_lines(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """Yields each line that holds a vector with its number and the dimension, after a check of its columns."""
    dimension = header = 0
    for number, line in read_lines(path):
        line = line.rstrip()
        if not line:
            continue
        columns = line.count(b" ") + 1
        if number == 1 and columns == 2 and line.replace(b" ", b"").isdigit():
            header = int(line.split(b" ")[1])
            continue
        if not dimension:
            # The file's first vector is always parsed: a file that holds no vectors is an error at once.
            dimension = header or columns - 1
            _floats(path, number, line.rsplit(b" ", dimension)[1:] if dimension else [])
        if not dimension or columns != dimension + 1:
            _check_columns(path, number, line, dimension)
        yield number, line, dimension


def _check_columns(path: Path, number: int, line: bytes, dimension: int) -> None:
    columns = line.split(b" ")
    # A word may contain spaces, as '. . .' in GloVe; but decimals behind its first part belong to a longer vector.
    parts = columns[1:-dimension] if dimension else []
    if not parts or all(b"." in part and _is_float(part) for part in parts):
        expected = f"a word and {dimension} numbers" if dimension else "a word and its numbers"
        raise UserError(f"{path}:{number}: expected {expected}, got {len(columns)} columns. {_advice(line)}")


def _floats(path: Path, number: int, entries: list[bytes]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        values = np.array([float(entry) if _is_float(entry) else np.nan for entry in entries]).astype(np.float32)
    for entry, finite in zip(entries, np.isfinite(values), strict=True):
        if not finite:
            shown = entry[:30].decode("utf-8", "replace")
            raise UserError(
                f"{path}:{number}: expected finite numbers behind the word, got {shown!r}. {_advice(entry)}"
            )
    return values


def _is_float(entry: bytes) -> bool:
    try:
        float(entry)
    except ValueError:
        return False
    return True


def _advice(data: bytes) -> str:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "This looks like a binary file: unpack it, or convert it to word2vec's text format first."
    return "Correct the line, or fetch the file again."
