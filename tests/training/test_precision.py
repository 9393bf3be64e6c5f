import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from lsfa_jax.config import Config
from lsfa_jax.training import precision

AMX = {"avx512f", "amx_bf16"}


def never():
    raise AssertionError("nothing needs to be measured")


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_compute_in_bfloat16(platform):
    assert precision.choose(platform, set(), never) == "bfloat16"


def test_a_processor_without_bfloat16_computes_in_float32():
    assert precision.choose("cpu", {"avx512f", "avx2"}, never) == "float32"


@pytest.mark.parametrize("flags", [AMX, {"avx512_bf16"}])
@pytest.mark.parametrize(("speedup", "expected"), [(1.29, "float32"), (1.3, "bfloat16"), (4.5, "bfloat16")])
def test_a_processor_with_bfloat16_computes_in_it_where_it_is_faster(flags, speedup, expected):
    assert precision.choose("cpu", flags, lambda: speedup) == expected


def test_flags_are_those_of_the_processor_and_none_where_the_system_does_not_say(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nflags\t\t: fpu amx_bf16 avx2\nbugs\t\t: none\n\nprocessor\t: 1\nflags\t\t: sse\n"
    )
    assert precision.processor_flags(cpuinfo) == {"fpu", "amx_bf16", "avx2"}
    cpuinfo.write_text("processor\t: 0\n")
    assert not precision.processor_flags(cpuinfo)
    assert not precision.processor_flags(tmp_path / "missing")


def test_the_speedup_is_the_least_time_in_float32_over_that_in_bfloat16(monkeypatch):
    ones, measured = jnp.ones, []
    times = {jnp.float32: iter((0.0, 6.0, 20.0, 24.0)), jnp.bfloat16: iter((10.0, 13.0, 30.0, 35.0))}

    def noted(shape, dtype):
        measured.append(dtype)
        return ones(shape, dtype)

    monkeypatch.setattr(jnp, "ones", noted)
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=lambda: next(times[measured[-1]])))
    assert precision.measured_speedup(rounds=2) == 4 / 3
    # In turn, so that other processes disturb both.
    assert measured[::2] == [jnp.float32, jnp.bfloat16] * 2


@pytest.mark.parametrize("chosen", ["float32", "bfloat16"])
def test_a_precision_that_the_settings_name_is_kept(chosen, monkeypatch):
    monkeypatch.setattr(precision, "choose", never)
    config = Config(precision=chosen)
    assert precision.resolved(config, Config(precision="float32")) is config


def test_auto_becomes_the_precision_with_which_the_run_began_or_that_of_the_devices(monkeypatch):
    monkeypatch.setattr(precision, "measured_speedup", lambda: 2.0)
    monkeypatch.setattr(precision, "processor_flags", lambda: frozenset(AMX))
    # An earlier test may have chosen for this process.
    monkeypatch.setattr(precision, "_of_this_process", functools.cache(precision._of_this_process.__wrapped__))
    auto = Config(precision="auto", seed=3)
    assert jax.default_backend() == "cpu"
    assert precision.resolved(auto) == Config(precision="bfloat16", seed=3)
    assert precision.resolved(auto, Config(precision="float32")) == Config(precision="float32", seed=3)
