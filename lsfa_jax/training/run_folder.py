"""The run folder: what `bin/train --output DIR` writes beside the checkpoints."""

import json
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from lsfa_jax.config import Config, read_toml, to_toml, validated
from lsfa_jax.training import model_folder
from lsfa_jax.util import atomic
from lsfa_jax.util.console import UserError

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunFolder:
    """Files of one run; each is whole or not there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config_file(self) -> Path:
        """The resolved settings; its presence says that the folder holds a run."""
        return self.path / "config.toml"

    def checkpoints(self, stage: str) -> Path:
        """Where a stage's checkpoints are."""
        return self.path / "checkpoints" / stage

    def token_states(self, split: str) -> Path:
        """Where a split's token states are, while the third stage needs them."""
        return self.path / "checkpoints" / f"{split}-states.npy"

    def check_corpus(self, words: list[str], labels: list[str]) -> None:
        """Raises UserError where the folder holds a run on other words or labels."""
        for name, text in model_folder.text_files(words, labels).items():
            path = self.path / name
            if path.is_file() and path.read_text(encoding="utf-8") != text:
                raise UserError(
                    f"{path}: the corpus has another {name} than this run was trained on; bring back its documents, or "
                    "choose another --output"
                )

    def create(self, config: Config, words: list[str], labels: list[str]) -> None:
        """Writes settings, environment, vocabulary and labels; a model there is none any more until it is written anew.

        Raises:
            UserError: the folder cannot be written.
        """
        environment = {
            "python": platform.python_version(),
            "packages": {name: version(name) for name in _PACKAGES},
            "devices": [f"{device.platform}: {device.device_kind}" for device in jax.local_devices()],
            "machine": platform.platform(),
            "git_commit": _git_commit(),
            "seed": config.seed,
        }
        model_folder.forget(self.path)
        # The settings first: a run killed from here on can be gone on with.
        self._write("config.toml", to_toml(config))
        for name, text in model_folder.text_files(words, labels).items():
            self._write(name, text)
        self._write("environment.json", json.dumps(environment, indent=2) + "\n")

    def read_config(self) -> Config:
        """Reads the settings of the run that the folder holds."""
        return validated(read_toml(self.config_file), str(self.config_file))

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Writes metrics.json."""
        self._write("metrics.json", json.dumps(metrics, indent=2) + "\n")

    def read_metrics(self) -> dict[str, Any]:
        """Reads metrics.json; {} where there is none."""
        path = self.path / "metrics.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def forget_metrics(self, stages: Sequence[str], representation: bool) -> None:
        """Drops from metrics.json what the given stages gave, and if asked the first stage's results."""
        metrics = self.read_metrics()
        metrics.pop("test", None)
        if "transfer" in stages:
            metrics.pop("pvae", None)
        for name in ("adjusted", "representation") if representation else ("adjusted",):
            metrics.get("stages", {}).pop(name, None)
        for stage in stages:
            metrics.get("seconds", {}).pop(stage, None)
        self.write_metrics(metrics)

    def append_history(self, line: dict[str, Any]) -> None:
        """Adds a line to history.jsonl."""
        path = self.path / "history.jsonl"
        with atomic.errors(path, model_folder.ADVICE), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def forget_history(self, stage: str, step: int) -> None:
        """Drops the lines of a stage beyond a step, which a resumed run writes again."""
        path = self.path / "history.jsonl"
        if not path.is_file():
            return
        kept = []
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:  # a kill in mid-line
                continue
            if line["stage"] != stage or line["step"] <= step:
                kept.append(json.dumps(line) + "\n")
        self._write("history.jsonl", "".join(kept))

    def _write(self, name: str, text: str) -> None:
        atomic.write_text(self.path / name, text, model_folder.ADVICE)


def _git_commit() -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
