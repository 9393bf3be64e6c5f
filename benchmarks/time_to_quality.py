"""How long a run's first stage took to the validation P@5 of a linear label tree, and how long the tree.

    bin/train --dataset rcv1 --preset quick --stages representation --representation.validate-every 50 --output RUN
    python -m benchmarks.time_to_quality RUN

Both learn from the run's training documents, as far as the run reads them, and are measured on its validation
documents. The tree is trained here and now: on the machine of the run, or the times cannot be compared. Ours includes
compilation and the validations up to then; the tree's does not include its features.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import omikuji
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfTransformer

from lsfa_jax import baselines, console, metrics
from lsfa_jax.data.corpus import Corpus, Split
from lsfa_jax.data.loading import load_corpus
from lsfa_jax.training.run_folder import RunFolder

_PLACE = 5


def seconds_to(history: list[dict[str, Any]], documents_a_step: float, goal: float) -> float | None:
    """Returns the seconds to the first validation of stage 1 with a P@5 of `goal` or more; None: there is none."""
    for line in history:
        if line["stage"] == "representation" and line.get("validation", {}).get("P@5", -1.0) >= goal:
            # The rate is over all that was done up to here.
            return line["step"] * documents_a_step / line["documents/s"]
    return None


def tree(corpus: Corpus) -> tuple[float, float]:
    """Returns the seconds in which Omikuji's tree is trained, and its P@5 on the validation documents."""

    def counts(split: Split) -> csr_matrix:
        ones = np.ones(len(split.words), np.float32)
        # A copy: the words are a mapped file.
        found = csr_matrix((ones, split.words, split.word_offsets), (len(split), corpus.vocabulary_size), copy=True)
        found.sum_duplicates()
        return found

    weigh = TfidfTransformer(sublinear_tf=True).fit(counts(corpus.train))
    with tempfile.TemporaryDirectory(prefix="lsfa-benchmark-") as folder:
        path, model_path = Path(folder) / "train.txt", Path(folder) / "model"
        baselines._write_features(path, weigh.transform(counts(corpus.train)), corpus.train.labels, len(corpus.labels))
        started = time.monotonic()
        baselines._train_tree(path, model_path)
        seconds = time.monotonic() - started
        model = omikuji.Model.load(str(model_path))
    top = np.full((len(corpus.validation), _PLACE), -1, np.int32)
    for row, own in enumerate(weigh.transform(counts(corpus.validation))):
        found = model.predict(list(zip(own.indices.tolist(), own.data.tolist(), strict=True)), top_k=top.shape[1])
        top[row, : len(found)] = [label for label, _ in found]
    found = metrics.evaluate(top, corpus.validation.labels, corpus.label_counts, len(corpus.train))
    return seconds, found[f"P@{_PLACE}"]


def main(arguments: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    folder = RunFolder(parser.parse_args(arguments).run)
    config = folder.read_config()
    corpus = load_corpus(config)
    history = [json.loads(line) for line in (folder.path / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds, goal = tree(corpus)
    batches = -(-len(corpus.train) // config.optimizer.batch_size)
    ours = seconds_to(history, len(corpus.train) / batches, goal)
    best = max((line["validation"]["P@5"] for line in history if line["stage"] == "representation"), default=0.0)
    rows = [
        ["label tree", f"{goal:.2f}", f"{seconds:.1f} s"],
        [f"this run (best P@5 {best:.2f})", f"{goal:.2f}", "not reached" if ours is None else f"{ours:.1f} s"],
    ]
    console.table(f"{corpus.name}: training time to a validation P@5", ["", "P@5", "time"], rows)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except console.UserError as fault:
        sys.exit(f"error: {fault}")
