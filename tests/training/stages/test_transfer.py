import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax.model import prototypes, pvae
from lsfa_jax.training.stages import transfer
from lsfa_jax.training.state import init_state
from lsfa_jax.util import sharding
from tests import training_corpus
from tests.reference import encoder as reference_encoder
from tests.reference import prototypes as reference_prototypes
from tests.reference import pvae as reference_pvae
from tests.reference.agreement import float64

L, D, Z = training_corpus.NUM_LABELS, 5, 2
IS_HEAD = np.arange(L) < 3


@pytest.fixture(scope="module")
def pairs(tiny):
    """The parameters of a model, and the features float64[pairs, D] of the training documents, one document a time."""
    params = training_corpus.init_params(training_corpus.make_model(training_corpus.config()))
    exact, split = float64(params), tiny.train
    sides = {
        side: {name: exact[f"lstm_{side}_{name}"] for name in ("w_input", "w_hidden", "bias", "h0", "c0")}
        for side in ("forward", "backward")
    }
    features = []
    for i, length in enumerate(split.lengths):
        words = split.words.row(i)
        labels = split.labels.values[split.labels.offsets[i] : split.labels.offsets[i + 1]]
        states = reference_encoder.bilstm(sides, exact["embedding"][words][None], [length])
        head = {"kernel": exact["head_kernel"], "bias": exact["head_bias"]}
        features += list(reference_encoder.label_features(states, [length], exact["label_queries"][labels], head)[0])
    return params, np.array(features)


def collected(corpus, params, count, *keeps, size=8):
    """Collects over the first devices."""
    mesh = sharding.make_mesh(jax.local_devices()[:count])
    batches = training_corpus.batches(corpus.train, size, count)
    collect = transfer.make_collector(training_corpus.make_model(training_corpus.config()))
    return transfer.collect_features(collect, sharding.replicate(mesh, params), batches, D, mesh, *keeps)


@pytest.mark.parametrize("count", [1, 4])
def test_collects_the_sums_of_each_labels_features(tiny, pairs, count):
    params, features = pairs
    sums = collected(tiny, params, count)
    ids, all_pairs = tiny.train.labels.values, np.ones(len(features), bool)
    np.testing.assert_array_equal(sums.counts, tiny.label_counts)
    expected = reference_prototypes.prototypes(features, ids, all_pairs, L)
    np.testing.assert_allclose(prototypes.prototypes(sums), expected, rtol=1e-4, atol=1e-5)
    expected = reference_prototypes.variances(features, ids, all_pairs, L)
    np.testing.assert_allclose(prototypes.variances(sums), expected, rtol=1e-3, atol=1e-4)


def test_features_of_head_labels_stand_in_the_file_in_the_splits_order(tiny, pairs, tmp_path):
    params, features = pairs
    path = tmp_path / "new" / "features.npy"
    stored = transfer.HeadFeatures(path, training_corpus.batches(tiny.train), IS_HEAD, D)
    with stored.filling() as keep:
        sums = collected(tiny, params, 4, keep)
    of_head = IS_HEAD[tiny.train.labels.values]
    np.testing.assert_array_equal(stored.label_ids, tiny.train.labels.values[of_head])
    assert len(stored) == of_head.sum() < len(features)
    np.testing.assert_allclose(stored.open(), features[of_head], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(sums.counts, tiny.label_counts)
    assert [file.name for file in path.parent.iterdir()] == ["features.npy"]


def test_without_head_labels_there_is_no_file(tiny, tmp_path):
    path = tmp_path / "features.npy"
    stored = transfer.HeadFeatures(path, training_corpus.batches(tiny.train), np.zeros(L, bool), D)
    with stored.filling() as keep:
        keep(None, None, None)
    assert len(stored) == 0
    assert not path.exists()


def test_a_collection_that_stops_leaves_no_file_under_its_name(tiny, tmp_path):
    path = tmp_path / "features.npy"
    stored = transfer.HeadFeatures(path, training_corpus.batches(tiny.train), IS_HEAD, D)

    with pytest.raises(KeyboardInterrupt), stored.filling():
        raise KeyboardInterrupt
    assert not path.exists()


def make_stage(tiny, tmp_path, size=16, count=1, **own):
    """The stage over a file of random features."""
    config = training_corpus.config(pvae={"batch_size": size, **own})
    stored = transfer.HeadFeatures(tmp_path / "features.npy", training_corpus.batches(tiny.train), IS_HEAD, D)
    np.save(stored.path, np.random.default_rng(0).random((len(stored), D)).astype(np.float32))
    model = transfer.make_pvae(config, D)
    mesh = sharding.make_mesh(jax.local_devices()[:count])
    return transfer.make_stage(model, config, stored, optax.sgd(1.0), mesh, 4), stored, model, config


def test_an_epoch_deals_each_feature_once_with_its_label(tiny, tmp_path):
    stage, stored, _, _ = make_stage(tiny, tmp_path, size=10, count=4)
    table, rows_of_epoch = stored.open(), []
    assert stage.steps_per_epoch == -(-len(stored) // 10)
    for epoch in (1, 2):
        rows = []
        for batch in stage.batches(epoch, 0):
            assert len(batch.mask) == 12  # ten, to a multiple of four devices
            for feature, label, real in zip(*batch, strict=True):
                if real:
                    (row,) = np.flatnonzero((table == np.asarray(feature)).all(axis=1))
                    assert stored.label_ids[row] == label
                    rows.append(row)
        assert sorted(rows) == list(range(len(stored)))
        rows_of_epoch.append(rows)
    assert rows_of_epoch[0] != rows_of_epoch[1]
    whole, rest = list(stage.batches(2, 0)), list(stage.batches(2, 2))
    assert len(rest) == len(whole) - 2
    for ours, theirs in zip(rest, whole[2:], strict=True):
        np.testing.assert_array_equal(ours.features, theirs.features)


@pytest.mark.parametrize("kl_weight", ["auto", 0.5])
def test_a_step_is_the_gradient_of_equations_11_to_17(tiny, tmp_path, kl_weight):
    stage, _, model, _ = make_stage(tiny, tmp_path, size=13, kl_weight=kl_weight)
    *_, batch = stage.batches(1, 0)
    mask = np.asarray(batch.mask)
    assert 0 < mask.sum() < len(mask)
    random = np.random.default_rng(3)
    params, statistics = transfer.init_variables(model, jax.random.key(1))
    assert statistics == {}
    params = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), params)
    sums = prototypes.FeatureSums(
        jnp.asarray(random.normal(size=(L, D)), jnp.float32), jnp.arange(L), jnp.ones(L, jnp.float32)
    )
    state = init_state(jax.random.key(9), params, optax.sgd(1.0), {"sums": sums, "batch_stats": {}}, validated=False)
    noise = np.asarray(jax.random.normal(jax.random.fold_in(state.key, 0), (len(mask), Z)), np.float64)
    centres = (np.asarray(sums.totals, np.float64) / np.maximum(np.arange(L), 1)[:, None])[np.asarray(batch.label_ids)]
    features, before = np.asarray(batch.features, np.float64), float64(params)

    def losses(params):
        mu, log_variance = reference_pvae.encode(params, features, centres)
        made = reference_pvae.decode(params, reference_pvae.reparameterize(mu, log_variance, noise), centres)
        kl = reference_pvae.kl_divergence(mu, log_variance)[mask].mean()
        return reference_pvae.negative_elbo(features, made, mu, log_variance, mask, kl_weight), kl

    expected = losses(before)
    after = stage.step(state, batch, 1, 1)
    np.testing.assert_allclose(after.loss_sums, expected, rtol=1e-4, atol=1e-4)
    for name in ("encoder_mu", "decoder_out"):
        slopes = np.zeros_like(before[name]["bias"])
        for i in range(len(slopes)):
            values = []
            for shift in (1e-5, -1e-5):
                moved = before | {name: before[name] | {"bias": before[name]["bias"] + shift * np.eye(len(slopes))[i]}}
                values.append(losses(moved)[0])
            slopes[i] = (values[0] - values[1]) / 2e-5
        ours = before[name]["bias"] - np.asarray(after.params[name]["bias"], np.float64)
        np.testing.assert_allclose(ours, slopes, rtol=1e-3, atol=1e-4, err_msg=name)


