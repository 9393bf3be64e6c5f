from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax import config
from lsfa_jax.training import optimizer

GRADIENTS = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from([0.0, 1e-3, 0.03, 0.5, 3.0, 1e3])), min_size=1, max_size=15
)
UPDATE = {factor: jax.jit(optimizer.clip_by_running_norm(factor).update) for factor in (0.5, 5.0)}


def tree(seed, scale):
    random = np.random.default_rng(seed)
    return {"w": np.float32(scale * random.normal(size=(2, 3))), "b": np.float32(scale * random.normal())}


def norm(gradient):
    return np.sqrt(np.sum(np.float64(gradient["w"]) ** 2) + np.float64(gradient["b"]) ** 2)


def scaled(gradient, scale):
    return {name: np.float64(g) * scale for name, g in gradient.items()}


def clipped_by_running_norm(gradients, factor):
    """The rule with a deque, as the released code in PyTorch has it."""
    queue, out = deque([np.inf], maxlen=5), []
    for gradient in gradients:
        limit = factor * max(queue)
        out.append(scaled(gradient, 1.0 if np.isinf(limit) else min(1.0, limit / (norm(gradient) + 1e-6))))
        if norm(gradient) > 0:
            queue.append(min(norm(gradient), 2 * max(queue), 1.0))
    return out


@settings(deadline=None, max_examples=60)
@given(drawn=GRADIENTS, factor=st.sampled_from([0.5, 5.0]))
def test_running_clip_is_the_rule_of_a_queue(drawn, factor):
    gradients = [tree(seed, scale) for seed, scale in drawn]
    state = optimizer.clip_by_running_norm(factor).init(gradients[0])
    for gradient, expected in zip(gradients, clipped_by_running_norm(gradients, factor), strict=True):
        clipped, state = UPDATE[factor](gradient, state)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-9), clipped, expected)


def test_running_clip_leaves_the_first_steps_unchanged_and_bounds_later_ones():
    state = optimizer.clip_by_running_norm(5.0).init(None)
    first, state = UPDATE[5.0](tree(0, 1e3), state)
    assert norm(first) == pytest.approx(norm(tree(0, 1e3)), rel=1e-6)
    # The first recorded norm is infinity, the second is capped at 1.
    for _ in range(4):
        unchanged, state = UPDATE[5.0](tree(1, 1e3), state)
        assert norm(unchanged) == pytest.approx(norm(tree(1, 1e3)), rel=1e-6)
    bounded, _ = UPDATE[5.0](tree(2, 1e3), state)
    assert norm(bounded) == pytest.approx(5.0, rel=1e-5)


def test_zero_gradients_do_not_clip_later_ones_to_zero():
    state = optimizer.clip_by_running_norm(5.0).init(None)
    for gradient in [tree(0, 0.1)] * 6 + [tree(0, 0.0)] * 6:
        _, state = UPDATE[5.0](gradient, state)
    after, _ = UPDATE[5.0](tree(1, 0.1), state)
    assert norm(after) == pytest.approx(norm(tree(1, 0.1)), rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12))
