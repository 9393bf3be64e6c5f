"""A few dozen documents and a model of a few units: tests with them spend their time compiling."""

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from lsfa_jax.config import Config, layered, merged
from lsfa_jax.data import build_corpus, corpus, vocabulary
from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.model import lsfa
from lsfa_jax.model.encoders import EncoderShape
from lsfa_jax.sparse import linear
from lsfa_jax.sparse.fusion import Fusion
from lsfa_jax.training.model_folder import TrainedModel
from lsfa_jax.training.stages.adjustment import Adjustment
from lsfa_jax.training.stages.representation import Representation
from lsfa_jax.training.stages.transfer import Transfer
from lsfa_jax.training.state import TrainState
from lsfa_jax.util import sharding
from tests.reference import encoder as reference_encoder

NUM_LABELS = 8
SIZES = {"train": 36, "test": 12, "validation": 12}

# Corpora that fill 16 words and a vocabulary of 40 share the compiled programs of this one.
TINY: dict[str, Any] = {
    "dataset": "custom",
    "vectors": "none",
    # A linear model would take as long as the rest; the tests of the linear side ask for one.
    "linear": "none",
    "data": {"max_words": 16, "max_vocabulary": 40, "length_buckets": (16,)},
    "encoder": {"embedding_size": 3, "hidden_size": 4, "feature_size": 5},
    "optimizer": {"batch_size": 8, "learning_rate": 0.2, "swa_start_epoch": 2, "swa_every": 2},
    "psc": {"start_epoch": 2},
    "representation": {"epochs": 3},
    "pvae": {"head_threshold": 13, "hidden_size": 6, "latent_size": 2, "epochs": 2, "batch_size": 16},
    "adjust": {"num_augmented": 3, "epochs": 2, "learning_rate": 0.05},
    "report": {"batch_size": 8},
}


def documents(validation: int = SIZES["validation"]) -> dict[str, list[Document]]:
    """Returns the documents of the three splits: eight words about their labels among words of no label.

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

    # Validation comes last: the other splits are the same, however large it is.
    return {name: [document() for _ in range(size)] for name, size in (SIZES | {"validation": validation}).items()}


def write(folder: Path, splits: dict[str, list[Document]] | None = None) -> Path:
    """Writes splits as files for --data-dir."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (documents() if splits is None else splits).items():
        lines = (json.dumps({"labels": row.labels, "text": row.text}) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder


def config(**sections: Any) -> Config:
    """Returns the tiny settings, with some sections changed."""
    return Config.model_validate(merged(TINY, sections))


def run_config(data: Path, profile: str = "paper", **sections: Any) -> Config:
    """Returns the settings of bin/train for a folder of documents with the tiny sizes, with some sections changed."""
    sized = merged(layered("custom", "full", profile), TINY)
    return Config.model_validate(merged(sized, {"data_dir": str(data), "profile": profile, **sections}))


def arguments(data: Path, output: Path, *more: object) -> list[str]:
    """Returns the tiny settings as the arguments of bin/train."""
    line = ["--data-dir", str(data), "--output", str(output)]
    for section, values in TINY.items():
        if isinstance(values, dict):
            for key, value in values.items():
                shown = value if isinstance(value, tuple) else (value,)
                line += [f"--{section}.{key.replace('_', '-')}", *map(str, shown)]
    return [*line, "--vectors", "none", "--linear", "none", *map(str, more)]


def build() -> corpus.Corpus:
    """Returns the documents as a corpus."""
    return build_corpus.build(
        "tiny", **documents(), max_words=16, max_vocabulary=40, validation_fraction=0.0, seed=0
    )  # fmt: skip


def batches(split: corpus.Split, size: int = 8, devices: int = 1) -> Batches:
    """Returns the batches of a split, padded to 16 words."""
    return Batches(split, NUM_LABELS, size, [16], devices)


def make_model(settings: Config, vocabulary_size: int = 42, num_labels: int = NUM_LABELS) -> lsfa.Lsfa:
    """Returns the classifier that the settings describe."""
    return lsfa.make_model(settings, EncoderShape(vocabulary_size, settings.encoder.embedding_size), num_labels)


def init_params(model: lsfa.Lsfa, seed: int = 0) -> Any:
    """Returns random parameters, none of which is zero."""
    words, lengths = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), words, lengths)["params"]
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.7 * random.normal(size=x.shape), jnp.float32), shapes)


