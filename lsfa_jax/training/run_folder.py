"""The run folder: what `bin/train --output DIR` writes, and the rules by which a later command continues a run."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lsfa_jax.config import (
    NAMED_ENCODERS,
    NAMED_VECTORS,
    STAGES,
    Config,
    StageName,
    differences,
    read_toml,
    to_toml,
    validated,
)
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.training import content, model_folder
from lsfa_jax.training.model_folder import TrainedModel
from lsfa_jax.types import HostArray
from lsfa_jax.util import atomic, processes, sharding
from lsfa_jax.util.console import UserError, note
from lsfa_jax.util.folder_lock import FolderLock

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

ENCODED_SPLITS = ("train", "validation", "test")
"""The splits whose token states a run may keep on disk once its encoder is trained."""

HIDDEN_SPLITS = ("train", "validation")
"""The splits whose hidden states of frozen layers it may keep, for the stage that trains the other layers."""


class RunFolder:
    """Files of one run; each is written atomically. Of several processes only the first writes and holds the lock."""

    def __init__(self, path: Path, states: Path | None = None, linear: Path | None = None) -> None:
        """Names the folder.

        Args:
            path: of the run.
            states: folder in which the token states are kept for other runs with the same first stage; None: they are
                in the run folder while the run reads them.
            linear: folder in which the linear models are kept for other runs on the same corpus; None: they are in the
                run folder.
        """
        self.path = path
        self.after_history: Callable[[], None] = lambda: None
        """Called when the history has a new line."""
        self._states = states
        self.linear = linear or self.checkpoints("linear")
        self._lock = FolderLock(path)

    @property
    def keeps_states(self) -> bool:
        """Whether the token states stay when the run is done."""
        return self._states is not None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps other processes from writing into the folder within the block.

        Raises:
            UserError: another process writes into the folder; the message names it.
        """
        with self._lock.held("choose another --output") if processes.is_first() else nullcontext():
            yield

    @property
    def is_free(self) -> bool:
        """Whether a new run can be written into the folder: it does not exist, or has no files."""
        path = self.path
        return not path.exists() or (path.is_dir() and all(self._lock.is_part(file) for file in path.iterdir()))

    @property
    def config_file(self) -> Path:
        """The resolved settings; a folder with this file is a run folder."""
        return self.path / "config.toml"

    @property
    def _content_file(self) -> Path:
        """Checksums of the data that the run reads."""
        return self.path / "data.json"

    @property
    def features_file(self) -> Path:
        """Where the features that the second stage learns from are while it reads them."""
        return self.path / "checkpoints" / "features.npy"

    @property
    def start(self) -> Path:
        """The model that the run starts from, if it starts from one: a copy, which resuming reads."""
        return self.path / "start"

    @property
    def _texts_file(self) -> Path:
        """Digests of the texts that the model has been trained on."""
        return self.path / "texts.npy"

    def checkpoints(self, stage: str) -> Path:
        """Returns the folder of a stage's checkpoints."""
        return self.path / "checkpoints" / stage

    def token_states(self, split: str) -> Path:
        """Where a split's token states are while the run reads them."""
        return (self._states or self.path / "checkpoints") / f"{split}-states.npy"

    def hidden_states(self, split: str) -> Path:
        """Where a split's hidden states are while the run reads them."""
        return self.path / "checkpoints" / f"{split}-hidden.npy"

    def has_checkpoint(self) -> bool:
        """Whether a stage has a complete checkpoint."""
        return any(path.name.isdigit() for path in (self.path / "checkpoints").glob("*/*"))

    def check_content(self, words: list[str], labels: list[str], digests: Mapping[str, str], config: Config) -> None:
        """Raises UserError if the folder holds a run on other data.

        A run of an earlier version has no checksums: its words and labels are compared, and a note is printed.

        Args:
            words: the vocabulary now.
            labels: the label names now.
            digests: of the data now, by `content.digests`.
            config: the settings, which name the data.
        """
        try:
            stored = json.loads(self._content_file.read_bytes())
            differing = content.changed(stored, digests)
        except (OSError, ValueError, AttributeError, RecursionError):
            texts = model_folder.text_files(words, labels).items()
            files = {name: self.path / name for name, _ in texts}
            differing = [
                name for name, text in texts if files[name].is_file() and files[name].read_bytes() != text.encode()
            ]
            if not differing and self.has_checkpoint():
                note(
                    f"{self.path}: has no checksums of its data (no {self._content_file.name}); only the vocabulary "
                    "and the label names were compared"
                )
        if differing:
            option = "--encoder" if differing == ["pretrained encoder"] else "--data-dir"
            raise UserError(
                f"{self.path}: the data has changed since this run began: {', '.join(differing)} "
                f"({config.data_dir or config.dataset}). Restore it, name its place with {option}, or start a new "
                "run with another --output"
            )

    def create(self, config: Config, corpus: Corpus, digests: Mapping[str, str] | None = None) -> None:
        """Writes settings, environment, vocabulary and labels; an earlier model in the folder is no longer valid.

        Args:
            config: the settings.
            corpus: the documents.
            digests: of the data, by `content.digests`; None where no later command continues the run.

        Raises:
            UserError: the folder cannot be written.
        """
        environment = {
            "python": platform.python_version(),
            "packages": {name: version(name) for name in _PACKAGES},
            "devices": [f"{device.platform}: {device.device_kind}" for device in sharding.devices_of_job()],
            "processes": processes.count(),
            "machine": platform.platform(),
            "git_commit": _git_commit(),
            "seed": config.seed,
        }
        if processes.is_first():
            model_folder.invalidate(self.path)
        # The settings first: a run that is killed after this can be resumed.
        self.write_config(config)
        for name, text in model_folder.text_files(corpus.words, corpus.labels, corpus.tokenizer).items():
            self._write(name, text)
        if digests is not None:
            self._write(self._content_file.name, json.dumps(dict(digests), indent=2) + "\n")
        self._write("environment.json", json.dumps(environment, indent=2) + "\n")

    def keep_start(self, model: TrainedModel) -> None:
        """Copies the model that the run starts from, without its linear model, unless that is done."""
        if processes.is_first() and not model_folder.paths(self.start)[0].is_file():
            model_folder.write(self.start, replace(model, linear=None, fusion=None))

    def read_texts(self) -> HostArray:
        """Returns the digests of the texts that the model has been trained on, uint64[N, 2]; none without the file.

        Raises:
            UserError: the file is damaged.
        """
        path = self._texts_file
        try:
            return np.load(path, allow_pickle=False).reshape(-1, 2) if path.is_file() else np.zeros((0, 2), np.uint64)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: is damaged ({error}); restore it, or remove it") from None

    def write_texts(self, digests: HostArray) -> None:
        """Writes the digests of the texts that the model is trained on."""
        if processes.is_first():
            with atomic.replacing(self._texts_file, model_folder.ADVICE) as partial, partial.open("wb") as file:
                np.save(file, digests)

    def write_config(self, config: Config) -> None:
        """Writes the settings."""
        self._write(self.config_file.name, to_toml(config))

    def read_config(self) -> Config:
        """Reads the settings of the run in the folder."""
        return validated(read_toml(self.config_file), str(self.config_file))

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Writes metrics.json."""
        self._write("metrics.json", json.dumps(metrics, indent=2) + "\n")

    def read_metrics(self) -> dict[str, Any]:
        """Reads metrics.json; {} where there is none."""
        path = self.path / "metrics.json"
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError as error:
            raise UserError(f"{path}: is damaged ({error}); restore it, or remove it and continue the run") from None

    @property
    def is_finished(self) -> bool:
        """Whether a run has measured the model that it kept."""
        return _is_finished(self.read_metrics())

    @property
    def is_unfinished(self) -> bool:
        """Whether a run has measured something, and was stopped or still trains: its model is of an earlier stage."""
        metrics = self.read_metrics()
        return bool(metrics) and not _is_finished(metrics)

    def drop_metrics(self, stages: Sequence[str], representation: bool) -> None:
        """Removes the results of `stages` from metrics.json; with `representation` also those of stage 1."""
        metrics = self.read_metrics()
        metrics.pop("test", None)
        metrics.pop("kept", None)
        metrics.pop("evidence", None)
        if "transfer" in stages:
            metrics.pop("pvae", None)
        # A re-measured first stage has another N_t or other propensities, and so have the linear models.
        for name in ("fused", "adjusted", *(("representation", "tree", "svm") if representation else ())):
            metrics.get("stages", {}).pop(name, None)
        for stage in stages:
            metrics.get("seconds", {}).pop(stage, None)
        self.write_metrics(metrics)

    def append_history(self, line: dict[str, Any]) -> None:
        """Adds a line to history.jsonl."""
        if not processes.is_first():
            return
        path = self.path / "history.jsonl"
        with atomic.errors(path, model_folder.ADVICE), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.after_history()

    def read_history(self) -> list[dict[str, Any]]:
        """Reads the lines of history.jsonl; [] where there is none."""
        path, lines = self.path / "history.jsonl", []
        for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            with suppress(json.JSONDecodeError):  # of a line in whose middle the run was killed
                lines.append(json.loads(text))
        return lines

    def drop_history(self, stage: str, after: int) -> None:
        """Removes the lines of a stage after a step; a resumed run writes them again."""
        if not processes.is_first() or not (self.path / "history.jsonl").is_file():
            return
        self._write_history(line for line in self.read_history() if line["stage"] != stage or line["step"] <= after)

    def drop_groups(self) -> None:
        """Removes head and tail from the lines of the history: those of another N_t."""
        lines = self.read_history()
        for line in lines:
            for group in ("head", "tail"):
                line.get("validation", {}).pop(group, None)
        self._write_history(lines)

    def _write_history(self, lines: Iterable[dict[str, Any]]) -> None:
        self._write("history.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    def _write(self, name: str, text: str) -> None:
        if processes.is_first():
            atomic.write_text(self.path / name, text, model_folder.ADVICE)


def files(folder: Path) -> list[Path]:
    """Lists the files of a run beside those of its model, as far as they exist."""
    names = ("config.toml", "data.json", "environment.json", "history.jsonl", "metrics.json", "texts.npy")
    parts = [folder / name for name in names] + [
        file for name in ("checkpoints", "start") for file in (folder / name).rglob("*")
    ]
    return [file for file in parts if file.is_file()]


def consecutive(stages: Sequence[StageName]) -> tuple[StageName, ...]:
    """Sorts stages; raises UserError where one between them is missing."""
    chosen = tuple(stage for stage in STAGES if stage in stages)
    first = STAGES.index(chosen[0]) if chosen else 0
    if not chosen or STAGES[first : first + len(chosen)] != chosen:
        raise UserError(f"--stages {' '.join(stages)}: expected one stage, or consecutive ones, of {', '.join(STAGES)}")
    return chosen


def free_folder(base: str) -> Path:
    """Returns `base`, or if it exists the first of `base`-2, `base`-3, ... that does not."""
    path, number = Path(base), 1
    while path.exists():
        number += 1
        path = Path(f"{base}-{number}")
    return path


def with_absolute_paths(config: Config) -> Config:
    """Makes paths absolute, so that the run's config.toml repeats it from any folder."""

    def absolute(path: str) -> str:
        return str(Path(path).expanduser().absolute())

    label_names = absolute(config.data.label_names) if config.data.label_names else ""
    pretrained = config.encoder.pretrained
    return config.model_copy(
        update={
            "data_dir": absolute(config.data_dir) if config.data_dir else "",
            "start": absolute(config.start) if config.start else "",
            "vectors": config.vectors if config.vectors in NAMED_VECTORS else absolute(config.vectors),
            "data": config.data.model_copy(update={"label_names": label_names}),
            "encoder": config.encoder.model_copy(
                update={"pretrained": pretrained if pretrained in NAMED_ENCODERS else absolute(pretrained)}
            ),
        }
    )


