"""What the commands share: options from a typed class, errors and exit codes, the options for reading files."""

import importlib.util
import inspect
import io
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from lsfa_jax import __version__
from lsfa_jax.cli import diagnosis
from lsfa_jax.config import Data, Section, keys, nearest
from lsfa_jax.util import atomic, console, interrupts
from lsfa_jax.util.console import UserError
from lsfa_jax.util.interrupts import Interrupted

if TYPE_CHECKING:
    from lsfa_jax.data.reading.options import ReadOptions

M = TypeVar("M", bound=BaseModel)


class ReadingOptions(Section):
    """How files of documents are read."""

    format: str = Field("auto", description="Format of the files. auto: by their content.")
    text_field: str = Field(
        "",
        description="Field or column that holds the text, where its name does not tell. By default the run's "
        "data.text_field.",
    )
    encoding: str = Field("auto", description="auto: UTF-8, or UTF-16 with a byte order mark; or a name like cp1252.")
    columns: str = Field(
        "", description="Names of the columns of a file without a header, in order, such as text,labels; - is not read."
    )
    header: Literal["auto", "yes", "no"] = Field(
        "auto", description="Whether the first row of a table has the names of the columns."
    )
    labels_field: str = Field("", description="Field or column that holds the labels, where its name does not tell.")
    label_columns: str = Field("", description="Columns of 0 and 1 that are a label each: first..last, or names.")
    label_names: str = Field("", description="File with the names of labels that are numbers or other ids.")
    id_field: str = Field("", description="Field or column that holds the document's id, where it is not named id.")
    label_separator: str = Field(
        "", description="What stands between the labels of a document in one string; by default detected."
    )
    bad_rows: Literal["stop", "skip"] = Field("stop", description="What to do at a row that cannot be read.")

    def read_options(self, **more: Any) -> "ReadOptions":
        """Returns the reader's options; `more` sets further ones, or replaces these."""
        from lsfa_jax.data.reading.options import ReadOptions

        return ReadOptions(**self.model_dump() | {"prefix": "--"} | more)

    def like_run(self, data: Data) -> "ReadOptions":
        """Returns the reader's options, with the settings of a run where these leave them open."""
        from lsfa_jax.data.reading.options import ReadOptions

        given = {name: value for name, value in self.model_dump().items() if value not in ("", "auto")}
        return ReadOptions.from_settings(data, **{"format": "auto", "bad_rows": self.bad_rows, "prefix": "--"} | given)


Reading = Annotated[ReadingOptions, tyro.conf.OmitArgPrefixes]
"""The type of a field, `reading: Reading = ReadingOptions()`, whose options are named without it: --text-field."""


def check_packages(what: str, extra: str, packages: Mapping[str, str]) -> None:
    """Raises UserError where the packages of an extra are not installed.

    Args:
        what: needs them, for the message.
        extra: their name in pyproject.toml.
        packages: module -> package.
    """
    missing = [package for module, package in packages.items() if not importlib.util.find_spec(module)]
    if missing:
        raise UserError(
            f"{what} needs the packages of the extra {extra}, of which {', '.join(missing)} cannot be imported. "
            f"Install them: {sys.executable} -m pip install {' '.join(packages.values())}"
        )


def warn_if_unfinished(run: Path) -> None:
    """Warns where a model is that of a run which was stopped, or which still trains."""
    from lsfa_jax.training import model_folder
    from lsfa_jax.training.run_folder import RunFolder

    if RunFolder(run).is_unfinished:
        console.warn(
            f"{run}: the run is not finished, and its model may be that of an earlier stage; "
            f"{model_folder.how_it_ends(run)}"
        )


@contextmanager
def continued_by_the_same_command() -> Iterator[None]:
    """Says how a command goes on that a signal ends within the block."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, Interrupted):
        console.error("interrupted; the same command continues")
        raise


HELP = ("-h", "--help", "--help-all")


def parse(kind: type[M], argv: Sequence[str], prog: str, default: M | None = None, in_help: Collection[str] = ()) -> M:
    """Reads a command line into the fields of a class.

    Args:
        kind: the class of the arguments; its docstring, with the examples, is the text of --help.
        argv: the command line after the command's name.
        prog: the command's name, as its user typed it.
        default: values of the options that the command line leaves out; without it those of the class.
        in_help: the fields, by dotted name, that --help lists; the others are left to --help-all. By default all.

    Raises:
        UserError: an option is unknown, needed and missing, or has a value that is not allowed; the message names it.
        SystemExit: with code 0 after --help or --help-all.
    """
    if asked := set(HELP) & set(argv):
        _print_help(kind, prog, default, () if "--help-all" in asked else in_help)
    settings: dict[str, Any] = {} if default is None else {"default": default}
    try:
        # The parser prints some errors in any case.
        with redirect_stderr(io.StringIO()):
            return tyro.cli(kind, args=list(argv), prog=prog, console_outputs=False, **settings)
    except (SystemExit, ValidationError):
        wrong = diagnosis.first_error(kind, argv) or f"{shlex.join(argv)}: cannot be read as options"
        raise UserError(f"{wrong}; see {prog} --help") from None


def _print_help(kind: type[BaseModel], prog: str, default: BaseModel | None, names: Collection[str]) -> None:
    """Prints the options of some fields, or without names of all, and ends the process with code 0."""
    # Without an explicit description, tyro shows the docstring up to the examples.
    description = console.as_typed(inspect.getdoc(kind) or "", prog)
    settings: dict[str, Any] = {}
    if names:
        description += f"\n\n{prog} --help-all lists all {len(list(keys(kind)))} options."
    shown = _shown(kind, names)
    if default is not None:
        settings["default"] = shown.model_validate(_escaped(default.model_dump()))
    tyro.cli(shown, args=["--help"], prog=prog, description=description, **settings)


class _Shown(BaseModel):
    """Some fields of a class of arguments; values of the others are ignored."""

    model_config = ConfigDict(extra="ignore")


def _shown(kind: type[BaseModel], names: Collection[str], prefix: str = "") -> type[BaseModel]:
    """Returns a class with the fields of `kind` whose dotted names are among `names`, or with all without names."""
    chosen: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            omits_prefix = tyro.conf.OmitArgPrefixes in field.metadata
            annotation = _shown(annotation, names, prefix if omits_prefix else f"{prefix}{name}.")
            if not annotation.model_fields:
                continue
            field = Field(default=annotation())
        elif names and f"{prefix}{name}" not in names:
            continue
        # tyro reads its markers from the annotation.
        hint = tyro.conf.arg(help_behavior_hint=_default) if annotation is str else None
        chosen[name] = (Annotated[(annotation, *kind.model_fields[name].metadata, hint)], field)
    return create_model(kind.__name__, __base__=_Shown, __doc__=kind.__doc__, **chosen)


def _default(quoted: str) -> str:
    """Returns what --help says of a default, in the shell's quotes: "" stands for an option that is not given."""
    return "(optional)" if quoted == "''" else f"(default: {quoted})"


