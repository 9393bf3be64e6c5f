from pathlib import Path

from lsfa_jax.util.cache_dir import cache_dir


def test_cache_dir_follows_the_environment(monkeypatch):
    monkeypatch.setenv("LSFA_DATA", "~/corpora")
    assert cache_dir() == Path.home() / "corpora"
    monkeypatch.delenv("LSFA_DATA")
    assert cache_dir().name == "lsfa_jax"
