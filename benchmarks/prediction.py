"""Predicting from file to file beside the model alone, in one run; and the memory of it at N and 10 N documents.

    python benchmarks/prediction.py                          # RCV1's shape, sizes of the paper
    python benchmarks/prediction.py --hidden 32 --feature 32 # a model so small that reading and writing show

Three ways take turns on the same documents: the compiled function on batches that are padded already, `Predictor` on
texts in memory, and what `bin/predict` does, JSON Lines to JSON Lines, less what it takes for one document. Memory is
the peak of processes of their own, with a small model, whose documents pass through the same code.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rcv1_like import rcv1_like

from lsfa_jax import console, inference, model_folder
from lsfa_jax.config import Config, Encoder
from lsfa_jax.model.lsfa import make_model
from lsfa_jax.predict import parse, predict
from lsfa_jax.training import devices

_LABELS, _VOCABULARY, _EMBEDDING, _WORDS, _TOP = 101, 72_595, 50, 500, 5


def model(hidden: int, feature: int) -> model_folder.TrainedModel:
    """A model with random weights."""
    config = Config(encoder=Encoder(hidden_size=hidden, feature_size=feature, embedding_size=_EMBEDDING))
    lsfa = make_model(config, _VOCABULARY + 2, _EMBEDDING, _LABELS)
    one = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
    return model_folder.TrainedModel(
        config=config,
        words=[f"w{i}" for i in range(_VOCABULARY)],
        labels=[f"label {i}" for i in range(_LABELS)],
        label_counts=np.ones(_LABELS, np.int64),
        num_documents=23_149,
        threshold=0.5,
        params=jax.tree.map(np.asarray, jax.jit(lsfa.init)(jax.random.key(0), *one)["params"]),
    )


def texts(number: int) -> Iterator[str]:
    """Texts of RCV1's lengths, made a few at a time."""
    whole = rcv1_like(min(number, 5_000), _LABELS, _VOCABULARY, _WORDS)
    parts = np.split(whole.words - 2, whole.word_offsets[1:-1])
    rows = [" ".join(f"w{word}" for word in words.tolist()) for words in parts]
    draw = random.Random(0)
    for i in range(number):
        yield rows[i] if i < len(rows) else draw.choice(rows)


def write(path: Path, number: int) -> None:
    """Writes documents as JSON Lines."""
    with path.open("w") as file:
        file.writelines(
            json.dumps({"id": f"document-{i}", "text": text}) + "\n" for i, text in enumerate(texts(number))
        )


def command(folder: Path, number: int) -> None:
    """Does what `bin/predict` does."""
    predict(parse(["--run", str(folder), str(folder / f"{number}.jsonl"), "--output", str(folder / "out.jsonl")]))


def seconds(run: Callable[[], object]) -> np.ndarray:
    """Times one call: wall clock, and processor time of all threads, which other work on the machine disturbs less."""
    start = np.array([time.perf_counter(), time.process_time()])
    run()
    return np.array([time.perf_counter(), time.process_time()]) - start


def peak_mib() -> float:
    """Peak resident memory of this process alone (a child's ru_maxrss would begin with its parent's)."""
    with open("/proc/self/status") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def padded_batches(predictor: inference.Predictor, texts: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches that the predictor makes of texts."""
    for chunk in predictor._encoded(texts):
        for rows in predictor._batches(np.array([len(words) for _, words in chunk])):
            yield predictor._padded([chunk[row][1] for row in rows])


def throughput(folder: Path, number: int, rounds: int) -> dict[str, list[np.ndarray]]:
    """Seconds a document of each way in each round, as `seconds` gives them."""
    write(folder / f"{number}.jsonl", number)
    write(folder / "1.jsonl", 1)
    in_memory = list(texts(number))
    predictor = inference.Predictor(model_folder.read(folder))
    batches = list(padded_batches(predictor, in_memory))

    def bare() -> None:
        for words, lengths in batches:
            arrays = devices.split_rows(predictor._mesh, (words, lengths))
            jax.block_until_ready(inference._best_labels(predictor._lsfa, _TOP, predictor._params, *arrays))

    ways = {
        "padded batches": bare,
        "texts in memory": lambda: list(predictor.predict(in_memory, _TOP)),
        "file to file": lambda: command(folder, number),
    }
    for run in ways.values():
        run()
    found: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    for _ in range(rounds):
        start = seconds(lambda: command(folder, 1))
        for name, run in ways.items():
            found[name].append((seconds(run) - (start if name == "file to file" else 0)) / number)
    return found


def memory(number: int) -> dict[int, float]:
    """MiB at the peak for N and 10 N documents."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model_folder.write(folder, model(hidden=16, feature=16))
        for count in (number, 10 * number):
            write(folder / f"{count}.jsonl", count)
            line = [sys.executable, __file__, "--one", str(folder), "--documents", str(count)]
            out = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout
            found[count] = float(out)
    return found


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("documents", 4_096), ("hidden", 256), ("feature", 300), ("rounds", 5), ("memory", 8_192)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    with console.on_stderr():
        if args.one:
            command(Path(args.one), args.documents)
            print(peak_mib())
            return
        with tempfile.TemporaryDirectory() as name:
            model_folder.write(Path(name), model(args.hidden, args.feature))
            found = throughput(Path(name), args.documents, args.rounds)
        peaks = memory(args.memory)
    rows = []
    for name, each in found.items():
        wall, processor = np.median(each, axis=0)
        ratios = np.array(found["padded batches"]) / np.array(each)
        low, high = ratios[:, 0].min(), ratios[:, 0].max()
        rows.append([name, f"{1 / wall:,.0f}", f"{np.median(ratios[:, 0]):.2f}", f"{low:.2f}-{high:.2f}",
                     f"{1e3 * processor:.2f}", f"{np.median(ratios[:, 1]):.2f}"])  # fmt: skip
    title = f"Predicting {args.documents:,} documents, hidden {args.hidden}, {_LABELS} labels; medians of {args.rounds}"
    console.table(title, ["", "documents/s", "ratio", "range", "CPU ms a document", "ratio"], rows)
    console.table("Memory", ["documents", "MiB at the peak"], [[f"{n:,}", f"{mib:,.0f}"] for n, mib in peaks.items()])
    console.note(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")


if __name__ == "__main__":
    main()
