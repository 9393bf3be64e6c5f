"""States of a split in a file: token states (Eq. 1) of a frozen encoder, or the hidden states of its frozen layers."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

from lsfa_jax.data.batches import Batch
from lsfa_jax.data.corpus import EncodedSplit, HiddenSplit, Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.model.encoders import Encoder, PoolingEncoder
from lsfa_jax.training.collection import BatchSink
from lsfa_jax.util.array_file import ArrayFile
from lsfa_jax.util.console import UserError, note

_WORTH_A_NOTE = 100 * 2**20

HiddenRows = Callable[[np.ndarray], np.ndarray]
"""Returns the rows of the hidden states of documents of given lengths."""


class TokenStates:
    """[rows, 2H] in a file, a row for each token of a split, or the rows of each document's hidden states."""

    def __init__(
        self, path: Path, split: Split, encoder: Encoder, exact: bool = False, hidden_rows: HiddenRows | None = None
    ) -> None:
        """Names the file for a split's states; nothing is written yet.

        Args:
            path: of the file.
            split: the documents.
            encoder: computes the states.
            exact: keep them in float32 instead of the precision that the encoder names.
            hidden_rows: returns the rows of documents of given lengths, for hidden states; None: token states.
        """
        self._split, self._hidden_rows = split, hidden_rows
        if hidden_rows is None and isinstance(encoder, PoolingEncoder):
            hidden_rows = encoder.state_rows
        self._sizes = split.lengths if hidden_rows is None else hidden_rows(split.lengths)
        self.dtype = np.dtype(np.float32 if exact else encoder.stored_dtype)
        self._file = ArrayFile(path, (int(self._sizes.sum()), encoder.state_size), self.dtype)

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
        if size >= _WORTH_A_NOTE:
            note(f"{path}: {size / 2**20:,.0f} MiB of token states, until the run is done")
        return True

    @property
    def decided(self) -> bool:
        """Whether the file is complete, or it was decided not to keep states."""
        return self._file.path.exists()

    @contextmanager
    def filling(self) -> Iterator[BatchSink]:
        """Yields the function that stores a batch of the split; the file exists once the block has ended."""
        with self._file.filling() as array:
            ends = np.cumsum(self._sizes)

            def store(batch: Batch, states: jax.Array, features: jax.Array | None = None) -> None:
                on_host = np.asarray(states)
                for row in np.flatnonzero(batch.document_mask):
                    end, size = ends[batch.rows[row]], self._sizes[batch.rows[row]]
                    array[end - size : end] = on_host[row, :size]

            yield store

    def split(self) -> EncodedSplit | HiddenSplit:
        """Returns the split with states in place of token ids."""
        states = Ragged.from_sizes(self._file.open(), self._sizes)
        if self._hidden_rows is None:
            return EncodedSplit(states, self._split.labels)
        return HiddenSplit(states, self._split.labels, self._split.lengths, self._hidden_rows)

    def remove(self) -> None:
        """Removes the file and the decision."""
        self._file.path.unlink(missing_ok=True)
