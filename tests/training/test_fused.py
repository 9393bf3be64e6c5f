from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import FLOOR, Ranked
from lsfa_jax.sparse import fusion
from lsfa_jax.sparse.fusion import Cells
from lsfa_jax.training import fused
from lsfa_jax.training.linear_side import LinearSide
from lsfa_jax.util import sharding
from tests import training_corpus
from tests.reference import fusion as reference

COUNTS = np.repeat([400, 40, 4], 10)


def simulated(network_knows, num_documents=120, seed=0):
    """Cells of documents with some of 30 labels, of which the linear model knows something, and their labels."""
    random = np.random.default_rng(seed)
    true = random.random((num_documents, 30)) < 0.1
    network = network_knows * 3 * true + random.normal(size=true.shape)
    linear = 2 * true + random.normal(size=true.shape) - 2
    documents, label_ids = np.indices(true.shape)
    cells = Cells(*(part.ravel() for part in (documents, label_ids, network, linear, true.astype(float))), None)
    truth = Ragged.from_rows([np.flatnonzero(row) for row in true])
    return cells._replace(weights=np.ones(true.size)), truth


@pytest.mark.parametrize("seed", range(2))
def test_a_network_that_knows_more_is_evidence(seed):
    evidence = fused.measure(*simulated(1.0, seed=seed), COUNTS, "tree", seed)
    assert evidence.gain > 2
    assert evidence.share == 1
    assert evidence.speaks_for_network


def test_noise_of_a_network_is_seldom_evidence_and_changes_little():
    """Three of four bootstrap samples speak for noise once in four times; its weight is near 0 then."""
    results = [fused.measure(*simulated(0.0, 80, seed), COUNTS, "tree", seed) for seed in range(4)]
    assert sum(evidence.speaks_for_network for evidence in results) <= 2, results
    assert all(abs(evidence.gain) < 1.5 for evidence in results), results


def test_a_network_that_ranks_the_wrong_labels_high_is_no_evidence():
    evidence = fused.measure(*simulated(-1.0), COUNTS, "tree", 0)
    assert evidence.gain <= 0
    assert not evidence.speaks_for_network


def test_a_network_that_changes_nothing_is_no_evidence():
    cells, truth = simulated(0.0)
    evidence = fused.measure(cells._replace(network=np.zeros_like(cells.network)), truth, COUNTS, "tree", 0)
    assert evidence == (0, 0)


def test_the_evidence_follows_from_the_seed():
    cells, truth = simulated(0.1)
    first, again, reseeded = (fused.measure(cells, truth, COUNTS, "tree", seed) for seed in (1, 1, 2))
    assert first == again
    assert first != reseeded


def test_documents_without_cells_are_no_evidence():
    """Of many validation documents some are left out; the gain is the mean over the others, not over all."""
    cells, truth = simulated(1.0)
    few = Cells(*(values[cells.documents < 60] for values in cells))
    evidence = fused.measure(few, truth, COUNTS, "tree", 0)
    assert evidence.gain > 0.75 * fused.measure(cells, truth, COUNTS, "tree", 0).gain > 2


def test_labels_are_scored_by_weights_that_were_not_fitted_on_their_documents(monkeypatch):
    cells, truth = simulated(1.0)
    fitted, scored = [], []
    fit, score = fusion.fit, fusion.score
    monkeypatch.setattr(fusion, "fit", lambda of, *rest: fitted.append(set(of.documents)) or fit(of, *rest))
    monkeypatch.setattr(fusion, "score", lambda weights, of: scored.append(set(of.documents)) or score(weights, of))
    fused.measure(cells, truth, COUNTS, "tree", 0)
    assert len(fitted) == len(scored) == 4
    assert all(not one & other for one, other in zip(fitted, scored, strict=True))
    assert set.union(*scored) == set(range(120))


# --- with a network


@pytest.fixture(scope="module")
def network():
    model = training_corpus.make_model(training_corpus.config())
    return model, training_corpus.init_params(model)


@pytest.fixture(scope="module")
def ranked(tiny):
    random = np.random.default_rng(0)
    label_ids = np.stack([random.permutation(8)[:3] for _ in range(len(tiny.validation))]).astype(np.int32)
    label_ids[4] = -1
    return Ranked(label_ids, np.where(label_ids < 0, FLOOR, random.normal(size=label_ids.shape)).astype(np.float32))


def collect(network, tiny, ranked, devices, seed=0):
    mesh = sharding.make_mesh(jax.local_devices()[:devices])
    batches = training_corpus.batches(tiny.validation, 8, devices)
    return fused.collect(network[0], sharding.replicate(mesh, network[1]), batches, mesh, ranked, seed)


@pytest.mark.parametrize("devices", [1, 4])
def test_cells_have_the_logits_of_both_models_and_the_labels_of_their_document(network, tiny, ranked, devices):
    cells = collect(network, tiny, ranked, devices)
    batch = training_corpus.batches(tiny.validation, 12).gather(np.arange(12))
    logits = np.asarray(network[0].apply({"params": network[1]}, batch.words, batch.lengths))
    linear = reference.dense_lists(*ranked, 8, FLOOR)
    assert sorted(zip(cells.documents, cells.label_ids, strict=True)) == [(d, k) for d in range(12) for k in range(8)]
    places = cells.documents, cells.label_ids
    np.testing.assert_allclose(cells.network, logits[places], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(cells.linear, linear[places])
    true = [label in tiny.validation.labels.row(document) for document, label in zip(*places, strict=True)]
    np.testing.assert_array_equal(cells.true, true)


def test_of_many_documents_some_are_drawn_with_the_seed(network, tiny, ranked, monkeypatch):
    monkeypatch.setattr(fused, "_MOST_DOCUMENTS", 5)
    drawn = [set(collect(network, tiny, ranked, 1, seed).documents.tolist()) for seed in (0, 0, 1)]
    assert [len(documents) for documents in drawn] == [5, 5, 5]
    assert drawn[0] == drawn[1] != drawn[2]


def test_without_evidence_the_network_has_no_weight(network, tiny, ranked, monkeypatch):
    mesh = sharding.make_mesh(jax.local_devices()[:1])
    batches, params = training_corpus.batches(tiny.validation), sharding.replicate(mesh, network[1])
    counts = tiny.published_counts[:8]
    linear = LinearSide(SimpleNamespace(kind="svm"), {"svm": {"validation": ranked}})
    assert fused.fit(network[0], params, batches, mesh, linear, counts, 0)[1] is None
    monkeypatch.setattr(fused, "LEAST_DOCUMENTS", 5)
    weights, evidence = fused.fit(network[0], params, batches, mesh, linear, counts, 0)
    assert evidence.speaks_for_network == bool(np.any(weights.network > 0))
    again, same = fused.fit(network[0], params, batches, mesh, linear, counts, 0)
    assert same == evidence
    for actual, expected in zip(again, weights, strict=True):
        np.testing.assert_array_equal(actual, expected)
