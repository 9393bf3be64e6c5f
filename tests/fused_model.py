"""A trained model whose score is fused with a linear model's."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.sparse import linear
from lsfa_jax.sparse.fusion import Fusion
from lsfa_jax.training.model_folder import TrainedModel


def fused(model: TrainedModel, texts: Sequence[str], labels: Sequence[Sequence[int]]) -> TrainedModel:
    """Returns a model with machines trained on these short texts, of plain words, and weights drawn at random."""
    counter = CountVectorizer(dtype=np.int32, ngram_range=(1, 2))
    counts = counter.fit_transform(texts)
    num_labels = len(model.labels)
    trained = linear.train(
        "svm", [counts], counter.get_feature_names_out().tolist(), Ragged.from_rows(labels), num_labels
    )
    random = np.random.default_rng(0)
    weights = random.uniform([[0.2], [1], [-1]], [[0.6], [2], [0]], (3, num_labels)).astype(np.float32)
    return replace(model, linear=trained, fusion=Fusion(*weights))