def check_can_start(folder: RunFolder, config: Config, stages: Sequence[StageName], resume: bool) -> None:
    """Raises UserError unless the folder is free or holds a run that these settings and stages may continue."""
    if not folder.config_file.is_file():
        if resume or stages[0] != STAGES[0]:
            raise UserError(f"{folder.path}: no run to continue in this folder (no config.toml)")
        check_free(folder)
        return
    if not resume and stages[0] == STAGES[0]:
        raise UserError(f"{folder.path}: holds another run; continue it with --resume, or choose another --output")
    fixed = [key for key in differences(folder.read_config(), config) if _is_fixed(folder, key, stages, resume)]
    if fixed:
        raise UserError(
            f"{folder.path}: the run in this folder has different settings ({', '.join(fixed)}); use the same, "
            "or choose another --output"
        )


def _is_finished(metrics: dict[str, Any]) -> bool:
    """Whether metrics.json has what a run measures last."""
    return "test" in metrics or ("kept" in metrics and not metrics["split"]["test"])


def check_free(folder: RunFolder) -> None:
    """Raises UserError where a folder has files of something else than a run."""
    if not (folder.config_file.is_file() or folder.is_free):
        raise UserError(f"{folder.path}: exists and is not a run folder; choose another --output")


def stage_of(key: str) -> StageName:
    """Returns the first stage that reads a setting, by its dotted key."""
    section = key.split(".")[0]
    stages: dict[str, StageName] = {"transfer": "transfer", "pvae": "transfer", "adjust": "adjustment"}
    return stages.get(section, STAGES[0])


