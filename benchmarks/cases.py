"""What is compared with what, and which ratio is aimed at."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.documents import SHAPES

Target = float | None

SHORTLIST = 4_096
"""Labels of a sampled step; a quarter of all where there are fewer."""


@dataclass(frozen=True)
class Implementation:
    """A function that a worker calls for its `Work`."""

    target: str
    """MODULE:FUNCTION within `benchmarks`."""
    arguments: dict[str, Any]
    own_python: bool = False
    """Whether it runs in the interpreter that --peers-python names."""


@dataclass(frozen=True)
class Comparison:
    """A row of the table: ours beside its peers, the best of which counts."""

    topic: str
    shape: str
    what: str
    ours: Implementation
    peers: dict[str, Implementation] = field(default_factory=dict)
    time: Target = None
    """Ours / peer, at most."""
    memory: Target = None
    """The same of memory."""
    memory_fact: str = ""
    """The fact that tells the memory in MiB; empty: the peak of the process."""
    most_mib: Target = None
    """Memory of ours, at most."""

    @property
    def key(self) -> str:
        """Names the row."""
        return f"{self.topic}, {self.shape}: {self.what}"


class Topic(NamedTuple):
    """Rows that belong together."""

    about: str
    shapes: tuple[str, ...]
    """Measured where none is asked for."""
    rows: Callable[[str], list[Comparison]]


def _torch(function: str, **arguments: Any) -> Implementation:
    return Implementation(f"peers.torch_{function}", arguments)


def _lstm(shape: str) -> list[Comparison]:
    ours = Implementation("ours.layers:lstm", {"shape": shape})
    plain = {"torch": _torch("training:lstm", shape=shape, keep_freed_memory=False)}
    same = {"torch, our allocation": _torch("training:lstm", shape=shape)}
    what = "forward and backward"
    return [
        Comparison("lstm", shape, what, ours, plain, time=1.0),
        Comparison("lstm", shape, f"{what}, memory kept on both sides", ours, same, time=1.0),
    ]


def _label_attention(shape: str) -> list[Comparison]:
    return [
        Comparison("label-attention", shape, "loss and gradients",
                   Implementation("ours.layers:label_attention", {"shape": shape}),
                   {"plain JAX": Implementation("peers.plain_attention:label_attention", {"shape": shape})},
                   time=0.75, memory=1 / 8, memory_fact="temporary_mib")
    ]  # fmt: skip


def _step(shape: str) -> list[Comparison]:
    target = {"time": 0.85, "memory": 0.2} if shape == "eurlex" else {}
    rows = []
    for contrast in (False, True):
        arguments = {"shape": shape, "contrast": contrast}
        ours = Implementation("ours.training:step", arguments)
        peers = {"torch": _torch("training:step", **arguments)}
        if shape == "eurlex" and not contrast:
            # For its memory: what is kept is not given back.
            peers["torch, memory not kept"] = _torch("training:step", **arguments, keep_freed_memory=False)
        rows.append(
            Comparison("step", shape, "with PSC" if contrast else "BCE", ours, peers, **({} if contrast else target))
        )
    if shape == "aapd":
        arguments = {"shape": shape, "length": 64}
        peers = {name: _torch("training:step", **arguments, packed=name == "packed") for name in ("padded", "packed")}
        rows.append(Comparison("step", shape, "BCE, 64 words", Implementation("ours.training:step", arguments), peers))
    return rows


def _epoch(shape: str) -> list[Comparison]:
    contrast = shape == "eurlex"
    arguments = {"shape": shape, "contrast": contrast}
    return [
        Comparison("epoch", shape, "with PSC" if contrast else "BCE", Implementation("ours.training:epoch", arguments),
                   {"torch": _torch("training:epoch", **arguments)}, time={"rcv1": 0.5, "eurlex": 0.7}.get(shape))
    ]  # fmt: skip


def _shortlist(shape: str) -> list[Comparison]:
    size = min(SHORTLIST, SHAPES[shape].num_labels // 4)
    ours = Implementation("ours.training:step", {"shape": shape, "shortlist": size})
    if shape in ("131k", "670k"):
        small = Implementation("ours.training:step", {"shape": "30k", "shortlist": size})
        limits = {"time": 3.0, "most_mib": 16 * 1024.0} if shape == "670k" else {}
        return [Comparison("shortlist", shape, "step beside 30,000 labels", ours, {"ours, 30k": small}, **limits)]
    peers = {"torch, all labels": _torch("training:step", shape=shape)}
    return [Comparison("shortlist", shape, "step", ours, peers, time=0.3 if shape == "eurlex" else None)]


def _stage(name: str, what: str, function: str = "") -> Callable[[str], list[Comparison]]:
    def rows(shape: str) -> list[Comparison]:
        ours = Implementation(f"ours.stages:{function or name}", {"shape": shape})
        return [Comparison(name, shape, what, ours, {"torch": _torch(f"stages:{function or name}", shape=shape)})]

    return rows


def _prediction(shape: str) -> list[Comparison]:
    exact = Comparison("prediction", shape, "a document", Implementation("ours.prediction:exact", {"shape": shape}),
                       {"torch": _torch("stages:prediction", shape=shape)},
                       time=1 / 1.3 if shape == "eurlex" else None)  # fmt: skip
    ours = Implementation("ours.prediction:file_to_file", {"shape": shape})
    peers = {"compiled model alone": Implementation("ours.prediction:exact", {"shape": shape})}
    return [exact, Comparison("prediction", shape, "file to file, a document", ours, peers, time=1 / 0.8)]


def _libmultilabel(shape: str) -> list[Comparison]:
    rows = []
    for network in ("BiLSTMLWAN", "BiGRULWAN"):
        for equal in (True, False) if network == "BiLSTMLWAN" else (True,):
            arguments = {"shape": shape, "equal": equal}
            peer = Implementation(
                "peers.libmultilabel_training:epoch", arguments | {"network": network}, own_python=True
            )
            what = f"epoch, {network}, {'equal' if equal else 'true'} lengths"
            ours = Implementation("ours.training:lwan_epoch", arguments)
            rows.append(Comparison("libmultilabel", shape, what, ours, {network: peer}, time=0.5))
    return rows


def _omikuji(shape: str) -> list[Comparison]:
    peer = Implementation("peers.omikuji_tree:prediction", {"shape": shape})
    ours = Implementation("ours.prediction:exact", {"shape": shape})
    return [Comparison("omikuji", shape, "prediction, a document", ours, {"omikuji": peer})]


TOPICS = {
    "lstm": Topic("BiLSTM, forward and backward, all texts of the longest length", ("eurlex",), _lstm),
    "label-attention": Topic("attention of all labels to the loss, with gradients", ("eurlex",), _label_attention),
    "step": Topic("a training step on one padded batch, without and with PSC", ("aapd", "rcv1", "eurlex"), _step),
    "epoch": Topic("a training epoch, added up from steps; EUR-Lex with PSC", ("rcv1", "eurlex"), _epoch),
    "shortlist": Topic("a training step with the sampled shortlist", ("eurlex", "670k"), _shortlist),
    "collection": Topic("features and prototypes, an epoch", ("eurlex",), _stage("collection", "a document")),
    "pvae": Topic("the variational autoencoder, a feature", ("eurlex",), _stage("pvae", "a feature")),
    "adjustment": Topic("the last stage, a document", ("eurlex",), _stage("adjustment", "a document", "adjust")),
    "prediction": Topic("the best five labels", ("eurlex",), _prediction),
    "libmultilabel": Topic("a training epoch of the same network in LibMultiLabel", ("rcv1",), _libmultilabel),
    "omikuji": Topic("a linear label tree", ("eurlex",), _omikuji),
}
