"""The model in plain PyTorch, as its users would write it: nn.LSTM, dense label attention."""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.cases import Shape
from benchmarks.documents import Documents


class Plain(torch.nn.Module):
    """BiLSTM, label attention, feature head, one-versus-all classifiers; Eq. 1-5.

    `packed` runs the LSTM on packed sequences; without it, its backward direction reads the padding first.
    """

    def __init__(self, shape: Shape, dropout: bool = True, packed: bool = False) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(shape.vocabulary_size, shape.embedding_size)
        self.lstm = torch.nn.LSTM(shape.embedding_size, shape.hidden_size, batch_first=True, bidirectional=True)
        self.queries = torch.nn.Parameter(torch.empty(shape.num_labels, 2 * shape.hidden_size))
        self.head = torch.nn.Linear(2 * shape.hidden_size, shape.feature_size)
        self.weights = torch.nn.Parameter(torch.empty(shape.num_labels, shape.feature_size))
        torch.nn.init.xavier_uniform_(self.queries)
        torch.nn.init.xavier_uniform_(self.weights)
        self.drop = torch.nn.ModuleList([torch.nn.Dropout(0.2 * dropout), torch.nn.Dropout(0.5 * dropout)])
        self.packed = packed

    def states(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Computes Eq. 1, float32[B, T, 2H]."""
        x = self.drop[0](self.embedding(words))
        if self.packed:
            sequence = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            x = pad_packed_sequence(self.lstm(sequence)[0], batch_first=True, total_length=words.shape[1])[0]
        else:
            x = self.lstm(x)[0]
        return self.drop[1](x)

    def features(self, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Computes Eq. 2-4 for all labels, float32[B, L, D]."""
        mask = torch.arange(states.shape[1])[None] < lengths[:, None]
        scores = (states @ self.queries.T).masked_fill(~mask[..., None], -1e30)
        return torch.relu(self.head(torch.softmax(scores, dim=1).transpose(1, 2) @ states))

    def pair_features(
        self, states: torch.Tensor, lengths: torch.Tensor, document: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        """Computes Eq. 2-4 for positive pairs, float32[P, D]; `document` and `label` are int64[P]."""
        mask = torch.arange(states.shape[1])[None] < lengths[:, None]
        pair_states = states[document]
        scores = (pair_states @ self.queries[label][..., None])[..., 0].masked_fill(~mask[document], -1e30)
        return torch.relu(self.head((torch.softmax(scores, dim=1)[:, None] @ pair_states)[:, 0]))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Computes Eq. 5, float32[B, L]."""
        return (features * self.weights).sum(-1)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.logits(self.features(self.states(words, lengths), lengths))


def contrastive(
    features: torch.Tensor, label: torch.Tensor, prototypes: torch.Tensor, temperature: float = 0.07
) -> torch.Tensor:
    """Computes Eq. 9, the sum over pairs; features float32[P, D], label int64[P], prototypes float32[L, D]."""
    unit = torch.nn.functional.normalize
    similarity = unit(features, dim=-1) @ unit(prototypes, dim=-1).T / temperature
    return torch.nn.functional.cross_entropy(similarity, label, reduction="sum")


class TorchBatch:
    """Documents padded to the longest of them, or to `num_words`, as tensors."""

    def __init__(self, drawn: Documents, rows: np.ndarray, num_labels: int, num_words: int | None = None) -> None:
        words, lengths = drawn.padded(rows, num_words)
        self.words, self.lengths = torch.from_numpy(words), torch.from_numpy(lengths)
        self.document, self.label = (torch.from_numpy(x) for x in drawn.pairs(rows))
        self.targets = torch.zeros(len(rows), num_labels)
        self.targets[self.document, self.label] = 1


def loss(model: Plain, batch: TorchBatch, prototypes: torch.Tensor | None = None, alpha: float = 0.1) -> torch.Tensor:
    """Computes Eq. 6, with prototypes plus alpha x Eq. 9, both divided by documents x labels."""
    features = model.features(model.states(batch.words, batch.lengths), batch.lengths)
    logits = model.logits(features)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.targets)
    if prototypes is None:
        return entropy
    pairs = features[batch.document, batch.label]
    return entropy + alpha * contrastive(pairs, batch.label, prototypes) / logits.numel()


def copy_weights(weights: Mapping[str, np.ndarray], model: Plain) -> None:
    """Copies our weights, by our names; of the two bias vectors of nn.LSTM, the second is set to zero."""

    def put(target: torch.Tensor, value: np.ndarray) -> None:
        target.data.copy_(torch.from_numpy(np.array(value)))

    put(model.embedding.weight, weights["encoder/embedding"])
    for side, suffix in (("forward", ""), ("backward", "_reverse")):
        put(getattr(model.lstm, f"weight_ih_l0{suffix}"), weights[f"encoder/{side}/w_input"].T)
        put(getattr(model.lstm, f"weight_hh_l0{suffix}"), weights[f"encoder/{side}/w_hidden"].T)
        put(getattr(model.lstm, f"bias_ih_l0{suffix}"), weights[f"encoder/{side}/bias"])
        getattr(model.lstm, f"bias_hh_l0{suffix}").data.zero_()
    put(model.queries, weights["labels/queries"])
    put(model.head.weight, weights["labels/head/kernel"].T)
    put(model.head.bias, weights["labels/head/bias"])
    put(model.weights, weights["classifier/weights"])
