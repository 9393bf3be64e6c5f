"""The paper's feature augmentation on its own: features of any encoder in, features for rare labels out (Eq. 10-19).

For people who have one vector a document, such as a sentence embedding, and a linear one-versus-rest classifier on it.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted

from lsfa_jax import config
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.model import augmentation, prototypes, pvae
from lsfa_jax.training import loop
from lsfa_jax.training.collection import FeaturesInMemory
from lsfa_jax.training.loop import Stage
from lsfa_jax.training.stages import linear_head, transfer
from lsfa_jax.training.stages.transfer import Transfer
from lsfa_jax.training.state import TrainState
from lsfa_jax.util import sharding
from lsfa_jax.util.console import UserError, quiet

# Few features make few steps an epoch: without a number of epochs there are as many as make this many steps.
_STEPS = 2_000
_LEAST_EPOCHS = 20
# Features on the device at a time where nothing is trained.
_BLOCK = 16_384

# What the seed is folded with for each use of randomness.
_PVAE, _TRANSFER, _AUGMENTATION = range(3)


class FeatureAugmenter(BaseEstimator):
    """Learns from frequent labels how features vary around their label's mean, and makes features for rare ones.

    Features are standardised before anything is learned: each dimension is divided by its standard deviation over all
    pairs, after its mean is taken off. Where no feature is negative (a ReLU made them) the mean stays, and no generated
    feature is negative either. What goes in and comes out is never standardised.

    Args:
        head_threshold: N_t; labels with fewer features are rare, and the others are what is learned from.
        num_augmented: N_a, features that `adjust` uses of each rare label.
        hidden_size: units of the autoencoder's hidden layers.
        latent_size: Z, size of the latent variation.
        epochs: passes over the frequent labels' features; None: 20, or as many as make 2,000 steps.
        batch_size: features a step.
        learning_rate: Adam's.
        random_state: the seed; the same gives the same features.
        verbose: show progress.

    Attributes:
        prototypes_: float32[L, D], the mean feature of each label (Eq. 10), 0 for a label without features.
        label_counts_: int64[L], features of each label.
        is_head_: bool[L], whether the label is frequent.
        diagnostics_: how well rare labels' generated features agree with their real ones, after standardising:
            `relative_mean_error`, |mean of the generated - prototype| / |prototype|, the mean over labels (0 is best);
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

    def fit(self, features: Any, label_index: Any) -> "FeatureAugmenter":
        """Collects prototypes (Eq. 10) and trains the autoencoder on the frequent labels' features (Eq. 11-17).

        Args:
            features: float[P, D], one row for each pair of a document and one of its labels. With an indicator matrix
                Y, `rows, label_index = Y.nonzero()` and `features = X[rows]`.
            label_index: int[P], the label of each row, from 0.

        Raises:
            ValueError: the shapes do not fit, a value is not finite, or every label is rare, or none.
        """
        features = check_array(features, dtype=np.float32, input_name="features")
        label_ids = _label_index(label_index, len(features))
        settings = self._settings()
        counts = np.bincount(label_ids)
        is_head = np.asarray(prototypes.is_head(counts, self.head_threshold))
        if is_head.all() or not is_head.any():
            which = "no label is rare" if is_head.all() else "every label is rare"
            raise ValueError(
                f"head_threshold={self.head_threshold}: {which} (labels have {counts.min():,} to {counts.max():,} "
                "features); features are learned of frequent labels and made for rare ones, so both are needed"
            )
        self._offset, self._scale, nonnegative = _standard(features)
        features = (features - self._offset) / self._scale
        mesh = sharding.make_mesh()
        sums = _feature_sums(features, label_ids, len(counts))
        pairs = FeaturesInMemory(features[is_head[label_ids]], label_ids[is_head[label_ids]])
        self._model = transfer.make_pvae(settings, features.shape[1]).clone(nonnegative=nonnegative)
        epochs = self.epochs or _enough_epochs(len(pairs), self.batch_size)
        stage = Transfer(self._model, settings, pairs, optax.adam(self.learning_rate), mesh, epochs)
        state = self._trained(stage, stage.init(self._key(_TRANSFER), self._key(_PVAE), sums))
        tail = np.flatnonzero(~is_head & (counts > 0))
        self.diagnostics_ = transfer.diagnose(self._model, state, tail, self._key(_AUGMENTATION))
        self._params, self._centres = sharding.to_host((state.params, prototypes.prototypes(state.extra["sums"])))
        self.label_counts_, self.is_head_ = counts, is_head
        self.prototypes_ = np.where(counts[:, None] > 0, self._centres * self._scale + self._offset, np.float32(0))
        return self

    def sample(self, labels: Any, n: int, seed: int = 0) -> np.ndarray:
        """Generates features around the prototypes of labels (Eq. 18), rare ones or not.

        Feature j of a label depends on the seeds, the label and j alone, whichever others are asked for.

        Args:
            labels: int[K], numbers of labels of which `fit` saw a feature.
            n: features of each label.
            seed: another seed, other features.

        Returns:
            float32[K, n, D].

        Raises:
            ValueError: `fit` saw no feature of a label.
        """
        check_is_fitted(self, "prototypes_")
        labels = np.asarray(labels, dtype=None if np.size(labels) else np.int32)
        seen = np.flatnonzero(self.label_counts_)
        if labels.ndim != 1 or not np.isin(labels, seen).all():
            raise ValueError(f"labels: expected a list of numbers of labels that fit saw, {seen[0]} to {seen[-1]}")
        key = jax.random.fold_in(self._key(_AUGMENTATION), seed)
        label_ids, indices = np.repeat(labels.astype(np.int32), n), np.tile(np.arange(n, dtype=np.int32), len(labels))
        made = np.zeros((len(label_ids), len(self._scale)), np.float32)
        for start in range(0, len(made), _BLOCK):
            part = slice(start, start + _BLOCK)
            centres = self._centres[label_ids[part]]
            made[part] = _generated(self._model, self._params, key, label_ids[part], indices[part], centres)
        return (made * self._scale + self._offset).reshape(len(labels), n, made.shape[1])

    def adjust(
        self,
        coef: Any,
        intercept: Any,
        features: Any,
        labels: Any,
        *,
        augmented_weight: float = 1.0,
        epochs: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 1e-2,
        seed: int = 0,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Trains a linear one-versus-rest head on L_BCE + gamma L_Augmented (Eq. 19), from where it stands.

        Args:
            coef: float[L, D], a row for each label.
            intercept: float[L], or None for a head without.
            features: float[N, D], one row a document.
            labels: the N documents' labels: an indicator matrix [N, L], dense or scipy sparse, or lists of numbers.
            augmented_weight: gamma, the weight of the generated features.
            epochs: passes over documents and generated features; None: 20, or as many as make 2,000 steps.
            batch_size: documents a step.
            learning_rate: Adam's at the start; it falls to 0 in a straight line.
            seed: of the order, and of the generated features, which are those of `sample`.

        Returns:
            The new coef float32[L, D] and intercept float32[L] (None where there was none).

        Raises:
            ValueError: the shapes do not fit each other or what `fit` saw, or the training diverges.
        """
        check_is_fitted(self, "prototypes_")
        coef = check_array(coef, dtype=np.float32, input_name="coef")
        features = check_array(features, dtype=np.float32, input_name="features")
        num_labels, size = self._centres.shape
        if features.shape[1] != size or coef.shape[1] != size or len(coef) < num_labels:
            raise ValueError(
                f"coef {coef.shape} and features {features.shape}: expected [L, {size}] with L at least {num_labels}, "
                f"and [N, {size}], as fit saw"
            )
        # Without an intercept nothing could make up for a mean that was taken off.
        offset = np.zeros_like(self._offset) if intercept is None else self._offset
        head = {"coef": coef * self._scale}
        if intercept is not None:
            intercept = check_array(intercept, ensure_2d=False, dtype=np.float32, input_name="intercept")
            if intercept.shape != (len(coef),):
                raise ValueError(f"intercept {intercept.shape}: expected a number for each of {len(coef)} rows of coef")
            head["intercept"] = intercept + coef @ offset
        sets = _label_sets(labels, len(features), len(coef))
        mesh = sharding.make_mesh()
        frozen = linear_head.Generator(
            pvae=self._params,
            prototypes=self._centres,
            shift=(self._offset - offset) / self._scale,
            key=jax.random.fold_in(self._key(_AUGMENTATION), seed),
        )
        settings = linear_head.HeadSettings(
            epochs=epochs or _enough_epochs(len(features), batch_size),
            batch_size=batch_size,
            augmented_weight=augmented_weight,
            num_augmented=self.num_augmented,
            latent_size=self.latent_size,
            seed=seed,
        )
        steps = settings.epochs * -(-len(features) // batch_size)
        stage = linear_head.LinearHead(
            lambda params: transfer.decoder(self._model, params, {}),
            settings,
            (features - offset) / self._scale,
            sets,
            len(coef),
            np.flatnonzero(~self.is_head_ & (self.label_counts_ > 0)),
            sharding.replicate(mesh, frozen),
            optax.adam(optax.linear_schedule(learning_rate, 0.0, steps)),
            mesh,
        )
        head = sharding.to_host(self._trained(stage, stage.init(jax.random.key(seed), head)).params)
        coef = head["coef"] / self._scale
        return coef, None if intercept is None else head["intercept"] - coef @ offset

    def _settings(self) -> config.Config:
        own = {name: getattr(self, name) for name in ("head_threshold", "hidden_size", "latent_size", "batch_size")}
        own |= {"learning_rate": self.learning_rate} | ({} if self.epochs is None else {"epochs": self.epochs})
        values = {"seed": self.random_state, "adjust": {"num_augmented": self.num_augmented}, "pvae": own}
        try:
            return config.validated(values, "FeatureAugmenter")
        except UserError as error:
            raise ValueError(str(error)) from None

    def _key(self, use: int) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.random_state), use)

    def _trained(self, stage: Stage, state: TrainState) -> TrainState:
        with quiet(not self.verbose):
            try:
                return loop.run(stage, sharding.replicate(sharding.make_mesh(), state))
            except UserError as error:
                raise ValueError(f"{error}; learning_rate is the argument") from error


@partial(jax.jit, static_argnums=0)
def _generated(
    model: pvae.Pvae, params: Any, key: jax.Array, label_ids: jax.Array, indices: jax.Array, centres: jax.Array
) -> jax.Array:
    decode = transfer.decoder(model, params, {})
    return augmentation.sample_features(decode, key, label_ids, indices, centres, model.latent_size)


def _standard(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Returns what to take off and what to divide by, float32[D], and whether no feature is negative."""
    nonnegative = bool(features.min() >= 0)
    scale = features.std(axis=0, dtype=np.float64).astype(np.float32)
    # A dimension that does not vary stays as it is.
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


def _enough_epochs(items: int, batch_size: int) -> int:
    return max(_LEAST_EPOCHS, math.ceil(_STEPS / math.ceil(items / batch_size)))


def _label_index(label_index: Any, count: int) -> np.ndarray:
    ids = np.asarray(label_index)
    if ids.shape != (count,) or ids.dtype.kind not in "iu" or ids.min() < 0:
        raise ValueError(
            f"label_index: expected a label number, from 0, for each of {count:,} rows, got {ids.dtype} {ids.shape}"
        )
    return ids.astype(np.int32)


def _label_sets(labels: Any, count: int, num_labels: int) -> Ragged:
    """Reads an indicator matrix or lists of label numbers."""
    if sparse.issparse(labels) or isinstance(labels, np.ndarray):
        matrix = sparse.csr_array(labels != 0)
        matrix.sum_duplicates()
        sets, shape = Ragged(matrix.indices.astype(np.int32), matrix.indptr.astype(np.int64)), matrix.shape
    else:
        lists: list[list[int]] = [sorted(set(one)) for one in _iterables(labels)]
        flat = np.array([label for one in lists for label in one] or np.zeros(0, int))
        if flat.dtype.kind not in "iu" or flat.min(initial=0) < 0 or flat.max(initial=-1) >= num_labels:
            raise ValueError(f"labels: expected label numbers from 0 to {num_labels - 1}")
        sets, shape = Ragged.from_rows(lists), (len(lists), num_labels)
    if shape != (count, num_labels):
        raise ValueError(f"labels: found {shape[0]} documents x {shape[1]} labels, expected {count} x {num_labels}")
    return sets


def _iterables(labels: Any) -> Iterable[Iterable[int]]:
    try:
        return [list(one) for one in labels]
    except TypeError:
        raise ValueError("labels: expected an indicator matrix, or a list of label numbers for each document") from None
