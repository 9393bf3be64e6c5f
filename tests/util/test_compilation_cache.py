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
    """An empty cache and JAX's default settings, which are restored after the test."""
    names = (
        "jax_compilation_cache_dir",
        "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("LSFA_DATA", str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", None)
    yield compilation_cache.default_folder()
    for name, value in before.items():
        jax.config.update(name, value)


def folder_in_use():
    return jax.config.jax_compilation_cache_dir


def test_programs_are_stored_in_a_folder_that_only_the_user_can_write(settings, capsys):
    compilation_cache.keep_on_disk()
    assert folder_in_use() == str(settings)
    assert settings.is_relative_to(cache_dir() / "compiled")
    assert settings.stat().st_mode & 0o777 == 0o700
    assert capsys.readouterr().out == ""
    # Once more, as a second command would.
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.keep_on_disk()
    assert folder_in_use() == str(settings)


@pytest.mark.parametrize("folder", ["", "/somewhere/else"])
def test_the_users_folder_has_priority(settings, folder):
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.keep_on_disk()
    assert folder_in_use() == folder
    assert not settings.exists()


@pytest.mark.parametrize(("size", "expected"), [(-1, 2 * 2**30), (10**6, 10**6)])
def test_the_size_is_limited_and_the_users_limit_has_priority(settings, size, expected):
    jax.config.update("jax_compilation_cache_max_size", size)
    compilation_cache.keep_on_disk()
    assert jax.config.jax_compilation_cache_max_size == expected


def test_nothing_is_stored_where_the_user_disables_the_cache(settings):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        compilation_cache.keep_on_disk()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert folder_in_use() is None


@pytest.mark.parametrize("file", ["folder", "parent"])
def test_a_folder_that_cannot_be_created_is_a_warning(settings, capsys, file):
    place = settings if file == "folder" else settings.parent
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("")
    compilation_cache.keep_on_disk()
    assert folder_in_use() is None
    printed = capsys.readouterr().out
    assert printed.startswith(f"warning: {settings}: cannot be written")
    assert "Set JAX_COMPILATION_CACHE_DIR to another folder" in printed


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_a_warning(settings, capsys):
    settings.mkdir(parents=True, mode=0o500)
    compilation_cache.keep_on_disk()
    assert folder_in_use() is None
    assert "cannot be written" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720])
def test_a_folder_that_other_users_can_write_into_is_not_used(settings, capsys, mode):
    settings.mkdir(parents=True)
    settings.chmod(mode)
    compilation_cache.keep_on_disk()
    assert folder_in_use() is None
    assert "other users can write into it" in capsys.readouterr().out


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
    numbers = [word.replace(",", "") for word in compilation_cache.summary().split()]
    assert sum(int(number) for number in numbers if number.isdigit()) == now


PROGRAM = """
import sys
import jax, jax.numpy as jnp
from lsfa_jax.util import compilation_cache
from lsfa_jax.util.cache_dir import cache_dir
compilation_cache.keep_on_disk()
for size in map(int, sys.argv[1:]):
    print(float(jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(float(size)))))
print(compilation_cache.summary())
"""


@pytest.fixture
def run(tmp_path):
    """Runs the program in a new process; returns its last value, programs, those that were loaded, and stderr."""

    def run(*sizes, **variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        environment |= {"LSFA_DATA": str(tmp_path), "PYTHONPATH": str(ROOT)} | variables
        command = [sys.executable, "-c", PROGRAM, *map(str, sizes)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        *_, value, summary = ended.stdout.splitlines()
        words = summary.split()
        compiled, loaded = int(words[0]), int(words[3])
        return value, compiled + loaded, loaded, ended.stderr

    return run


def stored(folder):
    return sorted((folder / "compiled").glob("*/*-cache"))


@pytest.mark.slow
def test_a_second_process_loads_the_programs_and_compiles_damaged_ones_again(run, tmp_path):
    first, programs, loaded, _ = run(5)
    assert programs > 0
    assert loaded == 0
    assert run(5)[:3] == (first, programs, programs)
    for file in stored(tmp_path):
        file.write_bytes(file.read_bytes()[:50])
    again, programs_again, loaded, warnings = run(5)
    assert (again, programs_again, loaded) == (first, programs, 0)
    assert "persistent compilation cache" in warnings


@pytest.mark.slow
def test_the_least_recently_used_programs_are_removed_beyond_the_limit(run, tmp_path):
    run(5)
    of_five = stored(tmp_path)
    size = sum(path.stat().st_size for path in of_five)
    limit = {"JAX_COMPILATION_CACHE_MAX_SIZE": str(int(1.5 * size))}
    assert run(6, **limit)[3] == ""
    left = stored(tmp_path)
    assert sum(path.stat().st_size for path in left) <= 1.5 * size
    assert set(of_five) - set(left)
    # The last ones are still there.
    _, programs, loaded, _ = run(6, **limit)
    assert programs == loaded


@pytest.mark.slow
def test_a_process_killed_while_it_stored_a_program_does_not_disable_the_cache(run, tmp_path):
    _, programs, *_ = run(5)
    half = stored(tmp_path)[0]
    half.with_name(half.name.replace("-cache", "-atime")).unlink()
    half.write_bytes(b"half")
    assert run(5)[1:] == (programs, programs - 1, "")
    assert run(5)[1:] == (programs, programs, "")
