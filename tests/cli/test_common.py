import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from pydantic import Field

import lsfa_jax.cli
from lsfa_jax.cli import common, data, evaluate, predict, serve, train
from lsfa_jax.config import Section, keys
from lsfa_jax.util.console import UserError
from lsfa_jax.util.interrupts import Interrupted

ROOT = Path(__file__).parents[2]
VERBS = ("train", "predict", "evaluate", "data", "serve", "tune", "export", "experiments")


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


def test_help_lists_some_options_and_help_all_the_rest(capsys):
    default = Arguments(top=7, reading=common.ReadingOptions(text_field="\x1b[2J"))
    shown = {}
    for option in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as end:
            common.parse(Arguments, [option], "count", default, in_help=("top", "text_field"))
        assert end.value.code == 0
        shown[option] = capsys.readouterr().out
        for text in ("count --top 3 rows.csv", "--top INT", "(default: 7)", "--text-field STR", r"\x1b[2J"):
            assert text in shown[option]
    assert "count --help-all lists all 12 options." in shown["--help"]
    assert "--id-field" not in shown["--help"]
    # An option that is not given has no value that a user could type.
    assert re.search(r"--id-field STR [^-]*\(optional\)", shown["--help-all"])
    assert "''" not in shown["--help-all"]


@pytest.mark.parametrize("verb", ["train", "data check", "serve"])
def test_help_of_a_verb_lists_at_most_twenty_options(verb, capsys):
    listed = {}
    for option in ("--help", "--help-all"):
        with pytest.raises(SystemExit):
            lsfa_jax.cli.main([*verb.split(), option])
        shown = capsys.readouterr().out
        listed[option] = set(re.findall(r"^. (--\w[\w.-]*)", shown, re.MULTILINE))
        assert f"  lsfa {verb} " in shown  # an example
    assert 0 < len(listed["--help"]) <= 20
    assert listed["--help"] < listed["--help-all"]


def test_every_name_in_the_help_of_a_verb_is_an_option():
    of_data = {name for kind in data.COMMANDS.values() for name in keys(kind)}
    for listed, names in (
        (train.IN_HELP, set(keys(train.TrainArguments))),
        (predict.IN_HELP, {name.removeprefix("reading.") for name in keys(predict.PredictArguments)}),
        (evaluate.IN_HELP, {name.removeprefix("reading.") for name in keys(evaluate.EvaluateArguments)}),
        (data.IN_HELP, of_data),
        (serve.IN_HELP, set(keys(serve.ServeArguments))),
    ):
        assert set(listed) <= names


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


@pytest.mark.parametrize("line", [["--help"], ["-h"], ["--help-all"]])
def test_help_lists_the_verbs(line, capsys):
    assert lsfa_jax.cli.main(line) == 0
    shown = capsys.readouterr().out
    assert all(f"  lsfa {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], f"expected a verb, one of {', '.join(VERBS)}"),
        (["tran"], f"tran: expected one of {', '.join(VERBS)} (did you mean train?)"),
        (["\x1b[2J"], rf"\x1b[2J: expected one of {', '.join(VERBS)}"),
    ],
)
def test_a_missing_or_unknown_verb_is_an_error(line, message, capsys):
    assert lsfa_jax.cli.main(line) == 2
    assert capsys.readouterr() == ("", f"error: {message}; see lsfa --help\n")


COMPLETE = """
source "$0"
complete_line() {
  COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
  _tyro_lsfa lsfa
  echo "${COMPREPLY[@]}"
}
complete_line lsfa pre
complete_line lsfa data describe --pn
complete_line lsfa predict --run r --layout w
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_completes_verbs_options_and_values(tmp_path):
    script = tmp_path / "completion"
    with pytest.raises(SystemExit):
        lsfa_jax.cli.main(["--tyro-write-completion", "bash", str(script)])
    ended = subprocess.run(["bash", "-c", COMPLETE, script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["predict", "--png", "wide"]


def test_messages_name_commands_as_they_were_typed(tmp_path, capsys):
    (tmp_path / "bin").mkdir()
    line = ["--from", f"{tmp_path}/bin/train"]
    runs = {"lsfa train": partial(lsfa_jax.cli.main, ["train", *line]), "bin/train": partial(train.main, line)}
    for typed, run in runs.items():
        assert run() == 2
        error = " ".join(capsys.readouterr().err.split())
        assert f"{tmp_path}/bin/train: no model" in error
        assert error.endswith(f"the --output folder of a {typed}")


def test_a_shell_without_completion_is_an_error(capsys):
    assert lsfa_jax.cli.main(["--tyro-print-completion", "tcsh"]) == 2
    assert "with SHELL one of bash, zsh, fish\n" in capsys.readouterr().err


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
    yield [sys.executable, "-m", "lsfa_jax", "data", "list"], {"PYTHONPATH": str(ROOT)}
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
  *"-m pip"*)
    echo "$PIP_ROOT_USER_ACTION $PIP_DISABLE_PIP_VERSION_CHECK $*" > "$LSFA_TEST/pip"
    echo "WARNING: a location is ignored" >&2
    exit "$LSFA_TEST_PIP"
    ;;
  *run_verb*) echo "trained" ;;
esac
"""


@pytest.fixture
def first_call(tmp_path):
    """Calls bin/train of a repository without an environment; pip ends with the given code."""
    root = tmp_path / "a repository"
    shutil.copytree(ROOT / "bin", root / "bin")
    (root / "pyproject.toml").touch()
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    variables = {"LSFA_PYTHON": str(tmp_path / "python"), "LSFA_TEST": str(tmp_path)}

    def call(pip_code):
        return subprocess.run(
            [root / "bin" / "train"],
            env=os.environ | variables | {"LSFA_TEST_PIP": str(pip_code)},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


SETUP = "Setting up {0}/a repository/.venv (once, some minutes) ...\n"


def test_the_first_call_prints_one_line_about_the_setup(first_call, tmp_path):
    first, second = first_call(0), first_call(0)
    assert (first.stdout, first.stderr) == ("trained\n", SETUP.format(tmp_path))
    assert (second.stdout, second.stderr) == ("trained\n", "")
    # No notice of pip about itself or about root, and no question.
    called = (tmp_path / "pip").read_text()
    assert called.startswith("ignore 1 -P -m pip install --quiet --no-input ")


def test_what_pip_prints_is_shown_where_it_fails(first_call, tmp_path):
    failed, repeated = first_call(1), first_call(0)
    assert (failed.returncode, failed.stdout) == (2, "")
    about, warning, error = failed.stderr.splitlines()
    assert (about + "\n", warning) == (SETUP.format(tmp_path), "WARNING: a location is ignored")
    assert error.startswith("error: the packages could not be installed; ")
    assert repeated.stdout == "trained\n"
