"""Token states (Eq. 1) of a split in a file, for a stage in which the encoder is frozen."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

from lsfa_jax.data.batches import Batch
from lsfa_jax.data.corpus import EncodedSplit, Split
from lsfa_jax.model.encoders import Encoder
from lsfa_jax.training.collection import BatchSink
from lsfa_jax.util.array_file import ArrayFile
from lsfa_jax.util.console import UserError, note


class TokenStates:
    """[all tokens, 2H] in a file, a row for each token of a split, in the precision that the encoder names."""

    def __init__(self, path: Path, split: Split, encoder: Encoder) -> None:
        """Names the file for a split's states; nothing is written yet."""
        self._split = split
        self._file = ArrayFile(path, (int(split.words.offsets[-1]), encoder.state_size), encoder.stored_dtype)

    def keep_on_disk(self, choice: str) -> bool:
        """Whether states are kept: "yes", "no", or "auto", which keeps them if half of the free disk space suffices.

        The decision of "auto" is stored on disk (an empty file means no), so that a resumed run repeats it.

        Raises:
            UserError: the choice is yes, and there is no space.
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
            # A quota that leaves this user less than the disk's free space shows only now.
            self._file.reserve()
        except OSError as error:
            self._file.drop_partial()
            why = f"{path}: {error.strerror} for {size / 2**20:,.0f} MiB of token states"
            if choice == "yes":
                raise UserError(f"{why}; make room, or set --adjust.cache-states no") from error
            note(f"{why}; the encoder will run in every epoch instead")
            path.touch()
            return False
        note(f"{path}: {size / 2**20:,.0f} MiB of token states, until adjustment is done")
        return True

    @property
    def decided(self) -> bool:
        """Whether the file is complete, or it was decided not to keep states."""
        return self._file.path.exists()

    @contextmanager
    def filling(self) -> Iterator[BatchSink]:
        """Yields the function that stores a batch of the split; the file exists once the block has ended."""
        with self._file.filling() as array:
            offsets = self._split.words.offsets

            def store(batch: Batch, features: jax.Array, states: jax.Array) -> None:
                on_host = np.asarray(states)
                for row in np.flatnonzero(batch.document_mask):
                    start, length = offsets[batch.rows[row]], batch.lengths[row]
                    array[start : start + length] = on_host[row, :length]

            yield store

    def split(self) -> EncodedSplit:
        """Returns the split with token states in place of token ids."""
        states = self._split.words._replace(values=self._file.open().view(np.ndarray))
        return EncodedSplit(states, self._split.labels)

    def remove(self) -> None:
        """Removes the file and the decision."""
        self._file.path.unlink(missing_ok=True)
