import logging
import os
import shutil
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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--top", "0"], "--top 0: expected an integer of at least 1"),
        (["--top=x"], "--top x: expected an integer of at least 1"),
        (["--top"], "--top: expected an integer of at least 1 after it"),
        (["--tops", "3"], "--tops: unknown option (did you mean --top?)"),
        (["--bad-rows", "keep"], "--bad-rows keep: expected stop or skip"),
        (["--top", "\x1b[2J\udcff"], r"--top \x1b[2J\udcff: expected an integer of at least 1"),
        (["rows.csv"], "rows.csv: unexpected argument"),
    ],
)
def test_a_wrong_option_is_one_line_with_code_2(line, message, capsys):
    assert common.run(lambda argv: common.parse(Arguments, argv, "count") and None, line) == 2
    assert capsys.readouterr() == ("", f"error: {message}; see count --help\n")


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


def test_log_lines_of_libraries_are_warnings_of_one_line(capsys):
    def command(argv):
        logging.getLogger("jax.about").warning("A GPU may be present.\nSee https://x")
        logging.getLogger("jax.about").info("Nothing to see")

    # Without the handlers of pytest, as in a process.
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        assert common.run(command, []) == 0
    finally:
        root.handlers = handlers
    assert capsys.readouterr() == ("warning: A GPU may be present.\n", "")


LOGGED_BY_XLA = """
import lsfa_jax.cli
import jax, jax.numpy as jnp
# XLA logs, at the level of errors, that a constant took more than a second to compute.

jax.jit(lambda: jax.lax.reduce_window(jnp.ones((70, 70)), 0.0, jax.lax.add, (21, 21), (1, 1), "SAME"))()
"""


@pytest.mark.slow
def test_log_lines_of_xla_are_not_printed():
    ended = python(LOGGED_BY_XLA)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


# --- lsfa VERB


def test_every_verb_is_also_a_script_in_bin():
    assert tuple(lsfa_jax.cli.VERBS) == VERBS
    for verb in VERBS:
        assert os.access(ROOT / "bin" / verb, os.X_OK)


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
    assert f"usage: lsfa {verb} " in ended.stdout
    assert "bin/" not in ended.stdout.split("╭")[0]


@pytest.mark.parametrize("line", [["--help"], ["-h"]])
def test_help_lists_the_verbs(line, capsys):
    assert lsfa_jax.cli.main(line) == 0
    shown = capsys.readouterr().out
    assert all(f"  lsfa {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "expected a verb, one of train, predict, evaluate, data"),
        (["tran"], "tran: expected one of train, predict, evaluate, data (did you mean train?)"),
        (["\x1b[2J"], r"\x1b[2J: expected one of train, predict, evaluate, data"),
    ],
)
def test_a_missing_or_unknown_verb_is_an_error(line, message, capsys):
    assert lsfa_jax.cli.main(line) == 2
    assert capsys.readouterr() == ("", f"error: {message}; see lsfa --help\n")


def test_a_verb_runs_with_the_rest_of_the_line_and_its_exit_code(monkeypatch, capsys):
    line = ["data", "describe", "nothing"]
    assert lsfa_jax.cli.main(line) == 2
    assert "nothing: expected one of aapd" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["lsfa", *line])
    monkeypatch.setattr(sys, "path", sys.path[:])  # from which the command removes the current folder
    with pytest.raises(SystemExit) as ended:
        lsfa_jax.cli.main()
    assert ended.value.code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_version(verb, capsys):
    assert lsfa_jax.cli.main([verb, "--version"]) == 0
    assert lsfa_jax.cli.main(["--version"]) == 0
    assert capsys.readouterr() == (f"lsfa_jax {lsfa_jax.__version__}\n" * 2, "")


def test_help_prints_defaults_of_a_settings_file_without_control_characters(tmp_path, capsys):
    (tmp_path / "evil.toml").write_text('data_dir = "\\u001b[2J"')
    with pytest.raises(SystemExit):
        lsfa_jax.cli.main(["train", "--config", str(tmp_path / "evil.toml"), "--help"])
    shown = capsys.readouterr().out
    assert r"\x1b[2J" in shown
    assert "\x1b" not in shown


# --- nothing is imported from the current folder

MODULES = ("csv", "json", "random", "re", "jax", "numpy", "tyro", "lsfa_jax", "sitecustomize", "usercustomize")
LSFA = "import sys; from lsfa_jax.cli import main; sys.exit(main())"


@pytest.fixture
def hostile(tmp_path):
    """A folder with modules of the names that a command imports, each of which would leave a file."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / name)!r} + '.imported', 'w').close()\n")
    return tmp_path


def commands():
    for verb in VERBS:
        yield [ROOT / "bin" / verb, "--help"], {}
    yield [ROOT / "bin" / "data", "list"], {}
    # An empty element is the current folder too.
    yield [ROOT / "bin" / "data", "list"], {"PYTHONPATH": ":/nowhere:"}
    yield [ROOT / "bin" / "data", "list"], {"PYTHONPATH": ":"}
    yield [sys.executable, "-m", "lsfa_jax.cli.data", "list"], {"PYTHONPATH": str(ROOT)}
    yield [sys.executable, "script", "data", "list"], {"PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(("command", "environment"), list(commands()), ids=str)
def test_nothing_of_the_current_folder_is_imported(hostile, tmp_path_factory, command, environment):
    # As pip installs it: a script in a folder of executables.
    script = tmp_path_factory.mktemp("executables") / "lsfa"
    script.write_text(LSFA)
    if "-m" in command:  # Python itself looks in the current folder for the module to run.
        (hostile / "lsfa_jax.py").unlink()
    done = subprocess.run(
        [script if word == "script" else word for word in command],
        cwd=hostile,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        | {"LSFA_PYTHON": sys.executable, "LSFA_DATA": str(hostile / "data")}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in hostile.glob("*.imported")] == []


def test_the_repository_as_current_folder_is_not_imported_from_either():
    done = subprocess.run(
        [ROOT / "bin" / "data", "--version"],
        cwd=ROOT,
        env=os.environ | {"LSFA_PYTHON": sys.executable, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lsfa_jax {lsfa_jax.__version__}\n", "")


# --- the first call, which creates the environment

PYTHON = """#!/bin/sh
# An interpreter without the packages, whose `-m venv` creates one with them that records how pip is called.
case "$*" in
  *find_spec*) exit 1 ;;
  *"-m venv"*) for folder; do :; done; mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python" ;;
  *"-m pip"*) echo "$PIP_ROOT_USER_ACTION $PIP_DISABLE_PIP_VERSION_CHECK $*" > "$LSFA_TEST/pip" ;;
  *run_verb*) echo "trained" ;;
esac
"""


def test_the_first_call_prints_one_line_about_the_setup(tmp_path):
    root = tmp_path / "a repository"
    shutil.copytree(ROOT / "bin", root / "bin")
    (root / "pyproject.toml").touch()
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    command = {
        "args": [root / "bin" / "train"],
        "env": os.environ | {"LSFA_PYTHON": str(tmp_path / "python"), "LSFA_TEST": str(tmp_path)},
    }
    first, second = (subprocess.run(**command, capture_output=True, text=True, check=True) for _ in range(2))
    assert first.stderr == f"Setting up {root}/.venv (once, some minutes) ...\n"
    assert (first.stdout, second.stdout, second.stderr) == ("trained\n", "trained\n", "")
    # No notice of pip about itself or about root, and no question.
    called = (tmp_path / "pip").read_text()
    assert called.startswith("ignore 1 -P -m pip install --quiet --no-input ")
