"""The command behind bin/train: parse, train, exit code."""

import os
import sys

# XLA's own log lines concern nobody who trains.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# An error about a setting is for people, who need no link to a validation library.
os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")


def main(argv: list[str] | None = None) -> int:
    """Trains as the command line says.

    Returns:
        0 when done, 2 after an error that the user can mend, 130 or 143 after SIGINT or SIGTERM.
    """
    from lsfa_jax.config import parse_train_arguments
    from lsfa_jax.evaluation import baselines
    from lsfa_jax.util import console
    from lsfa_jax.util.malloc import keep_freed_memory

    keep_freed_memory()
    try:
        arguments = parse_train_arguments(sys.argv[1:] if argv is None else argv)
        if arguments.baseline != "none":
            baselines.check(arguments.baseline)
        # Imported late, so that --help and a wrong option answer at once.
        from lsfa_jax.training import run, starting
        from lsfa_jax.util import compilation_cache
        from lsfa_jax.util.interrupts import Interrupted
    except console.UserError as error:
        console.error(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    try:
        arguments = starting.with_output(arguments)
        compilation_cache.keep_on_disk()
        run.train(arguments)
    except console.UserError as error:
        console.error(str(error))
        return 2
    except Interrupted as request:
        return 128 + request.signum
    except KeyboardInterrupt:
        console.error("interrupted before there was anything to save")
        return 130
    if arguments.baseline == "none":
        return 0
    from lsfa_jax.cli import evaluate

    return evaluate.main(["--run", arguments.output, "--baseline", arguments.baseline])


if __name__ == "__main__":
    raise SystemExit(main())