def test_running_mean_of_weights_is_their_mean(seed, count):
    weights = [tree(seed + i, 2.0) for i in range(count)]
    # The mean of no weights has no influence, whatever it is.
    mean = tree(seed - 1 if seed else 99, 50.0)
    for count, new in enumerate(weights):
        mean = ADD(mean, jnp.int32(count), new)
    for name in ("w", "b"):
        np.testing.assert_allclose(mean[name], np.mean([each[name] for each in weights], axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recency", [0.0, 1.0, 3.0])
def test_the_newest_of_some_weights_has_the_share_of_polynomial_decay(recency):
    """Of the first, all: they are their mean."""
    mean = expected = tree(99, 50.0)
    for number in range(1, 9):
        new, share = tree(number, 2.0), (recency + 1) / (number + recency)
        mean = ADD(mean, jnp.int32(number - 1), new, recency)
        expected = {name: (1 - share) * expected[name] + share * np.float64(new[name]) for name in new}
        for name in ("w", "b"):
            np.testing.assert_allclose(mean[name], expected[name], rtol=1e-4, atol=1e-5)


ADD = jax.jit(optimizer.add_to_mean)


def adam(gradients, rate):
    """Adam in NumPy (Kingma and Ba, algorithm 1), from zero."""
    m = v = x = np.zeros(7)
    for t, gradient in enumerate(gradients, start=1):
        g = np.append(gradient["w"].ravel(), gradient["b"])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return x


SCALES = [0.1, 0.2, 0.1, 0.1, 0.1, 30.0, 0.1, 90.0, 0.01, 0.02, 5.0]
TRAJECTORY = [tree(seed, scale) for seed, scale in enumerate(SCALES)]
CLIPPED = {
    "running": clipped_by_running_norm(TRAJECTORY, 2.0),
    "global": [scaled(g, min(1.0, 2.0 / norm(g))) for g in TRAJECTORY],
    "none": TRAJECTORY,
}


@pytest.mark.parametrize("clip", CLIPPED)
def test_optimizer_is_adam_behind_the_named_clip(clip):
    adams = optimizer.make_optimizer(config.Optimizer(clip=clip, clip_factor=2.0, learning_rate=9.0), 0.03)
    params = jax.tree.map(jnp.zeros_like, TRAJECTORY[0])
    state, update = adams.init(params), jax.jit(adams.update)
    for gradient in TRAJECTORY:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    trained = np.append(params["w"].ravel(), params["b"])
    for name, gradients in CLIPPED.items():
        if name == clip:
            np.testing.assert_allclose(trained, adam(gradients, 0.03), rtol=1e-4, atol=1e-6)
        else:
            assert np.abs(trained - adam(gradients, 0.03)).max() > 1e-3


LAYERS = ("embedding", "layer_00", "layer_01")


def fine_tuned_by_numpy(gradients, params, settings, num_steps):
    """AdamW for each part of the encoder at its rate, and Adam for the rest, in float64; `params` by path."""
    m, v = ({path: np.zeros_like(x) for path, x in params.items()} for _ in range(2))
    warmup = max(1, round(settings.warmup * num_steps))
    for t, gradient in enumerate(gradients, start=1):
        after = (min(t, num_steps) - warmup) / (num_steps - warmup)
        rate = settings.encoder_learning_rate * (t / warmup if t < warmup else 0.5 * (1 + np.cos(np.pi * after)))
        for path, x in params.items():
            g = gradient[path]
            m[path] = 0.9 * m[path] + 0.1 * g
            v[path] = 0.999 * v[path] + 0.001 * g**2
            step = (m[path] / (1 - 0.9**t)) / (np.sqrt(v[path] / (1 - 0.999**t)) + 1e-8)
            if path[0] != "encoder":
                params[path] = x - settings.learning_rate * step
                continue
            factor = settings.layer_decay ** (len(LAYERS) - 1 - LAYERS.index(path[1]))
            decay = settings.weight_decay * x if x.ndim > 1 else 0.0
            params[path] = x - rate * factor * (step + decay)
    return params


@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
def test_a_fine_tuned_encoder_has_adamw_with_warmup_and_decay_and_the_labels_have_adam(layer_decay):
    settings = config.Optimizer(
        clip="none",
        learning_rate=0.05,
        encoder_learning_rate=0.01,
        weight_decay=0.3,
        layer_decay=layer_decay,
        warmup=0.2,
    )
    num_steps = 12

    def drawn(seed):
        random = np.random.default_rng(seed)
        parts = {name: {"kernel": random.normal(size=(2, 3)), "bias": random.normal(size=3)} for name in LAYERS}
        return {"encoder": parts, "labels": random.normal(size=(4, 2))}

    trajectory = [drawn(seed) for seed in range(1, num_steps + 1)]
    tuned = optimizer.make_fine_tuning_optimizer(settings, num_steps)
    params = jax.tree.map(jnp.float32, drawn(0))
    state, update = tuned.init(params), jax.jit(tuned.update)
    for gradient in trajectory:
        updates, state = update(jax.tree.map(jnp.float32, gradient), state, params)
        params = optax.apply_updates(params, updates)
    expected = fine_tuned_by_numpy([flatten_dict(g) for g in trajectory], flatten_dict(drawn(0)), settings, num_steps)
    for path, array in flatten_dict(params).items():
        np.testing.assert_allclose(array, expected[path], rtol=1e-4, atol=1e-5, err_msg=str(path))


def test_without_a_rate_for_the_encoder_fine_tuning_is_plain_adam():
    settings = config.Optimizer(learning_rate=0.03)
    trained = []
    for plain in (optimizer.make_fine_tuning_optimizer(settings, 5), optimizer.make_optimizer(settings, 0.03)):
        params = jax.tree.map(jnp.zeros_like, TRAJECTORY[0])
        state = plain.init(params)
        for gradient in TRAJECTORY:
            updates, state = plain.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        trained.append(params)
    jax.tree.map(np.testing.assert_array_equal, *trained)


def test_schedules_of_any_length_run_the_same_program():
    params = {"encoder": {"embedding": jnp.ones(2)}, "labels": jnp.ones(2)}
    settings = config.Optimizer(encoder_learning_rate=0.01)
    programs = set()
    for num_steps in (5, 500):
        tuned = optimizer.make_fine_tuning_optimizer(settings, num_steps)
        programs.add(jax.jit(tuned.update).lower(params, tuned.init(params), params).as_text())
    assert len(programs) == 1


def test_the_learning_rates_that_a_run_shows_are_those_of_its_steps():
    settings = config.Optimizer(clip="none", learning_rate=0.05, encoder_learning_rate=0.01, warmup=0.4)
    params = {"encoder": {"bias": jnp.ones(2)}, "labels": jnp.ones(2)}
    tuned = optimizer.make_fine_tuning_optimizer(settings, 5)
    state = tuned.init(params)
    for step in range(1, 6):
        updates, state = tuned.update(params, state, params)
        shown = optimizer.learning_rates(settings, step, 5)
        assert shown["learning_rate"] == 0.05
        # Of equal gradients, Adam's updates are as their rates.
        ratio = float(updates["encoder"]["bias"][0] / updates["labels"][0])
        assert shown["encoder_learning_rate"] == pytest.approx(0.05 * ratio, rel=1e-4, abs=1e-9)
    same = config.Optimizer(learning_rate=0.05, label_learning_rate=2.0)
    assert optimizer.learning_rates(same, 1, 5) == {"learning_rate": 0.05, "label_learning_rate": 2.0}


@pytest.mark.parametrize(("label_rows", "expected"), [("adam", 0.01), ("row_adam", 0.01), ("sgd", 2.0)])
def test_classifiers_are_adjusted_at_the_rate_of_the_last_stage_but_those_of_sgd(label_rows, expected):
    settings = config.Optimizer(clip="none", label_rows=label_rows, label_learning_rate=2.0)
    adam = optimizer.make_optimizer(optimizer.for_adjustment(settings), 0.01)
    params = {"weights": jnp.ones((3, 2)), "bias": jnp.ones(3)}
    updates, _ = adam.update(params, adam.init(params), params)
    np.testing.assert_allclose(updates["weights"], np.full((3, 2), -expected), rtol=1e-5)
    np.testing.assert_allclose(updates["bias"], np.full(3, -0.01), rtol=1e-5)


@pytest.mark.parametrize(("num_steps", "warmup"), [(1, 0.1), (2, 0.9), (1, 0.0)])
def test_a_schedule_of_one_or_two_steps(num_steps, warmup):
    settings = config.Optimizer(clip="none", encoder_learning_rate=0.01, warmup=warmup)
    params = {"encoder": {"embedding": jnp.ones(2)}, "labels": jnp.ones(2)}
    tuned = optimizer.make_fine_tuning_optimizer(settings, num_steps)
    state = tuned.init(params)
    for _ in range(num_steps + 1):
        updates, state = tuned.update(params, state, params)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(updates))
