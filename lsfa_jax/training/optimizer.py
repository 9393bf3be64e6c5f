"""Adam with gradient clipping, and the running mean of parameters (SWA)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lsfa_jax import config
from lsfa_jax.types import PyTree

# Window and cap of the recorded norms, as in AttentionXML.
_WINDOW = 5
_LARGEST_RECORDED = 1.0


class RunningNormClipState(NamedTuple):
    """A ring buffer of the last norms; it starts with an infinite one, so that the first step is not clipped."""

    norms: jax.Array
    """float32[5]."""
    recorded: jax.Array
    """int32, norms recorded so far."""


def clip_by_running_norm(factor: float) -> optax.GradientTransformation:
    """Clips the global gradient norm at `factor` times the largest of the last five recorded norms.

    Each step records min(norm, 2 x largest, 1) (You et al. 2019, AttentionXML; also the released LSFA code), unless all
    gradients are zero: five zero norms would clip every later gradient to zero.
    """

    def init(params: PyTree) -> RunningNormClipState:
        del params
        # With its dtype: of a weak type, the state would not run the program of a state that a checkpoint restored.
        norms = jnp.full(_WINDOW, -jnp.inf, jnp.float32).at[0].set(jnp.inf)
        return RunningNormClipState(norms, jnp.ones((), jnp.int32))

    def update(
        updates: PyTree, state: RunningNormClipState, params: PyTree = None
    ) -> tuple[PyTree, RunningNormClipState]:
        del params
        norm, largest = optax.tree.norm(updates), jnp.max(state.norms)
        limit = factor * largest
        scale = jnp.where(jnp.isinf(limit), 1.0, jnp.minimum(1.0, limit / (norm + 1e-6)))
        new = jnp.minimum(jnp.minimum(norm, 2.0 * largest), _LARGEST_RECORDED)
        norms = jnp.where(norm > 0, state.norms.at[state.recorded % _WINDOW].set(new), state.norms)
        recorded = state.recorded + (norm > 0)
        return jax.tree.map(lambda g: g * scale, updates), RunningNormClipState(norms, recorded)

    return optax.GradientTransformation(init, update)


def make_optimizer(settings: config.Optimizer, learning_rate: float) -> optax.GradientTransformation:
    """Returns Adam with a constant learning rate and the clipping that the settings name."""
    clips = {
        "running": lambda: clip_by_running_norm(settings.clip_factor),
        "global": lambda: optax.clip_by_global_norm(settings.clip_factor),
        "none": optax.identity,
    }
    return optax.chain(clips[settings.clip](), optax.adam(learning_rate))


def add_to_mean(mean: PyTree, count: jax.Array, params: PyTree) -> PyTree:
    """Returns the mean of `count` + 1 parameter trees, given the mean of the first `count` and one more."""
    return optax.incremental_update(params, mean, 1.0 / (count + 1))
