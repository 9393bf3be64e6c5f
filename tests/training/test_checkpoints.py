import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from lsfa_jax.training.checkpoints import Checkpoints
from lsfa_jax.training.optimizer import clip_by_running_norm
from lsfa_jax.training.state import TrainState, init_state, with_best_on_host
from lsfa_jax.util import sharding
from lsfa_jax.util.console import UserError
from tests.reference.agreement import assert_equal

pytestmark = [
    pytest.mark.usefixtures("_unraisable_hook"),
    # Of the coroutines that Orbax had not finished when it failed.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]
OPTIMIZER = optax.chain(clip_by_running_norm(5.0), optax.adam(0.1))
MESH = sharding.make_mesh()
# None of the arrays has a row per label.
NUM_ROWS = 99


@pytest.fixture
def _unraisable_hook(monkeypatch):
    # A save that fails silences it for the rest of the process.
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)


def make_state(seed: int, size: int = 3, losses: tuple[str, ...] = ("bce", "psc")) -> TrainState:
    """Returns a state with everything that a stage may have."""
    weights = jnp.asarray(np.random.default_rng(seed).normal(size=(size, 2)), jnp.float32)
    params = {"classifier": {"weights": weights}, "b": jnp.float32(seed)}
    extra = {"present": jnp.array([True, False])}
    state = init_state(jax.random.key(seed), params, OPTIMIZER, losses, extra, average=True)
    # Sums that JSON must keep to the last bit.
    sums = {name: jnp.float32(value) for name, value in zip(losses, (0.1, seed / 3, 7.5), strict=False)}
    return sharding.replicate(MESH, replace(state, step=jnp.int32(seed), loss_sums=sums))


def abstract(size: int = 3, losses: tuple[str, ...] = ("bce", "psc")) -> TrainState:
    return sharding.abstract(MESH, make_state(0, size, losses), NUM_ROWS)


def without_key(state: TrainState) -> TrainState:
    return replace(state, key=jax.random.key_data(state.key))


def test_a_state_is_restored_bit_for_bit(tmp_path):
    state = make_state(7)
    with Checkpoints(tmp_path) as checkpoints:
        assert not checkpoints.exists
        assert not checkpoints.is_complete()
        checkpoints.save(state)
        assert checkpoints.exists
        assert not checkpoints.is_complete()
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(abstract(), NUM_ROWS)
    assert_equal(without_key(restored), without_key(state))
    assert jax.random.key_impl(restored.key) == jax.random.key_impl(state.key)
    for actual, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert actual.dtype == expected.dtype
        assert actual.sharding.is_equivalent_to(expected.sharding, actual.ndim)


def test_a_state_with_the_best_weights_on_the_host_is_saved_and_restored_to_the_devices(tmp_path):
    state = make_state(7)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(with_best_on_host(state))
        restored = checkpoints.restore(abstract(), NUM_ROWS)
    assert_equal(without_key(restored), without_key(state))
    assert {x.sharding.memory_kind for x in jax.tree.leaves(restored.best)} == {state.params["b"].sharding.memory_kind}


def test_a_loss_that_a_checkpoint_lacks_starts_at_zero(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(7, losses=("bce",)))
        restored = checkpoints.restore(abstract(losses=("bce", "psc", "third")), NUM_ROWS)
    assert_equal(restored.loss_sums, {"bce": np.float32(0.1), "psc": np.float32(0.0), "third": np.float32(0.0)})
    assert_equal(without_key(replace(restored, loss_sums={})), without_key(replace(make_state(7), loss_sums={})))


def test_a_loss_that_the_stage_no_longer_has_is_ignored(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(7, losses=("bce", "psc")))
        restored = checkpoints.restore(abstract(losses=("psc",)), NUM_ROWS)
    assert_equal(restored.loss_sums, {"psc": np.float32(7 / 3)})
    assert_equal(without_key(replace(restored, loss_sums={})), without_key(replace(make_state(7), loss_sums={})))


