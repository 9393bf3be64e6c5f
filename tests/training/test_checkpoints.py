import resource
import sys
from contextlib import contextmanager
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax.training.checkpoints import Checkpoints
from lsfa_jax.training.optimizer import clip_by_running_norm
from lsfa_jax.training.state import init_state
from lsfa_jax.util import sharding
from lsfa_jax.util.console import UserError
from tests.reference.agreement import assert_equal

pytestmark = [
    pytest.mark.usefixtures("_unraisable_hook"),
    # What Orbax had still to do when it failed.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]
OPTIMIZER = optax.chain(clip_by_running_norm(5.0), optax.adam(0.1))
MESH = sharding.make_mesh()


@pytest.fixture
def _unraisable_hook(monkeypatch):
    # A checkpoint that fails silences it for the rest of the process.
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)


def make(seed, size=3):
    """A state with everything that a stage may carry."""
    random = np.random.default_rng(seed)
    params = {
        "classifier": {"weights": jnp.asarray(random.normal(size=(size, 2)), jnp.float32)},
        "b": jnp.float32(seed),
    }
    state = init_state(jax.random.key(seed), params, OPTIMIZER, {"present": jnp.array([True, False])}, average=True)
    return sharding.replicate(MESH, replace(state, step=jnp.int32(seed), loss_sums=jnp.array([0.1, seed / 3])))


def abstract(size=3):
    return sharding.abstract(MESH, jax.eval_shape(lambda: make_shapes(size)))


def make_shapes(size):
    params = {"classifier": {"weights": jnp.zeros((size, 2))}, "b": jnp.float32(0)}
    return init_state(jax.random.key(0), params, OPTIMIZER, {"present": jnp.zeros(2, bool)}, average=True)


def plain(state):
    return replace(state, key=jax.random.key_data(state.key))


def test_what_is_read_is_what_was_saved_bit_for_bit(tmp_path):
    state = make(7)
    with Checkpoints(tmp_path) as checkpoints:
        assert not checkpoints.exists
        assert not checkpoints.is_complete()
        checkpoints.save(state)
        assert checkpoints.exists
        assert not checkpoints.is_complete()
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(abstract())
    assert_equal(plain(restored), plain(state))
    assert jax.random.key_impl(restored.key) == jax.random.key_impl(state.key)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.sharding.is_equivalent_to(theirs.sharding, ours.ndim)


def test_the_last_checkpoint_counts_and_two_are_kept(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for seed in (1, 2, 3):
            checkpoints.save(make(seed), complete=seed == 3)
        assert checkpoints.is_complete()
        assert int(checkpoints.restore(abstract()).step) == 3
        # A stage that goes on after its end is not complete.
        checkpoints.save(make(4))
        assert not checkpoints.is_complete()
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


def test_saving_starts_the_wait_for_the_next_save_anew(tmp_path):
    with Checkpoints(tmp_path, save_every=9.0) as checkpoints:
        before = checkpoints.last_save
        checkpoints.save(make(1))
        assert checkpoints.last_save > before
        assert checkpoints.save_every == 9.0


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path):
    with Checkpoints(tmp_path / "empty") as checkpoints, pytest.raises(UserError, match=r"empty: no checkpoint here"):
        checkpoints.restore(abstract())


def test_a_checkpoint_of_other_sizes_is_an_error(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make(1))
        with pytest.raises(UserError, match=r"/1: the checkpoint cannot be read with these settings"):
            checkpoints.restore(abstract(size=4))


def test_what_a_kill_left_of_a_checkpoint_is_passed_over(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make(1))
    # Orbax writes under another name and renames at the end.
    for name in ("2.orbax-checkpoint-tmp", "2.orbax-checkpoint-tmp-1234"):
        (tmp_path / name / "state").mkdir(parents=True)
        (tmp_path / name / "state" / "manifest.ocdbt").write_bytes(b"half")
    with Checkpoints(tmp_path) as checkpoints:
        assert int(checkpoints.restore(abstract()).step) == 1
        checkpoints.save(make(5), complete=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.is_complete()
        assert_equal(plain(checkpoints.restore(abstract())), plain(make(5)))


@contextmanager
def full_disk(size):
    """No file may grow beyond a size: what a full disk looks like to whoever writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1000])
def test_a_full_disk_is_an_error_and_the_checkpoint_before_stays(tmp_path, size, capfd):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make(1))
        with (
            full_disk(size),
            pytest.raises(UserError, match=r"could not be written .*the one before is kept.*--resume"),
        ):
            checkpoints.save(make(2))
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(plain(checkpoints.restore(abstract())), plain(make(1)))
        checkpoints.save(make(3), complete=True)
        assert_equal(plain(checkpoints.restore(abstract())), plain(make(3)))
    assert "Traceback" not in capfd.readouterr().err
