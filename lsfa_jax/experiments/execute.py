"""The runs of experiments: one encoder for a corpus and a seed, later stages swept on what stage 1 left.

A folder holds all of it, whichever plans they are for:

    runs/CORPUS-PRESET-ENCODER/seed-0/SETTINGS/encoder/      a run folder of stage 1, with the token states while needed
                                              /transfer/     run folders with stage 2, one for each of its settings
                                              /work/         the run folder of later stages that are not done
                                              /results/      of each run that is done: metrics, rankings, settings

What is done is not repeated, and what was interrupted continues from its last checkpoint.
"""

import json
import shutil
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lsfa_jax.config import (
    Config,
    StageName,
    chosen_for,
    dotted,
    for_encoder,
    merged,
    with_values,
)
from lsfa_jax.data import named
from lsfa_jax.data.load import load_corpus
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.experiments.plan import Plan, Settings, Variant, resolved, slug, split_settings
from lsfa_jax.experiments.statistics import Truth
from lsfa_jax.model.prototypes import is_head
from lsfa_jax.training import run
from lsfa_jax.training.run_folder import RunFolder, branch, stage_of, with_absolute_paths
from lsfa_jax.util import atomic, console
from lsfa_jax.util.console import UserError, note, plural, warn
from lsfa_jax.util.duration import in_words
from lsfa_jax.util.interrupts import Interrupted

_DONE, _TRUTH, _RANKINGS = "done.json", "truth.npz", "rankings"

# What is kept of a run whose results are all that later commands need.
_RESULTS = ("metrics.json", "config.toml", "environment.json", "history.jsonl")


@dataclass(frozen=True)
class Base:
    """What all runs of a command share."""

    output: Path
    preset: str = "quick"
    encoder: str = "bilstm"
    data_dir: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By section, of a settings file."""
    save_every: float = 60.0

    def config(self, corpus: str, seed: int, first: Mapping[str, Any]) -> tuple[Config, Collection[str]]:
        """Returns the settings of a run of stage 1, and the names of those that are not fitted to the corpus."""
        given = merged(self.settings, first)
        encoder = given.get("encoder", {}).get("kind", self.encoder)
        options = {"seed": seed, "data_dir": self._place(corpus)}
        config = for_encoder(corpus, self.preset, encoder, options | given, "settings")
        return config, chosen_for(corpus, self.preset) | set(dotted(given))

    def _place(self, corpus: str) -> str:
        """Returns the setting `data_dir`: the corpus's folder in ours, or ours; "" for a corpus that needs none."""
        if not self.data_dir or not named.entry(corpus).needs_data_dir:
            return ""
        folder = Path(self.data_dir).expanduser()
        return str(folder / corpus if (folder / corpus).is_dir() else folder)

    def folder(self, corpus: str, seed: int) -> Path:
        """Returns where the runs of a corpus and a seed are."""
        encoder = Path(self.encoder).name
        name = f"{corpus}-{self.preset}-{encoder}"
        if self.settings:
            name += f"-{slug(dotted(self.settings))}"
        return self.output / "runs" / name / f"seed-{seed}"


