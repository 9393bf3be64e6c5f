"""Output for users: errors that they can act on, notes, progress with an ETA, tables."""

import re
import textwrap
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

T = TypeVar("T")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise


# Notes, progress and tables all go to stdout, in order (to stderr within `on_stderr`); errors go to stderr. File names
# and labels are printed as they are: "[bold]" is not a style and ":a:" not an emoji.
_out = _Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
_err = _Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

# Characters that move the cursor, change the terminal or reverse the direction of writing: C0 and C1 controls but tab
# and newline, and bidirectional overrides and isolates. A surrogate is a byte of a file name that is not UTF-8.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# Where the output is not a terminal, a line at this interval replaces the moving bar.
_SECONDS_BETWEEN_LINES = 10.0

LINE = 100
"""Characters of a line that a terminal shows without breaking it."""

# A command to the end of a message, which users copy from a terminal.
_COMMAND = re.compile("(?:bin/|lsfa |python -m ).*")

# The name of a command in a message.
_VERB = re.compile(r"(?<![\w./-])bin/(?=[a-z])")

_NARROW = 75

# Set for the calling thread only: all further threads go on printing.
_quiet: ContextVar[Callable[[str], str] | None] = ContextVar("quiet", default=None)

# The command that messages are for, such as `lsfa train`.
_prog = ""

# What `note_once` has printed within a block of `once`; None outside of one.
_printed: ContextVar[set[str] | None] = ContextVar("printed", default=None)


class UserError(Exception):
    """An error that the user can correct.

    The message names the place (file and line, or option), what was expected, and what to do. Commands print it without
    a traceback and exit with code 2.
    """


def escaped(text: str) -> str:
    r"""Returns text that is safe on a terminal: control characters of files, labels and names become \x1b, \u202e."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def plural(number: int, noun: str) -> str:
    """Returns a number with its noun: `1 row`, `1,234 rows`."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or what kind of error it is; long lines lose their middle."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    # TensorStore repeats long file names before it states the problem.
    return line if len(line) <= 300 else f"{line[:120]} ... {line[-160:]}"


@contextmanager
def commands_as(prog: str) -> Iterator[None]:
    """Writes commands in messages within the block as a user types them who called `prog` (`as_typed`)."""
    global _prog
    before, _prog = _prog, prog
    try:
        yield
    finally:
        _prog = before


def as_typed(text: str, prog: str) -> str:
    """Replaces bin/VERB by lsfa VERB for users who typed that: `prog` is what they called."""
    return _VERB.sub("lsfa ", text) if prog.startswith("lsfa ") else text


@contextmanager
def on_stderr() -> Iterator[None]:
    """Sends notes, warnings, progress and tables to stderr within the block: stdout is for the command's results."""
    global _out
    before, _out = _out, _err
    try:
        yield
    finally:
        _out = before


@contextmanager
def quiet(active: bool = True, wording: Callable[[str], str] = str) -> Iterator[None]:
    """Prints nothing within the block, for code that a program calls; `warn` issues a Python warning instead.

    Args:
        active: whether it does.
        wording: returns the text of such a warning for a program, from that for a command.
    """
    before = _quiet.set(wording if active else None)
    try:
        yield
    finally:
        _quiet.reset(before)


def mute() -> None:
    """Prints nothing but errors from now on, in all threads: for a process whose output repeats that of another."""
    _out.quiet = True


def note(text: str) -> None:
    """Prints a message: a line, which a terminal shows as several if it is long."""
    if not _quiet.get():
        _out.print(_wrapped(text, _out))


@contextmanager
def once() -> Iterator[None]:
    """Prints equal lines of `note_once` once within the block."""
    before = _printed.set(set())
    try:
        yield
    finally:
        _printed.reset(before)


def note_once(text: str) -> None:
    """Prints a line about an input, which a command may read more than once (see `once`)."""
    printed = _printed.get()
    if printed is None or text not in printed:
        note(text)
    if printed is not None and not _quiet.get():
        printed.add(text)


def warn(text: str) -> None:
    """Prints a line about something that goes on, but not as the user expects."""
    if wording := _quiet.get():
        warnings.warn(wording(escaped(text)), stacklevel=2)
        return
    _out.print(_wrapped(f"warning: {text}", _out), style="yellow")


def error(text: str) -> None:
    """Prints the last line of a failed command, to stderr."""
    _err.print(_wrapped(f"error: {text}", _err), style="red")