def _escaped(values: object) -> object:
    """Returns nested settings without control characters: a settings file can hold them, and --help prints defaults."""
    if isinstance(values, dict):
        return {name: _escaped(value) for name, value in values.items()}
    return console.escaped(values) if isinstance(values, str) else values


def usage(prog: str, verbs: Mapping[str, str]) -> str:
    """Returns the text of --help of a command that has verbs.

    Args:
        prog: the command.
        verbs: what each verb does, in a few words.
    """
    lines = [f"usage: {prog} VERB ...", "", *(f"  {prog} {name:12} {does}" for name, does in verbs.items())]
    return console.as_typed("\n".join([*lines, "", f"{prog} VERB --help lists the options of a verb."]), prog)


def unknown_verb(verb: str, verbs: Iterable[str], prog: str) -> str:
    """Returns the error message for a word, or "" for none, where a verb is expected."""
    names = list(verbs)
    expected = f"one of {', '.join(names)}"
    what = f"{verb}: expected {expected}{nearest(verb, names)}" if verb else f"expected a verb, {expected}"
    return f"{what}; see {prog} --help"


def check_outputs(outputs: Mapping[str, str], run: str, sources: Iterable[str]) -> None:
    """Raises UserError where a file that the command writes at its end cannot be written, or is one that it reads.

    The files of a run are protected too, those that continue it included.

    Args:
        outputs: the files by their options; "" is none.
        run: folder of the model that the command reads, or "".
        sources: files, or folders of a corpus, that the command reads; "" is none.
    """
    from lsfa_jax.data.reading.splits import source_files
    from lsfa_jax.training import model_folder, run_folder

    inputs = [*model_folder.paths(Path(run)), *run_folder.files(Path(run))] if run else []
    inputs += [file for source in sources if source for file in source_files(Path(source).expanduser())]
    chosen: dict[Path, str] = {}
    for option, output in outputs.items():
        if output:
            atomic.check_writable(Path(output), option, inputs)
            first = chosen.setdefault(Path(output).resolve(), option)
            if first != option and not Path(output).is_char_device():
                raise UserError(f"{option} {output}: the same file as of {first}; choose another")


def option_name(*path: int | str) -> str:
    """Returns the option of a field: ("optimizer", "batch_size") -> "--optimizer.batch-size"."""
    return f"--{'.'.join(map(str, path)).replace('_', '-')}"


def run(command: Callable[[list[str]], int | None], argv: list[str] | None) -> int:
    """Calls a command with its command line, by default that of the process, and returns its exit code.

    With --version in the line, the version is printed instead.

    Returns:
        What the command returns (None is 0); 2 after a UserError, which is printed; 128 + n after signal n: 130 after
        SIGINT, 141 where standard output is closed (SIGPIPE). SIGTERM raises SystemExit(143), so that temporary files
        are removed.
    """
    line = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Where the encoding of the output lacks a character of a name, an escape replaces it.
            stream.reconfigure(errors="backslashreplace")
    if "--version" in line:
        print(f"lsfa_jax {__version__}")
        return 0
    try:
        with _exit_on_sigterm(), _log_lines_as_warnings(), console.once():
            return command(line) or 0
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


class _AsWarnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.warn(record.getMessage().strip().partition("\n")[0])


@contextmanager
def _log_lines_as_warnings() -> Iterator[None]:
    """Prints the log lines of libraries (JAX about a GPU that it cannot use) as warnings of one line, like ours."""
    before, logging.lastResort = logging.lastResort, _AsWarnings(logging.WARNING)
    try:
        yield
    finally:
        logging.lastResort = before


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set a handler
        return

    def leave(signum: int, frame: FrameType | None) -> None:
        # An exception that is raised in a callback of a library is lost: then the signal ends what is deferred next.
        interrupts.receive(signum)
        sys.exit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        with suppress(Interrupted):
            interrupts.check()


def _discard_output() -> None:
    """Redirects standard output to /dev/null: the interpreter flushes it at exit, which would fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
