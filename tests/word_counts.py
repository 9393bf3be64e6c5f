"""What a model that counts words knows of generated documents."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.svm import LinearSVC

from lsfa_jax.data.reading.documents import Document


def precision(train: Sequence[Document], test: Sequence[Document]) -> float:
    """Returns P@1, from 0 to 1, of one-versus-rest SVMs on TF-IDF."""
    words = TfidfVectorizer(min_df=2).fit([row.text for row in train])
    names = MultiLabelBinarizer().fit([row.labels for row in train])
    model = OneVsRestClassifier(LinearSVC()).fit(
        words.transform([row.text for row in train]), names.transform([row.labels for row in train])
    )
    best = model.decision_function(words.transform([row.text for row in test])).argmax(axis=1)
    return float(np.mean([names.classes_[label] in row.labels for label, row in zip(best, test, strict=True)]))
