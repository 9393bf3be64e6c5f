"""The models that are served, by name. A model whose folder changes is read again, and replaced when it is ready."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from lsfa_jax.serving.predictor import Predictor
from lsfa_jax.serving.selection import TOP
from lsfa_jax.training import model_folder
from lsfa_jax.training.model_folder import TrainedModel
from lsfa_jax.util.console import UserError

TOPS = (TOP, 100, 1000)
"""Numbers of labels of compiled programs; a request gets the first labels of the next larger one."""

_Version = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Served:
    """A model on the devices."""

    name: str
    version: _Version | None
    predictor: Predictor

    @property
    def model(self) -> TrainedModel:
        """The model in host memory."""
        return self.predictor.model


@dataclass(frozen=True)
class Task:
    """What is computed of texts; texts with the same task share batches."""

    served: Served
    explains: bool
    top: int
    """One of `TOPS`."""

    @classmethod
    def of(cls, served: Served, explains: bool, top: int) -> "Task":
        """Returns the task with at least `top` labels a text."""
        return cls(served, explains, next(most for most in TOPS if most >= top))

    def __call__(self, texts: list[str]) -> list[Any]:
        """Returns a `Prediction` or an `Explanation` of each text."""
        predictor = self.served.predictor
        return list((predictor.explain if self.explains else predictor.predict)(texts, self.top))


class Models:
    """The models by name; the first is the default. Requests that have begun keep the model that they began with."""

    def __init__(self, folders: Mapping[str, Path], batch_size: int | None = None, warm_up: bool = True) -> None:
        """Reads all models.

        Args:
            folders: model folders by name.
            batch_size: texts computed at a time; by default each run's `report.batch_size`.
            warm_up: whether programs are compiled before a model is used.

        Raises:
            UserError: a folder holds no model, or a damaged one.
        """
        self._folders = dict(folders)
        self._batch_size, self._warm_up = batch_size, warm_up
        self._lock = Lock()
        self.problems: dict[str, str] = {}
        """Why the newest version of a model could not be read; the one before is still served."""
        self._refused: dict[str, _Version | None] = {}
        self._served = {name: self._read(name) for name in self._folders}

    @property
    def names(self) -> list[str]:
        """The names, the default first."""
        return list(self._folders)

    def __getitem__(self, name: str) -> Served:
        """Returns the model of a name, "" for the default; raises KeyError where there is none."""
        return self._served[name or self.names[0]]

    def changed(self) -> list[str]:
        """Lists the models whose folder has another version than the one that is served or was refused."""
        versions = {name: _version(folder) for name, folder in self._folders.items()}
        return [
            name
            for name, version in versions.items()
            # While a folder is written, it has no version.
            if version not in (None, self._served[name].version, self._refused.get(name))
        ]

    def reload(self, name: str) -> bool:
        """Reads a model again and replaces the one that is served; returns whether the new one could be read."""
        with self._lock:
            version = _version(self._folders[name])
            try:
                self._served[name] = self._read(name)
            except Exception as error:  # whatever it is, such as a full device: the model before is still served
                self.problems[name] = str(error) if isinstance(error, UserError) else type(error).__name__
                self._refused[name] = version
                return False
            self.problems.pop(name, None)
            self._refused.pop(name, None)
            return True

    def _read(self, name: str) -> Served:
        folder = self._folders[name]
        version = _version(folder)  # before the files: a change while they are read is noticed later
        predictor = Predictor(model_folder.read(folder), self._batch_size)
        if self._warm_up:
            predictor.warm_up(TOPS[0])
        return Served(name, version, predictor)


def _version(folder: Path) -> _Version | None:
    """Returns what identifies the state of a model folder, whose manifest is written last; None without one."""
    try:
        about = model_folder.paths(folder)[0].stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_ino, about.st_size
