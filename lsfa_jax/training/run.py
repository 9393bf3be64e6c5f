"""A run begins: its settings are resolved, its data is loaded, its folder is checked and locked."""

import math
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from lsfa_jax.config import STAGES, Config, StageName, to_toml
from lsfa_jax.data.load import load_corpus
from lsfa_jax.training import (
    checkpoints,
    checks,
    content,
    encoder_choice,
    loop,
    model_folder,
    partition,
    policy,
    precision,
    run_folder,
    starting_model,
)
from lsfa_jax.training.initial_encoder import initial_encoder
from lsfa_jax.training.results import OnRanked
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.three_stages import Run, make_mesh
from lsfa_jax.training.watch import watched
from lsfa_jax.util import console, interrupts, processes
from lsfa_jax.util.console import UserError, note, plural


def train(
    config: Config,
    output: Path,
    stages: Sequence[StageName] = STAGES,
    resume: bool = False,
    save_every: float = 60.0,
    *,
    chosen: Collection[str] | None = None,
    seconds: float = math.inf,
    states: Path | None = None,
    linear: Path | None = None,
    test: bool = True,
    on_ranked: OnRanked | None = None,
    on_validation: loop.OnValidation | None = None,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Trains into a run folder and returns the content of metrics.json.

    Args:
        config: all settings.
        output: the run folder.
        stages: consecutive stages to run.
        resume: continue the folder's run where it stopped.
        save_every: seconds between checkpoints.
        chosen: dotted names of the settings that keep their values where the quick preset fits others to the corpus;
            None: all.
        seconds: how long the run may take; the epochs of stage 1 that fit are measured when it begins.
        states: folder in which the encoder's token states are kept for other runs with the same first stage.
        linear: folder in which the linear models are kept for other runs on the same corpus.
        test: whether the test documents are measured; a later call for the same folder may do so.
        on_ranked: called with the rankings of the test documents by each model, before its metrics are written.
        on_validation: called after each validation of a stage; what it raises ends the run.
        tensorboard: write event files for TensorBoard too.

    Raises:
        UserError: the data, the settings or the run folder are invalid; the message names the file or the option.
        Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    checks.check_processes(config)
    deadline = time.monotonic() + seconds
    stages = run_folder.consecutive(stages)
    if config.candidates == "linear" and config.linear == "none":
        raise UserError("--candidates linear: a linear model proposes them; leave out --linear none")
    folder = RunFolder(output, states, linear)
    started = folder.read_config() if folder.config_file.is_file() else None
    config = run_folder.with_absolute_paths(config)
    chosen_precision = processes.from_first(lambda: precision.resolved(config, started).precision)
    config = config.model_copy(update={"precision": chosen_precision})
    chosen = policy.SETTINGS if chosen is None else chosen
    if started is not None:
        config = policy.kept(config, started, chosen)
        planned = started.representation.epochs
        if resume and math.isfinite(seconds) and planned < config.representation.epochs:
            note(f"The run began with at most {plural(planned, 'epoch')} of stage 1, which stay")
            config = policy.with_epochs(config, planned, chosen)
        open_now = {
            name: getattr(started, name) for name in ("candidates", "vectors") if getattr(config, name) == "auto"
        }
        config = config.model_copy(update=open_now)
    if not folder.config_file.is_file():
        run_folder.check_can_start(folder, config, stages, resume)  # before the folder is created
    # From the next line on the first process may write into the folder.
    options = {
        "settings": to_toml(config),
        "stages": f"{stages}, resume: {resume}",
        # Whether steps are timed, and whether there are checkpoints: both take part in what processes agree on.
        "time limit": str(math.isfinite(seconds)),
        "checkpoints": str(math.isfinite(save_every)),
    }
    processes.same_everywhere(checks.versions() | options)

    def on_deferred() -> None:
        note("Saving and stopping after this step; a second signal (Ctrl-C) ends at once")

    def on_second() -> None:
        console.end_progress()
        console.error(run_folder.how_to_resume(folder))

    with interrupts.second_ends(on_deferred, on_second), folder.in_use():
        if processes.is_first():
            run_folder.check_can_start(folder, config, stages, resume)
        if resume and folder.is_finished:
            note(f"{folder.path}: the run is finished; no stage that it has is trained again")
        run = _prepare(config, folder, stages, resume, save_every, chosen, deadline)
        run.results.on_ranked, run.results.measures_test = on_ranked, test
        run.on_validation = on_validation
        try:
            with watched(folder, tensorboard), interrupts.deferred():
                return run.execute(stages)
        except interrupts.Interrupted:
            note(f"Interrupted, everything is saved. Continue with: {model_folder.resume_command(folder.path)}")
            raise


def _check_earlier_stages(folder: RunFolder, stages: Sequence[StageName]) -> None:
    """Raises UserError unless the stages before the first of `stages` are complete."""
    for stage in STAGES[: STAGES.index(stages[0])]:
        if not checkpoints.is_complete(folder.checkpoints(stage)):
            raise UserError(
                f"--stages {' '.join(stages)}: the stage {stage} of {folder.path} is not complete; continue the run "
                "with --resume and without --stages, or name that stage too"
            )


def _prepare(
    config: Config,
    folder: RunFolder,
    stages: Sequence[StageName],
    resume: bool,
    save_every: float,
    chosen: Collection[str],
    deadline: float,
) -> Run:
    """Loads the data and prepares the run folder, which does not change before all of the input has been checked."""
    make_mesh(config)  # raises where the settings do not divide the devices
    if folder.config_file.is_file():
        checks.check_places(config)
    start = starting_model.read(config, folder)
    words, tokenizer = (start.words, start.tokenizer) if start else ([], "")
    corpus = processes.first(lambda: load_corpus(config, known=words, tokenizer=tokenizer))
    checks.check_documents(corpus)
    if not folder.config_file.is_file():
        if start:
            starting_model.report(config, start, corpus)
        config = policy.resolved(config, corpus, chosen)
        vectors = processes.from_first(lambda: encoder_choice.with_vectors(config, corpus).vectors)
        config = config.model_copy(update={"vectors": vectors})
    encoder = (
        starting_model.initial_encoder(start, corpus)
        if start
        else processes.first(lambda: initial_encoder(config, corpus))
    )
    partition.split({"encoder": encoder.params}, config.encoder)  # raises where there are fewer layers
    digests = content.digests(corpus, encoder)
    folder.check_content(corpus.words, corpus.labels, digests, config)
    processes.same_everywhere(digests)
    processes.from_first(lambda: _check_earlier_stages(folder, stages))
    run_folder.drop_stages(folder, config, stages, resume)
    is_new = not folder.config_file.is_file()
    folder.create(config, corpus, digests)
    if start:
        folder.keep_start(start)
    if is_new:
        folder.write_texts(starting_model.texts(config, corpus))
    processes.wait()
    note(f"Run folder: {folder.path}")
    return Run(config, corpus, encoder, folder, save_every, deadline, chosen, start)
