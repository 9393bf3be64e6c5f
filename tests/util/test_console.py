import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.util import console

# Rich would read a style, a link, an error in a style, and an emoji.
ODD = "see [bold]x[/bold] [/nope] [link=y]z[/link] at :smile: rows.jsonl:3"


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when the test moves it."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(time, "monotonic", lambda: Clock.now)
    return Clock


CLOCK = """
import time
now = 1000.0
time.monotonic = lambda: now
from lsfa_jax.util import console
"""


def on_a_terminal(program, columns=200):
    """Runs a program whose clock moves when it changes `now`; returns what it writes to a terminal."""
    reader, writer = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", CLOCK + program], stdin=writer, stdout=writer, env=environment, check=True)
    os.close(writer)
    shown = b""
    try:
        while part := os.read(reader, 4096):
            shown += part
    except OSError:  # the end, on Linux
        pass
    os.close(reader)
    return shown.decode()


def test_streams_and_literal_text(capsys):
    console.note(ODD)
    console.warn(ODD)
    console.error(ODD)
    printed = capsys.readouterr()
    assert printed.out == f"{ODD}\nwarning: {ODD}\n"
    assert printed.err == f"error: {ODD}\n"


# Characters that steer a terminal, among any others, with surrogates as in the name of a file that is not UTF-8.
ANY_TEXT = st.text(
    st.characters() | st.sampled_from("\0\x07\b\t\n\r\x1b\x7f\x80\x9b\x9f\u202a\u202e\u2066\u2069\ud800\udcff")
)


def is_safe(printed):
    printed.encode()  # no surrogate
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", printed)


@settings(deadline=None)
@given(ANY_TEXT)
def test_nothing_that_steers_a_terminal_is_printed(text):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        console.note(text)
        console.warn(text)
        console.error(text)
        console.table(text, [text, "b"], [[text, text]])
    assert is_safe(printed.getvalue())


@settings(deadline=None)
@given(ANY_TEXT)
def test_escaped_text_is_safe_and_keeps_the_rest(text):
    assert is_safe(console.escaped(text))
    kept = "".join(c for c in text if is_safe_character(c))
    assert console.escaped(kept) == kept
    assert console.escaped(f"a{kept}b\x1b[2J") == rf"a{kept}b\x1b[2J"


def is_safe_character(character):
    return not "\ud800" <= character <= "\udfff" and is_safe(character)


def test_progress_escapes_as_well(clock, capsys):
    with console.progress("reading \x1b[2J\n", 4, "rows") as advance:
        clock.now += 10
        advance(1, "at \u202e\udcff")
    assert capsys.readouterr().out == "reading \\x1b[2J\\n: 1/4 rows, 0.1/s, ETA 0:00:30 at \\u202e\\udcff\n"


def test_a_bar_on_a_terminal_escapes_as_well():
    shown = on_a_terminal("""
with console.progress("reading \\x1b]0;title\\x07", 400, "documents") as advance:
    advance(100, "at \\x9b2J")
""")
    assert r"reading \x1b]0;title\x07" in shown
    assert r"at \x9b2J" in shown
    assert "\x07" not in shown
    assert "\x9b" not in shown


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1234, "1,234 rows"), (-1, "-1 rows")]
)
def test_plural(number, text):
    assert console.plural(number, "row") == text


@pytest.mark.parametrize("write", [console.note, console.warn, console.error])
def test_a_long_line_stays_one_line(write, capsys):
    write("word " * 200)
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("\n") == 1
    assert (printed.out + printed.err).count("word") == 200


def test_a_long_line_on_a_terminal_is_broken_between_words_but_for_a_command_at_its_end():
    command = "bin/train --output " + "x" * 90 + " --resume"
    shown = on_a_terminal(f"""
console.note("short\\tline")
for write in (console.note, console.warn):
    write("two words " * 20 + "are saved. Continue with: {command}")
""")
    lines = re.sub("\x1b[^m]*m", "", shown).splitlines()
    assert lines[0].split() == ["short", "line"]
    assert [line for line in lines if len(line) > 100] == [f"  {command}"] * 2
    assert " ".join(" ".join(lines).split()).count("two words " * 20 + "are saved. Continue with: " + command) == 2
    assert len(lines) == 9
    narrow = on_a_terminal('console.note("two words " * 20)', columns=40)
    assert max(map(len, narrow.splitlines())) <= 40


