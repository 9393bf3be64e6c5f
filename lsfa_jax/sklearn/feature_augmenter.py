"""The paper's feature augmentation without its encoder: features of any encoder in, features for rare labels out.

For one vector a document, such as a sentence embedding, and a linear one-versus-rest classifier on it (Eq. 10-19).
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted

from lsfa_jax import config
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.model import augmentation, generators, prototypes, pvae
from lsfa_jax.sklearn.arguments import check_integer, check_number
from lsfa_jax.training import loop
from lsfa_jax.training.collection import FeaturesInMemory
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.stages import linear_head, transfer
from lsfa_jax.training.stages.transfer import Transfer
from lsfa_jax.training.state import TrainState
from lsfa_jax.types import Array, PyTree
from lsfa_jax.util import fork, sharding
from lsfa_jax.util.console import UserError, quiet
from lsfa_jax.util.random_streams import Stream
from lsfa_jax.util.random_streams import key as random_key

# Where `epochs` is None: as many as give this many steps, and at least so many epochs.
_STEPS = 2_000
_LEAST_EPOCHS = 20
# Features on the device at a time where nothing is trained.
_BLOCK = 16_384


Head = dict[str, np.ndarray]
"""A linear head: "coef" float32[L, D] and perhaps "intercept" float32[L]."""

Labels: TypeAlias = ArrayLike | sparse.sparray | Iterable[Iterable[int]]
"""An indicator matrix [N, L], dense or sparse, or the label numbers of each of N documents."""


class FeatureAugmenter(BaseEstimator):
    """Learns from frequent labels how features vary around their label's mean, and generates features for rare ones.

    Training is on standardised features: from each dimension its mean over all pairs is subtracted, and the rest is
    divided by its standard deviation. Where no feature is negative, as after a ReLU, the mean is not subtracted, and no
    generated feature is negative either. Arguments and results are in the units of the input, not standardised.

    Args:
        head_threshold: N_t; labels with fewer features are rare, and the frequent ones train the autoencoder.
        num_augmented: N_a, generated features of each rare label in `adjust`.
        hidden_size: units of the autoencoder's hidden layers.
        latent_size: Z, size of the latent variation.
        epochs: passes over the frequent labels' features; None: as many as give 2,000 steps, at least 20.
        batch_size: features in a step.
        learning_rate: of Adam.
        random_state: the seed; the same seed gives the same features.
        verbose: print progress.

    Attributes:
        prototypes_: float32[L, D], the mean feature of each label (Eq. 10), 0 for a label without features.
        label_counts_: int64[L], features of each label.
        is_head_: bool[L], whether the label is frequent.
        diagnostics_: how well generated and real features of rare labels agree, standardised:
            `relative_mean_error`, |mean of the generated - prototype| / |prototype|, averaged over labels (0 is best);
            `variance_ratio`, variance of the generated over variance of the real ones (1 is best, 0 is collapse).
    """

    def __init__(
        self,
        *,
        head_threshold: int = 50,
        num_augmented: int = 10,
        hidden_size: int = 512,
        latent_size: int = 64,
        epochs: int | None = None,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        self.head_threshold = head_threshold
        self.num_augmented = num_augmented
        self.hidden_size = hidden_size
        self.latent_size = latent_size
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, features: ArrayLike, label_index: ArrayLike) -> "FeatureAugmenter":
        """Collects prototypes (Eq. 10) and trains the autoencoder on the frequent labels' features (Eq. 11-17).

        Args:
            features: float[P, D], one row for each pair of a document and one of its labels. With an indicator matrix
                Y, `rows, label_index = Y.nonzero()` and `features = X[rows]`.
            label_index: int[P], the label of each row, from 0.

        Raises:
            ValueError: the shapes do not fit, a value is not finite, or every label is rare, or none.
            RuntimeError: this process was forked after devices were used.
        """
        fork.check()
        inputs = _float32(features, "features")
        label_ids = _label_index(label_index, len(inputs))
        settings = self._settings()
        counts = np.bincount(label_ids)
        is_head = self._head_of(counts)
        self._offset, self._scale, nonnegative = _standardisation(inputs)
        inputs = (inputs - self._offset) / self._scale
        mesh = sharding.make_mesh()
        sums = _feature_sums(inputs, label_ids, len(counts))
        pairs = FeaturesInMemory(inputs[is_head[label_ids]], label_ids[is_head[label_ids]])
        self._model = transfer.make_pvae(settings, inputs.shape[1]).clone(nonnegative=nonnegative)
        epochs = self.epochs or _default_epochs(len(pairs), self.batch_size)
        stage = Transfer(self._model, settings, pairs, optax.adam(self.learning_rate), mesh, epochs)
        state = self._trained(stage, stage.init(self._key(Stream.TRANSFER), self._key(Stream.PVAE), sums))
        tail = np.flatnonzero(~is_head & (counts > 0))
        self.diagnostics_ = transfer.diagnose(
            generators.Generator("pvae", self._model), state, tail, self._key(Stream.AUGMENTATION)
        )
        variables = {"params": state.params} | state.extra["constants"]
        self._variables, self._centres = sharding.to_host((variables, prototypes.prototypes(state.extra["sums"])))
        self.label_counts_, self.is_head_ = counts, is_head
        self.prototypes_ = np.where(counts[:, None] > 0, self._centres * self._scale + self._offset, np.float32(0))
        return self

    def sample(self, labels: ArrayLike, n: int, seed: int = 0) -> np.ndarray:
        """Generates features around the prototypes of labels (Eq. 18), rare or frequent.

        Feature j of a label depends on the seeds, the label and j alone, not on the further labels or on n.

        Args:
            labels: int[K], label numbers that were in the `label_index` of `fit`.
            n: features for each label.
            seed: each seed gives different features.

        Returns:
            float32[K, n, D].

        Raises:
            ValueError: a label had no feature in `fit`, or `n` or `seed` is not such a number.
            RuntimeError: this process was forked after devices were used.
        """
        check_is_fitted(self, "prototypes_")
        fork.check()
        check_integer("n", n, least=0)
        check_integer("seed", seed, least=0)
        labels = np.asarray(labels, dtype=None if np.size(labels) else np.int32)
        seen = np.flatnonzero(self.label_counts_)
        if labels.ndim != 1 or not np.isin(labels, seen).all():
            raise ValueError(f"labels: expected label numbers with features in fit, {seen[0]} to {seen[-1]}")
        key = jax.random.fold_in(self._key(Stream.AUGMENTATION), seed)
        label_ids, indices = np.repeat(labels.astype(np.int32), n), np.tile(np.arange(n, dtype=np.int32), len(labels))
        features = np.zeros((len(label_ids), len(self._scale)), np.float32)
        for start in range(0, len(features), _BLOCK):
            part = slice(start, start + _BLOCK)
            centres = self._centres[label_ids[part]]
            features[part] = _generate(self._model, self._variables, key, label_ids[part], indices[part], centres)
        return (features * self._scale + self._offset).reshape(len(labels), n, features.shape[1])

    def adjust(
        self,
        coef: ArrayLike,
        intercept: ArrayLike | None,
        features: ArrayLike,
        labels: Labels,
        *,
        augmented_weight: float = 1.0,
        epochs: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 1e-2,
        seed: int = 0,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Continues the training of a linear one-versus-rest head, on L_BCE + gamma L_Augmented (Eq. 19).

        Args:
            coef: float[L, D], a row for each label.
            intercept: float[L], or None for a head without.
            features: float[N, D], one row a document.
            labels: the N documents' labels: an indicator matrix [N, L], dense or scipy sparse, or lists of numbers.
            augmented_weight: gamma, the weight of the generated features.
            epochs: passes over documents and generated features; None: as many as give 2,000 steps, at least 20.
            batch_size: documents in a step.
            learning_rate: of Adam, at the start; it falls linearly to 0.
            seed: of the order of documents, and of the generated features, which are those of `sample`.

        Returns:
            The new coef float32[L, D] and intercept float32[L] (None where there was none).

        Raises:
            ValueError: the shapes do not agree with each other or with those of `fit`, a number is out of its range, or
                the training diverges.
            RuntimeError: this process was forked after devices were used.
        """
        check_is_fitted(self, "prototypes_")
        fork.check()
        check_integer("epochs", 1 if epochs is None else epochs)
        check_integer("batch_size", batch_size)
        check_integer("seed", seed, least=0)
        check_number("augmented_weight", augmented_weight, allow_zero=True)
        check_number("learning_rate", learning_rate)
        weights, inputs = _float32(coef, "coef"), _float32(features, "features")
        self._check_shapes(weights, inputs)
        # Without an intercept nothing could replace a subtracted mean.
        offset = np.zeros_like(self._offset) if intercept is None else self._offset
        head = {"coef": weights * self._scale}
        if intercept is not None:
            bias = _float32(intercept, "intercept", ensure_2d=False)
            if bias.shape != (len(weights),):
                raise ValueError(f"intercept {bias.shape}: expected a number for each of {len(weights)} rows of coef")
            head["intercept"] = bias + weights @ offset
        sets = _label_sets(labels, len(inputs), len(weights))
        settings = linear_head.HeadSettings(
            epochs=epochs or _default_epochs(len(inputs), batch_size),
            batch_size=batch_size,
            augmented_weight=augmented_weight,
            num_augmented=self.num_augmented,
            seed=seed,
        )
        inputs, shift = (inputs - offset) / self._scale, (self._offset - offset) / self._scale
        head = self._adjusted(head, inputs, sets, shift, settings, learning_rate)
        weights = head["coef"] / self._scale
        return weights, None if intercept is None else head["intercept"] - weights @ offset

    def _adjusted(
        self,
        head: Head,
        features: np.ndarray,
        labels: Ragged,
        shift: np.ndarray,
        settings: linear_head.HeadSettings,
        learning_rate: float,
    ) -> Head:
        """Trains the head on standardised features; `shift` is added to generated ones."""
        mesh = sharding.make_mesh()
        generator = linear_head.FrozenInputs(
            learned=self._variables,
            prototypes=self._centres,
            shift=jnp.asarray(shift),
            key=jax.random.fold_in(self._key(Stream.AUGMENTATION), settings.seed),
        )
        steps = settings.epochs * math.ceil(len(features) / settings.batch_size)
        stage = linear_head.LinearHead(
            generators.Generator("pvae", self._model),
            settings,
            features,
            labels,
            len(head["coef"]),
            np.flatnonzero(~self.is_head_ & (self.label_counts_ > 0)),
            sharding.replicate(mesh, generator),
            optax.adam(optax.linear_schedule(learning_rate, 0.0, steps)),
            mesh,
        )
        return sharding.to_host(
            self._trained(stage, stage.init(random_key(Stream.ADJUSTMENT, settings.seed), head)).params
        )

    def _check_shapes(self, coef: np.ndarray, features: np.ndarray) -> None:
        """Raises ValueError where the shapes do not agree with those of `fit`."""
        num_labels, size = self._centres.shape
        if features.shape[1] != size or coef.shape[1] != size or len(coef) < num_labels:
            raise ValueError(
                f"coef {coef.shape} and features {features.shape}: expected [L, {size}] with L at least {num_labels}, "
                f"and [N, {size}], as in fit"
            )

    def _head_of(self, counts: np.ndarray) -> np.ndarray:
        """Returns bool[L], which labels are frequent; raises ValueError unless there are frequent and rare ones."""
        is_head = np.asarray(prototypes.is_head(counts, self.head_threshold))
        if is_head.all() or not is_head.any():
            which = "no label is rare" if is_head.all() else "every label is rare"
            raise ValueError(
                f"head_threshold={self.head_threshold}: {which} (labels have {counts.min():,} to {counts.max():,} "
                "features); choose a threshold between, as frequent labels teach what is generated for rare ones"
            )
        return is_head

    def _settings(self) -> config.Config:
        names = ("head_threshold", "hidden_size", "latent_size", "batch_size", "learning_rate", "epochs")
        pvae_values = {name: value for name in names if (value := getattr(self, name)) is not None}
        values = {"seed": self.random_state, "adjust": {"num_augmented": self.num_augmented}, "pvae": pvae_values}
        try:
            return config.validated(values, "FeatureAugmenter")
        except UserError as error:
            raise ValueError(str(error)) from None

    def _key(self, use: Stream) -> Array:
        return random_key(use, self.random_state)

    def _trained(self, stage: Stage, state: TrainState) -> TrainState:
        with quiet(not self.verbose):
            try:
                return loop.run(stage, sharding.replicate(sharding.make_mesh(), state))
            except UserError as error:
                raise ValueError(f"{stage.name}: the training diverged; lower learning_rate") from error


