"""TF-IDF features of whole texts, none of them cut short.

Those of scikit-learn's `TfidfVectorizer` with `sublinear_tf` and `min_df=2`, of the words that `data.bags` counts.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.data.bags import LEAST_DOCUMENTS, counted_words
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER, Tokenizer
from lsfa_jax.util.console import UserError


class TfIdf(NamedTuple):
    """The features that training documents determine: V words and their weights."""

    words: list[str]
    idf: np.ndarray
    """float32[V], ln((1 + documents) / (1 + documents with the word)) + 1."""

    def __call__(self, counts: csr_matrix) -> csr_matrix:
        """Computes the features of N texts, float32[N, V], rows of length 1, from the counts of the V words [N, V]."""
        from sklearn.feature_extraction.text import TfidfTransformer

        if not counts.shape[0]:  # which scikit-learn refuses
            return csr_matrix(counts.shape, dtype=np.float32)
        transformer = TfidfTransformer(sublinear_tf=True)
        transformer.idf_ = self.idf
        features: csr_matrix = transformer.transform(counts.astype(np.float32))
        features.sort_indices()
        return features

    def of_texts(self, texts: Iterable[str], tokenizer: Tokenizer) -> csr_matrix:
        """Computes the features of texts."""
        return self(_counter(tokenizer, vocabulary=self.words).transform(texts))


def fit(counts: csr_matrix, words: list[str]) -> tuple[TfIdf, np.ndarray]:
    """Chooses the words that at least two documents have, and weighs them.

    Args:
        counts: int[N, W], how often each word occurs in each training document.
        words: the W words.

    Returns:
        The features, and int64[V], their columns of `counts`.
    """
    documents = np.bincount(counts.indices, minlength=len(words))
    kept = np.flatnonzero(documents >= LEAST_DOCUMENTS)
    idf = np.log((1 + counts.shape[0]) / (1 + documents[kept])) + 1
    return TfIdf([words[i] for i in kept], idf.astype(np.float32)), kept


def tf_idf(
    train: Iterable[str], test: Iterable[str], tokenizer: Tokenizer = DEFAULT_TOKENIZER
) -> tuple[csr_matrix, csr_matrix]:
    """Computes the features of training and test texts, float32 [documents, V] each.

    Both are read once, the training texts first.

    Raises:
        UserError: no word is in two training texts.
    """
    counter = _counter(tokenizer, min_df=LEAST_DOCUMENTS)
    try:
        counts = counter.fit_transform(train)
    except ValueError as error:
        raise UserError(f"no word is in two training texts, so there are no TF-IDF features ({error})") from None
    features, kept = fit(counts, counter.get_feature_names_out().tolist())
    return features(counts[:, kept]), features(counter.transform(test)[:, kept])


def _counter(tokenizer: Tokenizer, **settings):  # type: ignore[no-untyped-def] # scikit-learn has no types
    from sklearn.feature_extraction.text import CountVectorizer

    def analyzer(text: str) -> list[str]:
        return list(counted_words(tokenizer.words(text), tokenizer))

    return CountVectorizer(analyzer=analyzer, dtype=np.int32, **settings)
