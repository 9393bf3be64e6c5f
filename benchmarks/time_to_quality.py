"""Training time to a validation P@5: a run's first stage, and the linear label tree whose P@5 is the goal.

    bin/train --dataset rcv1 --preset quick --stages representation --representation.validate-every 50 --output RUN
    python -m benchmarks.time_to_quality RUN

Both learn from the run's training documents, cut as the run cuts them, and are measured on its validation documents.
The tree is trained by this command: run it on the machine of the run, otherwise the times cannot be compared. The time
of the run includes compilation and the validations so far; the time of the tree does not include its features.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from sklearn.feature_extraction.text import TfidfTransformer

from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.load import load_corpus
from lsfa_jax.evaluation import ranking
from lsfa_jax.sparse import tree
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.util import console

_K = 5


def seconds_to(history: list[dict[str, Any]], num_documents: int, goal: float) -> float | None:
    """Returns the seconds of training to the first validation with a P@5 of `goal` or more; None if there is none.

    Args:
        history: the lines of history.jsonl of stage 1 that have a validation; of an uninterrupted run.
        num_documents: training documents, N.
        goal: percent.
    """
    for line in history:
        if line["validation"]["P@5"] >= goal:
            # The rate is the mean from the start of the stage.
            return line["epoch"] * num_documents / line["documents/s"]
    return None


def train_tree_on(corpus: Corpus) -> tuple[float, float]:
    """Returns the training time of Omikuji's tree in seconds, and its P@5 on the validation documents."""
    from benchmarks.peers.omikuji_tree import best_labels, train_tree, word_counts

    train, validation = (
        word_counts(split.words, corpus.vocabulary_size) for split in (corpus.train, corpus.validation)
    )
    tf_idf = TfidfTransformer(sublinear_tf=True)
    model, seconds = train_tree(tf_idf.fit_transform(train), corpus.train.labels, len(corpus.labels))
    best = best_labels(model, tf_idf.transform(validation), _K)
    metrics = ranking.evaluate(best, corpus.validation.labels, corpus.label_counts, len(corpus.train))
    return seconds, metrics[f"P@{_K}"]


def read_validations(run: RunFolder) -> list[dict[str, Any]]:
    """Returns the lines of the history of stage 1 that have a validation.

    Raises:
        UserError: there is none.
    """
    validations = [line for line in run.read_history() if line["stage"] == "representation" and "validation" in line]
    if not validations:
        raise console.UserError(
            f"{run.path}: no validation of the first stage yet; let bin/train come to the end of an epoch"
        )
    return validations


def main(arguments: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    run = RunFolder(parser.parse_args(arguments).run)
    tree.check()
    config = run.read_config()
    validations = read_validations(run)
    corpus = load_corpus(config)
    seconds, goal = train_tree_on(corpus)
    ours = seconds_to(validations, len(corpus.train), goal)
    best = max(line["validation"]["P@5"] for line in validations)
    rows = [
        ["label tree", f"{goal:.2f}", f"{seconds:.1f} s"],
        [f"this run (best P@5 {best:.2f})", f"{goal:.2f}", "not reached" if ours is None else f"{ours:.1f} s"],
    ]
    console.table(f"{corpus.name}: training time to a validation P@5", ["", "P@5", "time"], rows)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except console.UserError as error:
        console.error(str(error))
        sys.exit(2)
