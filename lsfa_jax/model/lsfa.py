"""The whole classifier as one thin module: it declares the parameters of Eq. 1-5 and calls what computes them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lsfa_jax import config
from lsfa_jax.model import attention, label_loss
from lsfa_jax.model.encoders import bilstm

Array = jax.Array

CLASSIFIER = "classifier"
"""The name under which the parameters that stage 3 adjusts stand; all others belong to the encoder."""


# Words whose attention a CPU computes at a time: with fewer its products are small, with more its caches overflow.
_CPU_WORDS = 1024


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
        """Computes Eq. 1, float32[B, T, 2H], of word ids int32[B, T] and lengths int32[B].

        In place of the words their states may be given, float16[B, T, 2H], where they were computed before.
        """
        if words.ndim == 3:
            return words.astype(jnp.float32)
        table = self.embedding
        if self.settings.embedding_trainable == "no":
            table = jax.lax.stop_gradient(table)
        x = self.embedding_dropout(table[words], deterministic=not train)
        return self.encoder_dropout(bilstm.bilstm(self.lstm, x, lengths, self.dtype), deterministic=not train)

    def positive_features(self, states: Array, lengths: Array, label_ids: Array) -> Array:
        """Computes Eq. 2-4 for the given labels of each document only, float32[B, K, D], label_ids int32[B, K]."""
        mask = attention.token_mask(lengths, states.shape[1])
        return attention.few_label_features(states, mask, self.queries[label_ids], self.head, self.dtype)

    def _tables(self) -> label_loss.LabelTables:
        return label_loss.LabelTables(self.queries, self.classifiers["weights"], self.classifiers.get("bias"))

    def _words(self, states: Array, lengths: Array) -> label_loss.Tokens:
        values = attention.project_tokens(states, self.head, self.dtype)
        return label_loss.Tokens(states, values, attention.token_mask(lengths, states.shape[1]))

    def loss(
        self, states: Array, lengths: Array, label_ids: Array, label_mask: Array, document_mask: Array,
        label_weights: Array | None = None,
    ) -> Array:  # fmt: skip
        """Computes the sum of Eq. 6 over documents and all labels of token states, as `label_loss.loss` does."""
        words, head_bias = self._words(states, lengths), None if self.head is None else self.head["bias"]
        targets = label_loss.Targets(label_ids, label_mask, document_mask)
        return label_loss.loss(words, head_bias, self._tables(), targets, self._tile, self.dtype, label_weights)

    def estimates(self, states: Array, lengths: Array, label_ids: Array) -> Array:
        """Computes logits float32[B, M] of the labels int32[M] from what their features would be without attention.

        Every label gets the feature of a document's mean word, so a label costs D operations instead of T x 2H.
        """
        mean = jnp.sum(states, axis=1, keepdims=True) / jnp.maximum(lengths, 1)[:, None, None]
        features = attention.project_tokens(mean, self.head, self.dtype)[:, 0]
        if self.head is not None:
            features = jax.nn.relu(features + self.head["bias"])
        weights, bias = pair_weights({CLASSIFIER: self.classifiers}, label_ids)
        logits = attention.product("bd,md->bm", features, weights, self.dtype)
        return logits if bias is None else logits + bias

    def scores(self, states: Array, lengths: Array) -> Array:
        """Computes Eq. 2-5 for all labels of token states, the logits float32[B, L]."""
        words, head_bias = self._words(states, lengths), None if self.head is None else self.head["bias"]
        return label_loss.scores(words, head_bias, self._tables(), self._tile, self.dtype)

    @property
    def _tile(self) -> label_loss.TileSize:
        # Other devices want all documents at a time.
        on_cpu = jax.default_backend() == "cpu"
        return label_loss.TileSize(self.settings.label_block, _CPU_WORDS if on_cpu else 0, jax.local_device_count())

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


def word_side(params: Any) -> dict[str, Any]:
    """Returns the parameters of Eq. 1, which make token states of words; all others read these states."""
    return {name: value for name, value in params.items() if name == "embedding" or name.startswith("lstm_")}


def label_rows(model: Lsfa, params: Any, label_ids: Array | None) -> Any:
    """Returns a tree like `params`: `label_ids` for arrays that have a row for each label, None for the others."""

    def rows(name: str) -> Array | None:
        own = name == "label_queries" or (name == CLASSIFIER and model.classifier_settings.weights == "per_label")
        return label_ids if own else None

    return {name: jax.tree.map(lambda _, name=name: rows(name), value) for name, value in params.items()}


def pair_weights(params: Any, label_ids: Array) -> tuple[Array, Array | None]:
    """Returns the classifier w_l [P, D] and bias [P] (or None) of each pair's label, whether per label or shared."""

    def rows(x: Array) -> Array:
        return x[label_ids] if len(x) > 1 else jnp.broadcast_to(x, (len(label_ids), *x.shape[1:]))

    own = params[CLASSIFIER]
    return rows(own["weights"]), rows(own["bias"]) if "bias" in own else None
