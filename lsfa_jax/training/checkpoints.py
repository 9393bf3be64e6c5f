"""A stage's state on disk; the only file that knows Orbax."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import orbax.checkpoint as ocp

from lsfa_jax.util.console import UserError

# Orbax reports every file that it writes, and each error with its traceback before it raises it.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class Checkpoints:
    """The checkpoints of one stage: each is complete or, after a kill, not there.

    Saving waits until the files are on disk: the next step reuses the memory that it reads from.
    """

    def __init__(self, folder: Path, save_every: float = 60.0) -> None:
        self.folder = folder.absolute()
        self.save_every = save_every
        self.last_save = time.monotonic()
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=("state", "progress"))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._manager.close()

    def save(self, state: Any, complete: bool = False) -> None:
        """Writes the state; `complete` says that the stage is over.

        Raises:
            UserError: the disk is full or the folder cannot be written; the checkpoint before stays.
        """
        number = (self._manager.latest_step() or 0) + 1
        try:
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave({"complete": complete})
            )
            with _one_report():
                self._manager.save(number, args=items, force=True)
                self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            # TensorStore wraps a full disk into a ValueError.
            raise UserError(
                f"{self.folder}: the checkpoint could not be written ({_first_line(error)}); the one before is kept. "
                "Make room or mend the folder, then go on with --resume"
            ) from error
        self.last_save = time.monotonic()

    @property
    def exists(self) -> bool:
        """Whether there is a checkpoint."""
        return self._manager.latest_step() is not None

    def is_complete(self) -> bool:
        """Whether the last checkpoint is the stage's end."""
        number = self._manager.latest_step()
        if number is None:
            return False
        items = ocp.args.Composite(progress=ocp.args.JsonRestore())
        return bool(self._manager.restore(number, args=items)["progress"]["complete"])

    def restore(self, abstract: Any) -> Any:
        """Reads the last complete checkpoint into the shapes and places of `abstract`.

        Raises:
            UserError: there is none, or it does not fit the settings.
        """
        number = self._manager.latest_step()
        if number is None:
            raise UserError(f"{self.folder}: no checkpoint here")
        try:
            items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            with _one_report():
                return self._manager.restore(number, args=items)["state"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"{self.folder}/{number}: the checkpoint cannot be read with these settings ({_first_line(error)})"
            ) from error


@contextmanager
def _one_report() -> Iterator[None]:
    """Leaves it to the exception to report an error: Orbax's threads print theirs as well, some of them later."""
    before, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    yield
    sys.unraisablehook = before  # not after an error


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    # TensorStore names its files at length, twice, and then says what is wrong.
    return line if len(line) <= 300 else f"{line[:120]} ... {line[-160:]}"
