"""A cost model on paper: what travels in a step, how long it takes and how much a device holds on a (data, label) mesh.

    python -m benchmarks.cost_model
    python -m benchmarks.cost_model --shape 670k --devices 64 --all

Each of the N shares of documents has a batch of the corpus's size. Numbers that travel are those of docs/scaling.md;
tests/training/test_label_axis.py compares them with the collectives of compiled programs. Times are those of a device
that computes at a share of its peak and sends nothing meanwhile.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from benchmarks.cases import SHAPES, SHORTLIST, Shape
from lsfa_jax.training.shortlist import MOST_LABELS
from lsfa_jax.util import console

_GIB, _MIB = 2**30, 2**20

# Pairs of the contrastive loss are computed in blocks of so many; label slots of a document are a multiple of 8.
_PAIRS, _SLOTS = 128, 8


class Sizes(NamedTuple):
    """Sizes of a step, letters as in docs/scaling.md."""

    documents: int
    """B."""
    tokens: int
    """T."""
    slots: int
    """K."""
    state: int
    """2H."""
    feature: int
    """D."""
    labels: int
    """L."""
    label_block: int
    shared: int
    """Parameters that no label has alone: encoder and feature head."""
    words: int = 0
    """Of these, word vectors."""
    candidates: int = 100
    """C."""
    sample: int = 256
    """R."""
    shortlist: int = SHORTLIST
    """S."""
    generated: int = 0
    """Generated features of a step of stage 3, P."""
    estimated: int = 20
    """Labels that an estimate adds to the candidates in prediction."""
    ranked: int = 5
    groups: int = 1
    """Groups of labels that prediction ranks."""


Travels = dict[str, dict[str, float]]
"""Axis of the mesh -> what travels over it -> numbers that a device receives in a step."""


def travels(program: str, sizes: Sizes, data: int, label: int) -> Travels:
    """Returns the numbers that a device receives in a run of a program.

    Args:
        program: representation, candidates, shortlist, adjustment, prediction, or prediction from candidates.
        sizes: of a step.
        data: N, devices over which the documents are split.
        label: M, devices over which the labels are split.
    """
    documents, rows = -(-sizes.documents // data), -(-sizes.labels // label)
    blocks = -(-rows // sizes.label_block)
    slots, both = sizes.documents * sizes.slots, sizes.state + sizes.feature
    contrast = _PAIRS * -(-slots // _PAIRS) * (sizes.feature + 10)
    pool = min(8 * sizes.shortlist, sizes.labels)
    proposed = max(sizes.candidates, sizes.slots)
    generated = -(-sizes.generated // data)
    tables = {
        "gradients of the device's rows": blocks * (sizes.label_block * both + sizes.feature + 1) + rows * sizes.state,
        "gradients of encoder and feature head": sizes.shared,
    }
    counts = {"histogram and counts of predictions": 200 + 2 * rows + 3 * slots}

    def best(k: int) -> int:
        return documents * k * (label + 2)

    over_label: dict[str, dict[str, float]] = {
        "representation": {
            "gradients of token states and their features": blocks
            * (documents * sizes.tokens * both + sizes.feature + 1),
            "queries of the documents' labels": documents * sizes.slots * sizes.state,
            "parts of the contrastive loss": contrast,
        },
        "candidates": {"rows of candidates": (documents * proposed + sizes.sample) * (both + sizes.feature + 1)},
        "shortlist": {
            "classifiers of the pool": pool * sizes.feature,
            "rows of the shortlist, moments, prototypes": sizes.shortlist * (3 * both + sizes.feature + 1),
        },
        "adjustment": {"rows of generated features": generated * 2 * sizes.feature, "sums": blocks + 3},
        "prediction": {"the best labels": sizes.groups * best(sizes.ranked)},
        "prediction from candidates": {
            "the best labels by an estimate": blocks * best(sizes.estimated),
            "rows of candidates": documents * (proposed + sizes.estimated) * (both + 1),
        },
    }
    over_data: dict[str, dict[str, float]] = {
        "representation": tables | {"features of the batch's labels": slots * (sizes.feature + 5)},
        "candidates": tables
        | {
            "gradients of candidates and sample": rows * sizes.feature + sizes.sample * both,
            "features of the batch's labels": slots * (sizes.feature + 5),
        },
        "shortlist": {
            "gradients of the shortlist": 2 * sizes.shortlist * both + pool,
            "gradients of encoder and feature head": sizes.shared,
            "features of the batch's labels": slots * (sizes.feature + 5) + contrast,
        },
        "adjustment": {
            "gradients of the device's classifiers": blocks * (sizes.label_block * sizes.feature + 2)
            + rows * sizes.feature
        },
        "prediction": counts,
        "prediction from candidates": counts
        | {"places of the proposals in a block": blocks * sizes.documents * proposed * 2},
    }
    return {
        "label": over_label[program] if label > 1 else {},
        "data": over_data[program] if data > 1 else {},
    }


class State(NamedTuple):
    """How the rows of labels are kept, as the settings optimizer.label_rows, label_precision, devices.best_weights."""

    label_rows: str = "adam"
    precision: str = "float32"
    best_weights: str = "device"

    @property
    def bytes_a_weight(self) -> float:
        """Bytes that a device holds of each number of a table between steps."""
        moments = {"adam": 2, "row_adam": 1, "sgd": 1}[self.label_rows]
        stored = (1 + moments) * (4 if self.precision == "float32" else 2)
        return stored + (8 if self.best_weights == "device" else 0)

    @property
    def bytes_in_a_step(self) -> float:
        """Bytes for each number that a step over all labels needs beside: its gradient, and the number in float32."""
        return 4 if self.precision == "float32" else 8


PLAIN = State()


@dataclass(frozen=True)
class Device:
    """A kind of accelerator; figures of its maker."""

    name: str
    flops: float
    """A second, of matrix products."""
    share: float
    """Of them, that programs reach."""
    memory_bandwidth: float
    """Bytes a second."""
    link: float
    """Bytes a second to devices of the same host."""
    network: float
    """Bytes a second to devices of other hosts."""
    devices_a_host: int
    seconds_a_token: float
    """Time of one token of a recurrent encoder, forward and backward, however small the batch."""
    seconds_a_collective: float


H100 = Device("H100, 8 a host", 495e12, 0.3, 3.35e12, 450e9, 50e9, 8, 30e-6, 20e-6)


def sizes_of(shape: Shape, batch_size: int) -> Sizes:
    """Returns the sizes of a step at a benchmark's shape, with the paper's BiLSTM."""
    state, gates = 2 * shape.hidden_size, 4 * shape.hidden_size
    words = shape.vocabulary_size * shape.embedding_size
    recurrent = 2 * gates * (shape.embedding_size + shape.hidden_size + 1)
    return Sizes(
        documents=batch_size,
        tokens=shape.step_words,
        slots=_SLOTS * -(-round(3 * shape.labels_per_document) // _SLOTS),
        state=state,
        feature=shape.feature_size,
        labels=shape.num_labels,
        label_block=4096,
        shared=words + recurrent + (state + 1) * shape.feature_size,
        words=words,
    )


def program_of(shape: Shape) -> str:
    """Returns the program of stage 1 that the settings choose."""
    return "shortlist" if shape.num_labels > MOST_LABELS else "representation"


class Cost(NamedTuple):
    """A step on a mesh."""

    data: int
    label: int
    documents: int
    """Of a step."""
    compute: float
    """Seconds."""
    network: float
    """Seconds."""
    received: float
    """Bytes that a device receives."""
    held: float
    """Bytes that a device holds in a step."""

    @property
    def seconds(self) -> float:
        """Of a step."""
        return self.compute + self.network

    @property
    def rate(self) -> float:
        """Documents a second."""
        return self.documents / self.seconds


def cost(shape: Shape, data: int, label: int, program: str, state: State = PLAIN, device: Device = H100) -> Cost:
    """Returns the cost of a step of stage 1 on a mesh of N x M devices, which has N times the documents of one.

    `program` is that of a step over all labels, "representation", or over a shortlist.
    """
    sizes = sizes_of(shape, data * shape.batch_size)
    documents, both = shape.batch_size, sizes.state + sizes.feature
    rows = -(-sizes.labels // label)
    computed = rows if program == "representation" else sizes.shortlist
    # Forward and backward: three products of 2 operations each.
    encoder = 6 * documents * sizes.tokens * (sizes.shared - sizes.words)
    attention = 6 * documents * sizes.tokens * both * computed
    products = (encoder + attention) / (device.flops * device.share)
    # Adam reads and writes weights and moments of the rows that it changes, and of all word vectors: 7 numbers each.
    changed = computed * both + sizes.shared
    compute = max(products, sizes.tokens * device.seconds_a_token) + 7 * 4 * changed / device.memory_bandwidth
    network = received = 0.0
    for axis, size in (("label", label), ("data", data)):
        parts = travels(program, sizes, data, label)[axis]
        # Devices of a host are neighbours along `label`.
        inside = (label if axis == "label" else data * label) <= device.devices_a_host
        num_bytes = 4 * sum(parts.values())
        received += num_bytes
        network += 2 * (size - 1) / size * num_bytes / (device.link if inside else device.network)
        network += len(parts) * device.seconds_a_collective
    tables, numbers = rows * both, computed * both
    # Prototypes; encoder with moments, mean and best; rows in a step; activations of the encoder and of a tile.
    held = tables * state.bytes_a_weight + 4 * rows * sizes.feature + 5 * 4 * sizes.shared
    held += state.bytes_in_a_step * numbers
    held += 4 * documents * sizes.tokens * (12 * sizes.state + sizes.feature)
    held += 4 * documents * min(sizes.label_block, computed) * 2 * (sizes.tokens + sizes.feature)
    return Cost(data, label, data * documents, compute, network, received, held)


def splits(devices: int) -> Iterator[tuple[int, int]]:
    """Yields the (N, M) of a number of devices; M is a power of 2."""
    for label in (2**i for i in range(devices.bit_length())):
        if devices % label == 0:
            yield devices // label, label


def best_split(shape: Shape, devices: int, memory: float, program: str, state: State = PLAIN) -> Cost | None:
    """Returns the split with the most documents a second that fits into the memory of a device; None: none fits."""
    costs = [cost(shape, *split, program, state) for split in splits(devices)]
    return max((each for each in costs if each.held <= memory), key=lambda each: each.rate, default=None)


PAPER = {
    "RCV1": SHAPES["rcv1"],
    "EUR-Lex": SHAPES["eurlex"],
    "Amazon-670K": SHAPES["670k"],
    "3 million labels": replace(SHAPES["670k"], num_labels=3_000_000),
}
"""Corpora of the table; texts of the last two are as in EUR-Lex."""

_HEADER = ["", "devices", "data x label", "documents/s", "ms a step", "sending", "MiB received", "GiB a device"]


def _row(name: str, each: Cost) -> list[str]:
    return [
        name,
        str(each.data * each.label),
        f"{each.data} x {each.label}",
        f"{each.rate:,.0f}",
        f"{1e3 * each.seconds:,.1f}",
        f"{1e3 * each.network:,.1f}",
        f"{each.received / _MIB:,.1f}",
        f"{each.held / _GIB:,.1f}",
    ]


def main() -> None:
    """Prints the best split for 1 to 256 devices, or all splits of some devices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="all")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--memory", type=float, default=76.0, help="GiB of a device (default 76)")
    parser.add_argument("--all", action="store_true", help="all splits instead of the best one")
    parser.add_argument("--all-labels", action="store_true", help="steps over all labels, however many there are")
    parser.add_argument("--label-rows", choices=["adam", "row_adam", "sgd"], default="adam")
    parser.add_argument("--label-precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--best-weights", choices=["device", "host"], default="device")
    args = parser.parse_args()
    state = State(args.label_rows, args.label_precision, args.best_weights)
    shapes = PAPER if args.shape == "all" else {args.shape: SHAPES[args.shape]}
    rows = []
    for name, shape in shapes.items():
        for devices in args.devices:
            program = "representation" if args.all_labels else program_of(shape)
            best = best_split(shape, devices, args.memory * _GIB, program, state)
            every = [cost(shape, *split, program, state) for split in splits(devices)]
            rows += [_row(name, each) for each in (every if args.all else [best] if best else [])]
    console.table(f"A step of stage 1 on paper: {H100.name}", _HEADER, rows)


if __name__ == "__main__":
    main()
