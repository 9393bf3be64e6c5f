"""Text files that appear under their names together and whole, or not at all."""

import os
from pathlib import Path
from types import TracebackType
from typing import TextIO

from lsfa_jax.util.console import UserError


class WholeFiles:
    """Opens files under partial names, which become their names when the block ends without an error; else they go.

    What is no plain file (a named pipe, /dev/null) is written directly.
    """

    def __init__(self) -> None:
        self._renamed: list[tuple[Path, Path]] = []

    def open(self, path: Path) -> TextIO:
        """Opens a file for writing UTF-8, with line ends as they are written; to be closed before the block ends.

        Raises:
            UserError: the file cannot be opened.
        """
        # Through a link to the file itself: the link stays one.
        path = path.resolve()
        direct = path.exists() and not path.is_file()
        partial = path if direct else path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            stream = partial.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another") from None
        if not direct:
            self._renamed.append((partial, path))
        return stream

    def __enter__(self) -> "WholeFiles":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for partial, path in self._renamed:
            if kind is None:
                partial.replace(path)
            else:
                partial.unlink(missing_ok=True)
