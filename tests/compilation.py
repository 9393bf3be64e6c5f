"""How tests compile: quickly, and where a test asks for it, as users do.

Tests spend most of their time compiling. They turn off the passes that only make a program fast, and XLA's newer code
generator for fused loops, which takes twice the time of the older one. XLA cuts a program into 32 parts for as many
threads, each of which costs time; tests compile it whole.
"""

import os
from typing import Any

import jax
import pytest
from jax._src import compiler
from jaxlib.version import __version__ as jaxlib_version

_EMITTERS = "xla_cpu_use_fusion_emitters"
_QUICK = {_EMITTERS: "false", "xla_cpu_parallel_codegen_split_count": "1"}

# XLA ends the process at a flag that it does not know; of the versions that are tested, these know it.
_IS_KNOWN = jaxlib_version in ("0.10.2", "0.11.0")

AS_USERS: dict[str, Any] = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
"""JAX's usual values, as `compiler_options` of jax.jit."""
if _IS_KNOWN:
    AS_USERS[_EMITTERS] = True


def quickly() -> None:
    """Compiles quickly from now on, in this process and with XLA_FLAGS in those that it starts; before JAX is used."""
    jax.config.update("jax_disable_most_optimizations", True)
    flags = os.environ.get("XLA_FLAGS", "").strip()
    names_file = flags and not flags.startswith("-")
    if _IS_KNOWN and not names_file:
        added = [f"--{name}={value}" for name, value in _QUICK.items() if name not in flags]
        os.environ["XLA_FLAGS"] = " ".join([flags, *added]).strip()


def as_users_do(patch: pytest.MonkeyPatch) -> None:
    """Compiles every program as users do, until the patch is undone."""
    options = compiler.get_compile_options

    def of_users(*args: Any, env_options_overrides: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        return options(*args, env_options_overrides=AS_USERS | (env_options_overrides or {}), **kwargs)

    patch.setattr(compiler, "get_compile_options", of_users)
