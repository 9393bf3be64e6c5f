"""The states of a stage on disk; the only file that uses Orbax."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
import orbax.checkpoint as ocp

from lsfa_jax.training.state import TrainState
from lsfa_jax.types import PyTree
from lsfa_jax.util import sharding
from lsfa_jax.util.console import UserError, first_line

# Orbax logs every file that it writes, and each error with its traceback before it raises it.
logging.getLogger("absl").setLevel(logging.CRITICAL)

# At least so many seconds of training for each second of saving: at most 5 % of the time, on any disk.
_TRAINING_PER_SAVING = 20


class Checkpoints:
    """The checkpoints of one stage; each is complete or, after a kill, absent.

    Saving blocks until the files are on disk, because the next step reuses the memory that is saved. Sums of losses
    are kept by name in a JSON file beside the arrays, so that a stage with one more loss restores older checkpoints.
    """

    def __init__(self, folder: Path, save_every: float = 60.0) -> None:
        """Opens a folder, which is created; `save_every` is the minimal time between two saves, in seconds."""
        self.folder = folder.absolute()
        self._save_every = save_every
        self._last_save = time.monotonic()
        self._last_duration = 0.0
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=("state", "progress"))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._manager.close()

    def due(self) -> bool:
        """Whether it is time to save: `save_every` seconds have passed, and 20 times what the last save took."""
        wait = max(self._save_every, _TRAINING_PER_SAVING * self._last_duration)
        return time.monotonic() - self._last_save >= wait

    def save(self, state: TrainState, complete: bool = False) -> None:
        """Writes the state; `complete` marks the end of the stage, of which no other checkpoint is kept.

        Raises:
            UserError: the disk is full or the folder cannot be written; the previous checkpoint remains.
        """
        start = time.monotonic()
        number = (self._manager.latest_step() or 0) + 1
        losses = {name: float(total) for name, total in state.loss_sums.items()}
        try:
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(replace(state, loss_sums={})),
                progress=ocp.args.JsonSave({"complete": complete, "loss_sums": losses}),
            )
            with _single_report():
                self._manager.save(number, args=items, force=True)
                self._manager.wait_until_finished()
                for earlier in self._manager.all_steps() if complete else ():
                    if earlier < number:
                        self._manager.delete(earlier)
        except (OSError, ValueError) as error:
            # TensorStore wraps a full disk into a ValueError.
            raise UserError(
                f"{self.folder}: the checkpoint could not be written ({first_line(error)}); the previous one is kept. "
                "Free disk space or make the folder writable, then continue with --resume"
            ) from error
        self._last_save = time.monotonic()
        self._last_duration = self._last_save - start

    @property
    def exists(self) -> bool:
        """Whether there is a checkpoint."""
        return self._manager.latest_step() is not None

    def is_complete(self) -> bool:
        """Whether the last checkpoint is the stage's end."""
        number = self._manager.latest_step()
        return number is not None and bool(self._progress(number)["complete"])

    def restore(self, abstract: TrainState, num_rows: int) -> TrainState:
        """Reads the last complete checkpoint into the shapes and shardings of `abstract`.

        A loss that the checkpoint does not have starts at 0. On another mesh, tables with one row per label may have
        more or less padding: it is added, as zeros, or cut off.

        Args:
            abstract: shapes and shardings of the state.
            num_rows: rows of its tables with one row per label.

        Raises:
            UserError: there is none, or it does not fit the settings.
        """
        number = self._manager.latest_step()
        if number is None:
            raise UserError(f"{self.folder}: no checkpoint in this folder")
        try:
            target = replace(abstract, loss_sums={})
            _check_shapes(self._manager.item_metadata(number)["state"], target, num_rows)
            items = ocp.args.Composite(state=ocp.args.StandardRestore(target, strict=False))
            with _single_report():
                state = self._manager.restore(number, args=items)["state"]
                saved = self._progress(number)["loss_sums"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"{self.folder}/{number}: the checkpoint cannot be read with these settings ({first_line(error)})"
            ) from error
        except Exception as error:
            # Of no particular class, where Orbax reads an array from a file that is truncated or changed.
            if type(error) is not Exception:
                raise
            raise UserError(
                f"{self.folder}/{number}: the checkpoint is damaged. Remove it, and --resume continues from "
                "the one before, or with the stage if there is none"
            ) from error
        losses = {
            name: sharding.put(np.asarray(saved.get(name, 0.0), total.dtype), total.sharding)
            for name, total in abstract.loss_sums.items()
        }
        return replace(state, loss_sums=losses)

    def _progress(self, number: int) -> dict:
        return self._manager.restore(number, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]


def is_complete(folder: Path) -> bool:
    """Whether the last checkpoint in a folder is the end of a stage; the folder is not created."""
    if not folder.is_dir():
        return False
    with Checkpoints(folder) as checkpoints:
        return checkpoints.is_complete()


class NoCheckpoints:
    """In place of `Checkpoints` in a run that no later command continues: nothing is saved."""

    exists = False

    def __enter__(self) -> "NoCheckpoints":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def due(self) -> bool:
        return False

    def save(self, state: TrainState, complete: bool = False) -> None:
        pass

    def is_complete(self) -> bool:
        return False

    def restore(self, abstract: TrainState, num_rows: int) -> TrainState:
        raise AssertionError("there is no checkpoint")


def _check_shapes(saved: PyTree, abstract: TrainState, num_rows: int) -> None:
    """Raises ValueError unless the saved arrays have the shapes of a state, up to the padding of the label tables."""
    saved_shapes = {name: array.shape for name, array in ocp.tree.to_flat_dict(saved, sep=".").items() if array}
    for name, array in ocp.tree.to_flat_dict(abstract, sep=".").items():
        shape, of_labels = saved_shapes.get(name, array.shape), array.shape[:1] == (num_rows,)
        # Keys are saved as their data, with one more axis.
        if len(shape) == array.ndim and shape[of_labels:] != array.shape[of_labels:]:
            raise ValueError(f"{name} has the shape {shape}, expected {array.shape}")


@contextmanager
def _single_report() -> Iterator[None]:
    """Silences the tracebacks that Orbax's threads print in addition to the exception that is raised."""
    before, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    yield
    sys.unraisablehook = before  # not restored after an error: threads may print later
