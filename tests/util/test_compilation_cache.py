import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from lsfa_jax.util import compilation_cache
from lsfa_jax.util.cache_dir import cache_dir

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """A cache of its own and JAX as it comes; what the test sets is taken back."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("LSFA_DATA", str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "cache" / "compiled"
    for name, value in before.items():
        jax.config.update(name, value)


def kept_in():
    return jax.config.jax_compilation_cache_dir


def test_programs_are_kept_in_a_folder_of_the_cache_that_is_the_users_alone(settings, capsys):
    compilation_cache.keep_on_disk()
    assert kept_in() == str(settings) == str(cache_dir() / "compiled")
    assert settings.stat().st_mode & 0o777 == 0o700
    assert capsys.readouterr().out == ""
    # Once more, as a second command would.
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.keep_on_disk()
    assert kept_in() == str(settings)


@pytest.mark.parametrize("own", ["", "/somewhere/else"])
def test_the_users_own_setting_wins(settings, own):
    jax.config.update("jax_compilation_cache_dir", own)
    compilation_cache.keep_on_disk()
    assert kept_in() == own
    assert not settings.exists()


def test_a_user_who_switches_the_cache_off_gets_none(settings):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        compilation_cache.keep_on_disk()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert kept_in() is None


@pytest.mark.parametrize("what", ["a file in its way", "a file for the cache"])
def test_a_folder_that_cannot_be_made_is_told_of_and_the_run_goes_on(settings, capsys, what):
    place = settings if what == "a file in its way" else settings.parent
    place.parent.mkdir(exist_ok=True)
    place.write_text("")
    compilation_cache.keep_on_disk()
    assert kept_in() is None
    printed = capsys.readouterr().out
    assert printed.startswith(f"warning: {settings}: cannot be written")
    assert "JAX_COMPILATION_CACHE_DIR names another folder" in printed


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_told_of(settings, capsys):
    settings.mkdir(parents=True, mode=0o500)
    compilation_cache.keep_on_disk()
    assert kept_in() is None
    assert "cannot be written" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720])
def test_a_folder_that_others_may_write_into_is_not_used(settings, capsys, mode):
    settings.mkdir(parents=True)
    settings.chmod(mode)
    compilation_cache.keep_on_disk()
    assert kept_in() is None
    assert "others may write there too" in capsys.readouterr().out


def test_the_programs_used_longest_ago_go_when_all_are_too_large(settings, monkeypatch):
    monkeypatch.setattr(compilation_cache, "_MOST_BYTES", 250)
    settings.mkdir(parents=True, mode=0o700)
    for age, name in enumerate(["now", "yesterday", "long ago", "forgotten"]):
        (settings / name).write_bytes(bytes(100))
        os.utime(settings / name, (1e9 - age, 2e9 + age))
    compilation_cache.keep_on_disk()
    assert {path.name for path in settings.iterdir()} == {"now", "yesterday"}


def test_programs_are_counted():
    before = compilation_cache.programs()
    add = jax.jit(lambda x: x + 3.25)
    jax.block_until_ready(add(jnp.zeros(7)))
    compiled = compilation_cache.programs()
    assert compiled > before
    jax.block_until_ready(add(jnp.ones(7)))
    assert compilation_cache.programs() in (compiled, compiled + 1)  # jnp.ones
    now = compilation_cache.programs()
    add(jnp.ones(7))
    assert compilation_cache.programs() == now
    assert compilation_cache.summary().startswith(f"{now:,} programs compiled, ")


PROGRAM = """
import sys, warnings
import jax, jax.numpy as jnp
from lsfa_jax.util import compilation_cache
from lsfa_jax.util.cache_dir import cache_dir
compilation_cache.keep_on_disk()
print(float(jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(5.0))))
print(compilation_cache.summary())
"""


def test_a_second_process_finds_the_programs_and_one_that_is_damaged_is_compiled_anew(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"LSFA_DATA": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def run():
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        )
        *_, value, summary = done.stdout.splitlines()
        words = summary.split()
        return value, int(words[0]), int(words[3]), done.stderr

    first, compiled, found, _ = run()
    assert compiled > 0
    assert found == 0
    assert run()[:3] == (first, compiled, compiled)
    for file in (tmp_path / "compiled").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    again, compiled_again, found, told = run()
    assert (again, compiled_again, found) == (first, compiled, 0)
    assert "persistent compilation cache" in told
