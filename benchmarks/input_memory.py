"""Memory and time of the input of a large corpus: preparing it, an epoch of its batches, the features of its bags.

    python -m benchmarks.input_memory --documents 500000 --words 100

Texts of random words (a Zipf law, so that the vocabulary grows as it does in language) are written to a temporary
folder, which LSFA_DATA is set to. Memory is that of the process without mapped files, which the system frees when it is
needed elsewhere, above what the process has at the start.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lsfa_jax.config import Config
from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.load import load_corpus
from lsfa_jax.sparse import linear, tf_idf
from lsfa_jax.util import console

_VOCABULARY, _LABELS, _LABELS_OF_DOCUMENT, _BATCH_SIZE = 500_000, 5_000, 5, 40
_SECONDS_BETWEEN_SAMPLES = 0.02


def anonymous_bytes() -> int:
    """Returns the memory of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def measured(work: Callable[[], object]) -> tuple[float, int]:
    """Returns the seconds of a function and the most bytes that the process had above those before."""
    start, before, most, ended = time.perf_counter(), anonymous_bytes(), 0, threading.Event()

    def sample() -> None:
        nonlocal most
        while not ended.wait(_SECONDS_BETWEEN_SAMPLES):
            most = max(most, anonymous_bytes() - before)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        work()
    finally:
        seconds = time.perf_counter() - start
        ended.set()
        thread.join()
    return seconds, most


def write_texts(path: Path, documents: int, words: int) -> None:
    """Writes documents of about so many words as JSON Lines."""
    random = np.random.default_rng(0)
    with path.open("w") as file:
        for _ in range(documents):
            ids = random.zipf(1.2, random.integers(words // 2, words * 3 // 2 + 1)) % _VOCABULARY
            labels = np.unique(random.zipf(1.3, _LABELS_OF_DOCUMENT) % _LABELS)
            line = {"text": " ".join(f"w{word}" for word in ids), "labels": [f"l{label}" for label in labels]}
            file.write(json.dumps(line) + "\n")


def epoch(corpus: Corpus) -> None:
    """Pads the batches of an epoch."""
    batches = Batches(corpus.train, corpus.num_labels, _BATCH_SIZE, [64, 128, 256])
    for _ in batches.load(batches.epoch(np.random.default_rng(0))):
        pass


def features(corpus: Corpus) -> None:
    """Computes the TF-IDF features of the training documents."""
    assert corpus.train.bags is not None
    fitted, _ = tf_idf.fit([corpus.train.bags], corpus.bag_terms)
    model = linear.LinearModel(fitted, corpus.num_labels, linear.Tree({}))
    for _ in linear.feature_blocks(model, corpus.train.bags, corpus.bag_terms):
        pass


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=500_000)
    parser.add_argument("--words", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lsfa-benchmark-") as folder:
        os.environ["LSFA_DATA"] = folder
        write_texts(Path(folder) / "train.jsonl", args.documents, args.words)
        corpora: list[Corpus] = []
        config = Config(dataset="custom", data_dir=str(Path(folder) / "train.jsonl"))
        rows = {
            "preparing": measured(lambda: load_corpus(config)),
            "opening": measured(lambda: corpora.append(load_corpus(config))),
            "an epoch of batches": measured(lambda: epoch(corpora[0])),
            "TF-IDF": measured(lambda: features(corpora[0])),
        }
    cells = [
        [what, f"{seconds:,.1f}", f"{1e6 * seconds / args.documents:,.1f}", f"{most / 2**20:,.0f}",
         f"{most / args.documents:,.0f}"]
        for what, (seconds, most) in rows.items()
    ]  # fmt: skip
    header = ["", "s", "us a document", "MiB", "bytes a document"]
    console.table(f"{args.documents:,} documents of {args.words} words on average", header, cells)
    terms, words = len(corpora[0].bag_terms), len(corpora[0].words)
    console.note(f"{words:,} words in the vocabulary, {terms:,} words and pairs of words in the bags")


if __name__ == "__main__":
    main()