@partial(jax.jit, static_argnums=0)
def _generate(
    model: pvae.Pvae, variables: PyTree, key: Array, label_ids: Array, indices: Array, centres: Array
) -> Array:
    sample = generators.Generator("pvae", model)(variables)
    return augmentation.draw_features(sample, key, label_ids, indices, centres)


def _standardisation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Returns the offset to subtract and the scale to divide by, float32[D], and whether no feature is negative."""
    nonnegative = bool(features.min() >= 0)
    scale = features.std(axis=0, dtype=np.float64).astype(np.float32)
    # A constant dimension is not scaled.
    scale = np.where(scale > 0, scale, np.float32(1))
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    return np.zeros_like(mean) if nonnegative else mean, scale, nonnegative


def _feature_sums(features: np.ndarray, label_ids: np.ndarray, num_labels: int) -> prototypes.FeatureSums:
    sums = prototypes.zero_sums(num_labels, features.shape[1])
    add_up = jax.jit(prototypes.feature_sums, static_argnums=3)
    for start in range(0, len(features), _BLOCK):
        part, ids = features[start : start + _BLOCK], label_ids[start : start + _BLOCK]
        sums = jax.tree.map(jnp.add, sums, add_up(part, ids, np.ones(len(ids), bool), num_labels))
    return sums


def _default_epochs(items: int, batch_size: int) -> int:
    return max(_LEAST_EPOCHS, math.ceil(_STEPS / math.ceil(items / batch_size)))


def _float32(array: ArrayLike, name: str, ensure_2d: bool = True) -> np.ndarray:
    return cast(np.ndarray, check_array(array, dtype=np.float32, input_name=name, ensure_2d=ensure_2d))


def _label_index(label_index: ArrayLike, count: int) -> np.ndarray:
    ids = np.asarray(label_index)
    if ids.shape != (count,) or ids.dtype.kind not in "iu" or ids.min() < 0:
        raise ValueError(
            f"label_index: expected a label number, from 0, for each of {count:,} rows, got {ids.dtype} {ids.shape}"
        )
    return ids.astype(np.int32)


def _label_sets(labels: Labels, count: int, num_labels: int) -> Ragged:
    """Returns the label numbers of each document, from an indicator matrix or from lists."""
    if sparse.issparse(labels) or isinstance(labels, np.ndarray):
        if labels.ndim != 2:  # type: ignore[union-attr]
            raise ValueError(
                "labels: expected an indicator matrix [N, L], or a list of label numbers for each document"
            )
        matrix = sparse.csr_array(labels != 0)
        matrix.sum_duplicates()
        sets, shape = Ragged(matrix.indices.astype(np.int32), matrix.indptr.astype(np.int64)), matrix.shape
    else:
        lists: list[list[int]] = [sorted(set(row)) for row in _rows(labels)]
        flat = np.array([label for row in lists for label in row] or np.zeros(0, int))
        if flat.dtype.kind not in "iu" or flat.min(initial=0) < 0 or flat.max(initial=-1) >= num_labels:
            raise ValueError(f"labels: expected label numbers from 0 to {num_labels - 1}")
        sets, shape = Ragged.from_rows(lists), (len(lists), num_labels)
    if shape != (count, num_labels):
        raise ValueError(f"labels: {shape[0]} documents x {shape[1]} labels, expected {count} x {num_labels}")
    return sets


def _rows(labels: Labels) -> list[list[int]]:
    try:
        return [list(row) for row in cast(Iterable[Iterable[int]], labels)]
    except TypeError:
        raise ValueError("labels: expected an indicator matrix, or a list of label numbers for each document") from None
