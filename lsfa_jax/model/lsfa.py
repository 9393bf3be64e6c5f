"""The whole classifier as one thin module: it declares the parameters of Eq. 1-5 and calls what computes them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lsfa_jax import config
from lsfa_jax.model import classifier, encoder, label_loss

Array = jax.Array

CLASSIFIER = "classifier"
"""The name under which the parameters that stage 3 adjusts stand; all others belong to the encoder."""


def _uniform(scale: float) -> nn.initializers.Initializer:
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -scale, scale)


class Lsfa(nn.Module):
    """BiLSTM, label attention, feature head and one-versus-all classifiers.

    Methods are called through `apply({"params": params}, ..., method=...)`; `train=True` needs a key named `dropout`.
    """

    vocabulary_size: int
    embedding_size: int
    num_labels: int
    settings: config.Encoder
    classifier_settings: config.Classifier
    dtype: Any = jnp.float32

    @property
    def feature_size(self) -> int:
        """D."""
        return self.settings.feature_size if self.settings.feature_head else 2 * self.settings.hidden_size

    def setup(self) -> None:
        hidden, states = self.settings.hidden_size, 2 * self.settings.hidden_size
        self.embedding = self.param(
            "embedding", nn.initializers.normal(0.1), (self.vocabulary_size, self.embedding_size)
        )
        small = _uniform(hidden**-0.5)
        shapes = {"w_input": (self.embedding_size, 4 * hidden), "w_hidden": (hidden, 4 * hidden), "bias": (4 * hidden,)}
        start = nn.initializers.zeros_init()
        self.lstm = {
            side: {name: self.param(f"lstm_{side}_{name}", small, shape) for name, shape in shapes.items()}
            | {name: self.param(f"lstm_{side}_{name}", start, (hidden,)) for name in ("h0", "c0")}
            for side in ("forward", "backward")
        }
        xavier = nn.initializers.xavier_uniform()
        self.queries = self.param("label_queries", xavier, (self.num_labels, states))
        self.head: dict[str, Array] | None = None
        if self.settings.feature_head:
            self.head = {
                "kernel": self.param("head_kernel", xavier, (states, self.settings.feature_size)),
                "bias": self.param("head_bias", nn.initializers.zeros_init(), (self.settings.feature_size,)),
            }
        rows = self.num_labels if self.classifier_settings.weights == "per_label" else 1

        def init_classifier(key: Array) -> dict[str, Array]:
            weights = {"weights": _uniform(self.feature_size**-0.5)(key, (rows, self.feature_size))}
            return weights | ({"bias": jnp.zeros(rows)} if self.classifier_settings.bias else {})

        self.classifiers = self.param(CLASSIFIER, init_classifier)
        self.embedding_dropout = nn.Dropout(self.settings.embedding_dropout)
        self.encoder_dropout = nn.Dropout(self.settings.encoder_dropout)

    def states(self, words: Array, lengths: Array, train: bool = False) -> Array:
        """Computes Eq. 1, float32[B, T, 2H], of word ids int32[B, T] and lengths int32[B]."""
        table = self.embedding
        if self.settings.embedding_trainable == "no":
            table = jax.lax.stop_gradient(table)
        x = self.embedding_dropout(table[words], deterministic=not train)
        return self.encoder_dropout(encoder.bilstm(self.lstm, x, lengths, self.dtype), deterministic=not train)

    def positive_features(self, states: Array, lengths: Array, label_ids: Array) -> Array:
        """Computes Eq. 2-4 for the given labels of each document only, float32[B, K, D], label_ids int32[B, K]."""
        mask = encoder.word_mask(lengths, states.shape[1])
        words = encoder.project_words(states, self.head, self.dtype)
        return encoder.label_features(states, words, mask, self.queries[label_ids], self.head, self.dtype)

    def loss(
        self, states: Array, lengths: Array, label_ids: Array, label_mask: Array, document_mask: Array,
        label_weights: Array | None = None,
    ) -> Array:  # fmt: skip
        """Computes the sum of Eq. 6 over documents and all labels of token states, see `label_loss`."""
        return label_loss.label_loss(
            states,
            encoder.project_words(states, self.head, self.dtype),
            encoder.word_mask(lengths, states.shape[1]),
            None if self.head is None else self.head["bias"],
            label_loss.Labels(self.queries, self.classifiers["weights"], self.classifiers.get("bias")),
            label_loss.Targets(label_ids, label_mask, document_mask, label_weights),
            self.settings.label_block,
            self.dtype,
        )

    def scores(self, states: Array, lengths: Array) -> Array:
        """Computes Eq. 2-5 for all labels, the logits float32[B, L], in blocks of labels.

        A block's features (B x block x D) are made, used and dropped; `loss` trains, this is for predicting.
        """
        mask = encoder.word_mask(lengths, states.shape[1])
        words = encoder.project_words(states, self.head, self.dtype)

        def block_scores(block: tuple[Array, Array, Array | None]) -> Array:
            queries, weights, bias = block
            features = encoder.label_features(states, words, mask, queries, self.head, self.dtype)
            return classifier.scores(features, weights, bias)

        weights, bias = self.classifiers["weights"], self.classifiers.get("bias")
        size = self.settings.label_block
        if self.num_labels <= size:
            return block_scores((self.queries, weights, bias))
        blocks = -(-self.num_labels // size)

        def split(x: Array) -> Array:
            if len(x) == 1:  # shared by all labels
                return jnp.broadcast_to(x, (blocks, *x.shape))
            return jnp.pad(x, ((0, blocks * size - len(x)), *((0, 0),) * (x.ndim - 1))).reshape(
                blocks, size, *x.shape[1:]
            )

        parts = jax.lax.map(block_scores, jax.tree.map(split, (self.queries, weights, bias)))
        return parts.swapaxes(0, 1).reshape(states.shape[0], blocks * size)[:, : self.num_labels]

    def __call__(self, words: Array, lengths: Array, train: bool = False) -> Array:
        """Computes the logits float32[B, L] of word ids int32[B, T] and lengths int32[B]."""
        return self.scores(self.states(words, lengths, train), lengths)


def make_model(settings: config.Config, vocabulary_size: int, embedding_size: int, num_labels: int) -> Lsfa:
    """Returns the classifier that the settings describe; `vocabulary_size` is the rows of the word vector table."""
    return Lsfa(
        vocabulary_size=vocabulary_size,
        embedding_size=embedding_size,
        num_labels=num_labels,
        settings=settings.encoder,
        classifier_settings=settings.classifier,
        dtype=jnp.dtype(settings.precision),
    )


def pair_weights(params: Any, label_ids: Array) -> tuple[Array, Array | None]:
    """Returns the classifier w_l [P, D] and bias [P] (or None) of each pair's label, whether per label or shared."""

    def rows(x: Array) -> Array:
        return x[label_ids] if len(x) > 1 else jnp.broadcast_to(x, (len(label_ids), *x.shape[1:]))

    own = params[CLASSIFIER]
    return rows(own["weights"]), rows(own["bias"]) if "bias" in own else None
