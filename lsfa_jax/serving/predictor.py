"""Predicts the labels of texts, streaming, with probabilities and on request with what explains each label."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from scipy.sparse import csr_matrix

from lsfa_jax.config import Config
from lsfa_jax.data.batches import Batch, Batches, length_buckets
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.prefetch import prefetch
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import Ranked
from lsfa_jax.data.text_advice import unread_words
from lsfa_jax.data.tokenizer import Tokenizer
from lsfa_jax.evaluation.scorer import score_batch
from lsfa_jax.evaluation.thresholded import DEFAULT_THRESHOLD
from lsfa_jax.model.lsfa import Lsfa, make_model
from lsfa_jax.sparse.votes import Vote, strongest
from lsfa_jax.training.model_folder import TrainedModel
from lsfa_jax.util import fork, sharding

T = TypeVar("T")

# Rows, for each device, that a batch with few texts is padded to instead of a full batch.
_FEW_ROWS = (1, 16)


class Prediction(NamedTuple):
    """The best labels of one text, best first."""

    label_ids: np.ndarray
    """int32[K]."""
    probabilities: np.ndarray
    """float32[K], of each label independently: they do not sum to one."""


class Explanation(NamedTuple):
    """The best labels of one text, and how much each of them attended to each of the T words (Eq. 4)."""

    label_ids: np.ndarray
    """int32[K]."""
    probabilities: np.ndarray
    """float32[K]."""
    text: str
    """The text as the model reads it: normalised, and without HTML where the model strips it."""
    spans: list[tuple[int, int]]
    """Where each word that the model reads is in `text`, start and end; at most `data.max_words`."""
    attention: np.ndarray
    """float32[K, T], each row sums to 1."""
    votes: list[list[Vote]] | None = None
    """For each of the K labels the words by which the linear model voted for it, the strongest first, and their votes;
    None where the model is not fused."""


@dataclass
class ReadTexts:
    """Counts of what the model read of the texts."""

    texts: int = 0
    cut: int = 0
    """Texts longer than `data.max_words`."""
    words: int = 0
    """Of all texts, before they are cut."""
    unread: int = 0
    """Words that were cut off."""
    unknown: int = 0
    """Texts without a word of the model's vocabulary."""

    def unread_words(self, max_words: int) -> str:
        """Returns a line about the texts that were cut; "" where none was."""
        return unread_words(self.texts, self.cut, self.words, self.unread, max_words)


def lsfa_module(model: TrainedModel) -> Lsfa:
    """Returns the module of a trained model, for its parameters."""
    return make_model(model.config, model.encoder_shape, len(model.labels))


def proposed(config: Config, lists: Ranked | None) -> np.ndarray | None:
    """Returns the labels that are scored of each document, int32[N, K], by a linear model's lists; None for all."""
    if lists is None or config.candidates != "linear":
        return None
    return lists.label_ids[:, : config.representation.num_candidates]


class _Chunk(NamedTuple):
    """Texts that are predicted together, and their batches."""

    texts: list[str]
    lengths: np.ndarray
    """int64[texts], the words of each that the model reads."""
    batches: list[Batch]
    features: csr_matrix | None
    """float32[texts, V], what the linear model reads, where its votes are asked for."""


