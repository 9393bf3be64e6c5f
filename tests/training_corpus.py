"""A few dozen documents and a model of a few units: what is tested with them takes its time from compilation alone."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax.config import Config, merged
from lsfa_jax.data import build_corpus, corpus
from lsfa_jax.data.batches import Batches
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.model import lsfa
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.training.stages import adjustment, representation, transfer
from lsfa_jax.util import sharding

NUM_LABELS = 8
SIZES = {"train": 36, "test": 12, "validation": 12}

# Every corpus that fills 16 words and a vocabulary of 40 shares the compiled programs of this one.
TINY: dict[str, Any] = {
    "dataset": "custom",
    "vectors": "none",
    "data": {"max_words": 16, "max_vocabulary": 40, "length_buckets": (16,)},
    "encoder": {"embedding_size": 3, "hidden_size": 4, "feature_size": 5},
    "optimizer": {"batch_size": 8, "learning_rate": 0.2, "swa_start_epoch": 2, "swa_every": 2},
    "psc": {"start_epoch": 2},
    "representation": {"epochs": 3},
    "pvae": {"head_threshold": 13, "hidden_size": 6, "latent_size": 2, "epochs": 2, "batch_size": 16},
    "adjust": {"num_augmented": 3, "epochs": 2, "learning_rate": 0.05},
    "report": {"batch_size": 8},
}


def documents() -> dict[str, list[Document]]:
    """The documents of the three splits: a few words about each label, the others about nothing.

    In training the labels have 32, 17, 13, 8, 7, 4, 4 and 1 documents.
    """
    random = np.random.default_rng(2)
    share = 0.8 / np.arange(1, NUM_LABELS + 1)

    def document() -> Document:
        labels = np.flatnonzero(random.random(NUM_LABELS) < share)
        labels = labels if len(labels) else np.array([1])
        about = [f"about{random.choice(labels)}w{random.integers(2)}" for _ in range(8)]
        words = [*about, *(f"common{random.integers(40)}" for _ in range(random.integers(2, 12)))]
        return Document(" ".join(random.permutation(words)), tuple(f"label{label}" for label in labels))

    return {name: [document() for _ in range(size)] for name, size in SIZES.items()}


def write(folder: Path, splits: dict[str, list[Document]] | None = None) -> Path:
    """Writes splits as files for --data-dir."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (documents() if splits is None else splits).items():
        lines = (json.dumps({"labels": row.labels, "text": row.text}) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder


def config(**sections: Any) -> Config:
    """The tiny settings, with the given sections put over them."""
    return Config.model_validate(merged(TINY, sections))


def arguments(data: Path, output: Path, *more: object) -> list[str]:
    """The tiny settings as a command line."""
    line = ["--data-dir", str(data), "--output", str(output)]
    for section, values in TINY.items():
        if isinstance(values, dict):
            for key, value in values.items():
                shown = value if isinstance(value, tuple) else (value,)
                line += [f"--{section}.{key.replace('_', '-')}", *map(str, shown)]
    return [*line, "--vectors", "none", *map(str, more)]


def build() -> corpus.Corpus:
    """The documents as a corpus."""
    return build_corpus.build(
        "tiny", **documents(), max_words=16, max_vocabulary=40, validation_fraction=0.0, seed=0
    )  # fmt: skip


def batches(split: corpus.Split, size: int = 8, devices: int = 1) -> Batches:
    """The batches of a split, padded to 16 words."""
    return Batches(split, NUM_LABELS, size, [16], devices)


def make_model(settings: Config, vocabulary_size: int = 42) -> Lsfa:
    """Returns the classifier that the settings describe."""
    return lsfa.make_model(settings, vocabulary_size, settings.encoder.embedding_size, NUM_LABELS)


def init_params(model: Lsfa, seed: int = 0) -> Any:
    """Parameters of which none is zero."""
    words, lengths = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), words, lengths)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        tree, [0.7 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)]
    )


def compile_into(folder: Path) -> dict[str, str]:
    """Keeps compiled programs in a folder; returns the environment variables with which other processes share them."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_NUM_CPU_DEVICES": "4",
    }


@contextmanager
def compiled_fast() -> Iterator[None]:
    """Within it, runs take one device and hasty compilation: for programs that no other test needs.

    What was compiled in haste rounds otherwise, so afterwards all programs are made, or read, anew.
    """
    one = sharding.make_mesh(jax.local_devices()[:1])
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sharding, "make_mesh", lambda: one)
            yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
        jax.clear_caches()


@contextmanager
def shared_steps() -> Iterator[None]:
    """Within it, runs with the same settings trace and compile their steps once."""

    def once(module: Any, name: str, key: Callable[..., Any]) -> None:
        make, made = getattr(module, name), {}

        def cached(*parts: Any) -> Any:
            found = key(*parts)
            if found not in made:
                made[found] = make(*parts)
            return made[found]

        patch.setattr(module, name, cached)

    def settings(model: Any, settings: Config, *others: Any) -> Any:
        # The optimiser and the decoder follow from the settings.
        return model, settings.model_copy(update={"data_dir": "", "dataset": ""})

    with pytest.MonkeyPatch.context() as patch:
        once(representation, "make_step", settings)
        once(transfer, "make_step", settings)
        once(adjustment, "make_step", settings)
        once(transfer, "make_collector", lambda model: model)
        yield


def rows(tree: Any) -> Iterable[tuple[str, Any]]:
    """Lists the arrays of a tree with their paths."""
    return ((jax.tree_util.keystr(path), value) for path, value in jax.tree_util.tree_leaves_with_path(tree))
