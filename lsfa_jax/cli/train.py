"""The command behind bin/train: settings from files and options, then a run."""

import argparse
import math
import re
import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from lsfa_jax.cli import common
from lsfa_jax.config import (
    STAGES,
    Config,
    Section,
    StageName,
    chosen_for,
    dataset_names,
    dotted,
    encoder_settings,
    keys,
    layered,
    merged,
    nearest,
    nested,
    read_toml,
    validated,
)
from lsfa_jax.util import console, duration, interrupts
from lsfa_jax.util.console import UserError


class Distributed(Section):
    """The processes that train one model together. SLURM, Open MPI and GKE's TPU pods describe them without options."""

    coordinator: str = Field("", description="HOST:PORT of process 0; auto: JAX asks the cluster for everything.")
    processes: int | None = Field(None, ge=1, description="How many there are; 1: this process is alone.")
    process: int | None = Field(None, ge=0, description="The number of this one, from 0.")
    timeout: int = Field(300, ge=1, description="Seconds within which all have to start.")
    heartbeat: int = Field(30, ge=1, description="Seconds without a sign of life after which one counts as dead.")


class SettingsArguments(Config):
    """The settings of a run as options of a command."""

    output: str
    config: str

    def settings(self) -> Config:
        """Returns the settings alone, without the options of this command."""
        return Config.model_validate({name: getattr(self, name) for name in Config.model_fields})


A = TypeVar("A", bound=SettingsArguments)


class TrainArguments(SettingsArguments):
    """Trains LSFA: representation learning, feature transfer from frequent to rare labels, classifier adjustment.

    Examples:
      bin/train                                         the small built-in corpus, two minutes
      bin/train --dataset rcv1                          RCV1, downloaded once, for a laptop
      bin/train --dataset rcv1 --preset full            the paper's sizes
      bin/train --data-dir my_corpus --output runs/mine your train.jsonl and test.jsonl
      bin/train --data-dir my_corpus --encoder bilstm   not the encoder that suits the corpus (or cnn, minilm, a folder)
      bin/train --data-dir my_corpus --time-limit 15m   done in a quarter of an hour
      bin/train --from runs/mine --data-dir new_corpus  learn on: new documents, known and new labels
      bin/train --output runs/mine --resume             continue where it was interrupted
      bin/train --data-dir my_corpus --log tensorboard  curves for TensorBoard too; RUN/report.html has them always
    """

    output: str = Field("", description="Run folder. By default runs/CORPUS-PRESET.")
    config: str = Field("", description="Settings file to start from, such as another run's config.toml.")
    save_every: float = Field(60.0, ge=0, description="Seconds between checkpoints within a stage.")
    time_limit: str = Field(
        "", description="Time for the run, as 90s, 15m or 1h: steps are timed, and as many epochs planned as fit."
    )
    resume: bool = Field(False, description="Continue from the run folder's last complete checkpoint.")
    stages: tuple[StageName, ...] = Field(
        STAGES, description="Consecutive stages to run; earlier ones must be complete in the run folder."
    )
    log: Literal["none", "tensorboard"] = Field(
        "none",
        description="tensorboard: also write losses, metrics and learning rates to RUN/tensorboard. RUN/report.html "
        "shows them in any case.",
    )
    distributed: Distributed = Distributed()


IN_HELP = (
    *("dataset", "preset", "seed", "precision", "linear", "fusion", "data_dir", "start", "output", "config"),
    *("time_limit", "resume", "data.max_words", "data.text_field", "data.labels_field", "data.label_separator"),
    *("optimizer.batch_size", "representation.epochs", "pvae.head_threshold", "adjust.num_augmented"),
)