def test_table_has_all_cells_whatever_the_width(capsys):
    header = [ODD, *(f"metric number {i}" for i in range(12))]
    rows = [[ODD, *(f"{row}{i}.123456" for i in range(12))] for row in range(3)]
    console.table(f"Title {ODD}", header, rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].rstrip() == f"Title {ODD}"
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[1:]]
    assert [line for line in cells if line and "─" not in line[0]] == [header, *rows]


def test_table_aligns_the_first_column_left_and_numbers_right(capsys):
    console.table("t", ["name", "value"], [["a", "1.00"], ["longer", "100.00"]])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.strip()][1:] == [
        "  name      value",
        " ─────────────────",
        "  a          1.00",
        "  longer   100.00",
    ]


def test_progress_is_a_line_every_ten_seconds_with_rate_and_eta(clock, capsys):
    with console.progress("reading [x]", 4000, "documents") as advance:
        advance(100)
        clock.now += 9.9
        advance(100)
        assert capsys.readouterr().out == ""
        clock.now += 0.1
        advance(200, "loss 0.5 [y]")
        # 400 in 10 s, so 3,600 more take 90 s.
        assert capsys.readouterr().out == "reading [x]: 400/4,000 documents, 40/s, ETA 0:01:30 loss 0.5 [y]\n"
        clock.now += 5
        advance(100)
        assert capsys.readouterr().out == ""
        clock.now += 5
        advance(500)
        # 1,000 in 20 s, so 3,000 more take 60 s; the last status stays.
        assert capsys.readouterr().out == "reading [x]: 1,000/4,000 documents, 50/s, ETA 0:01:00 loss 0.5 [y]\n"


def test_rate_and_eta_are_those_of_the_last_minute(clock, capsys):
    with console.progress("stage", 2_000, "steps") as advance:
        for amount in (1, 100, 100, 100, 100, 100, 100):
            clock.now += 10
            advance(amount)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[0] == "stage: 1/2,000 steps, 0.1/s, ETA 5:33:10"  # the first step compiles
    assert lines[-1] == "stage: 601/2,000 steps, 10/s, ETA 0:02:20"


def test_compilation_counts_for_the_bar_and_not_for_the_eta(clock, capsys):
    with console.progress("stage", 1_000, "steps") as advance:
        for seconds, apart in ((8, 8), (1, 0), (9, 9), (1, 0)):
            clock.now += seconds
            advance(10, apart=apart)
        # At 18 s: three times 10, of which 10 took one second and the others compiled.
        assert capsys.readouterr().out == "stage: 30/1,000 steps, 10/s, ETA 0:01:37\n"
        clock.now += 9
        advance(90)
    # Since that line: 100 in 10 s.
    assert capsys.readouterr().out == "stage: 130/1,000 steps, 10/s, ETA 0:01:27\n"


def test_compilation_alone_gives_no_eta(clock, capsys):
    with console.progress("stage", 100, "steps") as advance:
        clock.now += 30
        advance(10, apart=30)
    assert capsys.readouterr().out == "stage: 10/100 steps\n"


def test_rate_of_the_bar_on_a_terminal_leaves_compilation_out():
    shown = on_a_terminal("""
with console.progress("stage", 400, "steps") as advance:
    now += 50
    advance(100, apart=50)
    now += 2
    advance(14)
""")
    assert " 7.0/s" in shown


def test_progress_of_a_resumed_run_counts_earlier_steps_and_leaves_them_out_of_the_rate(clock, capsys):
    with console.progress("stage", 10_000, "steps", done=9_000) as advance:
        clock.now += 10
        advance(10)
    assert capsys.readouterr().out == "stage: 9,010/10,000 steps, 1.0/s, ETA 0:16:30\n"


