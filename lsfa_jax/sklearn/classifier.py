"""LSFA as a scikit-learn classifier of texts, for cross_val_score, Pipeline and the like."""

import json
import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from lsfa_jax.config import STAGES, Config, for_encoder, keys, nested
from lsfa_jax.data import load
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.evaluation import ranking
from lsfa_jax.serving.predictor import Predictor
from lsfa_jax.sklearn.arguments import check_integer
from lsfa_jax.sklearn.label_formats import ParsedLabels
from lsfa_jax.sklearn.text_formats import parse_texts
from lsfa_jax.training import encoder_choice, model_folder, policy, precision
from lsfa_jax.training.initial_encoder import initial_encoder
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.three_stages import Run
from lsfa_jax.util import atomic, compilation_cache, fork
from lsfa_jax.util.console import UserError, quiet

# A setting in a message for commands.
_OPTION = re.compile(r"--([a-z][a-z-]*(?:\.[a-z-]+)?)")

_ESTIMATOR_FILE = "estimator.json"

# The setting that a constructor argument overrides where it is not None.
_SETTINGS = {
    "epochs": "representation.epochs",
    "max_words": "data.max_words",
    "hidden_size": "encoder.hidden_size",
    "feature_size": "encoder.feature_size",
    "head_threshold": "pvae.head_threshold",
    "num_augmented": "adjust.num_augmented",
    "psc_weight": "psc.weight",
    "augmented_weight": "adjust.augmented_weight",
    "learning_rate": "optimizer.learning_rate",
    "batch_size": "optimizer.batch_size",
    "vectors": "vectors",
    "validation_fraction": "data.validation_fraction",
}

# The constructor argument of a setting.
_ARGUMENTS = {setting: argument for argument, setting in _SETTINGS.items()} | {"encoder": "encoder"}

# Labels that are compared to the threshold, of each text.
_MOST_LABELS = 128

# Entries, texts x labels, up to which `predict_proba` returns a dense array with `proba="auto"`: 200 MB.
_DENSE_ENTRIES = 50_000_000


