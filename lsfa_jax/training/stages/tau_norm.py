"""In place of stage 3: tau-normalised classifiers, with the exponent that is best on validation (`adjust.method`)."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax

from lsfa_jax.config import Config
from lsfa_jax.model.tau_norm import tau_normalised
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.state import TrainState, init_state
from lsfa_jax.types import Array, PyTree

EXPONENTS = tuple(number / 10 for number in range(1, 11))
"""The values of tau that are tried, one an epoch."""


class TauNormalisation(Stage[float]):
    """Tries the exponents; nothing is trained."""

    name = "adjustment"
    unit = "exponents"
    epochs, steps_per_epoch, items_per_epoch = len(EXPONENTS), 1, 1

    def __init__(
        self,
        config: Config,
        params: dict[str, PyTree],
        validate: Callable[[PyTree], dict[str, float]] | None = None,
    ) -> None:
        """Args:
        config: section `adjust`.
        params: all parameters after stage 1.
        validate: measures all parameters on validation documents; None without any.
        """
        self.select, self._params, self._validate = config.adjust.select, params, validate
        self._normalised = jax.jit(tau_normalised)

    def init(self, key: Array, classifier: PyTree) -> TrainState:
        """Returns the state before the first exponent, with a copy of the classifiers."""
        return init_state(key, jax.tree.map(jnp.array, classifier), optax.identity(), ())

    def batches(self, epoch: int, start: int) -> Iterator[float]:
        yield EXPONENTS[epoch - 1]

    def step(self, state: TrainState, batch: float, epoch: int, number: int) -> TrainState:
        params = self._normalised(self._params["classifier"], batch)
        return replace(state, params=params, step=state.step + 1, loss_steps=state.loss_steps + 1)

    def validate(self, state: TrainState) -> tuple[PyTree, dict[str, float]] | None:
        params = self._params | {"classifier": state.params}
        return (state.params, self._validate(params)) if self._validate else None
