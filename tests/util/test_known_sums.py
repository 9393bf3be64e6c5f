import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from lsfa_jax.util import known_sums
from lsfa_jax.util.xla_flags import AFFECTED, FLAG, jaxlib_version

pytestmark = pytest.mark.usefixtures("optimized_programs")
ROOT = Path(__file__).parents[2]
OTHER_VALUE = "--xla_cpu_experimental_ynn_fusion_type=+reduce"

CHECK = "import lsfa_jax; from lsfa_jax.util import known_sums; known_sums.check(); print('checked')"

needs_affected_version = pytest.mark.skipif(
    jaxlib_version not in AFFECTED or jax.default_backend() != "cpu",
    reason="this jaxlib computes the sums right without the flag",
)


def run(program, cache, flags=""):
    """Runs a program in a new process with a folder for compiled programs; returns what it prints."""
    environment = {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT, check=True
    ).stdout


def test_sums_of_this_process_are_right():
    for actual, expected in (known_sums.sum_in_last_row(), known_sums.sum_beside_constant_factor()):
        assert actual == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("computed", "warnings"), [(1.0, 0), (1.1, 1), (float("nan"), 1)])
def test_a_wrong_sum_is_one_warning_that_says_what_to_set(monkeypatch, capsys, computed, warnings):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(known_sums, "sum_in_last_row", lambda: (computed, 1.0))
    known_sums.check.cache_clear()
    known_sums.check()
    known_sums.check()
    assert capsys.readouterr().out.count(f'export XLA_FLAGS="$XLA_FLAGS {FLAG}"') == warnings
    known_sums.check.cache_clear()


@needs_affected_version
def test_sums_are_right_where_the_flag_comes_in_time_also_beside_programs_compiled_without_it(tmp_path):
    # Both processes look for the same programs in the folder.
    without = run(f"import jax; jax.devices(); {CHECK}", tmp_path)
    assert without.startswith(f"warning: jaxlib {jaxlib_version} computes some sums wrong")
    assert without.endswith("checked\n")
    assert any(tmp_path.iterdir())
    assert run(f"import jax; {CHECK}", tmp_path) == "checked\n"


@needs_affected_version
def test_the_value_of_the_user_for_the_flag_stays(tmp_path):
    assert "computes some sums wrong" in run(CHECK, tmp_path, OTHER_VALUE)