def _is_fixed(folder: RunFolder, key: str, stages: Sequence[StageName], resume: bool) -> bool:
    """Whether a setting was used by a stage that is not run again from its start."""
    if key.split(".")[0] == "report":
        return False
    stage = stage_of(key)
    if key in ("adjust.cache_states", "adjust.encoder_dropout") and folder.read_config().encoder.train != "all":
        stage = STAGES[0]  # which trains on stored states, too
    restarts = stage in stages and not (resume and folder.checkpoints(stage).exists())
    return stage == STAGES[0] or not restarts


def how_to_resume(folder: RunFolder) -> str:
    """Returns how a run that was stopped continues, from what is in its folder."""
    if not folder.config_file.is_file():
        return "interrupted before there was anything to save"
    place = (
        "Continue from the last checkpoint" if folder.has_checkpoint() else "There is no checkpoint yet. Start again"
    )
    return f"interrupted. {place} with: {model_folder.resume_command(folder.path)}"


def drop_stages(folder: RunFolder, config: Config, stages: Sequence[StageName], resume: bool) -> None:
    """Removes from a run the results of stages that run again from their start, and of the stages after them."""
    if not processes.is_first() or not folder.config_file.is_file():
        return
    restarted = () if resume else STAGES[STAGES.index(stages[0]) :]
    for stage in restarted:
        shutil.rmtree(folder.checkpoints(stage), ignore_errors=True)
        folder.drop_history(stage, after=-1)
    if "adjustment" in restarted:
        states = [folder.token_states(split) for split in ENCODED_SPLITS]
        for path in (*states, *(folder.hidden_states(split) for split in HIDDEN_SPLITS)):
            path.unlink(missing_ok=True)
    # Another N_t changes head and tail, other constants change PSP, in the results of the first stage too.
    changed = differences(folder.read_config(), config)
    remeasure = any(key in changed for key in ("pvae.head_threshold", "report.propensity_a", "report.propensity_b"))
    if restarted or remeasure:
        folder.drop_metrics(restarted, remeasure)
    if "pvae.head_threshold" in changed:
        folder.drop_groups()


def branch(source: Path, target: Path, stages: Sequence[StageName]) -> None:
    """Creates a run folder with the results of the first stages of another, from which a later command goes on.

    The files of checkpoints are hard links: they are never changed, only replaced.

    Args:
        source: a run folder in which `stages` are complete.
        target: the new folder.
        stages: the first one, or the first two.

    Raises:
        UserError: the folder cannot be written.
    """
    with atomic.folder(target) as new:
        for name in ("config.toml", "data.json", "metrics.json", "history.jsonl"):
            shutil.copyfile(source / name, new / name)
        for name in ("linear", *stages):
            checkpoints = source / "checkpoints" / name
            if checkpoints.is_dir():
                shutil.copytree(checkpoints, new / "checkpoints" / name, copy_function=os.link)
        later = [stage for stage in STAGES if stage not in stages]
        folder = RunFolder(new)
        folder.drop_metrics(later, representation=False)
        for stage in later:
            folder.drop_history(stage, after=-1)


def _git_commit() -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
