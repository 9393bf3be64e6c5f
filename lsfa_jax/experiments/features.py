"""Features of a head label and two tail labels, real and generated, in two dimensions (the paper's Figure 6)."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.manifold import TSNE

from lsfa_jax.data.batches import Batches
from lsfa_jax.data.load import load_corpus
from lsfa_jax.experiments.execute import Encoder
from lsfa_jax.model.prototypes import is_head
from lsfa_jax.serving.predictor import lsfa_module
from lsfa_jax.sklearn.feature_augmenter import FeatureAugmenter
from lsfa_jax.training import model_folder
from lsfa_jax.training.collection import LabelFeatures, collect_features
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.util import sharding
from lsfa_jax.util.random_streams import Stream, stream

# Points of a label at most, real or generated.
_POINTS = 60


class Drawn(NamedTuple):
    """What the picture of a variant shows."""

    labels: list[tuple[str, np.ndarray, np.ndarray]]
    """The name of each label, its real points float[N, 2] and its generated ones."""
    diagnostics: dict[str, float]
    """Of the generated features of all tail labels, as metrics.json has them."""


def draw(encoder: Encoder) -> Drawn:
    """Computes the features of all training documents with a trained encoder, and features that a PVAE generates.

    The PVAE is trained on them as stage 2 does, with the settings of the run of stage 1: a variant chooses those of
    stage 1, and `pvae.*` are the same for all, those of the preset or of --config.
    """
    config = RunFolder(encoder.run).read_config()
    corpus, model = load_corpus(config), model_folder.read(encoder.run)
    network, mesh = lsfa_module(model), sharding.make_mesh()
    params = sharding.replicate(mesh, model.params)
    buckets, shards = config.data.length_buckets, mesh.shape["data"]
    batches = Batches(corpus.train, corpus.num_labels, config.report.batch_size, buckets, shards)
    with tempfile.TemporaryDirectory() as folder:
        every_label = np.ones(corpus.num_labels, bool)
        pairs = LabelFeatures(Path(folder) / "features.npy", batches, every_label, network.feature_size)
        with pairs.filling() as keep:
            collect_features(network, params, batches, mesh, keep)
        features, label_ids = np.array(pairs.open()), pairs.label_ids
    settings = config.pvae
    augmenter = FeatureAugmenter(
        head_threshold=settings.head_threshold,
        hidden_size=settings.hidden_size,
        latent_size=settings.latent_size,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        random_state=config.seed,
    ).fit(features, label_ids)
    chosen = choose(corpus.label_counts, settings.head_threshold)
    random = stream(Stream.EXPERIMENT_FEATURES, config.seed)
    real = [random.permutation(features[np.equal(label_ids, label)])[:_POINTS] for label in chosen]
    generated = [augmenter.sample([label], len(points))[0] for label, points in zip(chosen, real, strict=True)]
    sizes = [len(points) for points in real]
    flat = np.concatenate([*real, *generated])
    points = TSNE(init="pca", perplexity=min(30, (len(flat) - 1) / 3), random_state=0).fit_transform(flat)
    parts = np.split(points, np.cumsum([*sizes, *sizes])[:-1])
    names = [f"{corpus.labels[label]} ({corpus.label_counts[label]:,})" for label in chosen]
    count = len(chosen)
    return Drawn(list(zip(names, parts[:count], parts[count:], strict=True)), augmenter.diagnostics_)


def choose(label_counts: np.ndarray, head_threshold: int) -> list[int]:
    """Chooses the least frequent head label and the two most frequent tail labels, which have points enough to see."""
    head = is_head(label_counts, head_threshold)
    order = np.argsort(-label_counts, kind="stable")
    return [*order[head[order]][-1:].tolist(), *order[~head[order]][:2].tolist()]
