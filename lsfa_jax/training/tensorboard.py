"""TensorBoard's event files of a run: the numbers of its history, by stage."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from lsfa_jax.config import dotted
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.util import atomic

# Where a number is, when it was written, and what it measures.
_PLACE = ("stage", "step", "time")


class EventFiles:
    """Writes RUN/tensorboard, which always has each step of history.jsonl once.

    A run that continues drops the lines after its last checkpoint and writes them again; TensorBoard would show both.
    So the files follow the history: new lines are added, and where earlier ones have changed all are written again.
    """

    def __init__(self, folder: RunFolder) -> None:
        """Writes the history so far.

        Raises:
            UserError: the files cannot be written.
        """
        self._folder, self._path = folder, folder.path / "tensorboard"
        self._written: list[dict[str, Any]] | None = None
        self._writer: Any = None
        self.update()

    def update(self) -> None:
        """Writes the lines that the history has now."""
        from tensorboardX.proto.summary_pb2 import Summary

        lines = self._folder.read_history()
        with atomic.errors(self._path):
            if self._written is None or lines[: len(self._written)] != self._written:
                self._restart()
            assert self._written is not None
            for line in lines[len(self._written) :]:
                values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(line)]
                self._writer.add_summary(Summary(value=values), line["step"], line.get("time"))
            self._written = lines
            self._writer.flush()

    def _restart(self) -> None:
        from tensorboardX import FileWriter

        if self._writer:
            self._writer.close()
        for old in self._path.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = FileWriter(str(self._path))
        self._written = []

    def __enter__(self) -> "EventFiles":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()


def scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields the numbers of a line of history.jsonl, each with its tag, such as adjustment/validation/tail/N@5."""
    for key, value in dotted({name: value for name, value in line.items() if name not in _PLACE}).items():
        yield f"{line['stage']}/{key.replace('.', '/')}", value