def test_the_last_checkpoint_is_restored_and_two_are_kept(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for seed in (1, 2, 3):
            checkpoints.save(make_state(seed), complete=seed == 3)
        assert checkpoints.is_complete()
        assert int(checkpoints.restore(abstract(), NUM_ROWS).step) == 3
        # A stage that continues after its end is not complete.
        checkpoints.save(make_state(4))
        assert not checkpoints.is_complete()
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


@pytest.fixture
def clock(monkeypatch):
    """The clock of checkpoints, which stands still but for the two seconds that each save takes."""
    clock, save = SimpleNamespace(now=500.0), ocp.CheckpointManager.save

    def saved(*arguments: Any, **options: Any) -> bool:
        clock.now += 2
        return save(*arguments, **options)

    monkeypatch.setattr("lsfa_jax.training.checkpoints.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(ocp.CheckpointManager, "save", saved)
    return clock


def assert_due_after(seconds: float, checkpoints: Checkpoints, clock: SimpleNamespace) -> None:
    assert not checkpoints.due()
    clock.now += seconds - 0.125
    assert not checkpoints.due()
    clock.now += 0.125
    assert checkpoints.due()


def test_a_save_is_due_so_many_seconds_after_the_last(tmp_path, clock):
    with Checkpoints(tmp_path, save_every=1000.0) as checkpoints:
        assert_due_after(1000, checkpoints, clock)
        checkpoints.save(make_state(1))
        assert_due_after(1000, checkpoints, clock)


def test_saving_takes_at_most_a_twentieth_of_the_time(tmp_path, clock):
    with Checkpoints(tmp_path, save_every=0.0) as checkpoints:
        assert checkpoints.due()
        checkpoints.save(make_state(1))
        assert_due_after(40, checkpoints, clock)


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path):
    with (
        Checkpoints(tmp_path / "empty") as checkpoints,
        pytest.raises(UserError, match=r"empty: no checkpoint in this folder"),
    ):
        checkpoints.restore(abstract(), NUM_ROWS)


def test_a_checkpoint_of_other_sizes_is_an_error(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1))
        with pytest.raises(UserError, match=r"/1: the checkpoint cannot be read with these settings"):
            checkpoints.restore(abstract(size=4), NUM_ROWS)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_checkpoint_is_an_error_that_says_what_to_remove(tmp_path, share):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1, size=3_000))
    largest = max((tmp_path / "1" / "state").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    content = largest.read_bytes()
    kept = content[: int(share * len(content))]
    largest.write_bytes(kept or bytes(len(content)))
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(UserError, match=r"/1: the checkpoint is damaged. Remove it"),
    ):
        checkpoints.restore(abstract(size=3_000), NUM_ROWS)


def test_a_checkpoint_that_a_kill_left_unfinished_is_ignored(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1))
    # Orbax writes under another name and renames at the end.
    for name in ("2.orbax-checkpoint-tmp", "2.orbax-checkpoint-tmp-1234"):
        (tmp_path / name / "state").mkdir(parents=True)
        (tmp_path / name / "state" / "manifest.ocdbt").write_bytes(b"half")
    with Checkpoints(tmp_path) as checkpoints:
        assert int(checkpoints.restore(abstract(), NUM_ROWS).step) == 1
        checkpoints.save(make_state(5), complete=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.is_complete()
        assert_equal(without_key(checkpoints.restore(abstract(), NUM_ROWS)), without_key(make_state(5)))


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond a size; writing beyond it fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1000])
def test_a_full_disk_is_an_error_and_the_previous_checkpoint_remains(tmp_path, size, capfd):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1))
        with (
            full_disk(size),
            pytest.raises(UserError, match=r"could not be written .*the previous one is kept.*--resume"),
        ):
            checkpoints.save(make_state(2))
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(without_key(checkpoints.restore(abstract(), NUM_ROWS)), without_key(make_state(1)))
        checkpoints.save(make_state(3), complete=True)
        assert_equal(without_key(checkpoints.restore(abstract(), NUM_ROWS)), without_key(make_state(3)))
    assert "Traceback" not in capfd.readouterr().err