def chosen_settings(argv: Sequence[str]) -> frozenset[str]:
    """Returns the dotted names of the settings that the corpus's file, a settings file or an option chooses."""
    argv = _with_full_names(argv)
    early = _early_options(argv)
    file, where = _settings_file(early)
    names = _layer_names(early, file, where)
    options = {word[2:].partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")}
    options |= {re.sub(r"(^|\.)no_", r"\1", option) for option in options}  # --psc.no-normalize sets psc.normalize
    return chosen_for(names["dataset"], names["preset"]) | set(dotted(file)) | (options & set(keys(Config)))


def parse(argv: list[str], prog: str = "bin/train") -> TrainArguments:
    """Reads the command line of bin/train, as `parse_settings` does."""
    return parse_settings(TrainArguments, argv, prog, IN_HELP)


def parse_settings(kind: type[A], argv: Sequence[str], prog: str, in_help: Collection[str]) -> A:
    """Resolves a command line: defaults, the corpus's file, preset, profile, settings file, options; later ones win.

    Raises:
        UserError: a wrong settings file or value, or an unknown option.
    """
    argv = _with_full_names(argv)
    chosen = _early_options(argv)
    file, where = _settings_file(chosen)
    names = _layer_names(chosen, file, where)
    encoder = _encoder_kind(chosen, file, where)
    layers = layered(names["dataset"], names["preset"], names["profile"], encoder=encoder)
    base = validated(merged(layers, file), where)
    default = kind.model_validate({**base.model_dump(), **names})
    return common.parse(kind, argv, prog, default, in_help)


_SHORT = {
    "--encoder": "expected auto, bilstm, cnn, minilm, or the folder of a pretrained transformer",
    "--from": "expected the folder of a run or model",
}
"""Options that stand for settings of other names, and what to expect after them."""


def _with_full_names(argv: Sequence[str]) -> list[str]:
    """Replaces `--from` and `--encoder`: a kind of encoder, or a pretrained transformer by its name or folder."""
    out = []
    rest = iter(argv)
    for word in rest:
        option, equals, name = word.partition("=")
        if option not in _SHORT:
            out.append(word)
            continue
        name = name if equals else next(rest, "")
        if not name or name.startswith("--"):
            raise UserError(f"{option}: {_SHORT[option]}")
        if option == "--from":
            out += ["--start", name]
        elif name != "auto":
            for setting, value in encoder_settings(name).items():
                out += [f"--encoder.{setting}", value]
    return out


def leaves_encoder_open(arguments: Config, argv: Sequence[str]) -> bool:
    """Whether a new run's encoder is to be chosen for the corpus (`encoder_choice.is_open`)."""
    from lsfa_jax.training import encoder_choice

    return encoder_choice.is_open(arguments, chosen_settings(argv))


def with_encoder(arguments: SettingsArguments, argv: Sequence[str], seconds: float = math.inf) -> list[str]:
    """Returns the command line behind the options of the encoder that suits the corpus; given ones win.

    Args:
        arguments: of the command line.
        argv: the command line.
        seconds: that a run may take.
    """
    from lsfa_jax.data.load import load_corpus
    from lsfa_jax.training import encoder_choice
    from lsfa_jax.util import processes

    def chosen() -> dict[str, Any]:
        # The run loads the corpus again, for the encoder that is chosen, and prints what was read.
        return encoder_choice.settings(load_corpus(arguments.settings(), prints=False), seconds)

    return [*as_options(processes.from_first(chosen)), *argv]


def as_options(values: Mapping[str, Any]) -> list[str]:
    """Returns settings, by dotted name, as words of a command line."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def _early_options(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the options that decide the defaults of the others, which --help shows."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # tyro takes both spellings, and reports a missing value.
    for name in ("dataset", "preset", "profile", "config", "output", "data-dir", "encoder.kind", "start"):
        parser.add_argument(*dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}")), nargs="?")
    parser.add_argument("--resume", nargs="?", const=True)
    parser.add_argument("--stages", nargs="*")
    return parser.parse_known_args(argv)[0]


def _settings_file(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Reads the settings to start from; returns them and their file.

    They are those of --config or of a run that goes on, over those of the model of --from.
    """
    of_run = Path(chosen.output or "") / "config.toml"
    goes_on = chosen.resume or (bool(chosen.stages) and STAGES[0] not in chosen.stages)
    if chosen.start and goes_on:
        raise UserError("--from: a run that goes on has started; leave it out")
    if chosen.config:
        return merged(_of_model(chosen.start), read_toml(Path(chosen.config))), chosen.config
    if chosen.output and goes_on and of_run.is_file():
        return read_toml(of_run), str(of_run)
    return _of_model(chosen.start), "settings"


def _of_model(folder: str | None) -> dict[str, Any]:
    """Returns the settings that are taken from the model that training starts from."""
    if not folder:
        return {}
    from lsfa_jax.training import model_folder, starting_model

    return nested(starting_model.settings(model_folder.read_config(Path(folder))))


def _encoder_kind(chosen: argparse.Namespace, file: dict[str, Any], where: str) -> str:
    """Returns the kind of encoder; one that is only named in the file, as `encoder = "cnn"`, gets its table."""
    option = getattr(chosen, "encoder.kind")
    if isinstance(file.get("encoder"), str):
        file["encoder"] = encoder_settings(file["encoder"])
    of_encoder = file.get("encoder")
    in_file = of_encoder.get("kind", "bilstm") if isinstance(of_encoder, dict) else None
    complete = in_file and "embedding_size" in (of_encoder or {})
    # What differs from the model of --from is an error of the run.
    if option and complete and option != in_file and not chosen.start:
        if not chosen.config:
            raise UserError(f"--encoder: the run has a {in_file}; leave the option out, or choose another --output")
        raise UserError(
            f"--encoder: {where} has all settings of a {in_file}, and a {option} needs others; leave out --config, or "
            "remove those of encoder and optimizer from the file"
        )
    return str(option or in_file or "bilstm")


def _layer_names(chosen: argparse.Namespace, file: Mapping[str, Any], where: str) -> dict[str, str]:
    """Returns dataset, preset and profile: those of the options, else of the settings file, else the usual ones."""
    data_dir = chosen.data_dir or file.get("data_dir")
    names = {}
    for name, valid, usual in (
        ("dataset", dataset_names(), "custom" if data_dir else "synthetic"),
        ("preset", ["full", "quick"], "full" if chosen.profile == "released" else "quick"),
        ("profile", ["paper", "released"], "paper"),
    ):
        option = getattr(chosen, name)
        value = file.get(name, usual) if option is None else option
        if value not in valid:
            source = f"{where}: {name} = {value!r}" if option is None else f"--{name} {value}"
            raise UserError(f"{source}: expected one of {', '.join(valid)}{nearest(str(value), valid)}")
        names[name] = value
    return names


def train(arguments: TrainArguments, chosen: Collection[str], started: float) -> dict[str, Any]:
    """Runs the stages that the arguments name and returns what metrics.json holds.

    Args:
        arguments: of the command line.
        chosen: the names of the settings that are not fitted to the corpus, as `chosen_settings` returns them.
        started: when the command began, on the clock of `time.monotonic`; the time limit counts from there.

    Raises:
        UserError: something is wrong with the data, the settings or the run folder.
        Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    from lsfa_jax.training import run

    return run.train(
        arguments.settings(),
        Path(arguments.output),
        stages=arguments.stages,
        resume=arguments.resume,
        save_every=arguments.save_every,
        chosen=chosen,
        seconds=duration.parse(arguments.time_limit, "--time-limit") - (time.monotonic() - started),
        tensorboard=arguments.log == "tensorboard",
    )


def _with_output(arguments: TrainArguments) -> TrainArguments:
    """Chooses a free run folder where the arguments name none."""
    if arguments.output:
        return arguments
    if arguments.resume or STAGES[0] not in arguments.stages:
        raise UserError("--output DIR: name the run folder to continue")
    from lsfa_jax.training.run_folder import free_folder

    folder = free_folder(f"runs/{arguments.corpus_stem}-{arguments.preset}")
    return arguments.model_copy(update={"output": str(folder)})


def _command(argv: list[str], prog: str) -> None:
    from lsfa_jax.util.malloc import keep_freed_memory

    started = time.monotonic()
    keep_freed_memory()
    arguments = parse(argv, prog)
    duration.parse(arguments.time_limit, "--time-limit")
    if arguments.log == "tensorboard":
        common.check_packages(f"{prog} --log tensorboard", "watch", {"tensorboardX": "tensorboardX"})
    # Imported late, so that --help and a wrong option are answered at once.
    from lsfa_jax.util import processes

    job = arguments.distributed
    with processes.joined(job.coordinator, job.processes, job.process, job.timeout, job.heartbeat):
        _train_in_job(arguments, argv, prog, started)


def _train_in_job(arguments: TrainArguments, argv: list[str], prog: str, started: float) -> None:
    from lsfa_jax.util import compilation_cache, processes

    output = processes.from_first(lambda: _with_output(arguments).output)
    arguments = arguments.model_copy(update={"output": output})
    compilation_cache.keep_on_disk()
    # Before the block below: an import that a signal interrupts cannot be repeated.
    from lsfa_jax.training.run_folder import RunFolder, check_free, how_to_resume

    try:
        starts = not arguments.resume and STAGES[0] in arguments.stages
        if starts and leaves_encoder_open(arguments, argv):
            processes.from_first(lambda: check_free(RunFolder(Path(output))))  # before the corpus is read
            argv = with_encoder(arguments, argv, duration.parse(arguments.time_limit, "--time-limit"))
            arguments = parse(argv, prog).model_copy(update={"output": arguments.output})
        train(arguments, chosen_settings(argv), started)
        console.note(f"Next: bin/predict --run {shlex.quote(arguments.output)} FILE")
    except (KeyboardInterrupt, SystemExit):  # SIGINT, SIGTERM before the first stage
        console.error(how_to_resume(RunFolder(Path(arguments.output))))
        raise


def main(argv: list[str] | None = None, prog: str = "bin/train") -> int:
    """Trains with the settings of the command line; messages name the command `prog`.

    Returns:
        0 when done, 2 after a UserError, 130 or 143 after SIGINT or SIGTERM.
    """
    return common.run(lambda line: _command(line, prog), argv)


if __name__ == "__main__":
    interrupts.run_and_exit(main)