class Predictor:
    """Predicts labels. Memory depends on batch size and text length, not on the number of texts."""

    def __init__(
        self,
        model: TrainedModel,
        batch_size: int | None = None,
        chunk: int | None = None,
        all_labels: bool = False,
    ) -> None:
        """Copies a model to the devices.

        Args:
            model: as `model_folder.read` returns it.
            batch_size: texts computed at a time; the run's `report.batch_size` by default.
            chunk: texts read before they are computed, sorted by length so that padding costs little; 16 batches by
                default. 1 answers each text before the next is read.
            all_labels: score all labels, also with a model whose linear model proposes some.
        """
        fork.check()
        self.model = model
        self._mesh = sharding.make_mesh()
        size = batch_size or model.config.report.batch_size
        shards = self._mesh.shape["data"]
        self._batch_size = -(-size // shards) * shards
        self._chunk = chunk or 16 * self._batch_size
        self.read = ReadTexts()
        """Counts over all calls."""
        self._vocabulary = model.vocabulary()
        self._tokenizer = Tokenizer.from_settings(model.config.data)
        self._params = sharding.replicate(self._mesh, model.scoring_params)
        self._lsfa = lsfa_module(model)
        self._all_labels = all_labels

    def predict(self, texts: Iterable[str], top: int = 5) -> Iterator[Prediction]:
        """Yields the `top` best labels of each text (all L where there are fewer), in the order of the texts."""
        return self._run(texts, top, False, lambda chunk, row, out: Prediction(out[0], out[1]))

    def explain(self, texts: Iterable[str], top: int = 5) -> Iterator[Explanation]:
        """Yields the labels of `predict`, each with its attention over the words of its text, and with its votes."""

        def explanation(chunk: _Chunk, row: int, out: Sequence[np.ndarray]) -> Explanation:
            label_ids, probabilities, weights = out
            text, length = chunk.texts[row], int(chunk.lengths[row])
            linear, features = self.model.linear, chunk.features
            votes = strongest(linear, features[row], label_ids) if linear and features is not None else None
            spans, words = self._vocabulary.word_places(text)
            weights = weights[:, :length]
            if weights.shape[1] < length:  # of an encoder that pools the tokens, whose one state is of all of them
                weights = np.broadcast_to(weights / length, (len(weights), length))
            attention = np.zeros((len(label_ids), len(spans)), np.float32)
            # The pieces of a word add up.
            np.add.at(attention.T, words, weights.T)
            return Explanation(label_ids, probabilities, self._tokenizer.normalised(text), spans, attention, votes)

        return self._run(texts, top, True, explanation)

    def warm_up(self, top: int = 5) -> None:
        """Compiles the programs for batches of all shapes, and those that explain one text of each length."""
        top, shards = min(top, len(self.model.labels)), self._mesh.shape["data"]
        row_counts = sorted({min(shards * few, self._batch_size) for few in _FEW_ROWS} | {self._batch_size})
        for length in length_buckets(self.model.config.data.length_buckets, self._vocabulary.max_tokens):
            for rows in row_counts:
                words = Ragged.from_rows([np.ones(length, np.int32)] * rows)
                batches = self._batches(words, [""] * rows)
                for batch in batches.load(batches.consecutive()):
                    jax.block_until_ready(self.compute(batch, top))
                    if rows == row_counts[0]:
                        jax.block_until_ready(self.compute(batch, top, with_attention=True))

    def batches(self, texts: Sequence[str]) -> Batches:
        """Returns the padded batches of texts; those of any texts have the same few shapes."""
        return self._batches(Ragged.from_rows(map(self._vocabulary.encode, texts)), texts)

    def _batches(self, words: Ragged, texts: Sequence[str]) -> Batches:
        linear = self.model.linear
        needs_lists = self.model.fusion is not None or not self._all_labels
        lists = linear.rank_texts(texts, self._tokenizer) if linear and needs_lists else None
        no_labels = Ragged.of_empty_rows(len(texts))
        return Batches(
            Split(words, no_labels),
            len(self.model.labels),
            self._batch_size,
            self.model.config.data.length_buckets,
            self._mesh.shape["data"],
            longest=self._vocabulary.max_tokens,
            few_rows=_FEW_ROWS,
            ranked=lists if self.model.fusion else None,
            candidates=None if self._all_labels else proposed(self.model.config, lists),
        )

    def compute(self, batch: Batch, top: int, with_attention: bool = False) -> tuple[jax.Array, ...]:
        """Starts the computation of one batch.

        Args:
            batch: one of `batches`.
            top: K, at most L.
            with_attention: whether attention is computed.

        Returns:
            Label ids int32[B, K], probabilities float32[B, K], and on request attention float32[B, K, T]; the ids of a
            document with fewer scored labels end with -1.
        """
        placed = sharding.shard_batch(self._mesh, batch)
        return _best_labels(self._lsfa, top, with_attention, self._params, placed)

    def _run(
        self,
        texts: Iterable[str],
        top: int,
        with_attention: bool,
        result: Callable[[_Chunk, int, Sequence[np.ndarray]], T],
    ) -> Iterator[T]:
        fork.check()
        compute = partial(self.compute, top=min(top, len(self.model.labels)), with_attention=with_attention)
        waiting = None
        for chunk in prefetch(self._chunks(texts, with_features=with_attention)):
            started = chunk, [compute(batch) for batch in chunk.batches]
            if self._chunk == 1:
                yield from _in_order(*started, result)
                continue
            # The device works on this chunk while the caller handles the one before.
            if waiting:
                yield from _in_order(*waiting, result)
            waiting = started
        if waiting:
            yield from _in_order(*waiting, result)

    def _chunks(self, texts: Iterable[str], with_features: bool) -> Iterator[_Chunk]:
        texts, linear = iter(texts), self.model.linear if with_features else None
        while chunk := list(islice(texts, self._chunk)):
            batches = self.batches(chunk)
            self._count(chunk, batches.split.tokens)
            features = linear.features.of_texts(chunk, self._tokenizer) if linear else None
            yield _Chunk(chunk, batches.split.lengths, list(batches.load(batches.consecutive())), features)

    def _count(self, texts: Sequence[str], words: Ragged) -> None:
        max_words, pieces = self.model.config.data.max_words, self.model.tokenizer
        known = np.bincount(words.row_ids[self._vocabulary.is_known(words.values)], minlength=len(texts)) > 0
        for text, length in zip(texts, words.sizes.tolist(), strict=True):
            # Only a text that may have been cut is read again.
            total = self._tokenizer.count_words(text) if pieces or length == max_words else length
            self.read.words += total
            self.read.unread += max(0, total - max_words)
            self.read.cut += total > max_words
        self.read.texts += len(texts)
        self.read.unknown += int((~known).sum())


def _in_order(
    chunk: _Chunk, outs: Sequence[tuple[jax.Array, ...]], result: Callable[[_Chunk, int, Sequence[np.ndarray]], T]
) -> Iterator[T]:
    """Waits for the batches of a chunk and yields the results in the order of its texts."""
    ordered: list[Any] = [None] * len(chunk.texts)
    for batch, out in zip(chunk.batches, outs, strict=True):
        arrays = jax.device_get(out)
        for place in np.flatnonzero(batch.document_mask):
            row = batch.rows[place]
            scored = arrays[0][place] >= 0
            ordered[row] = result(chunk, row, [array[place][scored] for array in arrays])
    yield from ordered


@partial(jax.jit, static_argnums=(0, 1, 2))
def _best_labels(model: Lsfa, top: int, with_attention: bool, params: Any, batch: Batch) -> tuple[jax.Array, ...]:
    every_label = model.is_label[None]
    scores = score_batch(model, top, params, batch, every_label, DEFAULT_THRESHOLD)
    label_ids = scores.top[0]
    if not with_attention:
        return label_ids, scores.probabilities
    lsfa = model.bind({"params": params})
    states = lsfa.states(batch.words, batch.lengths)
    return label_ids, scores.probabilities, lsfa.attention_weights(states, batch.lengths, label_ids)
