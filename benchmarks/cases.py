"""All benchmark cases: the shapes of corpora, and which implementations are compared at each shape.

A new case is a `Comparison` in one of the topics below; a new peer is a function in `benchmarks/peers/` and its name in
one. Standard library only, so that a peer's interpreter can import it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Shape:
    """Sizes of a corpus (as in docs/corpora.md) and of the paper's model on it."""

    num_documents: int
    """Training documents."""
    num_labels: int
    """L."""
    labels_per_document: float
    """Mean."""
    mean_words: float
    """Words a document before the cut at `max_words`."""
    spread: float
    """Standard deviation of the logarithm of a document's length."""
    vocabulary_size: int
    step_words: int
    """T of one training step: the length bucket of a document of mean length."""
    max_words: int = 500
    embedding_size: int = 300
    """E."""
    hidden_size: int = 256
    """H."""
    feature_size: int = 300
    """D."""
    batch_size: int = 40
    """B."""
    num_layers: int = 6
    """Of a transformer."""

    @property
    def transformer(self) -> dict[str, int]:
        """Sizes of a transformer with the proportions of MiniLM-L6, whose token states have the size 2H."""
        size = 2 * self.hidden_size
        return {
            "vocabulary_size": self.vocabulary_size,
            "hidden_size": size,
            "num_layers": self.num_layers,
            "num_heads": max(1, size // 32),
            "intermediate_size": 4 * size,
            "num_positions": 512,
        }

    @property
    def num_sampled(self) -> int:
        """Documents that stand for all in the collection of features, where each is quick."""
        return min(self.num_documents, 8 * self.batch_size)

    @property
    def num_predicted(self) -> int:
        """Documents to predict: fewer where there are many labels, because every label is scored."""
        return min(self.num_documents, (3 if self.num_labels > 1_000 else 16) * self.batch_size)


SHAPES = {
    "aapd": Shape(54_840, 54, 2.41, 163.42, 0.5, 69_399, 192),
    # The public copy, which lacks stop words.
    "rcv1": Shape(23_149, 102, 3.18, 138.19, 0.78, 79_412, 192),
    "eurlex": Shape(11_585, 3_956, 5.32, 1225.20, 0.9, 171_120, 500),
    # Label spaces as large as those of Wiki10-31K, LF-Amazon-131K and Amazon-670K; texts as in EUR-Lex.
    "30k": Shape(14_146, 30_000, 5.32, 1225.20, 0.9, 171_120, 500),
    "131k": Shape(294_805, 131_000, 5.32, 1225.20, 0.9, 171_120, 500),
    "670k": Shape(490_449, 670_000, 5.32, 1225.20, 0.9, 171_120, 500),
    # Short documents in pieces of words for a transformer; `step_words` counts its first and last token, too.
    "minilm": Shape(8_000, 90, 2.0, 126, 0.1, 30_522, 128, max_words=126, hidden_size=192,
                    batch_size=32),
    # For trying the benchmarks out; no targets apply.
    "tiny": Shape(60, 30, 2.0, 10, 0.5, 50, 12, max_words=16, embedding_size=6, hidden_size=5, feature_size=4,
                  batch_size=8, num_layers=1),
}  # fmt: skip

SHORTLIST = 4_096
"""Labels of a sampled step; a quarter of all labels where there are fewer."""


CANDIDATES = 100
"""Labels that a linear model proposes for a document; a quarter of all labels where there are fewer."""


@dataclass(frozen=True)
class Implementation:
    """A function `(shape: Shape, seed: int, **arguments) -> Work` that a worker process calls."""

    function: str
    """MODULE:FUNCTION within `benchmarks`, e.g. `ours.training:step`."""
    shape: str
    """Key of `SHAPES`."""
    arguments: Mapping[str, object] = field(default_factory=dict)
    """JSON values. The worker itself uses `keep_freed_memory` (true by default), see `harness/worker.py`."""
    peers_python: bool = False
    """Whether it runs in the interpreter that --peers-python names."""


@dataclass(frozen=True)
class Comparison:
    """A row of the table: ours and its peers; the ratio is to the best peer."""

    topic: str
    shape: str
    what: str
    ours: Implementation
    peers: Mapping[str, Implementation] = field(default_factory=dict)
    time_target: float | None = None
    """Largest ratio of times, ours / peer."""
    memory_target: float | None = None
    """Largest ratio of memory, ours / peer."""
    memory_fact: str = ""
    """Name of the fact with the memory in MiB; empty: the peak memory of the process."""
    max_mib: float | None = None
    """Largest memory of ours."""

    @property
    def key(self) -> str:
        """Identifies the row in the table and in the JSON file."""
        return f"{self.topic}, {self.shape}: {self.what}"


class Topic(NamedTuple):
    """Comparisons that belong together."""

    about: str
    shapes: tuple[str, ...]
    """Measured where no --shape is named."""
    comparisons: Callable[[str], list[Comparison]]
    """From the name of a shape."""


def _ours(function: str, shape: str, **arguments: object) -> Implementation:
    return Implementation(f"ours.{function}", shape, arguments)


def _torch(function: str, shape: str, **arguments: object) -> Implementation:
    return Implementation(f"peers.torch_{function}", shape, arguments)


def _lstm(shape: str) -> list[Comparison]:
    ours = _ours("layers:lstm", shape)
    default_malloc = {"torch": _torch("training:lstm", shape, keep_freed_memory=False)}
    same_malloc = {"torch, our allocation": _torch("training:lstm", shape)}
    what = "forward and backward"
    return [
        Comparison("lstm", shape, what, ours, default_malloc, time_target=1.0),
        Comparison("lstm", shape, f"{what}, memory kept on both sides", ours, same_malloc, time_target=1.0),
    ]


def _cnn(shape: str) -> list[Comparison]:
    # A step has the label attention, which both encoders share: at EUR-Lex's shape it alone takes longer than half of
    # the BiLSTM's step.
    return [
        Comparison(
            "cnn",
            shape,
            "encoder, forward and backward",
            _ours("layers:convolution", shape),
            {"BiLSTM": _ours("layers:lstm", shape)},
            time_target=0.5,
        ),
        Comparison(
            "cnn",
            shape,
            "step",
            _ours("training:step", shape, kind="cnn"),
            {"BiLSTM": _ours("training:step", shape)},
            time_target=0.5,
        ),
    ]


def _bfloat16(shape: str) -> list[Comparison]:
    return [
        Comparison(
            "bfloat16",
            shape,
            f"step, {kind}",
            _ours("training:step", shape, kind=kind, precision="bfloat16"),
            {"float32": _ours("training:step", shape, kind=kind)},
            time_target=0.6,
        )
        for kind in ("bilstm", "cnn")
    ]


def _label_attention(shape: str) -> list[Comparison]:
    return [
        Comparison(
            "label-attention",
            shape,
            "loss and gradients",
            _ours("layers:label_attention", shape),
            {"plain JAX": Implementation("peers.plain_attention:label_attention", shape)},
            time_target=0.75,
            memory_target=1 / 8,
            memory_fact="temporary_mib",
        )
    ]


def _step(shape: str) -> list[Comparison]:
    ours, peers = _ours("training:step", shape, psc=False), {"torch": _torch("training:step", shape, psc=False)}
    if shape == "eurlex":
        # Its time is poor; the row is for its memory, which includes no freed memory.
        peers["torch, memory not kept"] = _torch("training:step", shape, psc=False, keep_freed_memory=False)
        comparisons = [Comparison("step", shape, "BCE", ours, peers, time_target=0.85, memory_target=0.2)]
    else:
        comparisons = [Comparison("step", shape, "BCE", ours, peers)]
    ours, peers = _ours("training:step", shape, psc=True), {"torch": _torch("training:step", shape, psc=True)}
    comparisons.append(Comparison("step", shape, "with PSC", ours, peers))
    if shape == "aapd":
        ours = _ours("training:step", shape, num_words=64)
        peers = {
            "padded": _torch("training:step", shape, num_words=64, packed=False),
            "packed": _torch("training:step", shape, num_words=64, packed=True),
        }
        comparisons.append(Comparison("step", shape, "BCE, 64 words", ours, peers))
    return comparisons


def _epoch(shape: str) -> list[Comparison]:
    psc = shape == "eurlex"
    ours, peers = _ours("training:epoch", shape, psc=psc), {"torch": _torch("training:epoch", shape, psc=psc)}
    target = {"rcv1": 0.5, "eurlex": 0.7}.get(shape)
    return [Comparison("epoch", shape, "with PSC" if psc else "BCE", ours, peers, time_target=target)]


def _shortlist(shape: str) -> list[Comparison]:
    size = min(SHORTLIST, SHAPES[shape].num_labels // 4)
    ours = _ours("training:step", shape, shortlist=size)
    if shape in ("131k", "670k"):
        peers = {"ours, 30k": _ours("training:step", "30k", shortlist=size)}
        what = "step beside 30,000 labels"
        if shape == "670k":
            return [Comparison("shortlist", shape, what, ours, peers, time_target=3.0, max_mib=16 * 1024.0)]
        return [Comparison("shortlist", shape, what, ours, peers)]
    peers = {"torch, all labels": _torch("training:step", shape)}
    return [Comparison("shortlist", shape, "step", ours, peers, time_target=0.3 if shape == "eurlex" else None)]


def _candidates(shape: str) -> list[Comparison]:
    number = min(CANDIDATES, SHAPES[shape].num_labels // 4)

    def beside_all(function: str, what: str, time_target: float, **arguments: object) -> Comparison:
        ours, peer = _ours(function, shape, candidates=number, **arguments), _ours(function, shape, **arguments)
        return Comparison("candidates", shape, what, ours, {"all labels": peer}, time_target=time_target)

    return [
        beside_all("training:step", "step, BCE", 0.4, psc=False),
        beside_all("training:step", "step, with PSC", 0.4, psc=True),
        beside_all("prediction:padded_batches", "prediction, a document", 0.35),
    ]


DEVICES = (2, 4, 8)
"""Sizes of the mesh's axis `label` beside 1."""

_SPARING = {"label_rows": "row_adam", "label_precision": "bfloat16"}


def _mesh(shape: str) -> list[Comparison]:
    def beside(stage: str, what: str, devices: int, target: float, **settings: object) -> Comparison:
        ours = _ours("mesh:program", shape, stage=stage, devices=devices, **settings)
        one = {"one device": _ours("mesh:program", shape, stage=stage, devices=1)}
        return Comparison("mesh", shape, what, ours, one, memory_target=target, memory_fact="device_mib")

    stages = {"step": "step", "collection": "collection", "adjustment": "stage 3", "prediction": "prediction"}
    rows = [
        # What has no row a label, the encoder with its moments and the activations, is on every device.
        beside(stage, f"{what}, {devices} devices", devices, 1 / devices + 0.25)
        for stage, what in stages.items()
        for devices in DEVICES
    ]
    return [*rows, beside("step", "step, row_adam in bfloat16", 1, 0.75, **_SPARING)]


def _stage(name: str, what: str) -> Callable[[str], list[Comparison]]:
    def comparisons(shape: str) -> list[Comparison]:
        ours, peers = _ours(f"stages:{name}", shape), {"torch": _torch(f"stages:{name}", shape)}
        return [Comparison(name, shape, what, ours, peers)]

    return comparisons


def _prediction(shape: str) -> list[Comparison]:
    model = _ours("prediction:padded_batches", shape)
    peers = {"torch": _torch("stages:prediction", shape)}
    command = _ours("prediction:file_to_file", shape)
    target = 1 / 1.3 if shape == "eurlex" else None
    return [
        Comparison("prediction", shape, "a document", model, peers, time_target=target),
        Comparison(
            "prediction",
            shape,
            "file to file, a document",
            command,
            {"compiled model alone": model},
            time_target=1 / 0.8,
        ),
    ]


def _libmultilabel(shape: str) -> list[Comparison]:
    comparisons = []
    for network, equal in (("BiLSTMLWAN", True), ("BiLSTMLWAN", False), ("BiGRULWAN", True)):
        peer = Implementation(
            "peers.libmultilabel_training:epoch", shape, {"equal": equal, "network": network}, peers_python=True
        )
        what = f"epoch, {network}, {'equal' if equal else 'true'} lengths"
        ours = _ours("training:lwan_epoch", shape, equal=equal)
        comparisons.append(Comparison("libmultilabel", shape, what, ours, {network: peer}, time_target=0.5))
    return comparisons


def _omikuji(shape: str) -> list[Comparison]:
    ours = _ours("prediction:padded_batches", shape)
    peers = {"omikuji": Implementation("peers.omikuji_tree:prediction", shape)}
    return [Comparison("omikuji", shape, "prediction, a document", ours, peers)]


def _transformer(shape: str) -> list[Comparison]:
    comparisons = []
    for function, what in (("step", "step of fine-tuning"), ("states", "states, a document")):
        peers = {
            f"transformers, {precision}, {attention}": Implementation(
                f"peers.hugging_face:{function}",
                shape,
                {"precision": precision, "attention": attention},
                peers_python=True,
            )
            for precision in ("float32", "bfloat16")
            for attention in ("sdpa", "eager")
        }
        for precision in ("float32", "bfloat16"):
            ours = _ours(f"transformer:{function}", shape, precision=precision)
            comparisons.append(Comparison("transformer", shape, f"{what}, {precision}", ours, peers, time_target=1.0))
    return comparisons


TOPICS = {
    "lstm": Topic("BiLSTM, forward and backward, all texts of the longest length", ("eurlex",), _lstm),
    "cnn": Topic("the convolution beside the BiLSTM", ("eurlex",), _cnn),
    "bfloat16": Topic("a training step with products in bfloat16 beside float32", ("eurlex",), _bfloat16),
    "label-attention": Topic("attention of all labels to the loss, with gradients", ("eurlex",), _label_attention),
    "step": Topic("a training step on one padded batch, without and with PSC", ("aapd", "rcv1", "eurlex"), _step),
    "epoch": Topic("a training epoch, added up from steps; EUR-Lex with PSC", ("rcv1", "eurlex"), _epoch),
    "shortlist": Topic("a training step with the sampled shortlist", ("eurlex", "670k"), _shortlist),
    "candidates": Topic("a step and a prediction over candidates beside all labels", ("eurlex",), _candidates),
    "mesh": Topic("stages with the labels split over devices", ("30k", "131k", "670k"), _mesh),
    "collection": Topic("features and prototypes, an epoch", ("eurlex",), _stage("collection", "a document")),
    "pvae": Topic("the variational autoencoder, a feature", ("eurlex",), _stage("pvae", "a feature")),
    "adjustment": Topic("the last stage, a document", ("eurlex",), _stage("adjustment", "a document")),
    "prediction": Topic("the best five labels", ("eurlex",), _prediction),
    "libmultilabel": Topic("a training epoch of the same network in LibMultiLabel", ("rcv1",), _libmultilabel),
    "transformer": Topic("MiniLM-L6 beside the library transformers", ("minilm",), _transformer),
    "omikuji": Topic("a linear label tree", ("eurlex",), _omikuji),
}
