from pathlib import Path

import jax
import numpy as np
import pytest

from lsfa_jax.data.corpus import Corpus
from lsfa_jax.model import prototypes
from lsfa_jax.training.collection import BatchSink, FeaturesInMemory, LabelFeatures, collect_features
from lsfa_jax.util import sharding
from tests import training_corpus
from tests.reference import prototypes as reference_prototypes
from tests.reference.agreement import float64

L, D = training_corpus.NUM_LABELS, 5
IS_HEAD = np.arange(L) < 3


@pytest.fixture(scope="module")
def params():
    return training_corpus.init_params(training_corpus.make_model(training_corpus.config()))


@pytest.fixture(scope="module")
def features(tiny, params):
    """Features of the positive pairs of the training documents by the equations, float64[P, D]."""
    exact, split = float64(params), tiny.train
    rows = []
    for i, length in enumerate(split.lengths):
        words, label_ids = split.words.row(i)[None], split.labels.row(i)
        rows += list(training_corpus.reference_features(exact, words, [length], label_ids)[0])
    return np.array(rows)


def collect(corpus: Corpus, params: dict, devices: int, *sinks: BatchSink) -> prototypes.FeatureSums:
    mesh = sharding.make_mesh(jax.local_devices()[:devices])
    model = training_corpus.make_model(training_corpus.config())
    batches = training_corpus.batches(corpus.train, 8, devices)
    return collect_features(model, sharding.replicate(mesh, params), batches, mesh, *sinks)


@pytest.mark.parametrize("devices", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_sums_of_features_give_the_prototypes_and_variances_of_each_label(tiny, params, features, devices):
    sums = collect(tiny, params, devices)
    ids, all_pairs = tiny.train.labels.values, np.ones(len(features), bool)
    np.testing.assert_array_equal(sums.counts, tiny.label_counts)
    expected = reference_prototypes.prototypes(features, ids, all_pairs, L)
    np.testing.assert_allclose(prototypes.prototypes(sums), expected, rtol=1e-4, atol=1e-5)
    expected = reference_prototypes.variances(features, ids, all_pairs, L)
    np.testing.assert_allclose(prototypes.variances(sums), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("devices", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_features_of_head_labels_are_in_the_file_in_the_order_of_the_split(tiny, params, features, tmp_path, devices):
    path = tmp_path / "new" / "features.npy"
    stored = LabelFeatures(path, training_corpus.batches(tiny.train), IS_HEAD, D)
    with stored.filling() as keep:
        sums = collect(tiny, params, devices, keep)
    in_head = IS_HEAD[tiny.train.labels.values]
    np.testing.assert_array_equal(stored.label_ids, tiny.train.labels.values[in_head])
    assert len(stored) == in_head.sum() < len(features)
    np.testing.assert_allclose(stored.open(), features[in_head], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(sums.counts, tiny.label_counts)
    assert [file.name for file in path.parent.iterdir()] == ["features.npy"]


@pytest.mark.parametrize("dtype", [None, np.dtype(np.float16)])
def test_token_states_come_to_the_host_only_where_a_type_is_named(tiny, params, dtype):
    seen = []
    model, mesh = training_corpus.make_model(training_corpus.config()), sharding.make_mesh(jax.local_devices()[:1])
    batches = training_corpus.batches(tiny.train)
    placed = sharding.replicate(mesh, params)

    def sink(batch, states, features):
        seen.append((states if states is None else states.dtype, features.shape[0]))

    collect_features(model, placed, batches, mesh, sink, states_dtype=dtype)
    assert set(seen) == {(dtype, 8)}


def head_features(corpus: Corpus, path: Path, is_head: np.ndarray) -> LabelFeatures:
    return LabelFeatures(path, training_corpus.batches(corpus.train), is_head, D)


def test_without_head_labels_there_is_no_file(tiny, tmp_path):
    path = tmp_path / "features.npy"
    stored = head_features(tiny, path, np.zeros(L, bool))
    with stored.filling() as keep:
        keep(None, None, None)
    assert len(stored) == 0
    assert not path.exists()


def test_a_collection_that_is_interrupted_leaves_no_file_under_its_name(tiny, tmp_path):
    path = tmp_path / "features.npy"
    with pytest.raises(KeyboardInterrupt), head_features(tiny, path, IS_HEAD).filling():
        raise KeyboardInterrupt
    assert not path.exists()


def test_features_in_memory_are_those_it_was_built_from():
    features, label_ids = np.ones((3, D), np.float32), np.array([2, 0, 1], np.int32)
    stored = FeaturesInMemory(features, label_ids)
    assert len(stored) == 3
    assert stored.open() is features
    assert stored.label_ids is label_ids
