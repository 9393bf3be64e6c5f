"""TF-IDF features of texts.

scikit-learn's `TfidfVectorizer` with `sublinear_tf` and `min_df=2`, fitted on the training texts, none of them cut
short. Words are the model's; as by scikit-learn's default, a single letter or digit is none, but for a character of a
script without spaces and an emoji.
"""

from collections.abc import Iterable

import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER, Tokenizer, is_character
from lsfa_jax.util.console import UserError


def tf_idf(
    train: Iterable[str], test: Iterable[str], tokenizer: Tokenizer = DEFAULT_TOKENIZER
) -> tuple[csr_matrix, csr_matrix]:
    """Computes the features of training and test texts, float32 [documents, words] each, rows of length 1.

    Both are read once, the training texts first.

    Raises:
        UserError: no word is in two training texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    def long_words(text: str) -> list[str]:
        return [word for word in tokenizer.words(text) if len(word) > 1 or is_character(word)]

    analyzer = long_words if tokenizer.kind in ("words", "runs") else tokenizer.words
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, dtype=np.float32, analyzer=analyzer)
    try:
        return vectorizer.fit_transform(train), vectorizer.transform(test)
    except ValueError as error:
        raise UserError(f"no word is in two training texts, so there are no TF-IDF features ({error})") from None
