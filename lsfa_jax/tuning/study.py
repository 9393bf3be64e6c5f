"""The trials of a search: runs of `bin/train` with settings that Optuna draws, chosen on validation documents alone.

A folder holds all of a search; several commands that name it share its trials:

    study.db            what Optuna knows of each trial: settings, validations, result
    config.toml, study.json    the settings that all trials share, and the space
    trials/0007/        the run folder of a trial; checkpoints and model of the best one alone are kept
    linear/             the linear models, which all trials share
    best.toml           the settings of the best trial, for bin/train --config

A trial that was stopped continues from its last checkpoint, in whichever command finds it first: the one that holds the
lock of a trial runs it.
"""

import json
import math
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from lsfa_jax.config import STAGES, Config, differences, get, to_toml, with_values
from lsfa_jax.training import policy, results, run
from lsfa_jax.training.run_folder import RunFolder, with_absolute_paths
from lsfa_jax.tuning.space import Dimension, Space
from lsfa_jax.util import atomic, console, interrupts
from lsfa_jax.util.console import UserError, note, plural
from lsfa_jax.util.duration import in_words
from lsfa_jax.util.interrupts import Interrupted
from lsfa_jax.util.random_streams import Stream, stream

# The first trials are drawn at random, and their validations are what later ones are compared with. No trial is pruned
# before its third epoch: in the first ones, a high learning rate is ahead whatever becomes of it.
_RANDOM_TRIALS, _COMPARED_TRIALS, _FIRST_EPOCH = 8, 4, 3

# A time limit is for at least so many trials: steps are timed, and a trial plans as many epochs as fit in its share.
TRIALS_IN_TIME = 8

# No trial starts when less than this share of the time of a complete one is left.
_LEAST_SHARE = 0.5

# So many trials that fail one after another end the search.
_MOST_FAILURES = 3

# What is left of the run folder of a trial that is not the best.
_KEPT = ("config.toml", "metrics.json", "history.jsonl", "report.html", "environment.json")

_DIGITS = 3

_ABOUT, _DATABASE = "study.json", "study.db"
_SECONDS, _ERROR = "seconds", "error"

_SECONDS_BETWEEN_LOOKS = 0.5

# What a run receives when the time is over, in place of a signal of the user.
_TIME_OVER = int(signal.SIGALRM)


@dataclass(frozen=True)
class Search:
    """A search in a folder."""

    output: Path
    config: Config
    """The settings that are not varied."""
    chosen: Collection[str]
    """The dotted names of those that are not fitted to the corpus."""
    space: Space
    corpus: Config
    """The settings of a run of bin/train on the corpus: those of the first trial, as far as the space has them."""
    trials: float = math.inf
    """Trials of the study at most, those of earlier commands included."""
    seconds: float = math.inf
    save_every: float = 60.0
    started: float = field(default_factory=time.monotonic)

    @property
    def metric(self) -> str:
        """The metric of validation documents that is maximised."""
        return self.config.adjust.select

    def folder(self, trial: Trial | FrozenTrial) -> Path:
        """Returns the run folder of a trial."""
        return self.output / "trials" / f"{trial.number:04d}"

    def lock(self) -> FileLock:
        """Returns the lock under which a command chooses its next trial and writes what all trials share."""
        return FileLock(self.output / ".lock")

    def left(self) -> float:
        """Returns the seconds that are left."""
        return self.seconds - (time.monotonic() - self.started)


