"""What is checked before a run reads documents or changes its folder."""

from importlib.metadata import version
from pathlib import Path

import jax

import lsfa_jax
from lsfa_jax.config import NAMED_ENCODERS, NAMED_VECTORS, Config
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.util import processes
from lsfa_jax.util.console import UserError, note, warn


def check_processes(config: Config) -> None:
    """Raises UserError where settings are for one process alone."""
    if processes.count() == 1:
        return
    if config.adjust.cache_states == "yes":
        raise UserError("--adjust.cache-states yes: not with several processes; leave it out")
    if config.adjust.cache_states == "auto" and not config.adjust.encoder_dropout:
        note("Several processes keep no token states on disk: the encoder runs in every epoch")


def versions() -> dict[str, str]:
    """Returns what has to be the same in all processes beside the settings."""
    # The package may be imported from a folder without being installed: then it has no metadata.
    packages = {name: version(name) for name in ("jax", "jaxlib", "orbax-checkpoint")}
    numbers = {"lsfa_jax": lsfa_jax.__version__} | packages
    return {f"version of {name}": number for name, number in numbers.items()} | {
        "number of devices": str(jax.local_device_count())
    }


def check_places(config: Config) -> None:
    """Raises UserError if the files of a run that continues are no longer where they were."""
    vectors = "" if config.vectors in NAMED_VECTORS else config.vectors
    # The encoder of a run that starts from a model is in the run folder.
    pretrained = "" if config.start or config.encoder.pretrained in NAMED_ENCODERS else config.encoder.pretrained
    places = {
        "--data-dir": config.data_dir,
        "--data.label-names": config.data.label_names,
        "--vectors": vectors,
        "--encoder": pretrained,
    }
    for option, place in places.items():
        if place and not Path(place).exists():
            raise UserError(f"{place}: there is no such file or folder; if it was moved, name its place with {option}")


def check_documents(corpus: Corpus) -> None:
    """Warns, or raises UserError, if no documents are held out."""
    train, held_out = len(corpus.train), len(corpus.validation) + len(corpus.test)
    sizes = f"{train:,} training, {len(corpus.validation):,} validation and {len(corpus.test):,} test documents"
    if train < 2 and not held_out:
        raise UserError(f"{corpus.name}: {sizes}; nothing can be learned from one document: give more of them")
    if not len(corpus.test):
        missing = "the final model cannot be measured" if held_out else "no result can be measured"
        warn(f"{sizes}: {missing}; give a test file, or raise --data.test-fraction")
