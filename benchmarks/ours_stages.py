"""Our collection of prototypes, autoencoder and adjustment."""

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import ours_model, shapes
from benchmarks.work import Work, each
from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.model import prototypes
from lsfa_jax.model.lsfa import CLASSIFIER
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.stages import adjustment, transfer
from lsfa_jax.training.state import init_state
from lsfa_jax.training.token_states import TokenStates
from lsfa_jax.util import sharding


def collection(shape: str, seed: int) -> Work:
    """Features and prototypes of some batches, a document."""
    ours = ours_model.make(shape, seed)
    own, mesh = ours.shape, sharding.make_mesh()
    rows = np.random.default_rng(seed).choice(len(ours.split), shapes.few(own), replace=False)
    buckets = list(ours.batches().buckets)
    batches = Batches(ours.split.take(rows), own.num_labels, own.batch, buckets)
    collect = transfer.make_collector(ours.model)

    def run() -> None:
        sums = transfer.collect_features(collect, ours.params, batches, ours.model.feature_size, mesh)
        jax.block_until_ready(sums)

    return each(len(rows), run)


def pvae(shape: str, seed: int) -> Work:
    """Steps of the autoencoder on random features, a feature."""
    ours = ours_model.make(shape, seed)
    config, size = ours.config, ours.config.pvae.batch_size
    model = transfer.make_pvae(config, ours.model.feature_size)
    params, statistics = transfer.init_variables(model, jax.random.key(seed))
    optimizer = make_optimizer(config.optimizer, config.pvae.learning_rate)
    sums = prototypes.FeatureSums(
        jax.random.uniform(jax.random.key(1), (ours.shape.num_labels, model.feature_size)),
        jnp.ones(ours.shape.num_labels, jnp.int32),
        jnp.ones(ours.shape.num_labels),
    )
    extra = {"batch_stats": statistics, "sums": sums}
    mesh = sharding.make_mesh()
    state = sharding.replicate(mesh, init_state(jax.random.key(2), params, optimizer, extra, validated=False))
    random = np.random.default_rng(seed)
    number = 20 * size
    features = random.random((number, model.feature_size), np.float32)
    pairs = transfer.PairsInMemory(features, random.integers(0, ours.shape.num_labels, number).astype(np.int32))
    stage = transfer.make_stage(model, config, pairs, optimizer, mesh, epochs=1)

    def run() -> None:
        nonlocal state
        for done, batch in enumerate(stage.batches(1, 0), 1):
            state = stage.step(state, batch, 1, done)
        jax.block_until_ready(state.params)

    return each(number, run)


def with_states(ours: ours_model.Ours, batches: Batches) -> Split:
    """Returns the split with token states in a file, which lives as long as it is mapped, in place of the words."""
    with tempfile.TemporaryDirectory() as folder:
        states = TokenStates(Path(folder) / "states.npy", batches.split, 2 * ours.config.encoder.hidden_size)
        collect, mesh = transfer.make_collector(ours.model), sharding.make_mesh()
        with states.filling() as keep:
            transfer.collect_features(collect, ours.params, batches, ours.model.feature_size, mesh, keep)
        return states.split()


def adjustment_steps(ours: ours_model.Ours, seed: int, number: int) -> tuple[adjustment.Stage, Any]:
    """Returns the last stage on some documents and the state that it starts from."""
    own, config, mesh = ours.shape, ours.config, sharding.make_mesh()
    rows = np.random.default_rng(seed).choice(len(ours.split), number, replace=False)
    batches = Batches(ours.split.take(rows), own.num_labels, own.batch, list(ours.batches().buckets))
    batches = Batches(with_states(ours, batches), own.num_labels, own.batch, list(batches.buckets))
    model = transfer.make_pvae(config, ours.model.feature_size)
    params, statistics = transfer.init_variables(model, jax.random.key(seed))
    frozen = adjustment.Frozen(
        encoder={name: x for name, x in ours.params.items() if name != CLASSIFIER},
        prototypes=jax.random.uniform(jax.random.key(1), (own.num_labels, ours.model.feature_size)),
        pvae=params,
        pvae_statistics=statistics,
        key=jax.random.key(seed),
    )
    optimizer = make_optimizer(config.optimizer, config.adjust.learning_rate)
    state = init_state(
        jax.random.key(0), ours.params[CLASSIFIER], optimizer, average=config.adjust.average, validated=False
    )
    # A share of the tail's labels as large as the documents' share of the corpus.
    tail = np.arange(own.num_labels // 5, own.num_labels)[:: max(1, own.num_documents // number)]
    stage = adjustment.make_stage(
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
    return stage, sharding.replicate(mesh, state)


def adjust(shape: str, seed: int) -> Work:
    """Steps of the last stage, which reads the frozen encoder's states, a document."""
    ours = ours_model.make(shape, seed)
    number = 2 * ours.shape.batch
    stage, state = adjustment_steps(ours, seed, number)

    def run() -> None:
        nonlocal state
        for done, batch in enumerate(stage.batches(1, 0), 1):
            state = stage.step(state, batch, 1, done)
        jax.block_until_ready(state.params)

    return each(number, run)
