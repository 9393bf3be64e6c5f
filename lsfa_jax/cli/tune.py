"""The command behind bin/tune: a search for the settings that suit a corpus."""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from lsfa_jax.cli import common
from lsfa_jax.cli.train import (
    SettingsArguments,
    as_options,
    chosen_settings,
    leaves_encoder_open,
    parse_settings,
    with_encoder,
)
from lsfa_jax.util import duration, interrupts
from lsfa_jax.util.console import UserError, note
from lsfa_jax.util.duration import in_words

if TYPE_CHECKING:
    from lsfa_jax.tuning.study import Search

_PACKAGES = {"optuna": "optuna"}

# Trials at most, where no time limit bounds them.
_TRIALS = 30


class TuneArguments(SettingsArguments):
    """Searches for the settings that suit a corpus: trains with many and keeps what is best on validation documents.

    Each trial is a run of bin/train; what falls behind in an epoch is stopped. Ctrl-C saves, and the same command
    continues. Further commands on the same folder, started by hand, share the work. Options of bin/train (--help-all)
    hold for all trials.

    Examples:
      bin/tune --data-dir my.csv --time-limit 1h                 what varies follows from the encoder
      bin/tune --data-dir my.csv --trials 50 --output runs/tune
      bin/tune --data-dir my.csv --space mine.toml               other settings, or within other bounds
      bin/train --config runs/tune/best.toml --output runs/best  repeats the best trial
    """

    output: str = Field("", description="Folder of the search. By default runs/tune-CORPUS.")
    config: str = Field("", description="Settings file for all trials.")
    time_limit: str = Field(
        "", description="Time for this command, as 90s, 15m or 1h; a trial may take an eighth of it."
    )
    trials: int = Field(
        0, ge=0, description=f"Trials at most, earlier ones included. 0: {_TRIALS}, or with a time limit all that fit."
    )
    space: str = Field(
        "auto",
        description="What is varied: scratch or pretrained (configs/tune), or a TOML file; auto: by the encoder.",
    )
    save_every: float = Field(60.0, ge=0, description="Seconds between checkpoints within a stage.")


IN_HELP = (
    *("data_dir", "dataset", "output", "time_limit", "trials", "space", "config", "preset", "seed"),
    *("data.text_field", "data.labels_field", "data.label_separator", "adjust.select"),
)


def parse(argv: list[str], prog: str = "bin/tune") -> TuneArguments:
    """Reads a command line; raises UserError at an unknown option or a wrong value."""
    arguments = parse_settings(TuneArguments, argv, prog, IN_HELP)
    output = arguments.output or f"runs/tune-{arguments.corpus_stem}"
    return arguments.model_copy(update={"output": output})


def tune(arguments: TuneArguments, argv: list[str], prog: str = "bin/tune") -> None:
    """Runs trials and reports them.

    Args:
        arguments: of the command line.
        argv: the command line, of which further options follow where it leaves the encoder open.
        prog: the command's name.

    Raises:
        UserError: Optuna is not installed, or something is wrong with the data, the settings, the space or the folder.
        Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    started = time.monotonic()
    seconds = duration.parse(arguments.time_limit, "--time-limit")
    common.check_packages(prog, "tune", _PACKAGES)
    from lsfa_jax.tuning import report, study

    search = _search(argv, prog, arguments, seconds, started)
    opened = study.begin(search)
    study.execute(search, opened)
    report.finish(search, opened)


def _search(argv: list[str], prog: str, arguments: TuneArguments, seconds: float, started: float) -> "Search":
    """Returns the search that a command line describes; reads the corpus, whose errors end it before any trial."""
    from lsfa_jax.data.load import load_corpus
    from lsfa_jax.training import checks, encoder_choice, policy
    from lsfa_jax.training.run_folder import RunFolder
    from lsfa_jax.tuning import space
    from lsfa_jax.tuning.study import TRIALS_IN_TIME, Search

    folder, of_trial = RunFolder(Path(arguments.output)), seconds / TRIALS_IN_TIME
    if math.isfinite(of_trial):
        note(f"--time-limit: a trial may take {in_words(of_trial)}, an eighth of it; its encoder has to fit in that")
    if leaves_encoder_open(arguments, argv):
        if folder.config_file.is_file():  # chosen when the search began
            argv = [*as_options(encoder_choice.resolved(folder.read_config())), *argv]
        else:
            argv = with_encoder(arguments, argv, of_trial)
        arguments = parse(argv, prog)
    config, chosen = arguments.settings(), chosen_settings(argv)
    corpus = load_corpus(config)
    checks.check_documents(corpus)
    if not len(corpus.validation):
        raise UserError("there are no validation documents to choose settings on; raise --data.validation-fraction")
    usual = encoder_choice.with_vectors(policy.resolved(config, corpus, chosen), corpus)
    name = arguments.space
    if name == "auto":
        name = "pretrained" if config.encoder.pretrained else "scratch"
    return Search(
        output=folder.path,
        config=config,
        chosen=chosen,
        space=space.read(name, usual),
        corpus=usual,
        trials=arguments.trials or (_TRIALS if math.isinf(seconds) else math.inf),
        seconds=seconds,
        save_every=arguments.save_every,
        started=started,
    )


def _command(argv: list[str], prog: str) -> None:
    from lsfa_jax.util.malloc import keep_freed_memory

    keep_freed_memory()
    arguments = parse(argv, prog)
    from lsfa_jax.util import compilation_cache

    compilation_cache.keep_on_disk()
    with common.continued_by_the_same_command():
        tune(arguments, argv, prog)


def main(argv: list[str] | None = None, prog: str = "bin/tune") -> int:
    """Searches for settings; messages name the command `prog`.

    Returns:
        0 when done, 2 after a UserError, 130 or 143 after SIGINT or SIGTERM.
    """
    return common.run(lambda line: _command(line, prog), argv)


if __name__ == "__main__":
    interrupts.run_and_exit(main)
