import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field

import lsfa_jax.cli
from lsfa_jax.cli import common
from lsfa_jax.config import Section
from lsfa_jax.util.console import UserError
from lsfa_jax.util.interrupts import Interrupted

ROOT = Path(__file__).parents[2]
VERBS = ("train", "predict", "evaluate", "data")


class Arguments(Section):
    """Counts documents.

    Examples:
      count --top 3 rows.csv
    """

    top: int = Field(5, gt=0, description="Most frequent ones.")
    reading: common.Reading = common.ReadingOptions()


def python(program, *arguments, **options):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYDANTIC_", "TF_"))}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


# --- parsing


def test_options_fill_the_fields_and_defaults_the_rest():
    assert common.parse(Arguments, [], "count") == Arguments()
    assert common.parse(Arguments, ["--top", "3"], "count") == Arguments(top=3)
    assert common.parse(Arguments, [], "count", default=Arguments(top=7)) == Arguments(top=7)


def test_options_for_reading_have_no_prefix_and_either_spelling():
    line = ["--text-field", "body", "--label_separator", ";", "--bad-rows", "skip"]
    options = common.parse(Arguments, line, "count").reading.read_options(labelled=False)
    assert (options.text_field, options.label_separator, options.bad_rows) == ("body", ";", "skip")
    assert options.labelled is False
    # Messages of the reader spell the options as this command does.
    with pytest.raises(UserError, match=r"^--format cvs: expected auto, "):
        common.ReadingOptions(format="cvs").read_options()


@pytest.mark.parametrize("line", [["--top", "0"], ["--top", "x"], ["--tops", "3"], ["--bad-rows", "keep"]])
def test_a_wrong_option_ends_with_code_2_and_is_named(line, capsys):
    code = 0
    try:
        common.run(lambda argv: common.parse(Arguments, argv, "count") and None, line)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert line[0].strip("-").split("-")[0] in capsys.readouterr().err


def test_help_has_the_examples(capsys):
    with pytest.raises(SystemExit) as end:
        common.parse(Arguments, ["--help"], "count")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for text in ("Counts documents.", "count --top 3 rows.csv", "Most frequent ones.", "--id-field"):
        assert text in shown


def test_a_field_is_named_as_its_option():
    assert common.option_name("optimizer", "batch_size") == "--optimizer.batch-size"


# --- exit codes


def raising(error):
    def command(argv):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (UserError("rows.csv:3: no text"), 2, "error: rows.csv:3: no text\n"),
        (KeyboardInterrupt(), 130, ""),
        (Interrupted(signal.SIGINT), 130, ""),
        (Interrupted(signal.SIGTERM), 143, ""),
    ],
)
def test_exit_codes_of_errors_and_signals(error, code, printed, capsys):
    assert common.run(raising(error), []) == code
    assert capsys.readouterr() == ("", printed)


def test_exit_codes_of_commands():
    assert common.run(lambda argv: None, []) == 0
    assert common.run(lambda argv: len(argv), ["a", "b", "c"]) == 3
    with pytest.raises(ZeroDivisionError):
        common.run(lambda argv: 1 // 0, [])


def test_the_command_line_is_that_of_the_process_by_default(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["count", "a", "b"])
    assert common.run(lambda argv: len(argv), None) == 2


def test_sigterm_ends_with_code_143_and_removes_temporary_files(tmp_path):
    program = f"""
import signal, sys
from pathlib import Path
from lsfa_jax.cli import common
from lsfa_jax.util import atomic
def command(argv):
    with atomic.replacing(Path({str(tmp_path / "file")!r})) as partial:
        partial.write_text("half")
        signal.raise_signal(signal.SIGTERM)
        print("went on")
raise SystemExit(common.run(command, []))
"""
    ended = python(program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", ["print('x' * 100_000, flush=True)", "console.note('x' * 100_000)"])
def test_a_closed_standard_output_ends_with_code_141_and_no_message(write):
    program = f"""
from lsfa_jax.cli import common
from lsfa_jax.util import console
raise SystemExit(common.run(lambda argv: [{write} for _ in range(100)] and None, []))
"""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (141, "")


# --- lsfa VERB


def test_every_verb_is_also_a_script_in_bin():
    assert tuple(lsfa_jax.cli.VERBS) == VERBS
    for verb in VERBS:
        assert f"lsfa_jax.cli.{verb} " in (ROOT / "bin" / verb).read_text()


IMPORTED = """
import sys
from lsfa_jax.cli import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"jax", "flax", "optax", "sklearn", "matplotlib"} & set(sys.modules)
    print("imported:", *sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_does_not_import_jax(verb):
    ended = python(IMPORTED, verb, "--help")
    assert (ended.returncode, ended.stderr) == (0, "imported:\n")
    assert f"usage: bin/{verb} " in ended.stdout


@pytest.mark.parametrize("line", [["--help"], ["-h"]])
def test_help_lists_the_verbs(line, capsys):
    assert lsfa_jax.cli.main(line) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize(
    ("line", "message"), [([], "expected a verb"), (["tran"], "tran: expected one of train, predict, evaluate, data")]
)
def test_a_missing_or_unknown_verb_is_an_error(line, message, capsys):
    assert lsfa_jax.cli.main(line) == 2
    assert capsys.readouterr().err.endswith(f"error: {message}\n")


def test_a_verb_runs_with_the_rest_of_the_line_and_its_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lsfa", "data", "describe", "nothing"])
    assert lsfa_jax.cli.main() == 2
    assert "nothing: expected one of aapd" in capsys.readouterr().err
