import os

import pytest

from lsfa_jax.util.atomic import WholeFiles
from lsfa_jax.util.console import UserError


def write(files, path, text):
    with files.open(path) as stream:
        stream.write(text)


def test_files_appear_together_at_the_end_with_line_ends_as_written(tmp_path):
    (tmp_path / "one").write_text("earlier")
    with WholeFiles() as files:
        write(files, tmp_path / "one", "ä\r\n")
        write(files, tmp_path / "two", "b\n")
        assert (tmp_path / "one").read_text() == "earlier"
        assert not (tmp_path / "two").exists()
    assert (tmp_path / "one").read_bytes() == "ä\r\n".encode()
    assert (tmp_path / "two").read_bytes() == b"b\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError, SystemExit, UserError])
def test_a_fault_leaves_what_was_there_and_nothing_else(tmp_path, error):
    (tmp_path / "one").write_text("earlier")

    def interrupted():
        with WholeFiles() as files:
            write(files, tmp_path / "one", "a")
            with files.open(tmp_path / "two") as stream:
                stream.write("half")
                raise error

    with pytest.raises(error):
        interrupted()
    assert (tmp_path / "one").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    with WholeFiles() as files:
        write(files, tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "file").read_text() == "text"


def test_what_is_no_plain_file_is_written_directly(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with WholeFiles() as files:
        write(files, tmp_path / "pipe", "text")
        assert os.read(reader, 100) == b"text"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["missing/file", "."])
def test_a_place_that_cannot_be_written_is_said(tmp_path, name):
    with pytest.raises(UserError, match="cannot be written"), WholeFiles() as files:
        files.open(tmp_path / name)
