import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from lsfa_jax.sparse.tf_idf import tf_idf
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
