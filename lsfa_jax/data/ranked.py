"""Lists of labels, best first, with their scores: how a linear model's output reaches the network's scorer."""

from typing import NamedTuple

import numpy as np

from lsfa_jax.types import AnyArray


class Ranked(NamedTuple):
    """The best W labels of each of N documents."""

    label_ids: AnyArray
    """int32[N, W], best first; -1 where a list is shorter."""
    logits: AnyArray
    """float32[N, W]; the scores of labels that are not listed are `FLOOR`."""

    @property
    def probabilities(self) -> np.ndarray:
        """float32[N, W], the logistic function of the scores."""
        return 1 / (1 + np.exp(-self.logits))

    def take(self, rows: np.ndarray) -> "Ranked":
        """Gathers documents in the given order."""
        return Ranked(self.label_ids[rows], self.logits[rows])


FLOOR = -7.0
"""The logit of a label that a list does not have: a probability of 0.0009."""
