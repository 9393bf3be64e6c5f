"""TF-IDF features of texts.

scikit-learn's `TfidfVectorizer` with its default tokens (lower-cased runs of two or more letters, digits or
underscores), `sublinear_tf` and `min_df=2`, fitted on the training texts, none of them cut short.
"""

from collections.abc import Iterable

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.util.console import UserError


def tf_idf(train: Iterable[str], test: Iterable[str]) -> tuple[csr_matrix, csr_matrix]:
    """Computes the features of training and test texts, float32 [documents, words] each, rows of length 1.

    Both are read once, the training texts first.

    Raises:
        UserError: no word is in two training texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, dtype=np.float32)
    try:
        return vectorizer.fit_transform(train), vectorizer.transform(test)
    except ValueError as error:
        raise UserError(f"no word is in two training texts, so there are no TF-IDF features ({error})") from None