def test_progress_without_total_or_movement(clock, capsys):
    with console.progress("fetching", None, "MB") as advance:
        clock.now += 20
        advance(30)
    with console.progress("waiting", 5, "things") as advance:
        clock.now += 20
        advance(0)
    assert capsys.readouterr().out == "fetching: 30 MB, 1.5/s\nwaiting: 0/5 things\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3599, "0:59:59"), (360_061, "100:01:01"), (-5, "0:00:00")]
)
def test_eta_in_hours_minutes_and_seconds(clock, capsys, seconds, text):
    with console.progress("x", 20 + 2 * seconds, "y") as advance:
        clock.now += 10
        advance(20)
    assert f"ETA {text}" in capsys.readouterr().out


def test_bar_on_a_terminal_shows_the_same_and_is_removed_at_the_end():
    shown = on_a_terminal("""
with console.progress("reading [bold]", 400, "documents", done=100) as advance:
    advance(100, "loss [red] 0.5")
""")
    assert "reading [bold]" in shown
    assert "200/400" in shown
    assert "documents" in shown
    assert "/s" in shown
    assert "ETA" in shown
    assert "loss [red] 0.5" in shown
    assert shown.rstrip().endswith("\x1b[2K")  # the bar's line is erased


@pytest.mark.parametrize(("columns", "kept"), [(60, ""), (80, "documents 100/s"), (120, "documents 100/s 0:00:20")])
def test_a_bar_in_a_narrow_terminal_keeps_count_and_eta(columns, kept):
    shown = on_a_terminal(
        """
with console.progress("representation", 123_456, "documents") as advance:
    for step in range(20):
        now += 1
        advance(100, f"epoch 1/40 bce {step}.1234 psc 1.2345")
""",
        columns,
    )
    frame = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n").splitlines()
    last = next(" ".join(line.split()) for line in reversed(frame) if "representation" in line)
    assert all(len(line) <= columns for line in frame)
    assert re.search(rf"representation .*2000/123456 {kept} ?ETA 0:20:\d\d epoch", last), last


@pytest.mark.parametrize("total", [3, None])
def test_progress_does_not_swallow_errors(total):
    def fail():
        with console.progress("x", total):
            raise console.UserError("inside")

    with pytest.raises(console.UserError, match="inside"):
        fail()


def test_on_stderr_sends_notes_tables_and_progress_there(clock, capsys):
    with console.on_stderr():
        console.note("note")
        console.table("title", ["name"], [["row"]])
        with console.progress("reading", None, "rows") as advance:
            clock.now += 10
            advance(10)
    console.note("after")
    printed = capsys.readouterr()
    assert printed.out == "after\n"
    assert printed.err.startswith("note\ntitle")
    assert printed.err.endswith("reading: 10 rows, 1.0/s\n")


def test_a_line_about_an_input_is_printed_once_in_a_command(capsys):
    with console.once():
        with console.quiet():
            console.note_once("a.csv: read as csv")
        for name in ("a.csv", "b.csv", "a.csv"):
            console.note_once(f"{name}: read as csv")
    console.note_once("a.csv: read as csv")
    assert capsys.readouterr().out.splitlines() == [f"{name}: read as csv" for name in ("a.csv", "b.csv", "a.csv")]


def test_within_quiet_nothing_is_printed_and_warnings_are_python_warnings(capsys):
    with console.quiet():
        console.note("a note")
        console.table("t", ["name"], [["row"]])
        with console.progress("working", 10) as advance, console.progress("counting", None) as count:
            advance(5, "status")
            count()
        with pytest.warns(UserWarning, match="nearly full"):
            console.warn("nearly full")
        with console.quiet(False):
            console.note("printed again")
        console.note("silent again")
    console.note("after it")
    assert capsys.readouterr().out == "printed again\nafter it\n"
    with pytest.raises(KeyboardInterrupt), console.quiet():
        raise KeyboardInterrupt
    console.note("after an error")
    assert capsys.readouterr().out == "after an error\n"
