"""Classifiers whose bias starts at the frequency of their labels."""

import numpy as np

from lsfa_jax.config import Config
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.types import ParamDict


def start(classifier: ParamDict, config: Config, corpus: Corpus) -> ParamDict:
    """Starts the classifiers' bias at the labels' mean frequency, or each one's at its label's, if the settings do.

    With thousands of labels, the first hundreds of steps would otherwise only make all labels improbable, and what
    this does to the features is slow to recover.
    """
    bias, counts, documents = config.classifier, corpus.label_counts, len(corpus.train)
    if not bias.bias or bias.bias_start == "zero":
        return classifier
    mean = counts.sum() / (documents * corpus.num_labels)
    # With one more document that has each label at the mean frequency, no frequency is 0.
    by_label = bias.bias_start == "frequency" and bias.weights == "per_label"
    if by_label:
        counts = np.pad(counts, (0, len(classifier["bias"]) - len(counts)))
    share = np.minimum((counts + mean) / (documents + 1) if by_label else mean, 0.999)
    log_odds = np.log(share) - np.log1p(-share)
    return classifier | {"bias": np.full(classifier["bias"].shape, log_odds, np.float32)}
