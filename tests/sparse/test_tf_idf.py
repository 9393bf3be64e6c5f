import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from lsfa_jax.data.tokenizer import Tokenizer
from lsfa_jax.sparse.tf_idf import fit, tf_idf
from lsfa_jax.util.console import UserError


def test_features_are_those_of_scikit_learn():
    train, test = ["One fish, two fish", "red fish blue fish", "one red a"], ["Fish and one unknown", ""]
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2)
    expected = vectorizer.fit_transform(train), vectorizer.transform(test)
    assert vectorizer.vocabulary_.keys() == {"one", "fish", "red"}
    for features, reference in zip(tf_idf(iter(train), iter(test)), expected, strict=True):
        np.testing.assert_allclose(features.toarray(), reference.toarray(), rtol=1e-6)


def test_texts_without_a_common_word_raise():
    with pytest.raises(UserError, match="no word is in two training texts"):
        tf_idf(["one", "two"], ["one"])


def test_characters_of_scripts_without_spaces_and_emoji_are_words():
    _, test = tf_idf(["图书 a 😀", "书目 a 😀"], ["书 a", "😀", "图"])
    np.testing.assert_allclose(test.toarray().sum(axis=1), [1, 1, 0])


def test_words_are_those_of_the_tokenizer():
    train, test = tf_idf(["C++ a", "c++ b", "c"], ["c", "C++"], Tokenizer("spaces"))
    np.testing.assert_array_equal(train.toarray(), [[1], [1], [0]])
    np.testing.assert_array_equal(test.toarray(), [[0], [1]])


def test_no_text_has_no_features():
    features, kept = fit([csr_matrix([[1, 2], [1, 0]])], ["one", "two"])
    assert kept.tolist() == [0]
    assert features.of_texts([], Tokenizer("words")).shape == (0, 1)
    assert features(csr_matrix((0, 1), dtype=np.int32)).shape == (0, 1)
