"""Which of the ranked labels of a text are given: the best ones, down to a probability."""

from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

Probability = Annotated[float, Field(ge=0, le=1)]
Threshold = Literal["none", "auto"] | Probability

TOP = 5
"""Labels of a text where neither their number nor a threshold is given."""

TOP_OF_THRESHOLD = 100
"""With a threshold: few documents have more labels than this, and all labels would be L probabilities a document."""


class Selection(NamedTuple):
    """How many labels of a text at most, and the least probability."""

    top: int
    lowest: float

    @classmethod
    def of(cls, top: Literal["auto"] | int, threshold: Threshold, of_model: float) -> "Selection":
        """Returns what options mean.

        Args:
            top: auto is 5, with a threshold 100.
            threshold: none keeps all, auto is the model's.
            of_model: the model's threshold.
        """
        usual = TOP if threshold == "none" else TOP_OF_THRESHOLD
        lowest = 0.0 if threshold == "none" else of_model if threshold == "auto" else threshold
        return cls(usual if top == "auto" else top, lowest)

    def count(self, probabilities: np.ndarray) -> int:
        """Returns how many of the labels are given, by their probabilities float32[K], the largest first."""
        return int(np.count_nonzero(probabilities[: self.top] >= self.lowest))


def as_floats(probabilities: np.ndarray) -> list[float]:
    """Returns float32 numbers as the shortest decimals that are the same float32."""
    return [float(str(probability)) for probability in probabilities]
