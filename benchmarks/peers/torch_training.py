"""Training steps and epochs in plain PyTorch."""

from collections.abc import Callable

import numpy as np
import torch

from benchmarks import documents as shapes
from benchmarks.harness.work import Part, Work, once
from benchmarks.peers.torch_model import Plain, TorchBatch, loss


def lstm(shape: str, seed: int) -> Work:
    """Gradients of weights and inputs of nn.LSTM, all texts of the longest length."""
    own = shapes.SHAPES[shape]
    torch.manual_seed(seed)
    layer = torch.nn.LSTM(own.embedding, own.hidden, batch_first=True, bidirectional=True)
    x = torch.randn(own.batch, own.max_words, own.embedding, requires_grad=True)
    d_states = torch.randn(own.batch, own.max_words, 2 * own.hidden)

    def run() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x)[0].backward(d_states)

    return once(run, threads=torch.get_num_threads())


def stepper(own: shapes.Shape, seed: int, contrast: bool, packed: bool = False) -> tuple[Plain, Callable[..., None]]:
    """Returns the model and what trains it on a batch with Adam."""
    torch.manual_seed(seed)
    model = Plain(own, packed=packed)
    adam = torch.optim.Adam(model.parameters())
    prototypes = torch.rand(own.num_labels, own.feature) if contrast else None

    def run(batch: TorchBatch) -> None:
        adam.zero_grad()
        loss(model, batch, prototypes).backward()
        adam.step()

    return model, run


def step(shape: str, seed: int, contrast: bool = False, length: int | None = None, packed: bool = False) -> Work:
    """Forward, backward and Adam on one batch, the same as ours."""
    own = shapes.SHAPES[shape]
    made = shapes.documents(own, seed)
    rows = shapes.step_rows(made, own, length)
    batch = TorchBatch(made, rows, own.num_labels, length or own.step_words)
    _, run = stepper(own, seed, contrast, packed)
    return once(lambda: run(batch), threads=torch.get_num_threads())


def epoch(shape: str, seed: int, contrast: bool = False) -> Work:
    """An epoch of random batches padded to their longest; with `contrast`, prototypes are collected first."""
    own = shapes.SHAPES[shape]
    made = shapes.documents(own, seed)
    model, run = stepper(own, seed, contrast)
    random = np.random.default_rng(seed)
    computed, real = [], []

    def some() -> TorchBatch:
        batch = TorchBatch(made, random.choice(len(made), own.batch, replace=False), own.num_labels)
        computed.append(batch.words.numel())
        real.append(int(batch.lengths.sum()))
        return batch

    # As many batches a round as give a fair mean of the longest length.
    number = 1 if contrast else 3
    times = own.num_documents / own.batch / number
    parts = [Part(times, lambda: run(some())) for _ in range(number)]
    if contrast:
        parts.append(Part(times, collection(model, own, some)))
    longest = [made.lengths[random.choice(len(made), own.batch)] for _ in range(200)]
    ratio = sum(len(x) * x.max() for x in longest) / sum(x.sum() for x in longest)
    return Work(parts, {"computed_per_real_word": float(ratio), "threads": torch.get_num_threads()})


def collection(model: Plain, own: shapes.Shape, some: Callable[[], TorchBatch]) -> Callable[[], None]:
    """Returns what adds the features of a batch's positive pairs to the sums of their labels."""
    totals, counts = torch.zeros(own.num_labels, own.feature), torch.zeros(own.num_labels)

    @torch.no_grad()
    def run() -> None:
        batch = some()
        model.eval()
        features = model.pair_features(
            model.states(batch.words, batch.lengths), batch.lengths, batch.document, batch.label
        )
        totals.index_add_(0, batch.label, features)
        counts.index_add_(0, batch.label, torch.ones(len(batch.label)))
        model.train()

    return run
