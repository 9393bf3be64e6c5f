"""Collecting prototypes of a corpus and of one twice as long: time should double, memory stay.

    python benchmarks/collection.py

Each size runs in a process of its own; memory is what the collection adds to the process, which holds the corpus.
"""

import argparse
import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from lsfa_jax.config import Classifier, Encoder
from lsfa_jax.console import note, table
from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.metrics import LabelSets
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.training import devices, transfer

_LABELS, _WORDS, _VOCABULARY = 2_000, 128, 20_000


def corpus(num_documents: int) -> Split:
    """Documents of 128 words with five of 2,000 labels each."""
    random = np.random.default_rng(0)
    words = random.integers(2, _VOCABULARY, num_documents * _WORDS).astype(np.int32)
    labels = random.integers(0, _LABELS // 5, (num_documents, 5)) * 5 + np.arange(5)
    offsets = [np.arange(num_documents + 1) * size for size in (_WORDS, 5)]
    return Split(words, offsets[0], LabelSets(labels.astype(np.int32).ravel(), offsets[1]))


def peak_mib() -> float:
    """Peak resident memory of this process alone (a child's ru_maxrss would begin with its parent's)."""
    with open("/proc/self/status") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def measure(num_documents: int) -> dict[str, float]:
    """Collects once to compile, once to measure."""
    mesh = devices.make_mesh()
    model = Lsfa(_VOCABULARY, 50, _LABELS, Encoder(hidden_size=64, feature_size=128), Classifier())
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))["params"]
    collect = transfer.make_collector(model)
    whole = corpus(num_documents)
    warm = Batches(whole.take(np.arange(64)), _LABELS, 64, [_WORDS], mesh.size)
    jax.block_until_ready(transfer.collect_features(collect, params, warm, model.feature_size, mesh))
    batches = Batches(whole, _LABELS, 64, [_WORDS], mesh.size)
    before, start = peak_mib(), time.perf_counter()
    jax.block_until_ready(transfer.collect_features(collect, params, batches, model.feature_size, mesh))
    return {"seconds": time.perf_counter() - start, "added": peak_mib() - before}


def main() -> None:
    """Measures N and 2N documents in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print("\n" + json.dumps(measure(args.documents)))
        return
    found: dict[int, list[dict[str, float]]] = {args.documents: [], 2 * args.documents: []}
    for _ in range(args.rounds):
        for number, results in found.items():
            command = [sys.executable, __file__, "--one", "--documents", str(number)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            results.append(json.loads(out.strip().splitlines()[-1]))
    median = {n: {k: float(np.median([r[k] for r in rs])) for k in rs[0]} for n, rs in found.items()}
    rows = [[f"{n:,}", f"{m['seconds']:.2f}", f"{m['added']:.0f}"] for n, m in median.items()]
    table("Collection of prototypes, medians", ["documents", "seconds", "MiB added"], rows)
    one, two = (median[n] for n in found)
    note(f"Twice the documents: {two['seconds'] / one['seconds']:.2f} x the time")


if __name__ == "__main__":
    main()
