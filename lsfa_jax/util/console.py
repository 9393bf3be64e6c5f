"""What people see: errors they can act on, notes, progress with an ETA, tables."""

import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

# Notes, progress and tables all go to stdout, in order (to stderr within `on_stderr`); errors go to stderr. File names
# and labels are printed as they are: "[bold]" is no style and ":a:" no emoji.
_out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
_err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

# A line as often as this stands in for the moving bar where the output is not a terminal.
_SECONDS_BETWEEN_LINES = 10.0

# Set for a program's own thread: others, who did not ask for silence, go on printing.
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


class UserError(Exception):
    """An error that the person at the keyboard can mend.

    The message says where (file and line, or setting), what was expected, and what to do. Commands print it without a
    traceback and exit with code 2.
    """


@contextmanager
def on_stderr() -> Iterator[None]:
    """Within it, notes, warnings, progress and tables go to stderr: stdout belongs to what the command hands on."""
    global _out
    before, _out = _out, _err
    try:
        yield
    finally:
        _out = before


@contextmanager
def quiet(active: bool = True) -> Iterator[None]:
    """Within it, for code that a program calls, nothing is printed; what `warn` says becomes a Python warning."""
    before = _quiet.set(active)
    try:
        yield
    finally:
        _quiet.reset(before)


def note(text: str) -> None:
    """Prints one line for people to read."""
    if not _quiet.get():
        _out.print(text)


def warn(text: str) -> None:
    """Prints one line about something that goes on, but not as asked."""
    if _quiet.get():
        warnings.warn(text, stacklevel=2)
        return
    _out.print(f"warning: {text}", style="yellow")


def error(text: str) -> None:
    """Prints the last line of a command that failed, to stderr."""
    _err.print(f"error: {text}", style="red")


class Advance(Protocol):
    """Moves a progress bar on by `amount` units; `status` replaces the text behind the bar.

    `apart` are seconds that this amount took and that say nothing of the rest, as compiling does: rate and ETA leave
    out both.
    """

    def __call__(self, amount: float = 1, status: str | None = None, apart: float = 0.0) -> None: ...


@contextmanager
def progress(description: str, total: int | None, unit: str = "", done: int = 0) -> Iterator[Advance]:
    """A bar with rate and ETA on a terminal; elsewhere a plain line every ten seconds.

    Args:
        description: what is being done, a few words.
        total: how many units there are, or None when nobody knows.
        unit: the plural of what is counted ('documents', 'MB'); rates are shown per second.
        done: units that an earlier run finished, which count for the bar but not for the rate.
    """
    if _quiet.get():
        yield lambda amount=1, status=None, apart=0.0: None
        return

    if _out.is_terminal:
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{unit} {{task.fields[rate]}}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            console=_out,
            transient=True,
        ) as bar:
            task = bar.add_task(description, total=total, completed=done, rate="", status="")
            start, moved = time.monotonic(), 0.0

            def advance(amount: float = 1, status: str | None = None, apart: float = 0.0) -> None:
                nonlocal start, moved
                start += apart
                moved += 0 if apart else amount
                # The ETA is Rich's, of the last half minute, and begins after the first of these.
                rate = f"{moved / max(time.monotonic() - start, 1e-9):,.0f}/s"
                bar.update(task, advance=amount, rate=rate)
                if status is not None:
                    bar.update(task, status=status)

            yield advance
        return

    start = last = time.monotonic()
    moved, text = 0.0, ""
    # The rate is of the last minute, of what was not apart.
    marks = deque([(start, 0.0)], maxlen=6)

    def advance_in_lines(amount: float = 1, status: str | None = None, apart: float = 0.0) -> None:
        nonlocal moved, last, text, marks
        moved += amount
        if apart:
            marks = deque(((then + apart, before + amount) for then, before in marks), maxlen=6)
        text = text if status is None else status
        now = time.monotonic()
        if now - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = (moved - marks[0][1]) / max(now - marks[0][0], 1e-9)
        marks.append((now, moved))
        of_total = eta = ""
        if total is not None:
            of_total = f"/{total:,}"
            eta = f", ETA {_duration((total - done - moved) / rate) if rate else '?'}"
        note(f"{description}: {done + moved:,.0f}{of_total} {unit}, {rate:,.0f}/s{eta} {text}".rstrip())

    yield advance_in_lines


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def table(title: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Prints a table; the first column is text, the others are right-aligned figures."""
    if _quiet.get():
        return
    grid = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for index, name in enumerate(header):
        grid.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    # As wide as it needs: in a log or a narrow window a broken line is better than a figure cut off.
    grid.width = _out.measure(grid, options=_out.options.update_width(10_000)).maximum
    _out.print(grid)
