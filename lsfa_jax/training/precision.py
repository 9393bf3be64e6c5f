"""Which precision of matrix products is the faster one on these devices, where the settings leave it open."""

import functools
import time
from collections.abc import Callable, Set
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp

from lsfa_jax.config import Config
from lsfa_jax.types import Array, DTypeLike
from lsfa_jax.util.console import note

Precision = Literal["float32", "bfloat16"]

# Flags of /proc/cpuinfo: instructions that multiply bfloat16. Without them XLA converts to float32 first.
_BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}

# The least gain in a product for which bfloat16 is chosen: the rest of a step gains nothing.
_MIN_SPEEDUP = 1.3


def resolved(config: Config, started: Config | None = None) -> Config:
    """Returns the settings with a precision in place of `auto`.

    Args:
        config: all settings.
        started: the settings with which the run began, where it continues: it keeps their precision.
    """
    if config.precision != "auto":
        return config
    if started is not None and started.precision != "auto":
        precision: Precision = started.precision
    else:
        precision = _of_this_process()
    return config.model_copy(update={"precision": precision})


@functools.cache
def _of_this_process() -> Precision:
    """Chooses once, so that equal calls of a process give equal models."""
    precision = choose(jax.default_backend(), processor_flags(), measured_speedup)
    note(f"--precision auto: {precision}")
    return precision


def choose(platform: str, flags: Set[str], speedup: Callable[[], float]) -> Precision:
    """Returns the precision of matrix products for a platform.

    Args:
        platform: of the devices, as JAX names it.
        flags: of the processor.
        speedup: measures the time of a product in float32 / in bfloat16; called for a CPU that has bfloat16.

    Returns:
        `bfloat16` on accelerators, and on a CPU where that is at least 1.3 times as fast.
    """
    if platform != "cpu":
        return "bfloat16"
    return "bfloat16" if _BFLOAT16_FLAGS & flags and speedup() >= _MIN_SPEEDUP else "float32"


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Returns the instruction sets of the first processor; none where the system has no such file."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def measured_speedup(rounds: int = 10) -> float:
    """Returns the time of a product in float32 / in bfloat16, in the shape of label attention; takes some 0.2 s."""

    @jax.jit
    def product(a: Array, b: Array) -> Array:
        return jnp.einsum("th,lh->tl", a, b, preferred_element_type=jnp.float32)

    def seconds(dtype: DTypeLike) -> float:
        factors = jnp.ones((512, 512), dtype), jnp.ones((1024, 512), dtype)
        jax.block_until_ready((product(*factors), factors))
        start = time.perf_counter()
        jax.block_until_ready(product(*factors))
        return time.perf_counter() - start

    # In turn, so that other processes disturb both; the least time is the one that they disturbed least.
    measured = [(seconds(jnp.float32), seconds(jnp.bfloat16)) for _ in range(rounds)]
    float32, bfloat16 = (min(times) for times in zip(*measured, strict=True))
    return float32 / bfloat16
