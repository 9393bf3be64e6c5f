"""What the commands share: options from a typed class, errors and exit codes, the options for reading files."""

import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro
from pydantic import Field, ValidationError

from lsfa_jax.config import Section
from lsfa_jax.util import console
from lsfa_jax.util.console import UserError
from lsfa_jax.util.interrupts import Interrupted

if TYPE_CHECKING:
    from lsfa_jax.data.reading.detect import ReadOptions

T = TypeVar("T")


class ReadingOptions(Section):
    """How files of documents are read."""

    format: str = Field("auto", description="Format of the files. auto: by their content.")
    text_field: str = Field(
        "",
        description="Field or column that holds the text, where its name does not tell. By default the run's "
        "data.text_field.",
    )
    labels_field: str = Field("", description="Field or column that holds the labels, likewise.")
    id_field: str = Field("", description="Field or column that holds the document's id, likewise.")
    label_separator: str = Field("", description="What stands between the labels of a document in one string.")
    bad_rows: Literal["stop", "skip"] = Field("stop", description="What to do at a row that cannot be read.")

    def read_options(self, **more: Any) -> "ReadOptions":
        """Returns the reader's options; `more` sets further ones, or replaces these."""
        from lsfa_jax.data.reading.detect import ReadOptions

        return ReadOptions(**self.model_dump() | {"prefix": "--"} | more)


Reading = Annotated[ReadingOptions, tyro.conf.OmitArgPrefixes]
"""The type of a field, `reading: Reading = ReadingOptions()`, whose options are named without it: --text-field."""


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None, description: str | None = None) -> T:
    """Reads a command line into the fields of a class.

    Args:
        kind: the class of the arguments; its docstring, with the examples, is the text of --help.
        argv: the command line after the command's name.
        prog: the command's name.
        default: values of the options that the command line leaves out; without it those of the class.
        description: the text of --help, for a union of classes.

    Raises:
        UserError: a value is not allowed; the message names the option.
        SystemExit: with code 2 at an unknown option or a value of another type, 0 after --help.
    """
    # Without an explicit description, tyro shows the docstring up to the examples.
    settings: dict[str, Any] = {"description": description or inspect.getdoc(kind)}
    if default is not None:
        settings["default"] = default
    try:
        return tyro.cli(kind, args=list(argv), prog=prog, **settings)
    except ValidationError as error:  # later versions of tyro print it themselves, and exit
        raise UserError("; ".join(f"{option_name(*e['loc'])}: {e['msg']}" for e in error.errors())) from None


def option_name(*path: int | str) -> str:
    """Returns the option of a field: ("optimizer", "batch_size") -> "--optimizer.batch-size"."""
    return f"--{'.'.join(map(str, path)).replace('_', '-')}"


def run(command: Callable[[list[str]], int | None], argv: list[str] | None) -> int:
    """Calls a command with its command line, by default that of the process, and returns its exit code.

    Returns:
        What the command returns (None is 0); 2 after a UserError, which is printed; 128 + n after signal n: 130 after
        SIGINT, 141 where standard output is closed (SIGPIPE). SIGTERM raises SystemExit(143), so that temporary files
        are removed.
    """
    try:
        with _exit_on_sigterm():
            return command(sys.argv[1:] if argv is None else argv) or 0
    except UserError as error:
        console.error(str(error))
        return 2
    except Interrupted as request:
        return 128 + request.signum
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _discard_output()
        return 141  # 128 + SIGPIPE, which not every system has


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set a handler
        return

    def leave(signum: int, frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _discard_output() -> None:
    """Redirects standard output to /dev/null: the interpreter flushes it at exit, which would fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