def begin(search: Search) -> Study:
    """Opens the study of a folder, which is created in an empty one.

    Raises:
        UserError: the folder cannot be written, has other files, or a study with other settings.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with atomic.errors(search.output):
        search.output.mkdir(parents=True, exist_ok=True)
    with search.lock(), _database_errors(search.output / _DATABASE):
        is_new = not (search.output / _ABOUT).is_file()
        _check_folder(search, is_new)
        study = optuna.create_study(
            storage=optuna.storages.RDBStorage(
                f"sqlite:///{search.output.absolute() / _DATABASE}", engine_kwargs={"connect_args": {"timeout": 100}}
            ),
            pruner=MedianPruner(_COMPARED_TRIALS, n_warmup_steps=_FIRST_EPOCH),
            study_name="lsfa_jax",
            direction="maximize",
            load_if_exists=True,
        )
        if is_new:
            usual = {key: get(search.corpus, key) for key in search.space}
            within = {key: value for key, value in usual.items() if value in search.space[key]}
            study.enqueue_trial(within, skip_if_exists=True)
            RunFolder(search.output).write_config(with_absolute_paths(search.config))
            atomic.write_text(search.output / _ABOUT, json.dumps(_about(search), indent=2) + "\n")
    return study


@contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    """Raises UserError where a database cannot be opened."""
    try:
        yield
    except SQLAlchemyError as error:
        raise UserError(f"{path}: not a database of bin/tune, or damaged ({str(error).splitlines()[0]})") from None


def _check_folder(search: Search, is_new: bool) -> None:
    """Raises UserError if the folder has other files, or a search with other settings."""
    output = search.output
    if is_new:
        names = {path.name for path in output.iterdir()} - {".lock", "config.toml", _DATABASE, f"{_DATABASE}-journal"}
        if names:
            what = "a run of bin/train" if "data.json" in names else f"something else ({min(names)})"
            raise UserError(f"{output}: has files of {what}; choose another --output")
        return
    stored, now = json.loads((output / _ABOUT).read_text(encoding="utf-8")), _about(search)
    changed = differences(RunFolder(output).read_config(), with_absolute_paths(search.config))
    changed = changed or [key for key in now if now[key] != stored[key]]
    if changed:
        raise UserError(
            f"{output}: the search in this folder has other settings ({', '.join(changed)}); use the same, or choose "
            "another --output"
        )


def _about(search: Search) -> dict[str, Any]:
    """Returns what decides the trials beside the settings that they share, as JSON holds it."""
    space = {key: dimension._asdict() for key, dimension in search.space.items()}
    content: dict[str, Any] = json.loads(json.dumps({"--space": space, "options": sorted(search.chosen)}))
    return content


def execute(search: Search, study: Study) -> None:
    """Runs trials until there are enough of them or the time is over.

    Raises:
        UserError: one trial after another fails.
        Interrupted: after a signal; the same call continues.
    """
    total = None if math.isinf(search.trials) else int(search.trials)
    with _stopped_after(search), console.progress("Tuning", total, "trials", done=len(_finished(study))) as advance:
        while (taken := _next(search, study)) is not None:
            trial, lock = taken
            try:
                has_ended = _run(search, study, trial, advance)
            finally:
                lock.release()
            if not has_ended:
                break
            advance()


def best_of(study: Study) -> FrozenTrial | None:
    """Returns the best of the complete trials; None where none is complete."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def is_in_use(search: Search, study: Study) -> bool:
    """Whether another command runs a trial of the study."""
    with search.lock():
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            lock = _locked(search, trial)
            if lock is None:
                return True
            lock.release()
    return False


def values_of(trial: FrozenTrial) -> dict[str, Any]:
    """Returns the settings of a trial by dotted name, as its run has them: floats between bounds in three digits."""
    return {key: _rounded(value, trial.distributions[key]) for key, value in trial.params.items()}


def epochs_of(search: Search, trial: FrozenTrial) -> float:
    """Returns the epochs of stage 1 that a trial has trained."""
    history = RunFolder(search.folder(trial)).read_history()
    return max((line["epoch"] for line in history if line["stage"] == STAGES[0]), default=0.0)


def seconds_of(trial: FrozenTrial) -> float:
    """Returns how long a trial took, in all commands."""
    return float(trial.user_attrs.get(_SECONDS, 0.0))


def error_of(trial: FrozenTrial) -> str:
    """Returns why a trial failed; "" if it did not."""
    return str(trial.user_attrs.get(_ERROR, ""))


def _locked(search: Search, trial: Trial | FrozenTrial) -> FileLock | None:
    """Locks a trial; None where another command runs it."""
    path = search.folder(trial).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def _next(search: Search, study: Study) -> tuple[Trial, FileLock] | None:
    """Returns a trial that was stopped, or else a new one, locked; None when the search is over."""
    with search.lock():
        if search.left() <= 0:
            return None
        for stopped in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if (lock := _locked(search, stopped)) is not None:
                # Optuna's class of a trial that runs; it knows the settings that were drawn.
                return Trial(study, stopped._trial_id), lock
        _check_failures(study)
        seconds = [seconds_of(trial) for trial in study.get_trials(states=(TrialState.COMPLETE,))]
        is_short = bool(seconds) and search.left() < _LEAST_SHARE * float(np.median(seconds))
        begun = study.get_trials(deepcopy=False)
        if is_short or sum(trial.state != TrialState.WAITING for trial in begun) >= search.trials:
            return None
        trial = study.ask()
        lock = _locked(search, trial)
        assert lock is not None
        return trial, lock


def _check_failures(study: Study) -> None:
    last = _finished(study)[-_MOST_FAILURES:]
    errors = [error_of(trial) for trial in last if trial.state == TrialState.FAIL]
    if len(errors) == _MOST_FAILURES:
        raise UserError(f"the last {_MOST_FAILURES} trials failed, so the search ends: {errors[-1]}")


def _run(search: Search, study: Study, trial: Trial, advance: console.Advance) -> bool:
    """Runs a trial and reports its result to the study; returns False where the time was over before it ended.

    Raises:
        Interrupted: after a signal; the trial can be continued.
    """
    before, start = float(trial.user_attrs.get(_SECONDS, 0.0)), time.monotonic()
    result: dict[str, Any] = {}
    try:
        # A run prints hundreds of lines.
        with console.quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result["values"] = _train(search, study, trial, advance)
    except optuna.TrialPruned:
        result["state"] = TrialState.PRUNED
    except Interrupted:
        if search.left() > 0:
            raise
        note(f"Trial {trial.number} is stopped, as the time is over; the same command continues it")
        return False
    # Whatever happens to one trial, the others go on.
    except Exception as error:
        trial.set_user_attr(_ERROR, str(error) or type(error).__name__)
        result["state"] = TrialState.FAIL
    finally:
        trial.set_user_attr(_SECONDS, before + time.monotonic() - start)
    ended = study.tell(trial, **result)
    with search.lock():
        finished, best = _finished(study), best_of(study)
        _keep_best(search, finished, best)
    note(f"{_line(search, ended, best)}{_rest(search, finished)}")
    return True


