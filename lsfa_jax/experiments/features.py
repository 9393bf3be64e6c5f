"""Features of a head label and two tail labels, real and generated, in two dimensions (the paper's Figure 6)."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from sklearn.manifold import TSNE

from lsfa_jax.config import Config
from lsfa_jax.data.batches import Batches
from lsfa_jax.data.load import load_corpus
from lsfa_jax.experiments.execute import FirstStage
from lsfa_jax.model.augmentation import draw_features
from lsfa_jax.model.generators import Generator
from lsfa_jax.model.prototypes import FeatureSums, is_head, prototypes
from lsfa_jax.serving.predictor import lsfa_module
from lsfa_jax.training import loop, model_folder
from lsfa_jax.training.collection import FeaturesInMemory, LabelFeatures, collect_features
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.stages import transfer
from lsfa_jax.util import sharding
from lsfa_jax.util.random_streams import Stream, stream
from lsfa_jax.util.random_streams import key as random_key

# Points of a label at most, real or generated.
_POINTS = 60


class Drawn(NamedTuple):
    """What the picture of a variant shows."""

    labels: list[tuple[str, np.ndarray, np.ndarray]]
    """The name of each label, its real points float[N, 2] and its generated ones."""
    diagnostics: dict[str, float]
    """Of the generated features of all tail labels, as metrics.json has them."""


def draw(first_stage: FirstStage) -> Drawn:
    """Computes the features of all training documents with a trained encoder, and features that a PVAE generates.

    The PVAE is trained on them as stage 2 does, with the settings of the run of stage 1: a variant chooses those of
    stage 1, and `pvae.*` are the same for all, those of the preset or of --config.
    """
    config = RunFolder(first_stage.run).read_config()
    corpus, model = load_corpus(config), model_folder.read(first_stage.run)
    network, mesh = lsfa_module(model), sharding.make_mesh()
    params = sharding.replicate(mesh, model.params)
    buckets, shards = config.data.length_buckets, mesh.shape["data"]
    batches = Batches(corpus.train, corpus.num_labels, config.report.batch_size, buckets, shards)
    with tempfile.TemporaryDirectory() as folder:
        every_label = np.ones(corpus.num_labels, bool)
        pairs = LabelFeatures(Path(folder) / "features.npy", batches, every_label, network.feature_size)
        with pairs.filling() as keep:
            sums = collect_features(network, params, batches, mesh, keep)
        features, label_ids = np.array(pairs.open()), pairs.label_ids
    head = is_head(corpus.label_counts, config.pvae.head_threshold)
    generate, diagnostics = _trained(config, features, label_ids, sums, head)
    chosen = choose(corpus.label_counts, head)
    random = stream(Stream.EXPERIMENT_FEATURES, config.seed)
    real = [random.permutation(features[np.equal(label_ids, label)])[:_POINTS] for label in chosen]
    generated = [generate(label, len(points)) for label, points in zip(chosen, real, strict=True)]
    sizes = [len(points) for points in real]
    flat = np.concatenate([*real, *generated])
    points = TSNE(init="pca", perplexity=min(30, (len(flat) - 1) / 3), random_state=0).fit_transform(flat)
    parts = np.split(points, np.cumsum([*sizes, *sizes])[:-1])
    names = [f"{corpus.labels[label]} ({corpus.label_counts[label]:,})" for label in chosen]
    count = len(chosen)
    return Drawn(list(zip(names, parts[:count], parts[count:], strict=True)), diagnostics)


def _trained(
    config: Config, features: np.ndarray, label_ids: np.ndarray, sums: FeatureSums, head: np.ndarray
) -> tuple[Callable[[int, int], np.ndarray], dict[str, float]]:
    """Trains a PVAE as stage 2 does.

    Args:
        config: all settings.
        features: float32[P, D] of all positive pairs.
        label_ids: int32[P].
        sums: of the features of all labels.
        head: bool[L].

    Returns:
        The function that generates so many features of a label, and how they compare with the real ones of the tail.
    """
    pvae, mesh = transfer.make_pvae(config, features.shape[1]), sharding.make_mesh()
    of_head = FeaturesInMemory(features[head[label_ids]], label_ids[head[label_ids]])
    optimizer = make_optimizer(config.optimizer, config.pvae.learning_rate)
    stage = transfer.Transfer(pvae, config, of_head, optimizer, mesh, config.pvae.epochs)
    state = stage.init(random_key(Stream.TRANSFER, config.seed), random_key(Stream.PVAE, config.seed), sums)
    state = loop.run(stage, sharding.replicate(mesh, state))
    key = random_key(Stream.AUGMENTATION, config.seed)
    generator, centres = Generator("pvae", pvae), prototypes(state.extra["sums"])
    sample = generator(transfer.learned(state))

    def generate(label: int, number: int) -> np.ndarray:
        labels = jnp.full(number, label)
        return np.asarray(draw_features(sample, key, labels, jnp.arange(number), centres[labels]))

    tail = np.flatnonzero(~head & (np.bincount(label_ids, minlength=len(head)) > 0))
    return generate, transfer.diagnose(generator, state, tail, key)


def choose(label_counts: np.ndarray, head: np.ndarray) -> list[int]:
    """Chooses the least frequent head label and the two most frequent tail labels, which have points enough to see."""
    order = np.argsort(-label_counts, kind="stable")
    return [*order[head[order]][-1:].tolist(), *order[~head[order]][:2].tolist()]
