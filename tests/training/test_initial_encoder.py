from pathlib import Path

import numpy as np
import pytest

from lsfa_jax.config import Config
from lsfa_jax.data.word_vectors import WordVectors
from lsfa_jax.training import static_vectors
from lsfa_jax.training.initial_encoder import load_embedding


@pytest.fixture
def vectors(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("cats 1 2 3\nother 9 9 9\npurr 3 4 5\n")
    return str(path)


def test_embedding_has_zero_padding_and_a_mean_unknown(vectors, capsys):
    table = load_embedding(Config(vectors=vectors), ["purr", "mice", "cats"])
    assert table.shape == (5, 3)
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table[[0, 2, 4]], [[0, 0, 0], [3, 4, 5], [1, 2, 3]])
    assert table[3].any()
    np.testing.assert_allclose(table[1], table[2:].mean(axis=0), rtol=1e-6)
    assert capsys.readouterr().out == f"Word vectors {vectors}: 2 of 3 words have one (66.7 %)\n"


def test_the_embedding_is_made_once_for_what_decides_it(vectors, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LSFA_DATA", str(tmp_path / "cache"))

    def makes(words=("purr", "mice"), **settings):
        before = set((tmp_path / "cache").glob("prepared/*"))
        table = load_embedding(Config(**({"vectors": vectors} | settings)), list(words))
        return table, set((tmp_path / "cache").glob("prepared/*")) > before

    first, is_new = makes()
    printed = capsys.readouterr().out
    assert is_new
    again, is_new = makes()
    assert not is_new
    assert capsys.readouterr().out == printed
    np.testing.assert_array_equal(again, first)
    assert makes(seed=1)[1]
    assert makes(words=("mice", "purr"))[1]
    Path(vectors).write_text("cats 1 2 3\npurr 3 4 6\n")
    changed, is_new = makes()
    assert is_new
    assert changed[2, 2] == 6


def test_vectors_of_which_none_is_drawn_are_computed_once_for_all_seeds(tmp_path, monkeypatch):
    monkeypatch.setenv("LSFA_DATA", str(tmp_path / "cache"))
    computed = []

    def of_words(name, words, size):
        computed.append(name)
        return WordVectors(np.ones((len(words), 2), np.float32), np.ones(len(words), bool))

    monkeypatch.setattr(static_vectors, "of_words", of_words)
    first, second = (load_embedding(Config(vectors="minilm", seed=seed), ["purr"]) for seed in (0, 1))
    np.testing.assert_array_equal(first, second)
    assert computed == ["minilm"]


def test_an_embedding_without_vectors_has_the_size_of_the_settings(capsys):
    config = Config(vectors="none", encoder={"embedding_size": 7}, seed=2)
    words = [f"w{i}" for i in range(500)]
    table = load_embedding(config, words)
    assert table.shape == (502, 7)
    assert not table[0].any()
    np.testing.assert_allclose(table[1], table[2:].mean(axis=0), rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(table, load_embedding(config, words))
    assert (table[2:] != load_embedding(Config(encoder={"embedding_size": 7}, seed=3), words)[2:]).all()
    assert capsys.readouterr().out == ""


def test_embedding_of_no_words(vectors, capsys):
    assert not load_embedding(Config(vectors=vectors), []).any()
    assert load_embedding(Config(encoder={"embedding_size": 4}), []).shape == (2, 4)
    assert capsys.readouterr().out == f"Word vectors {vectors}: 0 of 0 words have one (0.0 %)\n"
