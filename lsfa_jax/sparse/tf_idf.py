"""TF-IDF features of whole texts, none of them cut short.

Those of scikit-learn's `TfidfVectorizer` with `sublinear_tf` and `min_df=2`, of the terms that `data.bags` counts.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.data import bags
from lsfa_jax.data.ragged import blocks_of, offsets_of
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER, Tokenizer
from lsfa_jax.util.console import UserError

# Entries of a matrix that are computed with at a time.
_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False)
class TfIdf:
    """The features that training documents determine: V terms and their weights."""

    terms: list[str]
    idf: np.ndarray
    """float32[V], ln((1 + documents) / (1 + documents with the term)) + 1."""

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {term: column for column, term in enumerate(self.terms)}

    def __getstate__(self) -> dict[str, object]:
        return {"terms": self.terms, "idf": self.idf}

    def __call__(self, counts: csr_matrix) -> csr_matrix:
        """Computes the features of N texts, float32[N, V], rows of length 1, from the counts of the V terms [N, V]."""
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
        columns, data, sizes = array("i"), array("i"), array("q")
        for text in texts:
            known = (self._columns[term] for term in bags.terms(text, tokenizer) if term in self._columns)
            counts = Counter(known)
            columns.extend(counts)
            data.extend(counts.values())
            sizes.append(len(counts))
        offsets = offsets_of(np.array(sizes, np.int64))
        return self(csr_matrix((np.array(data), np.array(columns), offsets), (len(sizes), len(self.terms))))


def fit(counts: Sequence[csr_matrix], terms: list[str]) -> tuple[TfIdf, np.ndarray]:
    """Chooses the terms that at least two documents have, and weighs them.

    Args:
        counts: int[.., W] each, how often each term occurs in each of N training documents.
        terms: the W terms.

    Returns:
        The features, and int64[V], their columns of `counts`.
    """
    documents = np.zeros(len(terms), np.int64)
    for block in blocks_of_rows(counts):
        documents += np.bincount(block.indices, minlength=len(terms))
    kept = np.flatnonzero(documents >= bags.LEAST_DOCUMENTS)
    idf = np.log((1 + sum(part.shape[0] for part in counts)) / (1 + documents[kept])) + 1
    return TfIdf([terms[i] for i in kept], idf.astype(np.float32)), kept


def blocks_of_rows(parts: Sequence[csr_matrix]) -> Iterator[csr_matrix]:
    """Yields the rows of matrices, one after the other, in blocks: those of a corpus are mapped from the disk."""
    for part in parts:
        for rows in blocks_of(part.indptr, _BLOCK):
            yield part[rows]


def tf_idf(
    train: Iterable[str], test: Iterable[str], tokenizer: Tokenizer = DEFAULT_TOKENIZER
) -> tuple[csr_matrix, csr_matrix]:
    """Computes the features of training and test texts, float32 [documents, V] each.

    Both are read once, the training texts first.

    Raises:
        UserError: no word is in two training texts.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    analyzer = partial(bags.terms, tokenizer=tokenizer)
    counter = CountVectorizer(analyzer=analyzer, min_df=bags.LEAST_DOCUMENTS, dtype=np.int32)
    try:
        counts = counter.fit_transform(train)
    except ValueError as error:
        raise UserError(f"no word is in two training texts, so there are no TF-IDF features ({error})") from None
    features, kept = fit([counts], counter.get_feature_names_out().tolist())
    return features(counts[:, kept]), features(counter.transform(test)[:, kept])
