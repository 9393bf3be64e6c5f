"""Collection, autoencoder, adjustment and prediction in plain PyTorch, vectorised."""

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, mse_loss

from benchmarks.cases import Shape
from benchmarks.documents import documents, random_rows
from benchmarks.harness.work import Work, per_item
from benchmarks.peers import torch_training
from benchmarks.peers.torch_model import Plain, TorchBatch

# The defaults of lsfa_jax/config.py.
_PVAE_HIDDEN, _LATENT, _PVAE_BATCH, _NUM_AUGMENTED = 512, 64, 256, 10


def _batches(shape: Shape, seed: int, number: int) -> list[TorchBatch]:
    """Returns `number` random documents in batches padded to their longest document."""
    drawn = documents(shape, seed)
    rows, size = random_rows(drawn, number, seed), shape.batch_size
    return [TorchBatch(drawn, rows[i : i + size], shape.num_labels) for i in range(0, number, size)]


def collection(shape: Shape, seed: int) -> Work:
    """Features and prototypes of a sample of documents, a document."""
    batches = _batches(shape, seed, shape.num_sampled)
    model, _ = torch_training.stepper(shape, seed, psc=False)

    def run() -> None:
        waiting = iter(batches)
        collect = torch_training.collection(model, shape, lambda: next(waiting))
        for _ in batches:
            collect()

    return per_item(shape.num_sampled, run, threads=torch.get_num_threads())


class PlainPvae(torch.nn.Module):
    """The autoencoder of Eq. 11-15 of deviations from the prototype, as ours at its initial scale."""

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(2 * feature_size, _PVAE_HIDDEN)
        self.mu = torch.nn.Linear(_PVAE_HIDDEN, _LATENT)
        self.log_variance = torch.nn.Linear(_PVAE_HIDDEN, _LATENT)
        self.decoder_hidden = torch.nn.Linear(_LATENT + feature_size, _PVAE_HIDDEN)
        self.out = torch.nn.Linear(_PVAE_HIDDEN, feature_size)

    def decode(self, z: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.decoder_hidden(torch.cat([z, prototypes], dim=-1)))
        return torch.relu(self.out(hidden) + prototypes)

    def forward(self, features: torch.Tensor, prototypes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = torch.relu(self.hidden(torch.cat([features - prototypes, prototypes], dim=-1)))
        mu, log_variance = self.mu(hidden), self.log_variance(hidden).clamp(-10, 10)
        return self.decode(mu + torch.randn_like(mu) * torch.exp(0.5 * log_variance), prototypes), mu, log_variance


def pvae(shape: Shape, seed: int) -> Work:
    """Steps of the autoencoder on random features, a feature."""
    torch.manual_seed(seed)
    model = PlainPvae(shape.feature_size)
    adam = torch.optim.Adam(model.parameters())
    number = 20 * _PVAE_BATCH
    features, prototypes = torch.rand(number, shape.feature_size), torch.rand(shape.num_labels, shape.feature_size)
    label = torch.randint(0, shape.num_labels, (number,))

    def run() -> None:
        for rows in torch.randperm(number).split(_PVAE_BATCH):
            v, p = features[rows], prototypes[label[rows]]
            out, mu, log_variance = model(v, p)
            kl = 0.5 * (log_variance.exp() + mu**2 - 1 - log_variance).sum(-1).mean()
            adam.zero_grad()
            (0.5 * shape.feature_size * torch.log(mse_loss(out, v) + 1e-8) + kl).backward()
            adam.step()

    return per_item(number, run, threads=torch.get_num_threads())


def adjustment(shape: Shape, seed: int) -> Work:
    """Steps of the last stage, the encoder without gradients, a document."""
    number = 2 * shape.batch_size
    batches = _batches(shape, seed, number)
    torch.manual_seed(seed)
    model, decoder = Plain(shape, dropout=False), PlainPvae(shape.feature_size)
    adam = torch.optim.Adam([model.weights])
    prototypes = torch.rand(shape.num_labels, shape.feature_size)
    # Thinned as the documents are, like ours.
    tail = np.arange(shape.num_labels // 5, shape.num_labels)[:: max(1, shape.num_documents // number)]
    pairs = torch.from_numpy(np.repeat(tail, _NUM_AUGMENTED))

    def run() -> None:
        for batch, label in zip(batches, pairs[torch.randperm(len(pairs))].chunk(len(batches)), strict=True):
            with torch.no_grad():
                features = model.features(model.states(batch.words, batch.lengths), batch.lengths)
                generated = decoder.decode(torch.randn(len(label), _LATENT), prototypes[label])
            adam.zero_grad()
            entropy = binary_cross_entropy_with_logits(model.logits(features), batch.targets)
            augmented = -logsigmoid((generated * model.weights[label]).sum(-1)).sum() / batch.targets.numel()
            (entropy + augmented).backward()
            adam.step()

    return per_item(number, run, threads=torch.get_num_threads())


def prediction(shape: Shape, seed: int) -> Work:
    """The five best labels of documents in random order, in batches padded to their longest document; a document."""
    batches = _batches(shape, seed, shape.num_predicted)
    torch.manual_seed(seed)
    model = Plain(shape).eval()

    @torch.inference_mode()
    def run() -> None:
        for batch in batches:
            torch.topk(model(batch.words, batch.lengths), 5)

    return per_item(shape.num_predicted, run, threads=torch.get_num_threads())
