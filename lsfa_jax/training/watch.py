"""What shows a run while it trains: its page, and on request TensorBoard's event files.

Both follow from the files of the run folder, so that a run that was stopped continues them.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from lsfa_jax.training import report
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.tensorboard import EventFiles
from lsfa_jax.util import processes
from lsfa_jax.util.console import UserError, note

# The page takes at most this share of a run's time, however short its epochs are.
_SHARE = 0.01


@contextmanager
def watched(folder: RunFolder, tensorboard: bool) -> Iterator[None]:
    """Writes RUN/report.html after validations within the block and at its end; of several processes the first does.

    Args:
        folder: of the run.
        tensorboard: whether event files are written too, after each line of the history.
    """
    if not processes.is_first():
        yield
        return
    page = _Page(folder.path)
    with EventFiles(folder) if tensorboard else nullcontext() as events:

        def update() -> None:
            if events:
                events.update()
            page.update()

        folder.after_history = update
        try:
            yield
            note(f"Charts, results and settings of the run: {page.path}")
        finally:
            # Of a full disk, the exception that is already raised reports.
            with suppress(UserError):
                page.write()


class _Page:
    """The page of a run, not written again before a hundred times as long has passed as it took."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / report.NAME
        self._folder, self._due = folder, 0.0

    def update(self) -> None:
        if time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        start = time.monotonic()
        report.write(self._folder, self.path)
        end = time.monotonic()
        self._due = end + (end - start) / _SHARE
