import errno
import os

import numpy as np
import pytest

from lsfa_jax.util.array_file import ArrayFile, appending
from lsfa_jax.util.console import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_array_appears_when_it_is_complete(tmp_path):
    file = ArrayFile(tmp_path / "new" / "x.npy", (3, 2), np.float16)
    with file.filling() as array:
        array[:] = [[1, 2], [3, 4], [5, 6]]
        assert not (tmp_path / "new" / "x.npy").exists()
    assert names(tmp_path / "new") == ["x.npy"]
    assert file.num_bytes == 12
    np.testing.assert_array_equal(file.open(), np.array([[1, 2], [3, 4], [5, 6]], np.float16))
    assert type(file.open()) is np.ndarray


def test_an_interrupted_array_leaves_no_file(tmp_path):
    file = ArrayFile(tmp_path / "x.npy", (3, 2), np.float16)
    with pytest.raises(KeyboardInterrupt), file.filling():
        raise KeyboardInterrupt
    assert not names(tmp_path)


def test_an_incomplete_array_of_a_killed_run_is_overwritten(tmp_path):
    ArrayFile(tmp_path / "x.npy", (3,), np.float64).reserve()[:] = 1  # killed before it was complete
    assert len(names(tmp_path)) == 1
    with ArrayFile(tmp_path / "x.npy", (2,), np.int8).filling() as array:
        array[:] = 7
    assert names(tmp_path) == ["x.npy"]
    np.testing.assert_array_equal(ArrayFile(tmp_path / "x.npy", (2,), np.int8).open(), [7, 7])


def test_the_space_of_an_incomplete_array_can_be_freed(tmp_path):
    file = ArrayFile(tmp_path / "x.npy", (3,), np.float64)
    file.reserve()
    file.drop_partial()
    file.drop_partial()
    assert not names(tmp_path)


def test_a_full_disk_is_an_error_before_a_page_is_written(tmp_path, monkeypatch):
    def full(handle, start, size):
        # The complete file is allocated.
        assert (start, size) == (0, os.fstat(handle).st_size)
        assert size > file.num_bytes
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    file = ArrayFile(tmp_path / "x.npy", (1000, 2), np.float32)
    with pytest.raises(UserError, match=r"x\.npy: .*No space left on device.*--resume"), file.filling():
        pytest.fail("the array was filled")
    assert not names(tmp_path)


@pytest.mark.parametrize("sizes", [[], [0], [3, 0, 2], [10_000]])
def test_an_array_grows_to_a_size_that_is_not_known_before(tmp_path, sizes):
    parts = [np.arange(size, dtype=np.int64) for size in sizes]
    with appending(tmp_path / "x.npy", np.int32) as append:
        for part in parts:
            append(part)
    expected = np.concatenate([np.zeros(0, np.int32), *(part.astype(np.int32) for part in parts)])
    for mode in (None, "r"):
        actual = np.load(tmp_path / "x.npy", mmap_mode=mode, allow_pickle=False)
        np.testing.assert_array_equal(actual, expected)
        assert actual.dtype == np.int32
