"""Detects a forked child process, in which JAX would wait for ever for threads that only its parent has."""

import os

from jax._src import xla_bridge

_parent_used_jax = False


def _remember() -> None:
    """Runs in each forked child."""
    global _parent_used_jax
    # JAX has no public function that tells whether a device was used, without using one.
    _parent_used_jax = xla_bridge.backends_are_initialized()


# Windows cannot fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember)


def check() -> None:
    """Does nothing unless this process was forked from one that had used JAX; called before devices are used.

    Raises:
        RuntimeError: it was.
    """
    if _parent_used_jax:
        raise RuntimeError(
            "this process was forked from one that had used JAX, which does not work in it. Start processes by "
            "joblib's default backend 'loky' or multiprocessing.get_context('spawn'), or fork before JAX is first used "
            "and load the model in each child"
        )