def trained_model(
    words: list[str], labels: list[str], length_buckets: tuple[int, ...], threshold: float, encoder: str = "bilstm"
) -> TrainedModel:
    """Returns a model for some words and labels, with its initial parameters."""
    settings = config(data={"length_buckets": length_buckets}, encoder={"kind": encoder})
    model = make_model(settings, vocabulary.NUM_SPECIAL + len(words), len(labels))
    return TrainedModel(
        config=settings,
        words=words,
        labels=labels,
        label_counts=np.ones(len(labels), np.int64),
        num_documents=10,
        threshold=threshold,
        params=jax.tree.map(np.asarray, init_params(model)),
    )


def fused_model(model: TrainedModel, kind: linear.Kind) -> TrainedModel:
    """Returns the model fused with a linear one, for which the words, in turn, are each about a label."""
    num_labels, num_words = len(model.labels), len(model.words)
    label_ids = np.arange(2 * num_labels) % num_labels
    bags = csr_matrix(np.eye(num_words, dtype=np.int32)[label_ids % num_words])
    trained = linear.train(kind, [bags], model.words, Ragged.from_rows(label_ids[:, None]), num_labels)
    random = np.random.default_rng(1)
    weights = [random.uniform(0.2, 1, num_labels), random.uniform(0.2, 1, num_labels), random.normal(size=num_labels)]
    return replace(model, linear=trained, fusion=Fusion(*(values.astype(np.float32) for values in weights)))


def compile_into(folder: Path) -> dict[str, str]:
    """Keeps compiled programs in a folder; returns the environment variables with which other processes share them."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_NUM_CPU_DEVICES": "4",
    }


@contextmanager
def one_device() -> Iterator[None]:
    """Within it, runs use the first device alone."""
    make_mesh, first = sharding.make_mesh, jax.local_devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", lambda devices=first, **options: make_mesh(devices, **options))
        yield


@contextmanager
def shared_steps() -> Iterator[None]:
    """Within it, stages with the same model and settings share one compiled step.

    The persistent compilation cache saves XLA's part; tracing and lowering the steps in each of dozens of runs would
    still take most of the time of the tests.
    """
    compiled: dict[Hashable, Callable[..., TrainState]] = {}

    def share(stage: type[Representation | Transfer | Adjustment]) -> None:
        init = stage.__init__

        def init_and_share(self: Any, model: Any, config: Config, *rest: Any, **options: Any) -> None:
            init(self, model, config, *rest, **options)
            # The optimiser and the decoder follow from the settings.
            key = (stage, model, config.model_copy(update={"data_dir": "", "dataset": "", "seed": 0}))
            self._step = compiled.setdefault(key, self._step)

        patch.setattr(stage, "__init__", init_and_share)

    with pytest.MonkeyPatch.context() as patch:
        for stage in (Representation, Transfer, Adjustment):
            share(stage)
        yield


def reference_states(params: dict[str, Any], words: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Computes Eq. 1 in NumPy, float64[B, T, 2H], with the parameters of the classifier in float64."""
    encoder = params["encoder"]
    return reference_encoder.bilstm(encoder, encoder["embedding"][words], lengths)


def reference_features(
    params: dict[str, Any], words: np.ndarray, lengths: Sequence[int], label_ids: Sequence[int] | None = None
) -> np.ndarray:
    """Computes Eq. 1-4 in NumPy, float64[B, L, D] for all labels, or for `label_ids` in place of all L."""
    queries = params["labels"]["queries"]
    queries = queries if label_ids is None else queries[np.asarray(label_ids)]
    states = reference_states(params, words, lengths)
    return reference_encoder.label_features(states, lengths, queries, params["labels"]["head"])


def label_sets(batch: Batch) -> list[set[int] | None]:
    """Returns the labels of each row of a batch; None at padding rows."""
    rows = zip(*map(np.asarray, (batch.label_ids, batch.label_mask, batch.document_mask)), strict=True)
    return [set(label_ids[mask].tolist()) if real else None for label_ids, mask, real in rows]


def rows(tree: Any) -> Iterable[tuple[str, Any]]:
    """Lists the arrays of a tree with their paths."""
    return ((jax.tree_util.keystr(path), value) for path, value in jax.tree_util.tree_leaves_with_path(tree))