class LSFA(ClassifierMixin, BaseEstimator):
    """Long-tailed multi-label text classifier: all three stages of LSFA behind `fit` and `predict`.

    An argument that is None takes the preset's value (`bin/train --help` shows each setting); what follows from the
    corpus with the preset 'quick' is described below, and by `lsfa_jax.training.policy`.

    Args:
        preset: 'quick', for a laptop, or 'full', the paper's sizes and numbers.
        epochs: passes over the training texts at most; None: up to 40, fewer in a larger corpus. Training stops early
            where validation no longer improves.
        max_words: words kept of each text.
        hidden_size: LSTM units a direction; half the filters of a convolution.
        feature_size: D, size of a label's feature.
        head_threshold: N_t; labels with fewer training texts are rare and get generated features. None: the mean number
            of training texts a label has, 2 at least, which comes near the paper's choices for its corpora.
        num_augmented: N_a, features generated for each rare label; None: three tenths of N_t, from 10 to 500.
        psc_weight: alpha, weight of the contrastive loss.
        augmented_weight: gamma, weight of the generated features.
        learning_rate: Adam's; of the labels alone if a pretrained encoder is fine-tuned. None: the preset's, but 0.004
            below 1,000 texts where the encoder is not pretrained.
        batch_size: texts a step; None: the preset's, but 16 below 10,000 texts.
        vectors: word vectors: 'minilm' or 'glove-50d' (84 and 76 MB, fetched once), 'none', or a GloVe or word2vec text
            file. None: the preset's, which is 'minilm' for 200 English training texts or more.
        encoder: 'auto', 'bilstm', 'cnn', or a pretrained transformer to fine-tune: 'minilm' (84 MB, fetched once) or a
            folder in Hugging Face's format. 'auto' chooses as `bin/train` does: 'minilm' for 200 English training texts
            or more where fine-tuning takes minutes, else 'bilstm', also where it cannot be fetched, and where
            `hidden_size`, `feature_size`, `vectors` or another setting of the encoder is given.
        validation_fraction: share of the training texts held out, to stop early and to choose `threshold_`; "auto": a
            tenth, 15 % of fewer than 3,000 texts, and 2,000 texts at most.
        top_k: probabilities that `predict_proba` keeps of each text in a sparse matrix.
        proba: what `predict_proba` returns: 'dense', an array with all probabilities; 'sparse', a scipy matrix with the
            `top_k` best of each text; or 'auto', dense up to 50 million entries (texts x labels).
        random_state: the seed; equal seeds produce equal networks on the same kind of device.
        verbose: print what `bin/train` prints. If not, warnings are Python warnings.
        settings: any other settings by their dotted names, such as {"psc.temperature": 0.1}.

    Attributes:
        classes_: the labels in sorted order; after `fit` with an indicator matrix, its column numbers, or its column
            names if it is a table.
        threshold_: the probability from which a label is predicted, chosen on validation texts for the best micro F1.
        model_: the trained model, `lsfa_jax.training.model_folder.TrainedModel`.
    """

    def __init__(
        self,
        *,
        preset: Literal["quick", "full"] = "quick",
        epochs: int | None = None,
        max_words: int | None = None,
        hidden_size: int | None = None,
        feature_size: int | None = None,
        head_threshold: int | None = None,
        num_augmented: int | None = None,
        psc_weight: float | None = None,
        augmented_weight: float | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        vectors: str | None = None,
        encoder: str = "auto",
        validation_fraction: float | Literal["auto"] = "auto",
        top_k: int = 20,
        proba: Literal["auto", "dense", "sparse"] = "auto",
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.preset = preset
        self.epochs = epochs
        self.max_words = max_words
        self.hidden_size = hidden_size
        self.feature_size = feature_size
        self.head_threshold = head_threshold
        self.num_augmented = num_augmented
        self.psc_weight = psc_weight
        self.augmented_weight = augmented_weight
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.vectors = vectors
        self.encoder = encoder
        self.validation_fraction = validation_fraction
        self.top_k = top_k
        self.proba = proba
        self.random_state = random_state
        self.verbose = verbose
        self.settings = settings

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any) -> "LSFA":
        """Trains on texts.

        Args:
            X: N texts, strings or lists of words: a list, Series, array, generator, or table with one column.
            y: their labels: N lists, tuples or sets of label names or integers; N dicts from labels to booleans, zeros
                and ones; N single labels (names or numbers); or an indicator matrix [N, L], dense, scipy sparse or a
                table whose columns are the labels. docs/python_api.md shows what `predict` returns for each.

        Raises:
            ValueError: a text is not a string, a label is missing or empty, or looks like several; the numbers of texts
                and labels differ, no text has both a word and a label, or a setting is not known.
            RuntimeError: this process was forked after the model's first use.
        """
        fork.check()
        compilation_cache.keep_on_disk()
        self._check_proba()
        texts, labels = parse_texts(X), ParsedLabels.of(y)
        check_consistent_length(texts, labels.names)
        if not texts:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required: there is no text.")
        hidden = quiet(not self.verbose, wording=_for_programs)
        with _as_value_errors(), hidden, tempfile.TemporaryDirectory(prefix="lsfa_jax_") as folder:
            documents = [Document(text, names) for text, names in zip(texts, labels.names, strict=True)]
            first, chosen, built = self._read(documents)
            fitted = encoder_choice.with_vectors(policy.resolved(first, built, chosen), built)
            config = precision.resolved(fitted)
            run = RunFolder(Path(folder) / "run")
            run.create(config, built)
            Run(config, built, initial_encoder(config, built), run, save_every=math.inf).execute(STAGES)
            model = model_folder.read(run.path)
        self._keep(model, labels)
        return self

    def predict(self, X: Any, *, top: int | None = None) -> Any:
        """Predicts labels.

        Args:
            X: N texts, as in `fit`.
            top: labels of each text to return, whatever their probability, at least 1.

        Returns:
            Without `top`, in the form of `fit`'s labels: N tuples of labels with a probability of at least `threshold_`
            (128 labels at most), the best first; an array of single labels, the best ones; or an indicator matrix,
            NumPy or scipy sparse. With `top`: N tuples.

        Raises:
            ValueError: a text is not a string, or `top` not an integer of at least 1.
            RuntimeError: this process was forked after the model's first use.
        """
        texts = self._checked(X)
        if top is not None:
            check_integer("top", top)
        if top is None and self._labels.form == "single":
            best = self._ranked(texts, 1)
            return self.classes_[[int(ids[0]) for ids, _ in best]] if texts else self.classes_[:0]
        ranked = self._ranked(texts, _MOST_LABELS if top is None else top)
        rows = (ids if top else ids[probabilities >= self.threshold_] for ids, probabilities in ranked)
        if top is None and self._labels.form in ("dense", "sparse"):
            matrix = self._matrix((ids, np.ones(len(ids), np.int64)) for ids in rows)
            return matrix if self._labels.form == "sparse" else matrix.toarray()
        return [tuple(self.classes_[ids].tolist()) for ids in rows]

    def predict_proba(self, X: Any) -> np.ndarray | sparse.csr_array:
        """Computes the probabilities of labels, columns as in `classes_`.

        Each label's probability is independent: a row does not sum to 1. Only after `fit` with single labels, rows of
        the dense array are divided by their sum, as scikit-learn's `OneVsRestClassifier` does.

        Args:
            X: N texts, as in `fit`.

        Returns:
            Dense float32[N, L], or scipy CSR float32[N, L] of the `top_k` largest of each text, depending on `proba`.

        Raises:
            ValueError: a text is not a string, `proba` is not known, or `top_k` is not an integer of at least 1.
            RuntimeError: this process was forked after the model's first use.
        """
        texts = self._checked(X)
        self._check_proba()
        num_labels = len(self.classes_)
        if self.proba == "sparse" or (self.proba == "auto" and len(texts) * num_labels > _DENSE_ENTRIES):
            return self._matrix(self._ranked(texts, self.top_k))
        dense = np.zeros((len(texts), num_labels), np.float32)
        for row, (ids, probabilities) in zip(dense, self._ranked(texts, num_labels), strict=True):
            row[ids] = probabilities
        if self._labels.form == "single":
            dense /= np.maximum(dense.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return dense

    def score(self, X: Any, y: Any) -> float:
        """Computes mean nDCG@5, from 0 to 1; of single labels nDCG@1, which is accuracy.

        nDCG@5 is of the five best labels of each text whatever the threshold; docs/metrics.md has the formula. The
        columns of a matrix without names are those of `classes_`.
        """
        texts, labels = self._checked(X), ParsedLabels.of(y, self._labels.classes)
        check_consistent_length(texts, labels.names)
        if not texts:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required: there is no text.")
        place = self._columns_of(labels)
        # Labels that training never saw count, and cannot be predicted.
        for name in (name for names in labels.names for name in names):
            place.setdefault(name, len(place))
        k = 1 if self._labels.form == "single" else 5
        top = np.full((len(texts), k), -1, np.int32)
        for row, (ids, _) in zip(top, self._ranked(texts, k), strict=True):
            row[: len(ids)] = ids
        truth = Ragged.from_rows([place[name] for name in names] for names in labels.names)
        return float(ranking.ndcg_at_k(ranking.hits(top, truth), truth, k)[k - 1] / 100)

    def save(self, path: str | Path) -> None:
        """Writes a model folder, which `load` and `bin/predict` read.

        Raises:
            ValueError: the folder cannot be written.
        """
        check_is_fitted(self, "model_")
        about = {"params": self.get_params(deep=False), "form": self._labels.form, "classes": self.classes_.tolist()}
        text, folder = json.dumps(about, indent=2, default=_plain) + "\n", Path(path)
        with _as_value_errors():
            # The manifest comes last: a folder that is written in part has no model.
            model_folder.invalidate(folder)
            atomic.write_text(folder / _ESTIMATOR_FILE, text, model_folder.ADVICE)
            model_folder.write(folder, self.model_)

    @classmethod
    def load(cls, path: str | Path) -> "LSFA":
        """Reads what `save` or `bin/train` wrote.

        Raises:
            ValueError: there is no model, or a file of it is missing, cut off or changed; the message names the file.
        """
        with _as_value_errors():
            model = model_folder.read(Path(path))
        file = Path(path) / _ESTIMATOR_FILE
        if not file.is_file():
            encoder = model.config.encoder
            return cls(encoder=encoder.pretrained or encoder.kind)._keep(model, ParsedLabels.named(model.labels))
        try:
            about = json.loads(file.read_text(encoding="utf-8"))
            labels = ParsedLabels.restored(about["form"], about["classes"])
            # A matrix may have columns that no training text has.
            if unknown := set(model.labels) - set(labels.classes):
                raise ValueError(f"its classes lack labels of the model, such as {min(unknown)!r}")
            return cls(**about["params"])._keep(model, labels)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: not what LSFA.save writes ({error}); copy the folder again") from None

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "LSFA":
        """Reads what `save`, `bin/train` or `bin/export --to huggingface` wrote: `load` by the name that hubs use."""
        return cls.load(path)

    def _keep(self, model: model_folder.TrainedModel, labels: ParsedLabels) -> "LSFA":
        self.model_, self.classes_, self.threshold_ = model, labels.values, model.threshold
        # Without the training texts' labels.
        self._labels = ParsedLabels(labels.form, labels.values, [])
        self._predictor: Predictor | None = None
        return self

    def __getstate__(self) -> dict[str, Any]:
        # The predictor holds arrays on devices; a copy builds one when it first predicts.
        state: dict[str, Any] = super().__getstate__()
        return state | {"_predictor": None} if "_predictor" in state else state

    def _read(self, documents: Sequence[Document]) -> tuple[Config, dict[str, Any], Corpus]:
        """Returns the settings before they are fitted to the corpus, those of them that are chosen, and the corpus."""
        is_auto, chosen = self.encoder == "auto", self._chosen()
        config = self._config("bilstm" if is_auto else str(self.encoder), chosen)
        corpus = _corpus(config, documents)
        is_open = is_auto and encoder_choice.is_open(config, chosen)
        suited = encoder_choice.settings(corpus) if is_open else {}
        if not suited:
            return config, chosen, corpus
        chosen = suited | chosen
        config = self._config(suited["encoder.pretrained"], chosen)
        with quiet():  # what was read is printed already
            return config, chosen, _corpus(config, documents)

    def _config(self, encoder: str, chosen: Mapping[str, Any]) -> Config:
        """Returns the preset's settings with an encoder by its short name, below those that are chosen."""
        if self.preset not in ("quick", "full"):
            raise ValueError(f"preset={self.preset!r}: expected 'quick' or 'full'")
        arguments = nested({name: _plain(value) for name, value in chosen.items()})
        return for_encoder("custom", self.preset, encoder, arguments, "LSFA")

    def _chosen(self) -> dict[str, Any]:
        """Returns the settings that the arguments determine, by dotted names."""
        chosen = {key: getattr(self, name) for name, key in _SETTINGS.items() if getattr(self, name) is not None}
        if isinstance(name := (self.settings or {}).get("encoder"), str):
            raise ValueError(
                f'settings={{"encoder": "{name}"}}: the encoder is an argument, LSFA(encoder="{name}"); its settings '
                'have dotted names, such as settings={"encoder.kind": "cnn"}'
            )
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31)
        return chosen | {"seed": int(seed)} | (self.settings or {})

    def _checked(self, X: Any) -> list[str]:
        check_is_fitted(self, "model_")
        return parse_texts(X)

    def _check_proba(self) -> None:
        """Raises ValueError unless the arguments of `predict_proba` can be used."""
        if self.proba not in ("auto", "dense", "sparse"):
            raise ValueError(f"proba={self.proba!r}: expected 'auto', 'dense' or 'sparse'")
        check_integer("top_k", self.top_k)

    def _columns_of(self, labels: ParsedLabels) -> dict[str, int]:
        """Returns the column in `classes_` of each name of labels, as far as it has one."""
        names = self._labels.classes
        by_position = labels.is_unnamed_matrix or (
            self._labels.is_unnamed_matrix and labels.form in ("dense", "sparse")
        )
        if by_position and len(labels.classes) != len(names):
            raise ValueError(f"y has {len(labels.classes):,} columns, expected {len(names):,}, as in fit")
        return {name: column for column, name in enumerate(labels.classes if by_position else names)}

    def _ranked(self, texts: list[str], top: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the columns in `classes_` of each text's best labels, and their probabilities."""
        compilation_cache.keep_on_disk()
        self._predictor = predictor = getattr(self, "_predictor", None) or Predictor(self.model_, all_labels=True)
        place = {name: column for column, name in enumerate(self._labels.classes)}
        columns = np.array([place[name] for name in self.model_.labels])
        for label_ids, probabilities in predictor.predict(texts, top):
            yield columns[label_ids], probabilities

    def _matrix(self, rows: Iterable[tuple[np.ndarray, np.ndarray]]) -> sparse.csr_array:
        columns, values = [], []
        for ids, numbers in rows:
            order = np.argsort(ids)
            columns.append(ids[order])
            values.append(numbers[order])
        offsets = np.cumsum([0, *map(len, columns)])
        shape = (len(columns), len(self.classes_))
        if not columns:
            return sparse.csr_array(shape, dtype=np.float32)
        return sparse.csr_array((np.concatenate(values), np.concatenate(columns), offsets), shape=shape)


def _corpus(config: Config, documents: Iterable[Document]) -> Corpus:
    return load.in_memory(config, "texts", documents, pieces=load.load_pieces(config))


@contextmanager
def _as_value_errors() -> Iterator[None]:
    """Raises ValueError in place of UserError, which is for commands."""
    try:
        yield
    except UserError as error:
        raise ValueError(_for_programs(str(error))) from error


def _for_programs(message: str) -> str:
    """Returns a message with settings as `LSFA` takes them in place of options: `epochs` or settings["fusion"]."""

    def named(option: re.Match[str]) -> str:
        name = option[1].replace("-", "_")
        if name in _ARGUMENTS:
            return _ARGUMENTS[name]
        return f'settings["{name}"]' if name in keys(Config) else option[0]

    return _OPTION.sub(named, message)


def _plain(value: Any) -> Any:
    """Converts NumPy's numbers, such as grids of parameters hold, to Python's, and random states, for JSON, to None."""
    if isinstance(value, np.generic):
        return value.item()
    return None if isinstance(value, np.random.RandomState) else value