class HandMade:
    """In place of the PVAE: decodes by a given function of latent and prototype."""

    latent_size = D

    def __init__(self, decode):
        self.decode = decode

    def apply(self, variables, z, prototype, method):
        assert method is pvae.Pvae.decode
        return self.decode(z, prototype)


REAL = np.random.default_rng(4).normal(3.0, 2.0, size=(40, D))
REAL_LABELS = np.arange(40) % 4
REAL_LABELS[-1] = 5  # the only feature of its label


def of_label(label):
    return REAL[np.equal(REAL_LABELS, label)]


@pytest.mark.parametrize(
    ("decode", "error", "ratio"),
    [
        (lambda z, p: p, 0.0, 0.0),
        (lambda z, p: 0 * p, 1.0, 0.0),
        (lambda z, p: -p, 2.0, 0.0),
        (lambda z, p: 1.5 * p, 0.5, 0.0),
        (lambda z, p: p + 2.0 * z, None, 4.0 * D),
    ],
    ids=["prototype", "nothing", "opposite", "too far", "noise"],
)
def test_diagnostics_of_hand_made_decoders(decode, error, ratio):
    sums = prototypes.feature_sums(jnp.asarray(REAL, jnp.float32), REAL_LABELS, np.ones(40, bool), L)
    state = init_state(jax.random.key(0), {}, optax.sgd(1.0), {"sums": sums, "batch_stats": {}}, validated=False)
    label_ids = np.array([1, 3, 5])
    found = transfer.diagnose(HandMade(decode), state, label_ids, jax.random.key(2))
    spread = [np.var(of_label(label), axis=0, ddof=1).sum() for label in (1, 3)]
    # The variance ratio counts only labels with two documents: two labels of noise against two of real features.
    expected = 2 * ratio / sum(spread)
    assert found["variance_ratio"] == pytest.approx(expected, rel=0.1, abs=1e-6)
    if error is not None:
        assert found["relative_mean_error"] == pytest.approx(error, abs=1e-5)
    else:
        # The mean of 128 draws of standard deviation 2 is off by about 2 sqrt(D / 128).
        lengths = [np.linalg.norm(of_label(label).mean(axis=0)) for label in label_ids]
        assert 0.3 < found["relative_mean_error"] / np.mean([2 * np.sqrt(D / 128) / one for one in lengths]) < 2


def test_diagnostics_over_no_label_are_zero():
    sums = prototypes.zero_sums(L, D)
    state = init_state(jax.random.key(0), {}, optax.sgd(1.0), {"sums": sums, "batch_stats": {}}, validated=False)
    found = transfer.diagnose(HandMade(lambda z, p: p), state, np.zeros(0, int), jax.random.key(2))
    assert found == {"relative_mean_error": 0.0, "variance_ratio": 0.0}
