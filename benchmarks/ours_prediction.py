"""Our prediction: the compiled model alone, and what `bin/predict` does from file to file."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks import ours_model, shapes
from benchmarks.work import Part, Work, each
from lsfa_jax.cli.predict import parse, predict
from lsfa_jax.serving.predictor import Predictor
from lsfa_jax.training import model_folder
from lsfa_jax.util import console

_TOP = 5


def _trained(ours: ours_model.Ours) -> model_folder.TrainedModel:
    return model_folder.TrainedModel(
        config=ours.config,
        words=[f"w{i}" for i in range(ours.shape.vocabulary - 2)],
        labels=[f"label {i}" for i in range(ours.shape.num_labels)],
        label_counts=np.ones(ours.shape.num_labels, np.int64),
        num_documents=ours.shape.num_documents,
        threshold=0.5,
        params=jax.tree.map(np.asarray, ours.params),
    )


def _texts(ours: ours_model.Ours, seed: int, number: int) -> list[str]:
    """Random documents as texts, the same as the peers'."""
    rows = np.random.default_rng(seed).choice(len(ours.split), number, replace=False)
    split = ours.split.take(rows)
    return [" ".join(f"w{word}" for word in (words - 2).tolist())
            for words in np.split(split.words.values, split.words.offsets[1:-1])]  # fmt: skip


def _model_alone(trained: model_folder.TrainedModel, texts: list[str]) -> Callable[[], None]:
    """Returns what computes the predictor's batches, padded already."""
    predictor = Predictor(trained)
    padded = predictor.batches(texts)
    batches = list(padded.load(padded.consecutive()))

    def run() -> None:
        for batch in batches:
            jax.block_until_ready(predictor.compute(batch, _TOP))

    return run


def exact(shape: str, seed: int) -> Work:
    """The five best of all labels, a document; the batches are padded already, as the peer's are."""
    ours = ours_model.make(shape, seed)
    number = shapes.predicted(ours.shape)
    return each(number, _model_alone(_trained(ours), _texts(ours, seed, number)))


def file_to_file(shape: str, seed: int) -> Work:
    """JSON Lines to JSON Lines, less what the command takes for one document; a document."""
    ours = ours_model.make(shape, seed)
    texts = _texts(ours, seed, shapes.predicted(ours.shape))
    folder = tempfile.TemporaryDirectory(prefix="lsfa-benchmark-")
    path = Path(folder.name)
    model_folder.write(path, _trained(ours))
    for number in (1, len(texts)):
        rows = [json.dumps({"id": f"document-{i}", "text": text}) for i, text in enumerate(texts[:number])]
        (path / f"{number}.jsonl").write_text("\n".join(rows) + "\n")

    def command(number: int) -> None:
        _ = folder  # it lives as long as the work
        with console.on_stderr():
            predict(parse(["--run", str(path), str(path / f"{number}.jsonl"), "--output", str(path / "out.jsonl")]))

    more = len(texts) - 1
    return Work([Part(1 / more, lambda: command(len(texts))), Part(-1 / more, lambda: command(1))])
