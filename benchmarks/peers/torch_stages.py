"""Collection, autoencoder, adjustment and prediction in plain PyTorch, vectorised."""

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, mse_loss

from benchmarks import documents as shapes
from benchmarks.harness.work import Work, each
from benchmarks.peers import torch_training
from benchmarks.peers.torch_model import Plain, TorchBatch

# As config.py has them.
_PVAE_HIDDEN, _LATENT, _PVAE_BATCH, _NUM_AUGMENTED = 512, 64, 256, 10


def _batches(own: shapes.Shape, seed: int, number: int) -> list[TorchBatch]:
    """Random batches padded to their longest."""
    made = shapes.documents(own, seed)
    rows = np.random.default_rng(seed).choice(len(made), number, replace=False)
    return [TorchBatch(made, rows[i : i + own.batch], own.num_labels) for i in range(0, number, own.batch)]


def collection(shape: str, seed: int) -> Work:
    """Features and prototypes of some batches, a document."""
    own = shapes.SHAPES[shape]
    number = shapes.few(own)
    batches = _batches(own, seed, number)
    model, _ = torch_training.stepper(own, seed, contrast=False)

    def run() -> None:
        waiting = iter(batches)
        collect = torch_training.collection(model, own, lambda: next(waiting))
        for _ in batches:
            collect()

    return each(number, run, threads=torch.get_num_threads())


class PlainPvae(torch.nn.Module):
    """The autoencoder of Eq. 11-15 with our decoder, which adds to the prototype."""

    def __init__(self, feature: int) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(2 * feature, _PVAE_HIDDEN)
        self.mu = torch.nn.Linear(_PVAE_HIDDEN, _LATENT)
        self.log_variance = torch.nn.Linear(_PVAE_HIDDEN, _LATENT)
        self.decoder_hidden = torch.nn.Linear(_LATENT + feature, _PVAE_HIDDEN)
        self.out = torch.nn.Linear(_PVAE_HIDDEN, feature)

    def decode(self, z: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.decoder_hidden(torch.cat([z, prototypes], dim=-1)))
        return torch.relu(self.out(hidden) + prototypes)

    def forward(self, features: torch.Tensor, prototypes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = torch.relu(self.hidden(torch.cat([features, prototypes], dim=-1)))
        mu, log_variance = self.mu(hidden), self.log_variance(hidden).clamp(-10, 10)
        return self.decode(mu + torch.randn_like(mu) * torch.exp(0.5 * log_variance), prototypes), mu, log_variance


def pvae(shape: str, seed: int) -> Work:
    """Steps of the autoencoder on random features, a feature."""
    own = shapes.SHAPES[shape]
    torch.manual_seed(seed)
    model = PlainPvae(own.feature)
    adam = torch.optim.Adam(model.parameters())
    number = 20 * _PVAE_BATCH
    features, prototypes = torch.rand(number, own.feature), torch.rand(own.num_labels, own.feature)
    label = torch.randint(0, own.num_labels, (number,))

    def run() -> None:
        for rows in torch.randperm(number).split(_PVAE_BATCH):
            v, p = features[rows], prototypes[label[rows]]
            out, mu, log_variance = model(v, p)
            kl = 0.5 * (log_variance.exp() + mu**2 - 1 - log_variance).sum(-1).mean()
            adam.zero_grad()
            (0.5 * own.feature * torch.log(mse_loss(out, v) + 1e-8) + kl).backward()
            adam.step()

    return each(number, run, threads=torch.get_num_threads())


def adjust(shape: str, seed: int) -> Work:
    """Steps of the last stage, the encoder without gradients, a document."""
    own = shapes.SHAPES[shape]
    number = 2 * own.batch
    batches = _batches(own, seed, number)
    torch.manual_seed(seed)
    model, decoder = Plain(own, dropout=False), PlainPvae(own.feature)
    adam = torch.optim.Adam([model.weights])
    prototypes = torch.rand(own.num_labels, own.feature)
    tail = np.arange(own.num_labels // 5, own.num_labels)[:: max(1, own.num_documents // number)]
    pairs = torch.from_numpy(np.repeat(tail, _NUM_AUGMENTED))

    def run() -> None:
        for batch, label in zip(batches, pairs[torch.randperm(len(pairs))].chunk(len(batches)), strict=True):
            with torch.no_grad():
                features = model.features(model.states(batch.words, batch.lengths), batch.lengths)
                drawn = decoder.decode(torch.randn(len(label), _LATENT), prototypes[label])
            adam.zero_grad()
            entropy = binary_cross_entropy_with_logits(model.logits(features), batch.targets)
            augmented = -logsigmoid((drawn * model.weights[label]).sum(-1)).sum() / batch.targets.numel()
            (entropy + augmented).backward()
            adam.step()

    return each(number, run, threads=torch.get_num_threads())


def prediction(shape: str, seed: int) -> Work:
    """The five best labels of documents in the order of a file, in batches padded to their longest; a document."""
    own = shapes.SHAPES[shape]
    number = shapes.predicted(own)
    batches = _batches(own, seed, number)
    torch.manual_seed(seed)
    model = Plain(own).eval()

    @torch.inference_mode()
    def run() -> None:
        for batch in batches:
            torch.topk(model(batch.words, batch.lengths), 5)

    return each(number, run, threads=torch.get_num_threads())
