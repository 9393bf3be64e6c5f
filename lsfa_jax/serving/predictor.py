"""A trained model and texts to labels with probabilities, streaming, and to what each label looked at."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from lsfa_jax.data import vocabulary
from lsfa_jax.data.prefetch import ahead
from lsfa_jax.model import attention
from lsfa_jax.model.lsfa import Lsfa, make_model
from lsfa_jax.training.model_folder import TrainedModel
from lsfa_jax.util import sharding

T = TypeVar("T")


class Prediction(NamedTuple):
    """The best labels of one text, best first."""

    label_ids: np.ndarray
    """int32[k]."""
    probabilities: np.ndarray
    """float32[k], of each label by itself: they do not sum to one."""


class Explanation(NamedTuple):
    """The best labels of one text, and how much each of them attended to each word (Eq. 4)."""

    label_ids: np.ndarray
    """int32[k]."""
    probabilities: np.ndarray
    """float32[k]."""
    spans: list[tuple[int, int]]
    """Where each word that was read stands in the text, start and end; at most `data.max_words`."""
    attention: np.ndarray
    """float32[k, len(spans)], each row sums to 1."""


class Predictor:
    """Predicts labels. Memory depends on batch size and text length, not on how many texts there are."""

    def __init__(self, model: TrainedModel, batch_size: int | None = None, chunk: int | None = None) -> None:
        """Puts a model on the devices.

        Args:
            model: as `model_folder.read` gives it.
            batch_size: texts computed at a time; the run's `report.batch_size` by default.
            chunk: texts read before they are computed, sorted by length so that padding costs little; 16 batches by
                default. 1 answers each text before the next is read.
        """
        self.model = model
        self._mesh = sharding.make_mesh()
        size = batch_size or model.config.report.batch_size
        self._batch_size = -(-size // self._mesh.size) * self._mesh.size
        self._chunk = chunk or 16 * self._batch_size
        self._max_words = model.config.data.max_words
        self._buckets = [size for size in model.config.data.length_buckets if size < self._max_words]
        self._buckets.append(self._max_words)
        self._index = vocabulary.word_index(model.words)
        self._params = sharding.replicate(self._mesh, model.params)
        vocabulary_size, embedding_size = model.params["embedding"].shape
        self._lsfa = make_model(model.config, vocabulary_size, embedding_size, len(model.labels))

    def predict(self, texts: Iterable[str], top: int = 5) -> Iterator[Prediction]:
        """Yields the `top` best labels of each text (all L where there are fewer), in the order of the texts."""
        return self._run(_best_labels, texts, top, lambda text, length, out: Prediction(*out))

    def explain(self, texts: Iterable[str], top: int = 5) -> Iterator[Explanation]:
        """Yields the same labels as `predict`, each with its attention over the words of its text."""

        def explanation(text: str, length: int, out: Sequence[np.ndarray]) -> Explanation:
            label_ids, probabilities, attention = out
            return Explanation(label_ids, probabilities, vocabulary.word_spans(text)[:length], attention[:, :length])

        return self._run(_best_labels_and_attention, texts, top, explanation)

    def _run(
        self, compute: Any, texts: Iterable[str], top: int, result: Callable[[str, int, Sequence[np.ndarray]], T]
    ) -> Iterator[T]:
        top = min(top, len(self.model.labels))

        def collected(chunk: list[tuple[str, np.ndarray]], outs: list[tuple[np.ndarray, Any]]) -> Iterator[T]:
            ordered: list[Any] = [None] * len(chunk)
            for rows, out in outs:
                arrays = jax.device_get(out)
                for place, row in enumerate(rows):
                    text, words = chunk[row]
                    ordered[row] = result(text, len(words), [array[place] for array in arrays])
            yield from ordered

        started = None
        for chunk in ahead(self._encoded(texts)):
            outs = []
            for rows in self._batches(np.array([len(words) for _, words in chunk])):
                words, lengths = sharding.shard_batch(self._mesh, self._padded([chunk[row][1] for row in rows]))
                outs.append((rows, compute(self._lsfa, top, self._params, words, lengths)))
            if self._chunk == 1:
                yield from collected(chunk, outs)
                continue
            # The device has this chunk to do while the caller takes the one before.
            if started:
                yield from collected(*started)
            started = chunk, outs
        if started:
            yield from collected(*started)

    def _encoded(self, texts: Iterable[str]) -> Iterator[list[tuple[str, np.ndarray]]]:
        texts = iter(texts)
        while chunk := list(islice(texts, self._chunk)):
            yield [(text, vocabulary.encode(text, self._index, self._max_words)) for text in chunk]

    def _batches(self, lengths: np.ndarray) -> Iterator[np.ndarray]:
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]

    def _padded(self, texts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Pads to a bucket's length and to one of few numbers of rows: few shapes, few compiled programs."""
        longest = max(1, *(len(words) for words in texts))
        num_words = next(size for size in self._buckets if size >= longest)
        rows = next(size for size in (self._mesh.size, 16 * self._mesh.size, self._batch_size) if size >= len(texts))
        words = np.zeros((rows, num_words), np.int32)
        lengths = np.zeros(rows, np.int32)
        for row, ids in enumerate(texts):
            words[row, : len(ids)] = ids
            lengths[row] = len(ids)
        return words, lengths


@jax.jit(static_argnums=(0, 1))
def _best_labels(
    model: Lsfa, top: int, params: Any, words: jax.Array, lengths: jax.Array
) -> tuple[jax.Array, jax.Array]:
    logits: Any = model.apply({"params": params}, words, lengths)
    best, label_ids = jax.lax.top_k(logits, top)
    return label_ids, jax.nn.sigmoid(best)


@jax.jit(static_argnums=(0, 1))
def _best_labels_and_attention(
    model: Lsfa, top: int, params: Any, words: jax.Array, lengths: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    label_ids, probabilities = _best_labels(model, top, params, words, lengths)
    states: Any = model.apply({"params": params}, words, lengths, method=Lsfa.states)
    mask = attention.token_mask(lengths, words.shape[1])
    weights = attention.label_attention(states, mask, params["label_queries"][label_ids], model.dtype)
    return label_ids, probabilities, weights
