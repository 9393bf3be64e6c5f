import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lsfa_jax.util import atomic
from lsfa_jax.util.atomic import TextFiles, check_writable
from lsfa_jax.util.console import UserError

ROOT = Path(__file__).parents[2]
ERRORS = [KeyboardInterrupt, BrokenPipeError, SystemExit, UserError]


def write(files, path, text):
    with files.open(path) as stream:
        stream.write(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_replaces_the_earlier_one_and_its_folder_is_created(tmp_path):
    path = tmp_path / "new" / "file"
    atomic.write_bytes(path, b"first")
    atomic.write_text(path, "ä\r\n")
    assert path.read_bytes() == "ä\r\n".encode()
    assert names(path.parent) == ["file"]


def test_after_an_error_the_earlier_file_is_unchanged(tmp_path):
    (tmp_path / "file").write_text("earlier")

    def interrupted(error):
        with atomic.replacing(tmp_path / "file") as partial:
            partial.write_text("half")
            raise error

    for error in (KeyboardInterrupt, UserError("bad row")):
        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            interrupted(error)
        assert (tmp_path / "file").read_text() == "earlier"
        assert names(tmp_path) == ["file"]


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    program = f"""
import os, signal
from pathlib import Path
from lsfa_jax.util import atomic
with atomic.replacing(Path({str(tmp_path / "file")!r})) as partial:
    partial.write_text("half of it")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert len(names(tmp_path)) == 1
    assert not (tmp_path / "file").exists()
    atomic.write_text(tmp_path / "file", "new")
    assert names(tmp_path) == ["file"]


def test_a_file_that_cannot_be_written_is_named_with_reason_and_advice(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/x: cannot be written \(File exists\); choose another --output$"):
        atomic.write_text(tmp_path / "file" / "x", "text", "choose another --output")
    with pytest.raises(UserError, match=rf"^rows: cannot be written \({os.strerror(errno.ENOSPC)}\); make room"):  # noqa: SIM117
        with atomic.errors(Path("rows")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_text_files_appear_together_with_line_ends_as_written(tmp_path):
    (tmp_path / "one").write_text("earlier")
    with TextFiles() as files:
        write(files, tmp_path / "one", "ä\r\n")
        write(files, tmp_path / "two", "b\n")
        assert (tmp_path / "one").read_text() == "earlier"
        assert not (tmp_path / "two").exists()
    assert (tmp_path / "one").read_bytes() == "ä\r\n".encode()
    assert (tmp_path / "two").read_bytes() == b"b\n"
    assert names(tmp_path) == ["one", "two"]


@pytest.mark.parametrize("error", ERRORS)
def test_after_an_error_no_text_file_appears_and_earlier_ones_are_unchanged(tmp_path, error):
    (tmp_path / "one").write_text("earlier")

    def interrupted():
        with TextFiles() as files:
            write(files, tmp_path / "one", "a")
            with files.open(tmp_path / "two") as stream:
                stream.write("half")
                raise error

    with pytest.raises(error):
        interrupted()
    assert (tmp_path / "one").read_text() == "earlier"
    assert names(tmp_path) == ["one"]


def test_two_writers_of_one_text_file_do_not_mix_their_lines(tmp_path):
    program = f"""
from pathlib import Path
from lsfa_jax.util.atomic import TextFiles, check_writable
with TextFiles() as files, files.open(Path({str(tmp_path / "file")!r})) as stream:
    stream.write("b\\n" * 1000)
"""
    with TextFiles() as files, files.open(tmp_path / "file") as stream:
        stream.write("a\n" * 1000)
        subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
        assert (tmp_path / "file").read_text() == "b\n" * 1000
        stream.write("a\n")
    assert (tmp_path / "file").read_text() == "a\n" * 1001
    assert names(tmp_path) == ["file"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    with TextFiles() as files:
        write(files, tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "file").read_text() == "text"


def test_a_named_pipe_is_written_directly(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with TextFiles() as files:
        write(files, tmp_path / "pipe", "text")
        assert os.read(reader, 100) == b"text"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["missing/file", "."])
def test_a_text_file_that_cannot_be_opened_is_an_error(tmp_path, name):
    with pytest.raises(UserError, match="cannot be written"), TextFiles() as files:
        files.open(tmp_path / name)


def fill(folder, text):
    (folder / "below").mkdir()
    (folder / "below" / "file").write_text(text)


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with atomic.folder(tmp_path / "new" / "folder") as partial:
        fill(partial, "text")
        assert not (tmp_path / "new" / "folder").exists()
    assert (tmp_path / "new" / "folder" / "below" / "file").read_text() == "text"
    assert names(tmp_path / "new") == ["folder"]


@pytest.mark.parametrize("error", ERRORS)
def test_after_an_error_no_folder_appears(tmp_path, error):
    def interrupted():
        with atomic.folder(tmp_path / "folder") as partial:
            fill(partial, "half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == []


@pytest.mark.parametrize(("valid", "kept"), [(True, "first"), (False, "second")])
def test_a_valid_folder_of_another_process_stays_and_an_invalid_one_is_replaced(tmp_path, valid, kept):
    with atomic.folder(tmp_path / "folder", lambda path: valid) as second:
        with atomic.folder(tmp_path / "folder") as first:
            fill(first, "first")
        fill(second, "second")
    assert (tmp_path / "folder" / "below" / "file").read_text() == kept
    assert names(tmp_path) == ["folder"]


def test_what_a_killed_process_left_of_a_folder_is_removed_after_two_days(tmp_path):
    with atomic.folder(tmp_path / "folder") as partial:
        fill(partial, "text")
        for hours in (47, 49):
            left = partial.with_name(f"{partial.name}-{hours}")
            left.mkdir()
            os.utime(left, (0, time.time() - hours * 3600))
    with atomic.folder(tmp_path / "other"):
        pass
    assert [name.rpartition("-")[2] for name in names(tmp_path)] == ["47", "folder", "other"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be written .* set LSFA_DATA"):  # noqa: SIM117
        with atomic.folder(tmp_path / "file" / "folder", advice="set LSFA_DATA"):
            pytest.fail("the block ran")


# --- check_writable


def test_a_file_that_can_be_written_passes_and_nothing_is_left(tmp_path):
    (tmp_path / "there").write_text("earlier")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    for name in ("new.csv", "there", "link", "pipe", "x" * 200):
        check_writable(tmp_path / name, "--output", [tmp_path / "input"])
    check_writable(Path("/dev/null"), "--output", [Path("/dev/null/none")])
    assert names(tmp_path) == before
    assert (tmp_path / "there").read_text() == "earlier"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "is a folder; name a file in it"),
        ("none/x.csv", "there is no folder {folder}/none; create it, or choose another"),
        ("file/x.csv", "there is no folder {folder}/file; create it, or choose another"),
        ("file", "the command or the run needs that file; choose another"),
        ("link", "the command or the run needs that file; choose another"),
        ("x" * 300, "cannot be written (File name too long); choose another"),
    ],
)
def test_a_file_that_cannot_be_written_is_an_error_before_the_work(tmp_path, name, message):
    (tmp_path / "file").write_text("input")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    path = tmp_path / name
    with pytest.raises(UserError) as error:
        check_writable(path, "--output", [tmp_path / "file"])
    assert str(error.value) == f"--output {path}: {message.format(folder=tmp_path)}"


def test_a_folder_that_takes_no_file_is_an_error_before_the_work():
    # Not even root can create a file here, whatever the permissions are.
    with pytest.raises(UserError, match=r"^--output /proc/x\.csv: cannot be written \(.*\); choose another$"):
        check_writable(Path("/proc/x.csv"), "--output")