def _train(search: Search, study: Study, trial: Trial, advance: console.Advance) -> float:
    """Trains with the settings of a trial; returns the metric of the network on validation.

    Not that of the fused score: the linear model is the same in all trials, and where validation documents are few, it
    decides alone.
    """
    # Drawn by the number of the trial: what a command draws does not depend on how many trials it ran before.
    seed = int(stream(Stream.TUNING, search.config.seed, trial.number).integers(2**32))
    study.sampler = TPESampler(n_startup_trials=_RANDOM_TRIALS, seed=seed)
    drawn = {key: _suggested(trial, key, dimension) for key, dimension in search.space.items()}
    values = {key: _rounded(value, trial.distributions[key]) for key, value in drawn.items()}
    folder, share = search.folder(trial), search.seconds / TRIALS_IN_TIME
    config, resumes = with_values(search.config, values), RunFolder(folder).config_file.is_file()
    if resumes:
        # Within a time limit, the trial began with fewer epochs than were chosen.
        config = policy.as_planned(config, RunFolder(folder).read_config())

    def on_validation(stage: str, epoch: float, metrics: dict[str, float]) -> None:
        value = metrics[search.metric]
        with console.quiet(False):
            advance(0, f"trial {trial.number}: {stage} epoch {epoch:.3g}, {search.metric} {value:.2f}")
        if stage != STAGES[0] or not float(epoch).is_integer():
            return
        trial.report(value, int(epoch))
        if trial.should_prune():
            raise optuna.TrialPruned

    metrics = run.train(
        config,
        folder,
        resume=resumes,
        save_every=search.save_every,
        chosen={*search.chosen, *values},
        seconds=min(share, search.left()),
        linear=search.output / "linear",
        test=False,
        on_validation=on_validation,
    )
    return float(results.of_network(metrics, search.metric)["validation"][search.metric])


def _suggested(trial: Trial, key: str, dimension: Dimension) -> Any:
    """Draws the value of a setting, or returns the one that was drawn for the trial before."""
    low, high, log = dimension.low, dimension.high, dimension.log
    if dimension.choices:
        return trial.suggest_categorical(key, dimension.choices)
    if isinstance(low, int):
        return trial.suggest_int(key, low, int(high), log=log)
    return trial.suggest_float(key, low, high, log=log)


def _rounded(value: Any, distribution: BaseDistribution) -> Any:
    """Rounds what was drawn between bounds; a value of a list stays as it is."""
    return float(f"{value:.{_DIGITS}g}") if isinstance(distribution, FloatDistribution) else value


def _finished(study: Study) -> list[FrozenTrial]:
    """Returns the trials that are complete, pruned or failed, in the order in which they ended."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return sorted(trials, key=lambda trial: str(trial.datetime_complete))


def _keep_best(search: Search, finished: list[FrozenTrial], best: FrozenTrial | None) -> None:
    """Writes the settings of the best trial, and removes the checkpoints and models of the others that have ended."""
    if best is not None:
        atomic.write_text(search.output / "best.toml", to_toml(RunFolder(search.folder(best)).read_config()))
    for trial in finished:
        folder = search.folder(trial)
        if not folder.is_dir() or (best is not None and trial.number == best.number):
            continue
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in _KEPT:
                path.unlink(missing_ok=True)


def _line(search: Search, trial: FrozenTrial, best: FrozenTrial | None) -> str:
    """Returns the line about a trial that has ended."""
    number = f"Trial {trial.number}"
    if trial.state == TrialState.FAIL:
        return f"{number} failed: {error_of(trial)}"
    reached = f"{search.metric} {trial.value:.2f}" if trial.state == TrialState.COMPLETE else "pruned"
    took = f"{plural(round(epochs_of(search, trial)), 'epoch')}, {in_words(seconds_of(trial))}"
    of_best = f"; best {best.value:.2f} (trial {best.number})" if best else ""
    return f"{number}: {reached} ({took}){of_best}"


def _rest(search: Search, finished: list[FrozenTrial]) -> str:
    """Returns how long the rest takes, by the trials so far; "" where nothing is known yet."""
    rest = search.left()
    if finished and math.isfinite(search.trials):
        mean = float(np.mean([seconds_of(trial) for trial in finished]))
        rest = min(rest, max(0.0, search.trials - len(finished)) * mean)
    return "" if math.isinf(rest) else f"; about {in_words(max(0.0, rest))} to go"


@contextmanager
def _stopped_after(search: Search) -> Iterator[None]:
    """Stops a run within the block, as a signal does, when the time of the search is over."""
    ended = threading.Event()

    def stop() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            if search.left() <= 0:
                interrupts.receive(_TIME_OVER)

    thread = threading.Thread(target=stop, name="time limit", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(Interrupted):
            interrupts.check()
