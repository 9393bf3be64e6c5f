import errno
import os

import numpy as np
import pytest

from lsfa_jax.util.array_file import ArrayFile
from lsfa_jax.util.console import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_array_is_under_its_name_once_it_is_whole(tmp_path):
    file = ArrayFile(tmp_path / "new" / "x.npy", (3, 2), np.float16)
    with file.filling() as array:
        array[:] = [[1, 2], [3, 4], [5, 6]]
        assert names(tmp_path / "new") == ["x.partial"]
    assert names(tmp_path / "new") == ["x.npy"]
    assert file.num_bytes == 12
    np.testing.assert_array_equal(file.open(), np.array([[1, 2], [3, 4], [5, 6]], np.float16))


def test_of_an_array_that_is_not_filled_nothing_is_left(tmp_path):
    file = ArrayFile(tmp_path / "x.npy", (3, 2), np.float16)
    with pytest.raises(KeyboardInterrupt), file.filling():
        raise KeyboardInterrupt
    assert not names(tmp_path)


def test_what_a_killed_run_left_is_written_over(tmp_path):
    (tmp_path / "x.partial").write_bytes(b"half of it")
    with ArrayFile(tmp_path / "x.npy", (2,), np.int8).filling() as array:
        array[:] = 7
    assert names(tmp_path) == ["x.npy"]


def test_a_full_disk_is_found_before_a_page_is_written(tmp_path, monkeypatch):
    def full(handle, start, size):
        # All that the file will hold is asked for.
        assert (start, size) == (0, os.fstat(handle).st_size)
        assert size > file.num_bytes
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    file = ArrayFile(tmp_path / "x.npy", (1000, 2), np.float32)
    with pytest.raises(UserError, match=r"x\.partial: No space left on device.*--resume"), file.filling():
        pytest.fail("filled all the same")
    assert not names(tmp_path)
