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
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfTransformer

from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.load import load_corpus
from lsfa_jax.evaluation import ranking
from lsfa_jax.sparse import tree as tree_model
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.util import console

_PLACE = 5


def seconds_to(history: list[dict[str, Any]], documents: int, goal: float) -> float | None:
    """Returns the seconds to the first validation of stage 1 with a P@5 of `goal` or more; None: there is none.

    Args:
        history: lines of history.jsonl of that stage, each with a validation; of a run that was not interrupted.
        documents: of an epoch.
        goal: percent.
    """
    for line in history:
        if line["validation"]["P@5"] >= goal:
            # The rate is over all that was done up to here.
            return line["epoch"] * documents / line["documents/s"]
    return None


def tree(corpus: Corpus) -> tuple[float, float]:
    """Returns the seconds in which Omikuji's tree is trained, and its P@5 on the validation documents."""
    from benchmarks.omikuji_tree import train_tree, word_counts

    train, validation = (
        word_counts(*split.words, corpus.vocabulary_size) for split in (corpus.train, corpus.validation)
    )
    weigh = TfidfTransformer(sublinear_tf=True)
    model, seconds = train_tree(weigh.fit_transform(train), corpus.train.labels, len(corpus.labels))
    top = np.full((len(corpus.validation), _PLACE), -1, np.int32)
    for row, words in enumerate(weigh.transform(validation)):
        listed = model.predict(list(zip(words.indices.tolist(), words.data.tolist(), strict=True)), top_k=_PLACE)
        top[row, : len(listed)] = [label for label, _ in listed]
    figures = ranking.evaluate(top, corpus.validation.labels, corpus.label_counts, len(corpus.train))
    return seconds, figures[f"P@{_PLACE}"]


def main(arguments: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    folder = RunFolder(parser.parse_args(arguments).run)
    tree_model.check()
    config = folder.read_config()
    file = folder.path / "history.jsonl"
    history = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    validated = [line for line in history if line["stage"] == "representation" and "validation" in line]
    if not validated:
        raise console.UserError(
            f"{file}: no validation of the first stage yet; let bin/train come to the end of an epoch"
        )
    corpus = load_corpus(config)
    seconds, goal = tree(corpus)
    ours = seconds_to(validated, len(corpus.train), goal)
    best = max(line["validation"]["P@5"] for line in validated)
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
