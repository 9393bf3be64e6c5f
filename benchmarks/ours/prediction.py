"""Our prediction: the compiled model on padded batches, and `bin/predict` from file to file."""

import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Shape
from benchmarks.documents import random_rows
from benchmarks.harness.work import Part, Work, per_item
from benchmarks.ours.model import Ours, make
from lsfa_jax.cli.predict import parse, predict
from lsfa_jax.config import Representation
from lsfa_jax.data.batches import Batch
from lsfa_jax.training import model_folder
from lsfa_jax.types import Params
from lsfa_jax.util import console

_TOP = 5


def padded_batches(shape: Shape, seed: int, candidates: int = 0) -> Work:
    """The five best labels, a document: of all, or of candidates and the best others by a cheap estimate.

    The batches are padded before the measurement, as the peer's are.
    """
    which, representation = ("linear" if candidates else "all"), Representation(num_candidates=candidates or 1)
    ours = make(shape, seed, candidates=which, representation=representation)
    documents = ours.split.take(random_rows(ours.documents, shape.num_predicted, seed))
    size = ours.config.report.batch_size
    batches = ours.batches(documents, batch_size=size)
    # As the predictor sorts and pads them.
    order = np.argsort(documents.lengths, kind="stable")
    padded = [batches.gather(order[i : i + size]) for i in range(0, len(order), size)]

    @jax.jit
    def best_labels(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
        lsfa = ours.model.bind({"params": params})
        states = lsfa.states(batch.words, batch.lengths)
        if batch.candidates is None:
            return jax.lax.top_k(lsfa.scores(states, batch.lengths), _TOP)
        label_ids, logits = lsfa.predicted_candidates(states, batch.lengths, batch.candidates)
        best, places = jax.lax.top_k(jnp.where(label_ids < 0, -jnp.inf, logits), _TOP)
        return best, jnp.take_along_axis(label_ids, places, axis=1)

    def run() -> None:
        for batch in padded:
            jax.block_until_ready(best_labels(ours.params, batch))

    return per_item(shape.num_predicted, run)


def file_to_file(shape: Shape, seed: int) -> Work:
    """JSON Lines to JSON Lines, less the time of the same command for one document; a document."""
    ours = make(shape, seed)
    texts = _texts(ours, seed)
    folder = tempfile.TemporaryDirectory(prefix="lsfa-benchmark-")
    path = Path(folder.name)
    model_folder.write(path, _trained(ours))
    for number in (1, len(texts)):
        rows = [json.dumps({"id": f"document-{i}", "text": text}) for i, text in enumerate(texts[:number])]
        (path / f"{number}.jsonl").write_text("\n".join(rows) + "\n")

    def command(number: int) -> None:
        _ = folder  # kept as long as the work
        with console.on_stderr():
            predict(parse(["--run", str(path), str(path / f"{number}.jsonl"), "--output", str(path / "out.jsonl")]))

    difference = len(texts) - 1
    return Work([Part(1 / difference, lambda: command(len(texts))), Part(-1 / difference, lambda: command(1))])


def _trained(ours: Ours) -> model_folder.TrainedModel:
    return model_folder.TrainedModel(
        config=ours.config,
        words=[f"w{i}" for i in range(ours.shape.vocabulary_size - 2)],
        labels=[f"label {i}" for i in range(ours.shape.num_labels)],
        label_counts=np.ones(ours.shape.num_labels, np.int64),
        num_documents=ours.shape.num_documents,
        threshold=0.5,
        params=jax.tree.map(np.asarray, ours.params),
    )


def _texts(ours: Ours, seed: int) -> list[str]:
    """Random documents as texts, the same as the peers'."""
    words = ours.split.words.take(random_rows(ours.documents, ours.shape.num_predicted, seed))
    return [" ".join(f"w{word}" for word in (words.row(i) - 2).tolist()) for i in range(words.num_rows)]
