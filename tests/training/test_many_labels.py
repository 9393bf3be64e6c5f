"""Programs over some of many labels build no array of all documents of a batch and all labels."""

import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax.data.batches import Batches
from lsfa_jax.evaluation.scorer import score_batch
from lsfa_jax.model.generators import Generator
from lsfa_jax.training.collection import collect, zero_sums
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.stages import transfer
from lsfa_jax.training.stages.adjustment import Adjustment, FrozenParams
from lsfa_jax.training.stages.representation import Representation
from lsfa_jax.util import sharding
from tests import training_corpus
from tests.training.label_axis import documents

L, B, PROPOSED = 10_007, 16, 10
SETTINGS = {"encoder": {"kind": "cnn", "label_block": 1000}, "psc": {"start_epoch": 1}}
WAYS = {
    "shortlist": {"representation": {"shortlist": 16}},
    "candidates": {"candidates": "linear", "representation": {"num_sampled": 17, "num_estimated": 2}},
}


def programs(way):
    """Returns the programs of the stages and of prediction, lowered for the shapes of a model of L labels."""
    config = training_corpus.config(**SETTINGS, **WAYS[way])
    mesh, optimizer = sharding.make_mesh(jax.local_devices()[:1]), make_optimizer(config.optimizer, 0.05)
    model = training_corpus.make_model(config, num_labels=L)
    random, split = np.random.default_rng(0), documents(L)
    proposed = np.stack([random.permutation(L)[:PROPOSED] for _ in range(len(split))]).astype(np.int32)
    train = Batches(split, L, B, [16], candidates=proposed if way == "candidates" else None)
    first = Representation(model, config, train, optimizer, mesh)
    words, lengths = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)

    def init():
        return first.init(jax.random.key(0), model.init(jax.random.key(0), words, lengths)["params"])

    state, batch = jax.eval_shape(init), next(first.batches(1, 0))
    lowered = {"representation": first._step.lower(replace(state, average=None, best=None), batch, True, None)}
    sums = jax.eval_shape(lambda: zero_sums(model, mesh))
    lowered["collection"] = collect.lower(model, state.params, batch, sums, np.float32)

    pvae = transfer.make_pvae(config, model.feature_size)
    variables = jax.eval_shape(lambda: transfer.init_variables(pvae, jax.random.key(0)))
    params = {name: part for name, part in state.params.items() if name != "classifier"}
    frozen = FrozenParams(params, state.extra["prototypes"], variables, jax.random.key(1))
    tail = np.arange(L // 2, L, 100)
    third = Adjustment(model, config, train, tail, frozen, Generator("pvae", pvae), optimizer, mesh)
    adjusted = jax.eval_shape(lambda: third.init(jax.random.key(0), init().params["classifier"]))
    pair = next(third.batches(1, 0))
    lowered["adjustment"] = third._step.lower(replace(adjusted, average=None, best=None), pair, frozen, True, True)
    if way == "candidates":
        groups = jax.ShapeDtypeStruct((2, L), bool)
        lowered["prediction"] = score_batch.lower(model, 5, state.params, batch, groups, 0.5)
    return {name: program.as_text() for name, program in lowered.items()}


@pytest.mark.parametrize("way", WAYS)
def test_no_array_has_all_documents_and_all_labels(way):
    for name, text in programs(way).items():
        shapes = {tuple(map(int, dims[:-1].split("x"))) for dims in re.findall(r"tensor<((?:\d+x)+)", text)}
        assert any(L in shape for shape in shapes), name
        # Tables are [L, 8] at most.
        largest = max(shapes, key=math.prod)
        assert math.prod(largest) < 1.1 * 8 * L < B * L, (name, largest)