@dataclass(frozen=True)
class FirstStage:
    """A run of stage 1, and what is swept on it."""

    base: Base
    corpus: str
    seed: int
    first: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where its run folder and the results of later stages are."""
        return self.base.folder(self.corpus, self.seed) / slug(dotted(self.first))

    @property
    def run(self) -> Path:
        """Its run folder."""
        return self.folder / "encoder"

    @property
    def is_done(self) -> bool:
        """Whether stage 1 is complete and measured."""
        return (self.run / _DONE).is_file()

    def result(self, settings: Settings) -> Path:
        """Returns the folder of the results of later stages."""
        factors = {f"{key}.times": factor for key, factor in settings.scaled.items()}
        return self.folder / "results" / slug(settings.later | factors)

    def work(self, settings: Settings) -> Path:
        """Returns the run folder of later stages until they are done."""
        return self.folder / "work" / self.result(settings).name


@dataclass(frozen=True)
class Needed:
    """A run that plans need: stage 1, or with settings for later stages also these."""

    first_stage: FirstStage
    settings: Settings | None

    @property
    def folder(self) -> Path:
        """Has its results once it is done."""
        return self.first_stage.run if self.settings is None else self.first_stage.result(self.settings)

    @property
    def is_done(self) -> bool:
        """Whether its results are there."""
        return self.first_stage.is_done if self.settings is None else self.folder.is_dir()

    @property
    def title(self) -> str:
        """Names the run in messages."""
        name = "stage 1" if self.settings is None else self.folder.name
        return f"{self.first_stage.corpus}, seed {self.first_stage.seed}, {self.first_stage.folder.name}: {name}"


@dataclass(frozen=True)
class Measured:
    """What a run reached with one of its models on the test documents."""

    metrics: dict[str, Any]
    """The content of its metrics.json."""
    top: np.ndarray
    """int32[3, N, 5], rankings within all, head and tail labels."""
    truth: Truth


def runs_of(plan: Plan, base: Base, corpora: Iterable[str], seeds: int) -> Iterator[Needed]:
    """Yields the runs that a plan needs, each once, those that share a stage 1 one after another."""
    if plan.show == "counts":
        return
    for corpus in corpora:
        for seed in range(seeds):
            by_first_stage: dict[Path, list[Needed]] = {}
            for variant in plan.all_variants().values():
                needed = run_of(plan, variant, base, corpus, seed)
                group = by_first_stage.setdefault(needed.first_stage.folder, [Needed(needed.first_stage, None)])
                if all(needed.settings != other.settings for other in group):
                    group.append(needed)
            for group in by_first_stage.values():
                yield from group


def run_of(plan: Plan, variant: Variant, base: Base, corpus: str, seed: int) -> Needed:
    """Returns the run that has the result of a variant."""
    settings = split_settings(plan, variant)
    first_stage = FirstStage(base, corpus, seed, settings.first)
    is_later = variant.result in ("adjusted", "fused") or bool(settings.later or settings.scaled)
    return Needed(first_stage, settings if is_later else None)


def check_places(needed: Iterable[Needed]) -> None:
    """Checks that runs that were begun read the corpus and the pretrained encoder of this command.

    A folder's name has neither place, so its runs would be taken for those of other documents or weights.

    Raises:
        UserError: one reads another; the message names both.
    """
    for first_stage in {run_.first_stage.folder: run_.first_stage for run_ in needed}.values():
        folder = RunFolder(first_stage.run)
        if not folder.config_file.is_file():
            continue
        config, _ = first_stage.base.config(first_stage.corpus, first_stage.seed, first_stage.first)
        before, now = with_absolute_paths(folder.read_config()), with_absolute_paths(config)
        pairs = {"--data-dir": (before.data_dir, now.data_dir)} if now.data_dir else {}  # pages are written without it
        pairs["--encoder"] = before.encoder.pretrained, now.encoder.pretrained
        for option, (old, new) in pairs.items():
            if old != new:
                raise UserError(f"{option} {new}: {first_stage.run} is of {old or 'none'}; choose another --output")


def execute(needed: Iterable[Needed]) -> dict[str, str]:
    """Makes the runs that are not done.

    Returns:
        The error of each run that failed, by its title; runs that need a stage 1 that failed are among them.

    Raises:
        Interrupted: after a signal; the same call continues.
    """
    all_runs = _grouped(needed)
    failed: dict[str, str] = {}
    clock = _Clock(all_runs)
    for number, run_ in enumerate(all_runs, 1):
        if run_.is_done:
            _clean(run_)
        else:
            note(f"Run {number} of {len(all_runs)}: {run_.title}{clock.rest(all_runs[number - 1 :])}")
            try:
                if run_.settings is not None and not run_.first_stage.is_done:
                    raise UserError(f"its stage 1 failed: {run_.first_stage.run}")
                _make(run_)
            except Interrupted:
                raise
            # Whatever happens to one run, the others go on; the error is on the page and at the command's end.
            except Exception as error:
                failed[run_.title] = str(error) or type(error).__name__
                warn(f"{run_.title}: {failed[run_.title]}")
        following = all_runs[number] if number < len(all_runs) else None
        if following is None or following.first_stage != run_.first_stage:
            shutil.rmtree(run_.first_stage.run / "states", ignore_errors=True)
    return failed


def read(needed: Needed, result: str) -> Measured | None:
    """Reads what a run reached with one of its models; None where it did not run, or has no such model."""
    if not needed.is_done:
        return None
    first, folder = needed.first_stage.run, needed.folder
    # A model that later stages do not change was measured with stage 1, unless N_t differs.
    file = next((path for path in _ranking_files(folder, first, result) if path.is_file()), None)
    if file is None:
        return None
    config = RunFolder(folder).read_config()
    with np.load(first / _TRUTH) as arrays:
        counts, published = arrays["label_counts"], arrays["published_counts"]
        head = np.pad(is_head(counts, config.pvae.head_threshold), (0, len(published) - len(counts)))
        labels = Ragged(arrays["values"], arrays["offsets"])
        truth = Truth(labels, published, int(arrays["published_documents"]), head)
    return Measured(RunFolder(folder).read_metrics(), np.load(file), truth)


def environment(needed: Needed) -> dict[str, Any]:
    """Returns the versions, devices and commit of a run that is done."""
    return dict(json.loads((needed.folder / "environment.json").read_text(encoding="utf-8")))


def seconds(needed: Needed) -> float | None:
    """Returns how long a run took; None before it is done."""
    try:
        return float(json.loads((needed.folder / _DONE).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError):
        return None


def _ranking_files(folder: Path, first: Path, result: str) -> Iterator[Path]:
    yield folder / _RANKINGS / f"{result}.npy"
    yield first / _RANKINGS / f"{result}.npy"


def _grouped(needed: Iterable[Needed]) -> list[Needed]:
    """Returns the runs, each once, those that share a stage 1 one after another with that first."""
    groups_: dict[Path, dict[Path, Needed]] = {}
    for run_ in needed:
        groups_.setdefault(run_.first_stage.folder, {}).setdefault(run_.folder, run_)
    return [run_ for group in groups_.values() for run_ in sorted(group.values(), key=lambda r: r.settings is not None)]


def _make(needed: Needed) -> None:
    start = time.monotonic()
    if needed.settings is None:
        _train_first(needed.first_stage, start)
    else:
        _train_later(needed.first_stage, needed.settings, start)
    _clean(needed)


def _clean(needed: Needed) -> None:
    """Removes the run folder of later stages that are done."""
    if needed.settings is not None:
        shutil.rmtree(needed.first_stage.work(needed.settings), ignore_errors=True)


def _train_first(first_stage: FirstStage, start: float) -> None:
    config, chosen = first_stage.base.config(first_stage.corpus, first_stage.seed, first_stage.first)
    folder = RunFolder(first_stage.run)
    _train(first_stage, config, first_stage.run, ("representation",), folder.config_file.is_file(), chosen)
    corpus = load_corpus(folder.read_config())
    with atomic.replacing(first_stage.run / _TRUTH) as partial, partial.open("wb") as file:
        np.savez(
            file,
            values=corpus.test.labels.values,
            offsets=corpus.test.labels.offsets,
            label_counts=corpus.label_counts,
            published_counts=corpus.published_counts,
            published_documents=corpus.published_documents,
        )
    _write_done(first_stage.run, start, [])


def _train_later(first_stage: FirstStage, settings: Settings, start: float) -> None:
    """Runs stages 2 and 3 in a folder that is removed when their results are kept."""
    result, work = first_stage.result(settings), first_stage.work(settings)
    base = RunFolder(first_stage.run).read_config()
    values = resolved(base, settings.later, settings.scaled)
    config = with_values(base, values)
    second = first_stage.folder / "transfer" / slug({k: v for k, v in values.items() if stage_of(k) == "transfer"})
    if not RunFolder(work).config_file.is_file():
        if second.is_dir():
            branch(second, work, ("representation", "transfer"))
        else:
            branch(first_stage.run, work, ("representation",))
    # Hundreds of lines that only the runs of stage 1 are worth.
    with console.quiet(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        _train(first_stage, config, work, ("transfer", "adjustment"), True)
    if not second.is_dir():
        branch(work, second, ("representation", "transfer"))
    with atomic.folder(result) as new:
        for name in _RESULTS:
            shutil.copyfile(work / name, new / name)
        shutil.copytree(work / _RANKINGS, new / _RANKINGS)
        _write_done(new, start, [str(warning.message) for warning in caught])


def _train(
    first_stage: FirstStage,
    config: Config,
    folder: Path,
    stages: tuple[StageName, ...],
    resume: bool,
    chosen: Collection[str] | None = None,
) -> None:
    def keep(name: str, top: np.ndarray) -> None:
        with atomic.replacing(folder / _RANKINGS / f"{name}.npy") as partial, partial.open("wb") as file:
            np.save(file, top)

    states, save_every = first_stage.run / "states", first_stage.base.save_every
    run.train(config, folder, stages, resume, save_every, chosen=chosen, states=states, on_ranked=keep)


def _write_done(folder: Path, start: float, messages: list[str]) -> None:
    content = {"seconds": time.monotonic() - start, "warnings": messages}
    atomic.write_text(folder / _DONE, json.dumps(content, indent=2) + "\n")


class _Clock:
    """Estimates how long the rest takes, from the runs of the same corpus and kind that are done."""

    def __init__(self, all_runs: list[Needed]) -> None:
        self._all = all_runs

    def rest(self, open_runs: list[Needed]) -> str:
        """Returns the time in words, in brackets; "" where no run of a kind is done yet."""
        times: dict[tuple[str, bool], list[float]] = {}
        for run_ in self._all:
            if (took := seconds(run_)) is not None:
                times.setdefault(_kind(run_), []).append(took)
        rest = [run_ for run_ in open_runs if not run_.is_done]
        if any(_kind(run_) not in times for run_ in rest):
            return f" ({plural(len(rest), 'run')} to go)"
        total = sum(float(np.mean(times[_kind(run_)])) for run_ in rest)
        return f" ({plural(len(rest), 'run')} to go, about {in_words(total)})"


def _kind(needed: Needed) -> tuple[str, bool]:
    return needed.first_stage.corpus, needed.settings is None
