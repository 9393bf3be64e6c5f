"""Runs on the tiny corpus: started, interrupted, resumed and compared to the last bit."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from lsfa_jax.config import STAGES, Config, merged
from lsfa_jax.training import run
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.util import interrupts
from tests.reference.agreement import assert_equal


def train(
    folder: Path, config: Config | None = None, stages: Sequence[str] = STAGES, resume: bool = False, **sections: Any
) -> dict[str, Any]:
    """Runs stages with the given settings, by default those of the run in the folder, with some sections changed."""
    config = config or RunFolder(folder).read_config()
    return run.train(Config.model_validate(merged(config.model_dump(), sections)), folder, stages, resume)


def resume(folder: Path) -> dict[str, Any]:
    """Continues the run in the folder."""
    return train(folder, resume=True)


@contextmanager
def raised_at(call: int, error: BaseException) -> Iterator[None]:
    """Within it, one call of `interrupts.check` raises the error; no later one does."""
    calls = iter(range(1, call + 1))

    def check() -> None:
        if next(calls, None) == call:
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interrupts, "check", check)
        yield


def interrupt(folder: Path, call: int, *arguments: Any, **options: Any) -> None:
    """Trains until a signal comes at a call of `interrupts.check`; stages check before each step and each batch."""
    with raised_at(call, interrupts.Interrupted(15)), pytest.raises(interrupts.Interrupted):
        train(folder, *arguments, **options)


def last_state(folder: Path, stage: str) -> dict[str, Any] | None:
    """Returns the last checkpoint of a stage as NumPy arrays; None without one."""
    steps = [int(path.name) for path in (folder / "checkpoints" / stage).glob("*") if path.name.isdigit()]
    if not steps:
        return None
    checkpoint = folder / "checkpoints" / stage / str(max(steps))
    state = ocp.StandardCheckpointer().restore(checkpoint / "state")

    def to_numpy(x: Any) -> np.ndarray:
        return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    progress = next((checkpoint / "progress").iterdir()).read_text()
    return jax.tree.map(to_numpy, state) | {"progress": json.loads(progress)}


def last_params(folder: Path, stage: str) -> dict[str, Any]:
    """Returns the parameters that are kept of a completed stage."""
    state = last_state(folder, stage)
    assert state is not None
    kept: dict[str, Any] = state["params"] if state["best"] is None else state["best"]
    return kept


def history(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of history.jsonl without times."""
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.endswith(("/s", "_wait", "time"))} for line in lines
    ]


def metrics(folder: Path) -> dict[str, Any]:
    """Returns the content of metrics.json without times."""
    content = json.loads((folder / "metrics.json").read_text())
    assert set(content.pop("seconds")) == set(STAGES)
    return content


def assert_same_run(actual: Path, expected: Path) -> None:
    """Asserts equal weights, metrics and history, to the last bit."""
    for stage in STAGES:
        a, b = last_state(actual, stage), last_state(expected, stage)
        assert a is not None
        assert b is not None
        assert a.pop("progress") == b.pop("progress")
        assert_equal(a, b)
    assert history(actual) == history(expected)
    assert metrics(actual) == metrics(expected)


def without_stages(run_folder: Path, folder: Path, stages: Sequence[str]) -> Path:
    """Copies a run and removes the given last stages from it, as if they had not begun."""
    shutil.copytree(run_folder, folder)
    for stage in stages:
        shutil.rmtree(folder / "checkpoints" / stage)
    lines = (folder / "history.jsonl").read_text().splitlines()
    (folder / "history.jsonl").write_text(
        "".join(line + "\n" for line in lines if json.loads(line)["stage"] not in stages)
    )
    content = json.loads((folder / "metrics.json").read_text())
    content["stages"] = {"representation": content["stages"]["representation"]}
    if "transfer" in stages:
        del content["pvae"]
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


def files(folder: Path) -> Mapping[Path, bytes]:
    """Returns the content of every file in a folder but the lock, which every run leaves."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
