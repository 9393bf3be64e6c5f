import gzip
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lsfa_jax.data import word_vectors
from lsfa_jax.data.word_vectors import load_vectors
from lsfa_jax.util.console import UserError

WORDS = ["the", "café", ". . .", "unseen", "windows 7"]
LINES = ["the 1 2 -3", "other 9 9 9", "café 0.5 1e-3 4", ". . . 7 8 9", "the 5 5 5", "windows 7 1 1 1"]


def write(tmp_path, lines, name="v.txt"):
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(tmp_path / name)


@pytest.mark.parametrize("header", [[], ["6 3"]], ids=["glove", "word2vec"])
@pytest.mark.parametrize("end", ["", " ", "\r"])
def test_reads_wanted_rows_first_of_repeated_words(tmp_path, header, end):
    source = write(tmp_path, [line + end for line in header + LINES])
    loaded = load_vectors(source, WORDS, seed=0, size=999)
    assert loaded.table.dtype == np.float32
    assert loaded.table.shape == (5, 3)
    np.testing.assert_array_equal(loaded.known, [True, True, True, False, True])
    expected = np.array([[1, 2, -3], [0.5, 1e-3, 4], [7, 8, 9], [1, 1, 1]], np.float32)
    np.testing.assert_array_equal(loaded.table[loaded.known], expected)


@settings(deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=st.floats(-9, 9, width=32)))
def test_written_vectors_are_read_back(tmp_path_factory, rows):
    words = [f"w{row}" for row in range(len(rows))]
    lines = [" ".join([word, *map(repr, row.tolist())]) for word, row in zip(words, rows, strict=True)]
    loaded = load_vectors(write(tmp_path_factory.mktemp("v"), lines), words[::-1], seed=0, size=1)
    np.testing.assert_array_equal(loaded.table, rows[::-1])
    assert loaded.known.all()


def test_compressed_file_gives_the_same(tmp_path):
    plain = write(tmp_path, LINES)
    (tmp_path / "packed").write_bytes(gzip.compress((tmp_path / "v.txt").read_bytes()))
    np.testing.assert_array_equal(
        load_vectors(plain, WORDS, 1, 1).table, load_vectors(str(tmp_path / "packed"), WORDS, 1, 1).table
    )


def test_drawn_rows_have_the_spread_of_known_ones(tmp_path):
    rows = np.random.default_rng(0).normal(5.0, 0.7, (200, 20))
    known = [f"f{row}" for row in range(200)]
    lines = [" ".join([word, *map(str, row)]) for word, row in zip(known, rows, strict=True)]
    words = [*known, *(f"d{row}" for row in range(2000))]
    loaded = load_vectors(write(tmp_path, lines), words, seed=3, size=1)
    drawn = loaded.table[~loaded.known]
    assert drawn.shape == (2000, 20)
    assert abs(drawn.mean()) < 0.02  # five standard errors
    assert drawn.std() == pytest.approx(rows.std(), rel=0.02)
    assert abs(np.corrcoef(drawn.T) - np.eye(20)).max() < 0.12


def test_none_draws_all_rows_from_the_seed():
    words = [f"w{row}" for row in range(4000)]
    first, again, reseeded = (load_vectors("none", words, seed, 16) for seed in (1, 1, 2))
    assert first.table.shape == (4000, 16)
    assert first.table.dtype == np.float32
    assert not first.known.any()
    assert first.table.std() == pytest.approx(0.5, rel=0.02)
    np.testing.assert_array_equal(first.table, again.table)
    assert not np.isclose(first.table, reseeded.table).mean() > 0.01


def test_glove_50d_takes_table_and_index(tmp_path, monkeypatch):
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "t.npy", np.asfortranarray(table))
    pq.write_table(pa.table({"index": ["the", "of", "cat", "sat"]}), tmp_path / "w.parquet")
    monkeypatch.setattr(word_vectors, "glove_50d_files", lambda: (tmp_path / "t.npy", tmp_path / "w.parquet"))
    loaded = load_vectors("glove-50d", ["sat", "missing", "the"], seed=0, size=1)
    np.testing.assert_array_equal(loaded.known, [True, False, True])
    np.testing.assert_array_equal(loaded.table[[0, 2]], table[[3, 0]])


def test_a_source_without_any_of_the_words_is_a_warning(tmp_path, capsys):
    loaded = load_vectors(write(tmp_path, LINES), ["nope", "nada"], seed=0, size=1)
    assert "has none of the 2 words" in capsys.readouterr().out
    assert loaded.table.shape == (2, 3)
    assert 0 < abs(loaded.table).max() < 1
    load_vectors(write(tmp_path, LINES), WORDS, seed=0, size=1)
    load_vectors("none", WORDS, seed=0, size=1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["the 1 2 3", "café 1 2"], ":2: expected a word and 3 numbers, got 3 columns"),
        (["the 1 2 3", "zzz 1.0 2.0 3.0 4.0"], ":2: expected a word and 3 numbers, got 5 columns"),
        (["2 4", "the 1 2 3", "of 1 2 3"], ":2: expected a word and 4 numbers, got 4 columns"),
        (["the 1 2 3", "café 1 x 3"], ":2: expected finite numbers behind the word, got 'x'"),
        (["the 1 2 3", "café 1 nan 3"], ":2: expected finite numbers behind the word, got 'nan'"),
        (["the 1 2 3", "café 1 -inf 3"], "got '-inf'"),
        (["the 1 2 3", "café 1e99 2 3"], "got '1e99'"),
        (["unwanted 1 x 3"], ":1: expected finite numbers"),
        (["word"], ":1: expected a word and its numbers, got 1 columns"),
        ([""], "holds no word vectors"),
        (["0 3"], "holds no word vectors"),
    ],
)
def test_bad_file_names_the_line(tmp_path, lines, message):
    source = write(tmp_path, lines)
    with pytest.raises(UserError) as error:
        load_vectors(source, ["the", "café"], seed=0, size=1)
    assert str(error.value).startswith(source)
    assert message in str(error.value)


@pytest.mark.parametrize("end", [b"\n", b""], ids=["original", "without line ends"])
def test_word2vec_binary_is_recognised(tmp_path, end):
    rows = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    body = b"".join(f"w{n} ".encode() + struct.pack("20f", *row) + end for n, row in enumerate(rows))
    (tmp_path / "v.bin").write_bytes(b"50 20\n" + body)
    with pytest.raises(UserError, match="looks like a binary file"):
        load_vectors(str(tmp_path / "v.bin"), ["w1"], seed=0, size=1)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"--vectors .*nothing\.txt: no such vectors or file"):
        load_vectors(str(tmp_path / "nothing.txt"), ["the"], seed=0, size=1)
