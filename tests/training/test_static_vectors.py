import jax
import numpy as np
import pytest
import tokenizers

from lsfa_jax.data.word_vectors import STANDARD_DEVIATION
from lsfa_jax.model.encoders.transformer import transformer
from lsfa_jax.training import pretrained, static_vectors
from tests.training import pretrained_folder

# Of 1, 1, 3, 2, 14 and 1 pieces; the last one is unknown.
WORDS = ["about", "common", "aboutw1", "common2", "common1234567890123", "\U00013000", "about9"]


compiled = jax.jit(transformer, static_argnums=(3, 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pretrained_folder.write(tmp_path_factory.mktemp("pretrained"))


def mean_state(folder, word):
    """The mean state of a word's first eight pieces, read alone and without padding."""
    encoder = pretrained.read(folder)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = np.array([library.encode(word, add_special_tokens=False).ids[:8]], np.int32)
    states = compiled(encoder.params, ids, np.array([ids.shape[1]], np.int32), encoder.architecture, 20)
    return np.asarray(states[0], np.float64).mean(axis=0)


def test_vectors_are_the_principal_components_of_mean_states(folder):
    vectors = static_vectors.of_words(str(folder), WORDS, 3)
    assert vectors.known.tolist() == [True] * 5 + [False, True]
    assert not vectors.table[5].any()
    states = np.stack([mean_state(folder, word) for word, known in zip(WORDS, vectors.known, strict=True) if known])
    u, s, _ = np.linalg.svd(states - states.mean(axis=0), full_matrices=False)
    expected = u[:, :3] * s[:3]
    expected *= STANDARD_DEVIATION / expected.std()
    table = vectors.table[vectors.known]
    # Equal but for signs, which the singular vectors leave open.
    np.testing.assert_allclose(table @ table.T, expected @ expected.T, atol=1e-4)
    np.testing.assert_allclose(np.abs(table), np.abs(expected), atol=1e-4)


def test_vectors_have_no_more_entries_than_states(folder):
    assert static_vectors.of_words(str(folder), WORDS, 500).table.shape == (7, pretrained_folder.HIDDEN)


def test_no_words_have_no_vectors(folder):
    assert static_vectors.of_words(str(folder), [], 3).table.shape == (0, 3)


def test_the_sign_of_a_component_does_not_depend_on_the_order_of_words():
    x = np.random.default_rng(0).normal(size=(40, 6)) * np.arange(1, 7)
    first = static_vectors.principal_components(x, 4)
    np.testing.assert_allclose(static_vectors.principal_components(x[::-1], 4)[::-1], first, atol=1e-5)
