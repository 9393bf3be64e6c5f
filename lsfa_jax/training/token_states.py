"""The states of Eq. 1 of a split's words in a file, for a stage in which the encoder stays as it is."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from lsfa_jax.data.batches import Batch
from lsfa_jax.data.corpus import Split
from lsfa_jax.training.collection import Keep
from lsfa_jax.util.array_file import ArrayFile
from lsfa_jax.util.console import UserError, note


class TokenStates:
    """float16[all words, 2H] in a file: a row for each word of a split, one document after the other.

    States lie within (-1, 1), where float16 keeps 11 bits and bfloat16, of the same size, 8.
    """

    def __init__(self, path: Path, split: Split, size: int) -> None:
        self._split = split
        self._file = ArrayFile(path, (int(split.words.offsets[-1]), size), np.float16)

    def wanted(self, choice: str) -> bool:
        """Whether states are to be kept: "yes", "no", or "auto", where the file fits in half of the disk's free room.

        What "auto" came to is on the disk, an empty file for no: a run that resumes decides as it did before.

        Raises:
            UserError: the choice is yes, and there is no room.
        """
        path, size = self._file.path, self._file.num_bytes
        if choice == "no" or not size:
            return False
        if self.decided:
            return path.stat().st_size > 0
        self._file.drop_partial()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if choice == "auto" and 2 * size > shutil.disk_usage(path.parent).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # Room that there is and that this user may not have is found here.
            self._file.reserve()
        except OSError as error:
            self._file.drop_partial()
            why = f"{path}: {error.strerror} for {size / 2**20:,.0f} MiB of token states"
            if choice == "yes":
                raise UserError(f"{why}; make room, or set --adjust.cache-states no") from error
            note(f"{why}; the encoder will run in every epoch of adjustment instead")
            path.touch()
            return False
        note(f"{path}: {size / 2**20:,.0f} MiB of token states, until adjustment is done")
        return True

    @property
    def decided(self) -> bool:
        """Whether the file is whole, or it was decided that there is none."""
        return self._file.path.exists()

    @contextmanager
    def filling(self) -> Iterator[Keep]:
        """Yields what takes each batch of the split in a collection; the file is there when the block has ended."""
        with self._file.filling() as array:
            starts = self._split.words.offsets

            def keep(batch: Batch, features: jax.Array, states: jax.Array) -> None:
                here = np.asarray(states)
                for row in np.flatnonzero(batch.document_mask):
                    start, length = starts[batch.rows[row]], batch.lengths[row]
                    array[start : start + length] = here[row, :length]

            yield keep

    def split(self) -> Split:
        """Returns the split with states in place of words."""
        return replace(self._split, words=self._split.words._replace(values=self._file.open().view(np.ndarray)))

    def remove(self) -> None:
        """Removes the file, and what was decided."""
        self._file.path.unlink(missing_ok=True)
