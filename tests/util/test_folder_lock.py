import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lsfa_jax.util.console import UserError
from lsfa_jax.util.folder_lock import FolderLock

ROOT = Path(__file__).parents[2]
ADVICE = "choose another folder"

HOLD = """
import sys, time
from pathlib import Path
from lsfa_jax.util.folder_lock import FolderLock
with FolderLock(Path(sys.argv[1])).held("-"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path / "run" until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def is_free(folder):
    """Whether the folder can be held; the message of the error if not."""
    try:
        with FolderLock(folder).held(ADVICE):
            return True
    except UserError as error:
        return str(error)


def test_a_second_process_is_told_which_one_holds_the_folder(holder, tmp_path):
    message = is_free(tmp_path / "run")
    assert f"run: in use by process {holder.pid} on this machine since 20" in message
    assert f"kill {holder.pid}" in message
    assert message.endswith(ADVICE)
    assert FolderLock(tmp_path / "run").holder().startswith(f"process {holder.pid} on this machine since 20")
    holder.communicate()
    assert FolderLock(tmp_path / "run").holder() == ""
    assert is_free(tmp_path / "run") is True


def test_a_process_that_was_killed_holds_nothing(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / ".lock.json").exists()
    assert FolderLock(tmp_path / "run").holder() == ""
    assert is_free(tmp_path / "run") is True


def hold_elsewhere(folder, seconds_ago):
    """Leaves the file of a process of another machine, which touched it some seconds ago."""
    folder.mkdir()
    file = folder / ".lock.json"
    file.write_text(json.dumps({"pid": 7, "host": "elsewhere", "since": "2026-01-01 10:00:00"}))
    os.utime(file, (time.time() - seconds_ago,) * 2)
    return file


def test_a_process_of_another_machine_holds_the_folder_as_long_as_it_touches_its_file(tmp_path):
    file = hold_elsewhere(tmp_path / "run", seconds_ago=30)
    message = is_free(tmp_path / "run")
    assert "in use by process 7 on elsewhere since 2026-01-01 10:00:00" in message
    assert f"remove {file}" in message
    assert FolderLock(tmp_path / "run").holder() == "process 7 on elsewhere since 2026-01-01 10:00:00"
    file.unlink()
    assert is_free(tmp_path / "run") is True
    hold_elsewhere(tmp_path / "other", seconds_ago=3600)
    assert is_free(tmp_path / "other") is True


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"pid": 1}'])
def test_a_damaged_file_of_the_holder_is_ignored(tmp_path, content):
    (tmp_path / ".lock.json").write_text(content)
    assert is_free(tmp_path) is True


def test_asking_who_holds_a_folder_leaves_it_as_it_is(tmp_path):
    assert FolderLock(tmp_path).holder() == ""
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_stays_empty_is_removed_with_its_parents(tmp_path):
    folder = tmp_path / "runs" / "first"
    with FolderLock(folder).held(ADVICE):
        assert is_free(folder) is not True
    assert list(tmp_path.iterdir()) == []
    with FolderLock(folder).held(ADVICE):
        (folder / "file").write_text("")
    assert (folder / "file").exists()
    assert is_free(folder) is True


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert is_free(tmp_path / "file").endswith(f"file: cannot be written (File exists); {ADVICE}")
