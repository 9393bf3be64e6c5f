import json
import os
import time

import pytest

from lsfa_jax.data import cache
from lsfa_jax.util.console import UserError

CONTENT = {"arrays": b"\0" * 100, "below/words": b"cat\ndog\n"}
DECIDES = {"files": {"train": "abc"}, "seed": 3}


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("LSFA_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prepared"


class Maker:
    """Writes the content, and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self, folder):
        self.calls += 1
        for name, content in CONTENT.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)


def content(folder):
    return {name: (folder / name).read_bytes() for name in CONTENT}


def test_made_once_for_what_decides_it(cached, capsys):
    make = Maker()
    folder = cache.folder("mine", DECIDES, make)
    assert folder == cache.folder("mine", dict(reversed(DECIDES.items())), make) == cache.path("mine", DECIDES)
    assert make.calls == 1
    assert content(folder) == CONTENT
    others = [
        cache.folder("mine", DECIDES | {"seed": 4}, make),
        cache.folder("mine", DECIDES | {"files": {"train": "abd"}}, make),
        cache.folder("other", DECIDES, make),
    ]
    assert make.calls == 4
    assert sorted(cached.iterdir()) == sorted([folder, *others])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "arrays").write_bytes(b"\0" * 99), "arrays is not as it was written"),
        (lambda f: (f / "arrays").write_bytes(b"\0" * 99 + b"\1"), "arrays is not as it was written"),
        (lambda f: (f / "below" / "words").unlink(), "cannot be read (No such file or directory: words)"),
        (lambda f: (f / "manifest.json").unlink(), "cannot be read (No such file or directory: manifest.json)"),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff{"), "manifest.json is damaged"),
        (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json is damaged"),
        (lambda f: (f / "manifest.json").write_text('{"files": {"arrays": 3}}'), "manifest.json is damaged"),
    ],
)
def test_what_is_damaged_is_made_anew_and_said(cached, damage, said, capsys):
    make = Maker()
    folder = cache.folder("mine", DECIDES, make)
    damage(folder)
    assert cache.folder("mine", DECIDES, make) == folder
    assert f"warning: {folder}: {said}; it is made anew" in capsys.readouterr().out
    assert make.calls == 2
    assert content(folder) == CONTENT
    assert cache.damage(folder) is None
    assert list(cached.iterdir()) == [folder]


def test_what_fails_leaves_nothing(cached):
    def fail(folder):
        Maker()(folder)
        raise UserError("bad row")

    with pytest.raises(UserError, match="bad row"):
        cache.folder("mine", DECIDES, fail)
    assert list(cached.iterdir()) == []


def test_another_process_may_be_first(cached):
    inner = Maker()

    def slow(folder):
        Maker()(folder)
        cache.folder("mine", DECIDES, inner)

    folder = cache.folder("mine", DECIDES, slow)
    assert inner.calls == 1
    assert content(folder) == CONTENT
    assert list(cached.iterdir()) == [folder]


def test_what_a_killed_process_left_goes_in_time(cached):
    cached.mkdir(parents=True)
    for name, hours in (("old", 49), ("young", 1)):
        (cached / f".making-{name}").mkdir()
        (cached / f".making-{name}" / "arrays").write_bytes(b"half")
        os.utime(cached / f".making-{name}", (0, time.time() - hours * 3600))
    folder = cache.folder("mine", DECIDES, Maker())
    assert sorted(cached.iterdir()) == sorted([folder, cached / ".making-young"])


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LSFA_DATA", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/prepared: cannot be written .*LSFA_DATA"):
        cache.folder("mine", DECIDES, Maker())


def test_the_manifest_says_what_decided(cached):
    folder = cache.folder("mine", DECIDES, Maker())
    assert json.loads((folder / "manifest.json").read_text())["decides"] == DECIDES
    assert cache.bytes_of(folder) >= 108