def _wrapped(text: str, console: Console) -> str:
    """Returns safe text, long lines of a terminal broken between words, but for a command at the end."""
    lines, width = as_typed(escaped(text), _prog).split("\n"), min(LINE, console.width)
    for place, line in enumerate(lines):
        if console.is_terminal and len(line) > width:
            # textwrap breaks no line at a no-break space.
            kept = _COMMAND.sub(lambda command: command[0].replace(" ", "\xa0"), line)
            broken = textwrap.fill(kept, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
            lines[place] = broken.replace("\xa0", " ")
    return "\n".join(lines)


def end_progress() -> None:
    """Shows the cursor again, which a progress bar hides: for a process that ends at once."""
    _out.show_cursor(True)


class Advance(Protocol):
    """Moves a progress bar by `amount` units; `status` replaces the text behind the bar.

    `apart` is the time in seconds that this amount took where it does not predict the rest, such as compilation: rate
    and ETA leave out both the amount and the time.
    """

    def __call__(self, amount: float = 1, status: str | None = None, apart: float = 0.0) -> None: ...


@contextmanager
def progress(description: str, total: int | None, unit: str = "", done: int = 0) -> Iterator[Advance]:
    """A bar with rate and ETA on a terminal; elsewhere a plain line every ten seconds.

    Args:
        description: what is being done, a few words.
        total: the number of units, or None where it is not known.
        unit: the plural of what is counted ('documents', 'MB'); rates are shown per second.
        done: units that an earlier run finished, which count for the bar but not for the rate.
    """
    description = _on_one_line(description)
    if _quiet.get():
        yield lambda amount=1, status=None, apart=0.0: None
    elif _out.is_terminal:
        with _bar(description, total, unit, done) as advance:
            yield advance
    else:
        yield _Lines(description, total, unit, done)


def counted(items: Iterable[T], advance: Advance) -> Iterator[T]:
    """Yields the items, and advances by their number.

    A hundred at a time: moving a bar costs as much as reading a short document.
    """
    number = 0
    for number, item in enumerate(items, 1):
        if number % 100 == 0:
            advance(100)
        yield item
    advance(number % 100)


@contextmanager
def _bar(description: str, total: int | None, unit: str, done: int) -> Iterator[Advance]:
    """Rich's progress bar, removed at the end."""
    with Progress(*_columns(unit), console=_out, transient=True) as bar:
        task = bar.add_task(description, total=total, completed=done, rate="", status="")
        start, counted = time.monotonic(), 0.0

        def advance(amount: float = 1, status: str | None = None, apart: float = 0.0) -> None:
            nonlocal start, counted
            start += apart
            counted += 0 if apart else amount
            # The ETA is Rich's, from the last half minute.
            rate = per_second(counted / max(time.monotonic() - start, 1e-9))
            bar.update(task, advance=amount, rate=rate)
            if status is not None:
                bar.update(task, status=_on_one_line(status))

        yield advance


class _Cropped(TextColumn):
    """Text that is cut off where the terminal is narrow, before anything else is."""

    def __init__(self, text_format: str) -> None:
        super().__init__(text_format, markup=False, table_column=Column(no_wrap=False))

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


def _columns(unit: str) -> Iterator[ProgressColumn]:
    """Yields the columns of a bar: in a narrow terminal those without which count and ETA fit."""
    yield _Cropped("{task.description}")
    if _out.width >= LINE:
        yield BarColumn(bar_width=20)
    yield MofNCompleteColumn()
    if _out.width >= _NARROW:
        yield TextColumn(f"{unit} {{task.fields[rate]}}")
    if _out.width >= LINE:
        yield TimeElapsedColumn()
    yield TextColumn("ETA")
    yield TimeRemainingColumn()
    yield _Cropped("{task.fields[status]}")


class _Lines:
    """A line of progress every ten seconds, with the rate of the last minute."""

    def __init__(self, description: str, total: int | None, unit: str, done: int) -> None:
        self.description, self.total, self.unit, self.done = description, total, unit, done
        self.count, self.status = 0.0, ""
        self.printed = time.monotonic()
        # Times and counts of the last lines.
        self.marks = deque([(self.printed, 0.0)], maxlen=6)

    def __call__(self, amount: float = 1, status: str | None = None, apart: float = 0.0) -> None:
        self.count += amount
        if apart:
            # As if the earlier lines had come later, and after this amount.
            self.marks = deque(((then + apart, count + amount) for then, count in self.marks), maxlen=6)
        self.status = self.status if status is None else status
        now = time.monotonic()
        if now - self.printed >= _SECONDS_BETWEEN_LINES:
            self.printed = now
            note(self._line(now))
            self.marks.append((now, self.count))

    def _line(self, now: float) -> str:
        then, count = self.marks[0]
        rate = (self.count - count) / max(now - then, 1e-9)
        of_total = "" if self.total is None else f"/{self.total:,}"
        line = f"{self.description}: {self.done + self.count:,.0f}{of_total} {self.unit}"
        # Nothing is known of the rate while the first step is compiled.
        if rate:
            line += f", {per_second(rate)}"
            if self.total is not None:
                line += f", ETA {_duration((self.total - self.done - self.count) / rate)}"
        return f"{line} {self.status}".rstrip()


def per_second(rate: float) -> str:
    """Returns "1,024/s", or "0.4/s" below 10."""
    return f"{rate:,.0f}/s" if rate >= 9.95 else f"{rate:.1f}/s"


def _on_one_line(text: str) -> str:
    return escaped(text).replace("\n", "\\n")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def table(title: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Prints a table; the first column is text, the others are right-aligned numbers."""
    if _quiet.get():
        return
    grid = Table(title=escaped(title), title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for index, name in enumerate(header):
        grid.add_column(_on_one_line(name), justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*map(_on_one_line, row))
    # Never truncated: in a log or a narrow window a wrapped line is better than a number cut off.
    grid.width = _out.measure(grid, options=_out.options.update_width(10_000)).maximum
    _out.print(grid)
