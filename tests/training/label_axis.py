"""All stages and prediction on 8 devices as (data, label), for test_label_axis.py: python -m tests.training.label_axis.

Writes the results on each mesh, and the collectives of its programs, into a folder.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation.scorer import score_batch
from lsfa_jax.model import lsfa
from lsfa_jax.model.encoders import EncoderShape
from lsfa_jax.model.generators import Generator
from lsfa_jax.training.checkpoints import Checkpoints
from lsfa_jax.training.collection import FeaturesInMemory, collect_features
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.stages import transfer
from lsfa_jax.training.stages.adjustment import Adjustment, FrozenParams
from lsfa_jax.training.stages.representation import Representation
from lsfa_jax.training.state import (
    TrainState,
    after_validation,
    averaged,
    best_params,
    current_params,
    with_best_on_host,
)
from lsfa_jax.util import sharding
from tests import training_corpus
from tests.collectives import Collective, collectives

# One device first; the checkpoint of the second mesh, whose tables have 104 rows, continues on the later ones.
MESHES = ((1, 1), (2, 4), (1, 8), (4, 2), (8, 1))
SAVED_BY = (2, 4)
# Meshes on which the bytes of collectives are compared with what belongs to documents.
COUNTED = ((4, 2), (1, 8))
# Meshes of the steps over some of the labels.
SOME_LABELS_ON = ((1, 1), (4, 2))
# No size of anything else, nor are the rows of a shard: 51, 26 or 13.
NUM_LABELS = 101
LABEL_BLOCK = 7
SECTIONS: dict[str, Any] = {"encoder": {"kind": "cnn", "label_block": LABEL_BLOCK}, "psc": {"start_epoch": 1}}
CONFIG = training_corpus.config(**SECTIONS)
# Of each step over some of the labels: how many are proposed for a document and sampled, or on the shortlist.
PROPOSED, SAMPLED, ESTIMATED, LISTED = 10, 17, 2, 12
SOME_LABELS = {
    "candidates": SECTIONS
    | {"candidates": "linear", "representation": {"num_sampled": SAMPLED, "num_estimated": ESTIMATED}},
    "shortlist": SECTIONS | {"representation": {"shortlist": LISTED}},
}
# Of a batch: documents, words and label slots.
BATCH, TOKENS, SLOTS = 8, 15, 8
# Labels that prediction ranks, and groups of labels.
RANKED, GROUPS = 5, 2
TAIL = np.arange(40, NUM_LABELS)
# Of which a step over a shortlist has fewer rows than there are labels.
SMALL_TAIL = TAIL[::3]
OPTIMIZER = make_optimizer(CONFIG.optimizer, 0.05)
SHAPE = EncoderShape(42, 3)


def main(folder: Path) -> None:
    for shape in MESHES:
        mesh = sharding.make_mesh(jax.devices()[: shape[0] * shape[1]], shape[1])
        programs = Programs()
        results = computed(mesh, programs, folder / "checkpoints")
        if shape in SOME_LABELS_ON:
            results |= computed_for_some_labels(mesh, programs)
        name = "x".join(map(str, shape))
        np.savez(folder / f"{name}.npz", **{jax.tree_util.keystr(path): x for path, x in leaves(results)})
        (folder / f"{name}.json").write_text(json.dumps(programs.collectives))


class Programs:
    """Compiles programs and lists their collectives."""

    def __init__(self) -> None:
        self.collectives: dict[str, list[Collective]] = {}

    def compiled(self, name: str, program: Any, *arguments: Any) -> Any:
        out = program.lower(*arguments).compile()
        self.collectives[name] = collectives(out.as_text())
        return out


def cut(tree: Any, num_rows: int) -> Any:
    """Copies a tree to the host, tables with one row per label without their padding."""
    host = sharding.to_host(tree)
    return jax.tree.map(lambda x: x[:NUM_LABELS] if x.ndim and len(x) == num_rows else x, host)


def computed(mesh: Mesh, programs: Programs, checkpoints: Path) -> dict[str, Any]:
    """Returns the results of stages and prediction on a mesh, without padding."""
    model = lsfa.make_model(CONFIG, SHAPE, NUM_LABELS, mesh.shape["label"])
    train = Batches(documents(), NUM_LABELS, BATCH, [16], 8)
    compiled = programs.compiled

    def place(tree: Any) -> Any:
        return sharding.place(mesh, tree, model.num_rows)

    stage = Representation(model, CONFIG, train, OPTIMIZER, mesh)
    state = stage.before_epoch(place(stage.init(jax.random.key(1), initial_params(model.num_rows))), 1)
    batches = list(stage.batches(1, 0))
    assert batches[0].words.shape == (BATCH, TOKENS)
    assert batches[0].label_ids.shape == (BATCH, SLOTS)
    step = compiled("representation", stage._step, state, batches[0], True, None)
    state = step(state, batches[0], None)
    with Checkpoints(checkpoints) as saved:
        if tuple(mesh.shape.values()) == SAVED_BY:
            saved.save(state)
        if saved.exists:
            state = saved.restore(sharding.abstract(mesh, state, model.num_rows), model.num_rows)
    state = step(state, batches[1], None)
    trained = state.params, state.opt_state[1][0].mu, state.extra, state.loss_sums
    results = {"representation": cut(trained, model.num_rows)}

    results["weights on the host"] = cut(kept_on_host(state), model.num_rows)

    groups = np.pad(
        np.arange(NUM_LABELS) < [[NUM_LABELS], [NUM_LABELS // 2]], ((0, 0), (0, model.num_rows - NUM_LABELS))
    )
    scored = model, RANKED, state.params, batches[0], sharding.replicate(mesh, groups), np.float32(0.5)
    scores = compiled("prediction", score_batch, *scored)(*scored[2:])
    results["prediction"] = (scores.top, scores.probabilities, scores.histogram, scores.counts.T[:NUM_LABELS])

    sums = collect_features(model, state.params, train, mesh)
    random = np.random.default_rng(1)
    features = FeaturesInMemory(random.normal(size=(16, 5)).astype(np.float32), np.arange(16, dtype=np.int32))
    pvae = transfer.make_pvae(CONFIG, 5)
    second = transfer.Transfer(pvae, CONFIG, features, OPTIMIZER, mesh, 1)
    learned = place(second.init(jax.random.key(2), jax.random.key(3), sums))
    pairs = next(second.batches(1, 0))
    learned = compiled("transfer", second._step, learned, pairs)(learned, pairs)
    results["transfer"] = cut((learned.params, learned.extra, learned.loss_sums), model.num_rows)

    params = {name: part for name, part in state.params.items() if name != "classifier"}
    frozen = FrozenParams(params, state.extra["prototypes"], transfer.learned(learned), jax.random.key(4))
    third = Adjustment(model, CONFIG, train, TAIL, frozen, Generator("pvae", pvae), OPTIMIZER, mesh)
    adjusted = place(third.init(jax.random.key(5), state.params["classifier"]))
    batch = next(third.batches(1, 0))
    adjusted = compiled("adjustment", third._step, adjusted, batch, frozen, True, True)(adjusted, batch, frozen)
    results["adjustment"] = cut((adjusted.params, adjusted.opt_state[1][0].nu, adjusted.loss_sums), model.num_rows)
    return sharding.to_host(results)


def kept_on_host(state: TrainState) -> Any:
    """Returns the mean of two sets of weights and the best ones, kept in the memory of the host, split as before."""
    kept = averaged(with_best_on_host(state))
    kept = averaged(replace(kept, params=jax.tree.map(lambda x: 3 * x, kept.params)))
    kept = after_validation(kept, current_params(kept), 1.0)
    for tree in (kept.average, kept.best):
        for x, other in zip(jax.tree.leaves(tree), jax.tree.leaves(state.params), strict=True):
            assert x.sharding.is_equivalent_to(other.sharding.with_memory_kind("pinned_host"), x.ndim)
    return kept.average, best_params(kept)


def computed_for_some_labels(mesh: Mesh, programs: Programs) -> dict[str, Any]:
    """Returns the results of steps over candidates and over a shortlist, and of prediction from candidates."""
    results = {}
    for name, sections in SOME_LABELS.items():
        config = training_corpus.config(**sections)
        model = lsfa.make_model(config, SHAPE, NUM_LABELS, mesh.shape["label"])
        # Of few labels, so that the pool of the shortlist does not have all others.
        split = documents(NUM_LABELS if name == "candidates" else LISTED // 2)
        train = Batches(split, NUM_LABELS, BATCH, [16], 8, candidates=proposals(len(split)))
        stage = Representation(model, config, train, OPTIMIZER, mesh)
        prototypes = np.random.default_rng(3).normal(size=(NUM_LABELS, CONFIG.encoder.feature_size))
        extra = {"prototypes": prototypes.astype(np.float32), "present": np.arange(NUM_LABELS) % 5 > 0}
        start = replace(
            stage.init(jax.random.key(1), initial_params(model.num_rows)),
            extra=sharding.pad_rows(extra, model.num_rows),
        )
        state = sharding.place(mesh, start, model.num_rows)
        batch = next(stage.batches(1, 0))
        state = programs.compiled(name, stage._step, state, batch, True, None)(state, batch, None)
        results[name] = cut((state.params, state.opt_state[1][0].mu, state.loss_sums), model.num_rows)
        if name == "candidates":
            scored = model, RANKED, state.params, batch, model.is_label[None], np.float32(0.5)
            scores = programs.compiled("prediction from candidates", score_batch, *scored)(*scored[2:])
            results["scores"] = sharding.to_host((scores.top, scores.probabilities, scores.counts.T[:NUM_LABELS]))
        else:
            adjusted = adjusted_over_a_shortlist(mesh, programs, train, state)
            results["adjusted"] = cut(
                (adjusted.params, adjusted.opt_state[1][0].mu, adjusted.loss_sums), model.num_rows
            )
    return results


def adjusted_over_a_shortlist(mesh: Mesh, programs: Programs, train: Batches, trained: TrainState) -> TrainState:
    """Returns the state after a step of stage 3 over a shortlist, with generated features and logit adjustment."""
    config = training_corpus.config(**SOME_LABELS["shortlist"])
    model = lsfa.make_model(config, SHAPE, NUM_LABELS, mesh.shape["label"])
    pvae = transfer.make_pvae(config, config.encoder.feature_size)
    learned = {
        "params": transfer.init_variables(pvae, jax.random.key(3))["params"],
        "scale": {"centre": np.zeros(config.encoder.feature_size, np.float32), "deviation": np.float32(1)},
    }
    params = {name: part for name, part in trained.params.items() if name != "classifier"}
    offsets = sharding.pad_rows(np.linspace(-3, 1, NUM_LABELS).astype(np.float32), model.num_rows)
    frozen = FrozenParams(
        params,
        trained.extra["prototypes"],
        sharding.replicate(mesh, learned),
        jax.random.key(4),
        sharding.place(mesh, offsets, model.num_rows),
    )
    stage = Adjustment(model, config, train, SMALL_TAIL, frozen, Generator("pvae", pvae), OPTIMIZER, mesh)
    state = sharding.place(mesh, stage.init(jax.random.key(5), trained.params["classifier"]), model.num_rows)
    batch = next(stage.batches(1, 0))
    step = programs.compiled("adjustment over a shortlist", stage._step, state, batch, frozen, True, True)
    return step(state, batch, frozen)


def documents(num_labels: int = NUM_LABELS) -> Split:
    random = np.random.default_rng(0)
    tokens = [random.integers(2, 42, size) for size in random.integers(3, 16, 16)]
    return Split(
        Ragged.from_rows(tokens), Ragged.from_rows([random.permutation(num_labels)[:4] for _ in range(len(tokens))])
    )


def proposals(num_documents: int) -> np.ndarray:
    random = np.random.default_rng(2)
    return np.stack([random.permutation(NUM_LABELS)[:PROPOSED] for _ in range(num_documents)]).astype(np.int32)


def initial_params(num_rows: int) -> Any:
    """Returns parameters that are the same on every mesh, with padding."""
    params = training_corpus.init_params(lsfa.make_model(CONFIG, SHAPE, NUM_LABELS))
    rows = lsfa.label_rows(params, NUM_LABELS, slice(NUM_LABELS))
    return jax.tree.map(lambda x, labels: x if labels is None else sharding.pad_rows(x, num_rows), params, rows)


def leaves(tree: Any) -> Iterator[tuple[Any, Any]]:
    yield from jax.tree_util.tree_leaves_with_path(tree)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
