"""What a run starts from: its stages, its folder, what is there already and what of it is dropped."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from lsfa_jax.config import STAGES, Config, Stage, differences
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.util.console import UserError

# The settings that no stage before this one looks at.
_OWN_SECTIONS = {"transfer": ("pvae",), "adjustment": ("adjust",)}

# The splits that the adjustment reads again and again.
KEPT_SPLITS = ("train", "validation")


def with_absolute_paths(config: Config) -> Config:
    """Makes paths absolute, so that the run's config.toml repeats it from any folder."""

    def absolute(path: str) -> str:
        return str(Path(path).expanduser().absolute())

    named = config.vectors in ("none", "glove-50d")
    return config.model_copy(
        update={
            "data_dir": absolute(config.data_dir) if config.data_dir else "",
            "vectors": config.vectors if named else absolute(config.vectors),
        }
    )


def consecutive(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Puts stages in their order; raises UserError where one between them is missing."""
    chosen = tuple(stage for stage in STAGES if stage in stages)
    first = STAGES.index(chosen[0]) if chosen else 0
    if not chosen or STAGES[first : first + len(chosen)] != chosen:
        raise UserError(f"--stages {' '.join(stages)}: expected one or more neighbours of {', '.join(STAGES)}")
    return chosen


def claim(folder: RunFolder, config: Config, stages: Sequence[Stage], resume: bool) -> None:
    """Makes sure that the run folder is free, or holds a run that the arguments may go on with."""
    if not folder.config_file.is_file():
        if resume or stages[0] != STAGES[0]:
            raise UserError(f"{folder.path}: no run here to go on with (no config.toml)")
        if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
            raise UserError(f"{folder.path}: exists and is not a run folder; choose another --output")
        return
    if not resume and stages[0] == STAGES[0]:
        raise UserError(f"{folder.path}: holds another run; go on with it by --resume, or choose another --output")
    changed = differences(folder.read_config(), config)
    fixed = []
    for key in changed:
        section = key.split(".")[0]
        if section == "report":
            continue
        stage = next((name for name, own in _OWN_SECTIONS.items() if section in own), STAGES[0])
        # A stage that starts anew may have new settings of its own.
        anew = stage in stages and not (resume and folder.checkpoints(stage).exists())
        if stage == STAGES[0] or not anew:
            fixed.append(key)
    if fixed:
        raise UserError(
            f"{folder.path}: the run there has other settings ({', '.join(fixed)}); leave them as they are, "
            "or choose another --output"
        )


def forget(folder: RunFolder, config: Config, stages: Sequence[Stage], resume: bool) -> None:
    """Drops from a run what its stages that start anew had given."""
    if not folder.config_file.is_file():
        return
    anew = () if resume else STAGES[STAGES.index(stages[0]) :]
    for stage in anew:
        shutil.rmtree(folder.checkpoints(stage), ignore_errors=True)
        folder.forget_history(stage, -1)
    if "adjustment" in anew:
        for split in KEPT_SPLITS:
            folder.token_states(split).unlink(missing_ok=True)
    # Another N_t makes other labels head and tail, other constants another PSP, in the results of the first stage too.
    changed = differences(folder.read_config(), config)
    measured_anew = any(key in changed for key in ("pvae.head_threshold", "report.propensity_a", "report.propensity_b"))
    if anew or measured_anew:
        folder.forget_metrics(anew, measured_anew)
