"""All stages and prediction on 8 devices as (data, label), for test_label_axis.py: python -m tests.training.label_axis.

Writes the results on each mesh, and the sizes of what its programs gather, into a folder.
"""

import json
import re
import sys
from collections.abc import Iterator
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
from lsfa_jax.training.checkpoints import Checkpoints
from lsfa_jax.training.collection import FeaturesInMemory, collect_features
from lsfa_jax.training.optimizer import make_optimizer
from lsfa_jax.training.stages import transfer
from lsfa_jax.training.stages.adjustment import Adjustment, FrozenParams
from lsfa_jax.training.stages.representation import Representation
from lsfa_jax.util import sharding
from tests import training_corpus

# One device first; the checkpoint of the second mesh, whose tables have 104 rows, continues on the later ones.
MESHES = ((1, 1), (2, 4), (1, 8), (4, 2), (8, 1))
SAVED_BY = (2, 4)
# No size of anything else, nor are the rows of a shard: 51, 26 or 13.
NUM_LABELS = 101
CONFIG = training_corpus.config(encoder={"kind": "cnn", "label_block": 7}, psc={"start_epoch": 1})
OPTIMIZER = make_optimizer(CONFIG.optimizer, 0.05)
SHAPE = EncoderShape(42, 3)


def main(folder: Path) -> None:
    for shape in MESHES:
        mesh = sharding.make_mesh(jax.devices()[: shape[0] * shape[1]], shape[1])
        results, gathered = computed(mesh, folder / "checkpoints")
        name = "x".join(map(str, shape))
        np.savez(folder / f"{name}.npz", **{jax.tree_util.keystr(path): x for path, x in leaves(results)})
        (folder / f"{name}.json").write_text(json.dumps(gathered))


def computed(mesh: Mesh, checkpoints: Path) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Returns the results on a mesh, without padding, and the shapes that each program gathers."""
    model = lsfa.make_model(CONFIG, SHAPE, NUM_LABELS, mesh.shape["label"])
    train = Batches(documents(), NUM_LABELS, 8, [16], 8)
    gathered = {}

    def place(tree: Any) -> Any:
        return sharding.place(mesh, tree, model.num_rows)

    def cut(tree: Any) -> Any:
        host = sharding.to_host(tree)
        return jax.tree.map(lambda x: x[:NUM_LABELS] if x.ndim and len(x) == model.num_rows else x, host)

    def compiled(name: str, program: Any, *arguments: Any) -> Any:
        out = program.lower(*arguments).compile()
        gathered[name] = [match[1] for match in re.finditer(r"= \(?(\S*\[[\d,]*\]).* all-gather", out.as_text())]
        return out

    stage = Representation(model, CONFIG, train, OPTIMIZER, mesh)
    state = stage.before_epoch(place(stage.init(jax.random.key(1), initial_params(model.num_rows))), 1)
    batches = list(stage.batches(1, 0))
    step = compiled("representation", stage._step, state, batches[0], True, None)
    state = step(state, batches[0], None)
    with Checkpoints(checkpoints) as saved:
        if tuple(mesh.shape.values()) == SAVED_BY:
            saved.save(state)
        if saved.exists:
            state = saved.restore(sharding.abstract(mesh, state, model.num_rows), model.num_rows)
    state = step(state, batches[1], None)
    results = {"representation": cut((state.params, state.opt_state[1][0].mu, state.extra, state.loss_sums))}

    groups = np.pad(
        np.arange(NUM_LABELS) < [[NUM_LABELS], [NUM_LABELS // 2]], ((0, 0), (0, model.num_rows - NUM_LABELS))
    )
    scored = model, 5, state.params, batches[0], sharding.replicate(mesh, groups), np.float32(0.5)
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
    results["transfer"] = cut((learned.params, learned.extra, learned.loss_sums))

    params = {name: part for name, part in state.params.items() if name != "classifier"}
    statistics = learned.extra["batch_stats"]
    frozen = FrozenParams(params, state.extra["prototypes"], learned.params, statistics, jax.random.key(4))
    tail = np.arange(40, NUM_LABELS)
    third = Adjustment(
        model, CONFIG, train, tail, frozen, lambda *variables: transfer.decoder(pvae, *variables), OPTIMIZER, mesh
    )
    adjusted = place(third.init(jax.random.key(5), state.params["classifier"]))
    batch = next(third.batches(1, 0))
    adjusted = compiled("adjustment", third._step, adjusted, batch, frozen, True, True)(adjusted, batch, frozen)
    results["adjustment"] = cut((adjusted.params, adjusted.opt_state[1][0].nu, adjusted.loss_sums))
    return sharding.to_host(results), gathered


def documents() -> Split:
    random = np.random.default_rng(0)
    tokens = [random.integers(2, 42, size) for size in random.integers(3, 16, 16)]
    return Split(
        Ragged.from_rows(tokens), Ragged.from_rows([random.permutation(NUM_LABELS)[:4] for _ in range(len(tokens))])
    )


def initial_params(num_rows: int) -> Any:
    """Returns parameters that are the same on every mesh, with padding."""
    params = training_corpus.init_params(lsfa.make_model(CONFIG, SHAPE, NUM_LABELS))
    rows = lsfa.label_rows(params, NUM_LABELS, slice(NUM_LABELS))
    return jax.tree.map(lambda x, labels: x if labels is None else sharding.pad_rows(x, num_rows), params, rows)


def leaves(tree: Any) -> Iterator[tuple[Any, Any]]:
    yield from jax.tree_util.tree_leaves_with_path(tree)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
