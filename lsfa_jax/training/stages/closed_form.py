"""In place of stage 3: classifiers by a formula, with the value of its constant that is best on validation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax

from lsfa_jax.config import Config
from lsfa_jax.evaluation.groups import Metrics
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.state import TrainState, init_state
from lsfa_jax.types import Array, PyTree

EXPONENTS = tuple(number / 10 for number in range(1, 11))
"""The values of tau that are tried for tau-normalised classifiers."""

RIDGES = tuple(10.0**power for power in range(-3, 3))
"""The penalties that are tried for transferred classifiers."""


Formula = Callable[[PyTree, float], PyTree]
"""Computes classifiers from those of stage 1 and the value of a constant."""


class ClosedForm(Stage[float]):
    """Tries the values of a constant, one an epoch; nothing is trained."""

    name = "adjustment"
    unit = "values"
    steps_per_epoch = items_per_epoch = 1

    def __init__(
        self,
        config: Config,
        params: dict[str, PyTree],
        formula: Formula,
        values: Sequence[float],
        validate: Callable[[PyTree], Metrics] | None = None,
    ) -> None:
        """Compiles nothing yet.

        Args:
            config: all settings.
        params: all parameters after stage 1.
        formula: of the classifiers.
        values: those that are tried.
        validate: measures all parameters on validation documents; None without any.
        """
        self.select, self._params, self._validate = config.adjust.select, params, validate
        self._formula, self._values, self.epochs = jax.jit(formula), values, len(values)

    def init(self, key: Array, classifier: PyTree) -> TrainState:
        """Returns the state before the first value, with a copy of the classifiers."""
        return init_state(key, jax.tree.map(jnp.array, classifier), optax.identity(), ())

    def batches(self, epoch: int, start: int) -> Iterator[float]:
        yield self._values[epoch - 1]

    def step(self, state: TrainState, batch: float, epoch: int, number: int) -> TrainState:
        params = self._formula(self._params["classifier"], batch)
        return replace(state, params=params, step=state.step + 1, loss_steps=state.loss_steps + 1)

    def validate(self, state: TrainState) -> tuple[PyTree, Metrics] | None:
        params = self._params | {"classifier": state.params}
        return (state.params, self._validate(params)) if self._validate else None
