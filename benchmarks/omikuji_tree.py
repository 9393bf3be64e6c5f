"""Omikuji's label tree on TF-IDF, as `bin/evaluate --baseline tree` has it."""

import tempfile
from pathlib import Path

import numpy as np
import omikuji
from scipy.sparse import csr_matrix

from benchmarks import shapes
from benchmarks.work import Work, each
from lsfa_jax import baselines
from lsfa_jax.metrics import LabelSets

_TRAINING = 2_000


def prediction(shape: str, seed: int) -> Work:
    """The five best labels of documents by a tree of all labels that a few thousand documents have; a document."""
    own = shapes.SHAPES[shape]
    made = shapes.documents(own, seed)
    counts = csr_matrix((np.ones(len(made.words), np.float32), made.words, made.word_offsets),
                        (len(made), own.vocabulary))  # fmt: skip
    counts.sum_duplicates()
    number = min(_TRAINING, len(made))
    train = counts[:number]
    labels = LabelSets(made.labels[: made.label_offsets[number]], made.label_offsets[: number + 1])
    with tempfile.TemporaryDirectory(prefix="lsfa-benchmark-") as folder:
        path = Path(folder) / "train.txt"
        baselines._write_features(path, train, labels, own.num_labels)
        baselines._train_tree(path, Path(folder) / "model")
        model = omikuji.Model.load(str(Path(folder) / "model"))
    rows = np.random.default_rng(seed).choice(len(made), shapes.predicted(own), replace=False)
    texts = [list(zip(counts[row].indices.tolist(), counts[row].data.tolist(), strict=True)) for row in rows]

    def run() -> None:
        for text in texts:
            model.predict(text, top_k=5)

    return each(len(texts), run, trained_on=number)
