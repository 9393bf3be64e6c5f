"""Adam with gradient clipping, AdamW for a pretrained encoder, and the running mean of parameters (SWA)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lsfa_jax import config
from lsfa_jax.training import label_rows
from lsfa_jax.types import PyTree

# Window and cap of the recorded norms, as in AttentionXML.
_WINDOW = 5
_LARGEST_RECORDED = 1.0


class RunningNormClipState(NamedTuple):
    """A ring buffer of the last five norms.

    It starts with an infinite one, which the fifth step overwrites: the first five steps are not clipped.
    """

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
    """Returns Adam with a constant learning rate and the clipping that the settings name.

    Tables with one row per label have the moments and the rate of the settings, `label_rows`.
    """
    of_tables = _label_rate(settings, learning_rate)
    rates = optax.stateless(lambda updates, _: label_rows.scaled(updates, learning_rate, of_tables))
    return optax.chain(_clip(settings), optax.chain(label_rows.scale_by_moments(settings.label_rows), rates))


def make_fine_tuning_optimizer(settings: config.Optimizer, num_steps: int) -> optax.GradientTransformation:
    """Returns `make_optimizer`, with AdamW at a lower rate for the encoder where the settings have one.

    The encoder's rate rises linearly to `encoder_learning_rate` and falls to 0 as a cosine over `num_steps`; in each
    layer of a transformer below the last it is `layer_decay` times that of the layer above. Its matrices decay by the
    rate times `weight_decay` (Loshchilov and Hutter 2019).
    """
    if settings.encoder_learning_rate == "same":
        return make_optimizer(settings, settings.learning_rate)
    moments = label_rows.scale_by_moments(settings.label_rows)
    return optax.chain(_clip(settings), moments, _encoder_rates(settings, num_steps))


def learning_rates(settings: config.Optimizer, step: int, num_steps: int) -> dict[str, float]:
    """Returns the learning rates of `make_fine_tuning_optimizer` at step `step`, from 1, by the names of settings."""
    rates = constant_rates(settings, settings.learning_rate)
    if settings.encoder_learning_rate != "same":
        share = _warmup_cosine(_ScheduleState(step - 1, *_warmup_and_steps(settings, num_steps)), np)
        rates["encoder_learning_rate"] = float(settings.encoder_learning_rate) * float(share)
    return rates


def constant_rates(settings: config.Optimizer, learning_rate: float) -> dict[str, float]:
    """Returns the learning rates of `make_optimizer` by the names of settings."""
    rates = {"learning_rate": learning_rate}
    of_labels = settings.label_learning_rate
    return rates if of_labels == "same" else rates | {"label_learning_rate": float(of_labels)}


def for_adjustment(settings: config.Optimizer) -> config.Optimizer:
    """Returns the settings for stage 3, where the learning rate of Adam is that of `adjust` for classifiers, too."""
    if settings.label_rows == "sgd":  # whose rate is of another scale
        return settings
    return settings.model_copy(update={"label_learning_rate": "same"})


def _warmup_and_steps(settings: config.Optimizer, num_steps: int) -> tuple[int, int]:
    warmup = max(1, round(settings.warmup * num_steps))
    return warmup, max(num_steps, warmup + 1)


def _label_rate(settings: config.Optimizer, learning_rate: float) -> float:
    return learning_rate if settings.label_learning_rate == "same" else float(settings.label_learning_rate)


def _clip(settings: config.Optimizer) -> optax.GradientTransformation:
    clips = {
        "running": lambda: clip_by_running_norm(settings.clip_factor),
        "global": lambda: optax.clip_by_global_norm(settings.clip_factor),
        "none": optax.identity,
    }
    return clips[settings.clip]()


class _ScheduleState(NamedTuple):
    """The place in a schedule: numbers instead of constants, so that schedules of any length run the same program."""

    step: jax.Array | int
    """int32, steps so far."""
    warmup: jax.Array | int
    """int32, steps until the rate is at its peak."""
    num_steps: jax.Array | int
    """int32, steps until it is 0."""


def _warmup_cosine(state: _ScheduleState, xp: Any = jnp) -> Any:
    """Returns the rate of the next step as a share of the peak, as `optax.warmup_cosine_decay_schedule` computes it.

    `xp` is the library that computes: NumPy where no program is worth compiling.
    """
    step = state.step + 1  # the first step has a rate already
    decayed = (xp.minimum(step, state.num_steps) - state.warmup) / (state.num_steps - state.warmup)
    return xp.where(step < state.warmup, step / state.warmup, 0.5 * (1 + xp.cos(xp.pi * decayed)))


def _encoder_rates(settings: config.Optimizer, num_steps: int) -> optax.GradientTransformation:
    """Multiplies updates by minus the learning rate, which differs for the encoder, and decays its matrices."""
    peak, places = float(settings.encoder_learning_rate), (0, *_warmup_and_steps(settings, num_steps))

    def init(params: PyTree) -> _ScheduleState:
        del params
        return _ScheduleState(*(jnp.asarray(x, jnp.int32) for x in places))

    def update(updates: PyTree, state: _ScheduleState, params: PyTree = None) -> tuple[PyTree, _ScheduleState]:
        rate = peak * _warmup_cosine(state)

        def of_encoder(factor: float, update: jax.Array, param: jax.Array) -> jax.Array:
            decay = settings.weight_decay * param if param.ndim > 1 else 0.0
            return -rate * factor * (update + decay)

        factors = layer_factors(params["encoder"], settings.layer_decay)
        of_tables = _label_rate(settings, settings.learning_rate)
        scaled = label_rows.scaled(updates, settings.learning_rate, of_tables)
        encoder = jax.tree.map(of_encoder, factors, updates["encoder"], params["encoder"])
        return scaled | {"encoder": encoder}, state._replace(step=state.step + 1)

    return optax.GradientTransformation(init, update)


def layer_factors(encoder: Mapping[str, Any], decay: float) -> PyTree:
    """Returns a tree like the encoder's parameters with the factor of each one's learning rate.

    The last layer has 1, each layer below it `decay` times the factor of the layer above, and what is no layer (the
    embeddings) once more `decay` times that of the first layer.
    """
    layers = sorted(name for name in encoder if name.startswith("layer_"))

    def factor(path: tuple[jax.tree_util.DictKey, ...], _: object) -> float:
        depth = layers.index(path[0].key) + 1 if path[0].key in layers else 0
        return decay ** (len(layers) - depth)

    return jax.tree_util.tree_map_with_path(factor, encoder)


def add_to_mean(mean: PyTree, count: jax.Array, params: PyTree, recency: jax.Array | float = 0.0) -> PyTree:
    """Returns the mean of `count` + 1 parameter trees, given the mean of the first `count` and one more.

    With `recency` p, the newest of n trees weighs (p + 1) / (n + p): polynomial-decay averaging (Shamir and Zhang
    2013), which forgets the first trees as training goes on; 0 weighs all alike.
    """
    return optax.incremental_update(params, mean, (recency + 1.0) / (count + recency + 1.0))
