"""Our collection of prototypes, autoencoder and adjustment."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Shape
from benchmarks.documents import random_rows
from benchmarks.harness.work import Work, per_item
from benchmarks.ours.model import Ours, make
from lsfa_jax.data.corpus import EncodedSplit, Split
from lsfa_jax.model import prototypes
from lsfa_jax.model.generators import Generator
from lsfa_jax.training.collection import FeaturesInMemory, collect_features
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.stages.adjustment import Adjustment, FrozenParams
from lsfa_jax.training.stages.transfer import Transfer, init_variables, make_pvae
from lsfa_jax.training.state import TrainState
from lsfa_jax.training.token_states import TokenStates
from lsfa_jax.util import sharding


def collection(shape: Shape, seed: int) -> Work:
    """Features and prototypes of a sample of documents, a document."""
    ours = make(shape, seed)
    mesh = sharding.make_mesh()
    rows = random_rows(ours.documents, shape.num_sampled, seed)
    batches = ours.batches(ours.split.take(rows))
    return per_item(len(rows), lambda: jax.block_until_ready(collect_features(ours.model, ours.params, batches, mesh)))


def pvae(shape: Shape, seed: int) -> Work:
    """Steps of the autoencoder on random features, a feature."""
    ours = make(shape, seed)
    config, model, mesh = ours.config, make_pvae(ours.config, ours.model.feature_size), sharding.make_mesh()
    random, number = np.random.default_rng(seed), 20 * config.pvae.batch_size
    features = random.random((number, model.feature_size), np.float32)
    pairs = FeaturesInMemory(features, random.integers(0, shape.num_labels, number).astype(np.int32))
    optimizer = make_optimizer(config.optimizer, config.pvae.learning_rate)
    stage = Transfer(model, config, pairs, optimizer, mesh, epochs=1)
    sums = prototypes.FeatureSums(
        jax.random.uniform(jax.random.key(1), (shape.num_labels, model.feature_size)),
        jnp.ones(shape.num_labels, jnp.int32),
        jnp.ones(shape.num_labels),
    )
    state = stage.init(jax.random.key(2), jax.random.key(seed), sums)
    return per_item(number, _epochs_of(stage, sharding.replicate(mesh, state)))


def adjustment(shape: Shape, seed: int) -> Work:
    """Steps of the last stage, which reads the frozen encoder's states, a document."""
    ours = make(shape, seed)
    config, model, mesh, number = ours.config, ours.model, sharding.make_mesh(), 2 * shape.batch_size
    rows = random_rows(ours.documents, number, seed)
    batches = ours.batches(_token_states(ours, ours.split.take(rows)))
    pvae = make_pvae(config, model.feature_size)
    frozen = FrozenParams(
        params={name: x for name, x in ours.params.items() if name != "classifier"},
        prototypes=jax.random.uniform(jax.random.key(1), (shape.num_labels, model.feature_size)),
        learned=init_variables(pvae, jax.random.key(seed)),
        key=jax.random.key(seed),
    )
    # The tail is thinned as the documents are, so that an epoch has its share of generated features.
    tail = np.arange(shape.num_labels // 5, shape.num_labels)[:: max(1, shape.num_documents // number)]
    optimizer = make_optimizer(config.optimizer, config.adjust.learning_rate)
    stage = Adjustment(model, config, batches, tail, frozen, Generator("pvae", pvae), optimizer, mesh)
    # Without a copy of the best weights: the plain peer keeps none.
    state = replace(stage.init(jax.random.key(0), ours.params["classifier"]), best=None)
    return per_item(number, _epochs_of(stage, sharding.replicate(mesh, state)))


def _epochs_of(stage: Stage, state: TrainState) -> Callable[[], None]:
    """Returns a function that trains a stage for an epoch, from where the call before it ended."""

    def run() -> None:
        nonlocal state
        for number, batch in enumerate(stage.batches(1, 0), 1):
            state = stage.step(state, batch, 1, number)
        jax.block_until_ready(state.params)

    return run


def _token_states(ours: Ours, split: Split) -> EncodedSplit:
    """Returns the split with token states in place of the words; their file exists as long as it is mapped."""
    with tempfile.TemporaryDirectory() as folder:
        states = TokenStates(Path(folder) / "states.npy", split, ours.model.encoder)
        with states.filling() as keep:
            batches, mesh = ours.batches(split), sharding.make_mesh()
            collect_features(ours.model, ours.params, batches, mesh, keep, states_dtype=states.dtype)
        return states.split()
