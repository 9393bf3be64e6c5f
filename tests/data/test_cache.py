import json
import os
import time

import numpy as np
import pytest

from lsfa_jax.data import cache
from lsfa_jax.util.console import UserError

CONTENT = {"arrays": b"\0" * 100, "below/words": b"cat\ndog\n"}
DECIDES = {"files": {"train": "abc"}, "seed": 3}


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("LSFA_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prepared"


class Writer:
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


def test_a_folder_is_written_once_for_what_decides_it(cached, capsys):
    write = Writer()
    folder = cache.folder("corpus", DECIDES, write)
    assert folder == cache.folder("corpus", dict(reversed(DECIDES.items())), write) == cache.path("corpus", DECIDES)
    assert write.calls == 1
    assert content(folder) == CONTENT
    further = [
        cache.folder("corpus", DECIDES | {"seed": 4}, write),
        cache.folder("corpus", DECIDES | {"files": {"train": "abd"}}, write),
        cache.folder("vectors", DECIDES, write),
    ]
    assert write.calls == 4
    assert sorted(cached.iterdir()) == sorted([folder, *further])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("damage", "message"),
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
def test_a_damaged_folder_is_written_again_with_a_warning(cached, damage, message, capsys):
    write = Writer()
    folder = cache.folder("corpus", DECIDES, write)
    damage(folder)
    assert cache.folder("corpus", DECIDES, write) == folder
    assert f"warning: {folder}: {message}; it is written again" in capsys.readouterr().out
    assert write.calls == 2
    assert content(folder) == CONTENT
    assert cache.damage(folder) is None
    assert list(cached.iterdir()) == [folder]


def test_a_failed_write_leaves_nothing(cached):
    def fail(folder):
        Writer()(folder)
        raise UserError("bad row")

    with pytest.raises(UserError, match="bad row"):
        cache.folder("corpus", DECIDES, fail)
    assert list(cached.iterdir()) == []


def test_another_process_may_be_first(cached):
    inner = Writer()

    def slow(folder):
        Writer()(folder)
        cache.folder("corpus", DECIDES, inner)

    folder = cache.folder("corpus", DECIDES, slow)
    assert inner.calls == 1
    assert content(folder) == CONTENT
    assert list(cached.iterdir()) == [folder]


def test_partial_folders_of_a_killed_process_are_removed_after_two_days(cached):
    cached.mkdir(parents=True)
    for name, hours in (("old", 49), ("young", 1)):
        (cached / f".making-{name}").mkdir()
        (cached / f".making-{name}" / "arrays").write_bytes(b"half")
        os.utime(cached / f".making-{name}", (0, time.time() - hours * 3600))
    folder = cache.folder("corpus", DECIDES, Writer())
    assert sorted(cached.iterdir()) == sorted([folder, cached / ".making-young"])


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LSFA_DATA", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/prepared: cannot be written .*LSFA_DATA"):
        cache.folder("corpus", DECIDES, Writer())


def test_the_manifest_records_what_decided(cached):
    folder = cache.folder("corpus", DECIDES, Writer())
    assert json.loads((folder / "manifest.json").read_text())["decides"] == DECIDES
    assert cache.bytes_of(folder) >= 108


# --- sampled and full digests


def large_file(path, **changes):
    """Writes 3 MiB, with one byte changed at each given position."""
    content = bytearray(np.random.default_rng(0).bytes(3 * 2**20))
    for position in changes.get("at", ()):
        content[position] ^= 1
    path.write_bytes(content)
    return path


def test_a_digest_depends_on_content_and_size_alone(tmp_path):
    file = large_file(tmp_path / "a")
    digests = {verify: cache.digest(file, verify) for verify in ("sampled", "full")}
    copy = large_file(tmp_path / "b")
    os.utime(copy, (0, 1e9))
    assert digests == {verify: cache.digest(copy, verify) for verify in ("sampled", "full")}
    with copy.open("ab") as stream:
        stream.write(b"\0")
    assert cache.digest(copy) != digests["sampled"]


@pytest.mark.parametrize("position", [0, 2**14 - 1, 3 * 2**20 // 63 * 30, 3 * 2**20 - 1])
def test_the_sampled_digest_covers_start_end_and_between(tmp_path, position):
    changed = large_file(tmp_path / "b", at=[position])
    assert cache.digest(large_file(tmp_path / "a")) != cache.digest(changed)


def test_the_full_digest_covers_what_the_sampled_one_does_not(tmp_path):
    file, changed = large_file(tmp_path / "a"), large_file(tmp_path / "b", at=[2**14 + 5])
    assert cache.digest(file) == cache.digest(changed)
    assert cache.digest(file, "full") != cache.digest(changed, "full")


@pytest.mark.parametrize("size", [0, 1, 2**14, 2**20])
def test_the_sampled_digest_of_a_small_file_covers_every_byte(tmp_path, size):
    for position in {0, size // 2, size - 1} if size else ():
        content = bytearray(size)
        (tmp_path / "a").write_bytes(content)
        content[position] ^= 1
        (tmp_path / "b").write_bytes(content)
        assert cache.digest(tmp_path / "a") != cache.digest(tmp_path / "b")


@pytest.mark.parametrize("changed", ["the prepared file", "the source"])
def test_the_full_check_finds_a_change_between_the_samples(cached, tmp_path, changed, capsys):
    source = large_file(tmp_path / "source")
    folder = cache.folder("corpus", DECIDES, lambda empty: large_file(empty / "arrays"), sources=[source])
    large_file(folder / "arrays" if changed == "the prepared file" else source, at=[2**14 + 5])

    def writes(verify):
        calls = []

        def write(empty):
            calls.append(empty)
            large_file(empty / "arrays")

        assert cache.folder("corpus", DECIDES, write, sources=[source], verify=verify) == folder
        return bool(calls)

    assert not writes("sampled")
    assert writes("full")
    assert "it is written again" in capsys.readouterr().out
    assert not writes("full")
    assert not writes("sampled")
    assert list(cached.iterdir()) == [folder]
