"""Programs of all stages on a mesh whose axis `label` has several devices: their time, and the memory of a device.

On a CPU the devices are forced and share its cores, so that times add up: what the rows are for is memory.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import CANDIDATES, SHORTLIST, Shape
from benchmarks.documents import documents, step_rows
from benchmarks.harness.work import Work, per_call
from benchmarks.ours.model import random_candidates
from lsfa_jax import config
from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.evaluation.scorer import score_batch
from lsfa_jax.model.encoders import EncoderShape
from lsfa_jax.model.generators import Generator
from lsfa_jax.model.lsfa import init_params, make_model
from lsfa_jax.training.collection import collect, zero_sums
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.stages.adjustment import Adjustment, FrozenParams
from lsfa_jax.training.stages.representation import Representation
from lsfa_jax.training.stages.transfer import init_variables, make_pvae
from lsfa_jax.training.state import TrainState
from lsfa_jax.types import PyTree
from lsfa_jax.util import sharding

_GENERATED_LABELS, _TOP = 40, 5


class Program(NamedTuple):
    """A compiled program, and what it is called with."""

    compiled: Any
    start: Callable[[], PyTree]
    """Creates what the first call gets."""
    call: Callable[[PyTree], PyTree]
    """Runs the program once; returns what the next call gets."""
    idle: float = 0
    """Bytes of a device that the stage holds beside the arguments: mean and best weights."""


def program(shape: Shape, seed: int, stage: str, devices: int, **optimizer: str) -> Work:
    """A program: a step over a shortlist, the collection of a batch, a step of stage 3, or prediction from candidates.

    Args:
        shape: of corpus and model.
        seed: of weights and documents.
        stage: step, collection, adjustment or prediction.
        devices: M.
        optimizer: its settings, such as label_rows and label_precision.
    """
    if jax.config.jax_num_cpu_devices < devices:
        jax.config.update("jax_num_cpu_devices", devices)
    chosen: Program = getattr(_Stages(shape, seed, devices, stage == "prediction", optimizer), stage)()
    memory = chosen.compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    state = None

    def run() -> None:
        nonlocal state
        state = jax.block_until_ready(chosen.call(chosen.start() if state is None else state))

    facts = {
        "device_mib": (used + memory.temp_size_in_bytes + chosen.idle) / 2**20,
        "temporary_mib": memory.temp_size_in_bytes / 2**20,
    }
    return per_call(run, **facts)


class _Stages:
    """What the programs of all stages need."""

    def __init__(self, shape: Shape, seed: int, devices: int, proposes: bool, optimizer: dict[str, Any]) -> None:
        self.config = config.Config(
            seed=seed,
            candidates="linear" if proposes else "all",
            encoder=config.Encoder(
                embedding_size=shape.embedding_size, hidden_size=shape.hidden_size, feature_size=shape.feature_size
            ),
            psc=config.Psc(start_epoch=1),
            optimizer=config.Optimizer(**optimizer),
            representation=config.Representation(
                num_candidates=CANDIDATES, shortlist=min(SHORTLIST, shape.num_labels // 4)
            ),
        )
        self.mesh = sharding.make_mesh(jax.local_devices()[:devices], labels=devices)
        encoder = EncoderShape(shape.vocabulary_size, shape.embedding_size)
        self.model = make_model(self.config, encoder, shape.num_labels, devices)
        self.optimizer = make_optimizer(self.config.optimizer, self.config.optimizer.learning_rate)
        drawn = documents(shape, seed)
        split = Split(drawn.words, drawn.labels).take(step_rows(drawn, shape, None))
        number = min(CANDIDATES, shape.num_labels // 4)
        self.batches = Batches(
            split,
            shape.num_labels,
            shape.batch_size,
            [shape.step_words],
            candidates=random_candidates(shape.num_labels, number, len(split), seed) if proposes else None,
        )

    def step(self) -> Program:
        """A step of stage 1 with the contrastive loss."""
        stage = Representation(self.model, self.config, self.batches, self.optimizer, self.mesh)
        batch = next(stage.batches(1, 0))
        return self._trained(stage._step, lambda: stage.init(jax.random.key(0), self._init()), batch, (True, None))

    def adjustment(self) -> Program:
        """A step of stage 3."""
        pvae = make_pvae(self.config, self.model.feature_size)

        def create_frozen() -> FrozenParams:
            params = {name: part for name, part in self._init().items() if name != "classifier"}
            prototypes = jnp.ones((self.model.num_rows, self.model.feature_size))
            return FrozenParams(params, prototypes, init_variables(pvae, jax.random.key(0)), jax.random.key(0))

        frozen, tail = self._created(create_frozen), np.arange(self.model.num_labels)[-_GENERATED_LABELS:]
        generator = Generator("pvae", pvae)
        stage = Adjustment(self.model, self.config, self.batches, tail, frozen, generator, self.optimizer, self.mesh)
        batch = next(stage.batches(1, 0))
        init = functools.partial(self._adjusted, stage)
        return self._trained(stage._step, init, batch, (frozen, True, True))

    def collection(self) -> Program:
        """The features of a batch, added to the sums of their labels."""
        params, batch = self._created(self._init), self._batch()
        zeros = functools.partial(zero_sums, self.model, self.mesh)
        compiled = collect.lower(self.model, params, batch, zeros(), jnp.dtype(jnp.float32)).compile()
        return Program(compiled, zeros, lambda sums: self._placed(compiled(params, batch, sums)[0]))

    def prediction(self) -> Program:
        """The best labels of a batch: from candidates, and others by an estimate."""
        batch, params = self._batch(), self._created(self._init)
        rest = batch, self._created(lambda: jnp.ones((1, self.model.num_rows), bool)), np.float32(0.5)
        compiled = score_batch.lower(self.model, _TOP, params, *rest).compile()

        def call(params: PyTree) -> PyTree:
            jax.block_until_ready(compiled(params, *rest))
            return params

        return Program(compiled, lambda: params, call)

    def _trained(self, step: Any, init: Callable[[], TrainState], batch: PyTree, rest: tuple[Any, ...]) -> Program:
        """Compiles a step for a state that is created when it is called."""
        rows, label_shards = self.model.num_rows, self.mesh.shape["label"]
        shapes = sharding.abstract(self.mesh, jax.eval_shape(init), rows)
        idle = 0.0
        for x in jax.tree.leaves((shapes.average, shapes.best)):
            idle += x.size * x.dtype.itemsize / (label_shards if x.ndim and len(x) == rows else 1)
        compiled = step.lower(replace(shapes, average=None, best=None), batch, *rest).compile()
        arrays = [x for x in rest if not isinstance(x, bool)]

        def start() -> TrainState:
            return self._created(lambda: replace(init(), average=None, best=None))

        return Program(compiled, start, lambda state: self._placed(compiled(state, batch, *arrays)), idle)

    def _adjusted(self, stage: Adjustment) -> TrainState:
        return stage.init(jax.random.key(0), self._init()["classifier"])

    def _batch(self) -> Batch:
        return sharding.shard_batch(self.mesh, self.batches.gather(np.arange(len(self.batches.split))))

    def _init(self) -> Any:
        return init_params(self.model, jax.random.key(0))

    def _placed(self, tree: PyTree) -> PyTree:
        # A compiled program takes arrays that are split as those that it was compiled for.
        return sharding.place(self.mesh, tree, self.model.num_rows)

    def _created(self, create: Callable[[], Any]) -> Any:
        return sharding.created(self.mesh, self.model.num_rows, create)
