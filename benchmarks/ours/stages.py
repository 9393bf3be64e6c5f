"""Our collection of prototypes, autoencoder and adjustment."""

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Shape
from benchmarks.documents import random_rows
from benchmarks.harness.work import Work, per_item
from benchmarks.ours.model import Ours, make
from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.model import prototypes
from lsfa_jax.model.lsfa import CLASSIFIER
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.stages import adjustment as adjustment_stage
from lsfa_jax.training.stages import transfer
from lsfa_jax.training.state import init_state
from lsfa_jax.training.token_states import TokenStates
from lsfa_jax.util import sharding


def collection(shape: Shape, seed: int) -> Work:
    """Features and prototypes of a sample of documents, a document."""
    ours = make(shape, seed)
    mesh = sharding.make_mesh()
    rows = random_rows(ours.documents, shape.num_sampled, seed)
    batches = ours.batches(ours.split.take(rows))
    collect = transfer.make_collector(ours.model)

    def run() -> None:
        sums = transfer.collect_features(collect, ours.params, batches, ours.model.feature_size, mesh)
        jax.block_until_ready(sums)

    return per_item(len(rows), run)


def pvae(shape: Shape, seed: int) -> Work:
    """Steps of the autoencoder on random features, a feature."""
    ours = make(shape, seed)
    config, size = ours.config, ours.config.pvae.batch_size
    model = transfer.make_pvae(config, ours.model.feature_size)
    params, statistics = transfer.init_variables(model, jax.random.key(seed))
    optimizer = make_optimizer(config.optimizer, config.pvae.learning_rate)
    sums = prototypes.FeatureSums(
        jax.random.uniform(jax.random.key(1), (shape.num_labels, model.feature_size)),
        jnp.ones(shape.num_labels, jnp.int32),
        jnp.ones(shape.num_labels),
    )
    extra = {"batch_stats": statistics, "sums": sums}
    mesh = sharding.make_mesh()
    state = sharding.on_every_device(mesh, init_state(jax.random.key(2), params, optimizer, extra, validated=False))
    random = np.random.default_rng(seed)
    number = 20 * size
    features = random.random((number, model.feature_size), np.float32)
    pairs = transfer.PairsInMemory(features, random.integers(0, shape.num_labels, number).astype(np.int32))
    stage = transfer.make_stage(model, config, pairs, optimizer, mesh, epochs=1)
    return per_item(number, _epochs_of(stage, state))


def adjustment(shape: Shape, seed: int) -> Work:
    """Steps of the last stage, which reads the frozen encoder's states, a document."""
    ours = make(shape, seed)
    number = 2 * shape.batch_size
    return per_item(number, _epochs_of(*_adjustment_stage(ours, seed, number)))


def _epochs_of(stage: Any, state: Any) -> Any:
    """Returns a function that trains a stage for an epoch, from where the call before it ended."""

    def run() -> None:
        nonlocal state
        for number, batch in enumerate(stage.batches(1, 0), 1):
            state = stage.step(state, batch, 1, number)
        jax.block_until_ready(state.params)

    return run


def _adjustment_stage(ours: Ours, seed: int, number: int) -> tuple[adjustment_stage.Stage, Any]:
    """Returns the last stage on `number` documents, and its initial state."""
    shape, config, mesh = ours.shape, ours.config, sharding.make_mesh()
    rows = random_rows(ours.documents, number, seed)
    batches = ours.batches(_token_states(ours, ours.batches(ours.split.take(rows))))
    model = transfer.make_pvae(config, ours.model.feature_size)
    params, statistics = transfer.init_variables(model, jax.random.key(seed))
    frozen = adjustment_stage.Frozen(
        encoder={name: x for name, x in ours.params.items() if name != CLASSIFIER},
        prototypes=jax.random.uniform(jax.random.key(1), (shape.num_labels, ours.model.feature_size)),
        pvae=params,
        pvae_statistics=statistics,
        key=jax.random.key(seed),
    )
    optimizer = make_optimizer(config.optimizer, config.adjust.learning_rate)
    state = init_state(
        jax.random.key(0), ours.params[CLASSIFIER], optimizer, average=config.adjust.average, validated=False
    )
    # The tail is thinned as the documents are, so that an epoch has its share of generated features.
    tail = np.arange(shape.num_labels // 5, shape.num_labels)[:: max(1, shape.num_documents // number)]
    stage = adjustment_stage.make_stage(
        ours.model,
        config,
        batches,
        tail,
        frozen,
        lambda params, statistics: transfer.decoder(model, params, statistics),
        optimizer,
        mesh,
        None,
    )
    return stage, sharding.on_every_device(mesh, state)


def _token_states(ours: Ours, batches: Batches) -> Split:
    """Returns the split with token states in place of the words; their file exists as long as it is mapped."""
    with tempfile.TemporaryDirectory() as folder:
        states = TokenStates(Path(folder) / "states.npy", batches.split, 2 * ours.config.encoder.hidden_size)
        collect, mesh = transfer.make_collector(ours.model), sharding.make_mesh()
        with states.filling() as keep:
            transfer.collect_features(collect, ours.params, batches, ours.model.feature_size, mesh, keep)
        return states.split()
