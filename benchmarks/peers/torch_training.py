"""Training steps and epochs in plain PyTorch."""

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.cases import Shape
from benchmarks.documents import documents, step_rows
from benchmarks.harness.work import Part, Work, per_call
from benchmarks.peers.torch_model import Plain, TorchBatch, loss


def lstm(shape: Shape, seed: int) -> Work:
    """Gradients of weights and inputs of nn.LSTM, all texts of the longest length."""
    torch.manual_seed(seed)
    layer = torch.nn.LSTM(shape.embedding_size, shape.hidden_size, batch_first=True, bidirectional=True)
    x = torch.randn(shape.batch_size, shape.max_words, shape.embedding_size, requires_grad=True)
    d_states = torch.randn(shape.batch_size, shape.max_words, 2 * shape.hidden_size)

    def run() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x)[0].backward(d_states)

    return per_call(run, threads=torch.get_num_threads())


def stepper(shape: Shape, seed: int, psc: bool, packed: bool = False) -> tuple[Plain, Callable[[TorchBatch], None]]:
    """Returns a model and a function that trains it on a batch with Adam."""
    torch.manual_seed(seed)
    model = Plain(shape, packed=packed)
    adam = torch.optim.Adam(model.parameters())
    prototypes = torch.rand(shape.num_labels, shape.feature_size) if psc else None

    def run(batch: TorchBatch) -> None:
        adam.zero_grad()
        loss(model, batch, prototypes).backward()
        adam.step()

    return model, run


def step(shape: Shape, seed: int, psc: bool = False, num_words: int | None = None, packed: bool = False) -> Work:
    """Forward, backward and Adam on one batch, the same as ours."""
    drawn = documents(shape, seed)
    rows = step_rows(drawn, shape, num_words)
    batch = TorchBatch(drawn, rows, shape.num_labels, num_words or shape.step_words)
    _, run = stepper(shape, seed, psc, packed)
    return per_call(lambda: run(batch), threads=torch.get_num_threads())


def epoch(shape: Shape, seed: int, psc: bool = False) -> Work:
    """An epoch of random batches padded to their longest document; with `psc`, prototypes are collected first."""
    drawn = documents(shape, seed)
    model, run = stepper(shape, seed, psc)
    random = np.random.default_rng(seed)

    def next_batch() -> TorchBatch:
        return TorchBatch(drawn, random.choice(len(drawn.lengths), shape.batch_size, replace=False), shape.num_labels)

    # Batches a round: enough for a fair mean of the longest length.
    number = 1 if psc else 3
    weight = shape.num_documents / shape.batch_size / number
    parts = [Part(weight, lambda: run(next_batch())) for _ in range(number)]
    if psc:
        parts.append(Part(weight, collection(model, shape, next_batch)))
    lengths = [drawn.lengths[random.choice(len(drawn.lengths), shape.batch_size)] for _ in range(200)]
    computed = sum(len(x) * x.max() for x in lengths) / sum(x.sum() for x in lengths)
    return Work(parts, {"computed_per_real_word": float(computed), "threads": torch.get_num_threads()})


def collection(model: Plain, shape: Shape, next_batch: Callable[[], TorchBatch]) -> Callable[[], None]:
    """Returns a function that adds the features of a batch's positive pairs to the sums of their labels."""
    totals, counts = torch.zeros(shape.num_labels, shape.feature_size), torch.zeros(shape.num_labels)

    @torch.no_grad()
    def run() -> None:
        batch = next_batch()
        model.eval()
        states = model.states(batch.words, batch.lengths)
        features = model.pair_features(states, batch.lengths, batch.document, batch.label)
        totals.index_add_(0, batch.label, features)
        counts.index_add_(0, batch.label, torch.ones(len(batch.label)))
        model.train()

    return run
