"""The commands: one file a verb, with its arguments, messages and exit codes; `lsfa VERB` calls them."""

import importlib
import os
import sys

from lsfa_jax.util import console
from lsfa_jax.util.interrupts import run_and_exit
from lsfa_jax.util.safe_path import leave_current_folder

# Set before JAX is imported: XLA's log lines, errors among them, are for its developers. What fails is raised too.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

VERBS = {
    "train": "train LSFA on a corpus",
    "predict": "predict the labels of texts",
    "evaluate": "measure a trained model, a file of predictions, or linear baselines",
    "data": "list, describe, prepare and check corpora",
    "serve": "answer requests for the labels of texts, and show a page for them",
    "tune": "search for the settings that suit a corpus",
    "export": "write a model for other systems: StableHLO, ONNX, a folder with a model card",
    "experiments": "run plans over several seeds and report them beside the paper",
}


def main(argv: list[str] | None = None) -> int:
    """Runs `lsfa VERB ...`, which is the same as `bin/VERB ...`.

    Args:
        argv: the verb and its command line; None: those of the process, which ends with the exit code.

    Returns:
        The verb's exit code; 2 without a verb, or with an unknown one.
    """
    if argv is None:
        leave_current_folder()
        run_and_exit(lambda: main(sys.argv[1:]))
    verb, *rest = argv or [""]
    if verb in VERBS:
        return run_verb(verb, rest, f"lsfa {verb}")
    from lsfa_jax.cli import common

    if verb.startswith("--tyro-"):
        from lsfa_jax.cli import completion

        return common.run(completion.write, [verb, *rest])
    if verb == "--version":
        return common.run(lambda line: None, [verb])
    if verb in common.HELP:
        print(common.usage("lsfa", VERBS))
        return 0

    def refuse(line: list[str]) -> None:
        raise common.UserError(common.unknown_verb(verb, VERBS, "lsfa"))

    return common.run(refuse, [verb, *rest])


def run_verb(verb: str, argv: list[str], prog: str) -> int:
    """Runs a verb; its messages name the command `prog`. Returns the exit code."""
    with console.commands_as(prog):
        return int(importlib.import_module(f"lsfa_jax.cli.{verb}").main(argv, prog))
