"""The commands: one file a verb, with its arguments, messages and exit codes; `lsfa VERB` calls them."""

import importlib
import os
import sys

# Set before JAX and pydantic are imported: XLA's log lines and links to pydantic's documentation do not help users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")

VERBS = {
    "train": "train LSFA on a corpus",
    "predict": "predict the labels of texts",
    "evaluate": "measure a trained model, a file of predictions, or linear baselines",
    "data": "list, describe, prepare and check corpora",
}


def main(argv: list[str] | None = None) -> int:
    """Runs `lsfa VERB ...`, which is the same as `bin/VERB ...`.

    Returns:
        The verb's exit code; 2 without a verb, or with an unknown one.
    """
    verb, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if verb in VERBS:
        return int(importlib.import_module(f"lsfa_jax.cli.{verb}").main(rest))
    usage = "\n".join(["usage: lsfa VERB ...", "", *(f"  {name:10}{does}" for name, does in VERBS.items())])
    if verb in ("-h", "--help"):
        print(f"{usage}\n\nlsfa VERB --help lists the options of a verb.")
        return 0
    error = f"error: {verb}: expected one of {', '.join(VERBS)}" if verb else "error: expected a verb"
    print(f"{usage}\n\n{error}", file=sys.stderr)
    return 2
