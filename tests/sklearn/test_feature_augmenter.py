import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from sklearn.multiclass import OneVsRestClassifier

from lsfa_jax.sklearn import feature_augmenter
from lsfa_jax.sklearn.feature_augmenter import FeatureAugmenter

L, D, RANK = 20, 16, 4

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_on_one_device")]


def pairs(seed, num=660):
    """Returns features of ten frequent and ten rare labels with one covariance, their labels, and 2,000 test ones."""
    random = np.random.default_rng(seed)
    centres, shared = random.normal(size=(L, D)), 3 * random.normal(size=(RANK, D)) / np.sqrt(RANK)

    def features(labels):
        count = len(labels)
        noise = random.normal(size=(count, RANK)) @ shared + 0.5 * random.normal(size=(count, D))
        return (centres[labels] + noise).astype(np.float32)

    share = np.where(np.arange(L) < L // 2, 1.0, 0.05)
    labels = np.concatenate([np.repeat(np.arange(L), 2), random.choice(L, size=num, p=share / share.sum())])
    tests = random.integers(L, size=2_000)
    return features(labels), labels, features(tests), tests


def augmenter(**settings):
    usual = {"head_threshold": 20, "hidden_size": 32, "latent_size": 8, "batch_size": 64, "epochs": 100}
    return FeatureAugmenter(**usual | settings)


@pytest.fixture(scope="module")
def fitted():
    features, labels, *_ = pairs(0)
    return augmenter().fit(features, labels)


def test_the_adjusted_head_is_better_for_rare_labels():
    changes = []
    for seed in range(3):
        features, labels, test_features, test_labels = pairs(seed)
        truth = np.eye(L, dtype=int)[labels]
        plain = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(features, truth)
        coef = np.vstack([binary.coef_ for binary in plain.estimators_])
        intercept = np.concatenate([binary.intercept_ for binary in plain.estimators_])
        fitted = augmenter(random_state=seed).fit(features, labels)
        assert fitted.diagnostics_["relative_mean_error"] < 0.5
        # The few features of a rare label give a rough estimate of its variance.
        assert 0.25 < fitted.diagnostics_["variance_ratio"] < 2.0

        def quality(coef, intercept, fitted=fitted, test_features=test_features, test_labels=test_labels):
            """Returns mean average precision and macro F1, each of the rare and of the frequent labels."""
            scores, truth = test_features @ coef.T + intercept, np.eye(L, dtype=int)[test_labels]
            groups = [(truth[:, group], scores[:, group]) for group in (~fitted.is_head_, fitted.is_head_)]
            precision = [average_precision_score(*group, average="macro") for group in groups]
            f1 = [f1_score(truth, scores > 0, average="macro", zero_division=0) for truth, scores in groups]
            return np.array([precision, f1])

        before = quality(coef, intercept)
        without = quality(*fitted.adjust(coef, intercept, features, truth, epochs=40, augmented_weight=0.0))
        after = quality(*fitted.adjust(coef, intercept, features, truth, epochs=40))
        # Better than before, and than after as much training without generated features; frequent labels lose little.
        assert np.all(after[:, 0] > before[:, 0]), seed
        assert after[1, 0] > without[1, 0] + 0.03 > before[1, 0], seed
        assert np.all(after[:, 1] > before[:, 1] - 0.02), seed
        changes.append(after[:, 0] - before[:, 0])
    assert np.all(np.mean(changes, axis=0) > [0.01, 0.1]), changes


def test_prototypes_counts_and_groups(fitted):
    features, labels, *_ = pairs(0)
    expected = [features[labels == label].mean(axis=0) for label in range(L)]
    np.testing.assert_allclose(fitted.prototypes_, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(fitted.label_counts_, np.bincount(labels))
    np.testing.assert_array_equal(fitted.is_head_, np.bincount(labels) >= 20)


def test_prototypes_and_samples_do_not_depend_on_how_many_features_are_in_a_block(fitted, monkeypatch):
    expected = fitted.sample([9, 3], 60)
    monkeypatch.setattr(feature_augmenter, "_BLOCK", 100)
    features, labels, *_ = pairs(0)
    again = augmenter(epochs=1).fit(features, labels)
    np.testing.assert_allclose(again.prototypes_, fitted.prototypes_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fitted.sample([9, 3], 60), expected, rtol=1e-5, atol=1e-5)


def test_generated_features_vary_as_real_ones(fitted):
    features, labels, *_ = pairs(0)
    rare = np.flatnonzero(~fitted.is_head_)
    generated = fitted.sample(rare, 300)
    assert generated.shape == (len(rare), 300, D)
    assert generated.dtype == np.float32
    within = np.cov(np.concatenate([features[labels == x] - fitted.prototypes_[x] for x in range(L // 2)]).T)
    axes = np.linalg.eigh(within)[1][:, ::-1]
    for label, sample in zip(rare, generated, strict=True):
        spread = np.var((sample - sample.mean(axis=0)) @ axes, axis=0)
        real = np.var((features[labels < L // 2] - fitted.prototypes_[labels[labels < L // 2]]) @ axes, axis=0)
        # They spread as real ones along the shared directions, and little in the remaining ones.
        assert 0.3 < spread[:RANK].sum() / real[:RANK].sum() < 1.6, label
        assert spread[RANK:].sum() < 0.3 * spread[:RANK].sum()


def test_a_generated_feature_depends_on_seeds_label_and_number_alone(fitted):
    sample = fitted.sample([9, 3], 4)
    np.testing.assert_allclose(fitted.sample([3, 3, 9], 6)[2, :4], sample[0], rtol=1e-5, atol=1e-5)
    assert not np.allclose(fitted.sample([9, 3], 4, seed=1), sample)
    features, labels, *_ = pairs(0)
    np.testing.assert_array_equal(clone(fitted).fit(features, labels).sample([9, 3], 4), sample)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).sample([9, 3], 4), sample)
    assert not np.allclose(augmenter(random_state=1).fit(features, labels).sample([9, 3], 4), sample, atol=1e-3)
    assert fitted.sample([], 3).shape == (0, 3, D)


def test_scale_and_offset_of_the_features_do_not_matter(fitted):
    """Features a x + b give the same as x, so embeddings of any scale can be used."""
    features, labels, *_ = pairs(0)
    unit = np.linspace(0.25, 40.0, D).astype(np.float32)
    moved = augmenter().fit(features * unit - 3.0, labels)
    # Rounding errors grow over the steps of training.
    np.testing.assert_allclose((moved.sample([9], 5) + 3.0) / unit, fitted.sample([9], 5), atol=0.2)

    random = np.random.default_rng(5)
    coef, intercept = random.normal(size=(L, D)), random.normal(size=L)
    for weight in (0.0, 1.0):
        settings = {"epochs": 2, "augmented_weight": weight}
        plain = fitted.adjust(coef, intercept, features, np.eye(L)[labels], **settings)
        rescaled = moved.adjust(
            coef / unit, intercept + (coef / unit).sum(axis=1) * 3.0, features * unit - 3.0, np.eye(L)[labels],
            **settings,
        )  # fmt: skip
        np.testing.assert_allclose(rescaled[0] * unit, plain[0], rtol=1e-2, atol=1e-2)
        np.testing.assert_allclose(rescaled[1], plain[1] + rescaled[0].sum(axis=1) * 3.0, rtol=1e-2, atol=1e-2)


def test_generated_features_are_nonnegative_where_real_ones_are():
    features, labels, *_ = pairs(0)
    generated = augmenter(epochs=3).fit(np.maximum(features, 0), labels).sample(np.arange(L), 20)
    assert generated.min() == 0.0
    assert generated.max() > 1.0


def test_generated_features_train_a_head_without_intercept_where_real_ones_lie():
    """Such a head gets features from which no mean is subtracted."""
    features, labels, *_ = pairs(0)
    features += 10
    fitted = augmenter(epochs=3).fit(features, labels)
    # Two documents of each label: the generated features of a rare one outweigh the documents of the others.
    documents, truth = features[: 2 * L], np.eye(L)[labels[: 2 * L]]
    coef, _ = fitted.adjust(np.zeros((L, D)), None, documents, truth, epochs=50, augmented_weight=10.0)
    rare = np.flatnonzero(~fitted.is_head_)
    assert np.einsum("knd, kd -> kn", fitted.sample(rare, 50), coef[rare]).mean() > 0


def test_labels_in_any_form_and_a_head_without_intercept(fitted):
    features, labels, *_ = pairs(0)
    coef = np.zeros((L, D))
    truth = np.eye(L, dtype=int)[labels]
    truth[:, 3] |= labels == 2
    results = [
        fitted.adjust(coef, None, features, form, epochs=1)
        for form in (truth, sparse.csr_array(truth), [np.flatnonzero(row).tolist() for row in truth])
    ]
    for changed, intercept in results:
        assert intercept is None
        np.testing.assert_array_equal(changed, results[0][0])
    scores = features @ results[0][0].T
    for label in range(L // 2):
        positive = truth[:, label] > 0
        assert scores[positive, label].mean() > scores[~positive, label].mean()


def test_labels_without_features_and_constant_dimensions():
    features, labels, *_ = pairs(0)
    features[:, 0] = 7.0
    kept = labels != 9
    fitted = augmenter(epochs=1).fit(features[kept], labels[kept])
    assert not fitted.prototypes_[9].any()
    assert np.isfinite(fitted.sample([10], 3)).all()
    with pytest.raises(ValueError, match="label numbers with features in fit, 0 to 19"):
        fitted.sample([9], 1)
    coef, intercept = fitted.adjust(np.zeros((L, D)), np.zeros(L), features, np.eye(L)[labels], epochs=1)
    assert np.isfinite(coef).all()
    assert np.isfinite(intercept).all()


@pytest.mark.parametrize(
    ("features", "label_index", "message"),
    [
        (np.full((4, 2), np.nan), [0, 0, 0, 1], "NaN"),
        (np.zeros((4, 2)), [0, 0, 1], "label number"),
        (np.zeros((4, 2)), [0.5, 0, 0, 1], "label number"),
        (np.zeros((4, 2)), [-1, 0, 0, 1], "label number"),
        (np.zeros((4, 2)), [0, 0, 1, 1], "every label is rare"),
        (np.zeros((60, 2)), np.repeat([0, 1], 30), "no label is rare"),
        (np.zeros(4), [0, 0, 0, 1], "2D"),
    ],
)
def test_wrong_pairs_are_errors(features, label_index, message):
    with pytest.raises(ValueError, match=message):
        augmenter().fit(features, label_index)


def test_wrong_settings_and_heads_are_errors(fitted):
    with pytest.raises(NotFittedError):
        augmenter().sample([0], 1)
    features, labels, *_ = pairs(0)
    with pytest.raises(ValueError, match=r"pvae.latent_size = 0"):
        augmenter(latent_size=0).fit(features, labels)
    coef, truth = np.zeros((L, D)), np.eye(L)[labels]
    for arguments, message in [
        ((coef[:, 1:], None, features, truth), "expected"),
        ((coef[1:], None, features, truth[:, 1:]), "at least 20"),
        ((coef, np.zeros(3), features, truth), "intercept"),
        ((coef, None, features, truth[1:]), "documents"),
        ((coef, None, features, [[0]] * (len(features) - 1) + [[L]]), "label numbers"),
        ((coef, None, features, [["a"]] * len(features)), "label numbers"),
        ((coef, None, features, [1] * len(features)), "indicator matrix"),
        ((coef, None, features, np.arange(len(features))), "indicator matrix"),
    ]:
        with pytest.raises(ValueError, match=message):
            fitted.adjust(*arguments)
    with pytest.raises(ValueError, match="lower learning_rate"):
        fitted.adjust(coef, None, features, truth, epochs=3, learning_rate=1e38)


@pytest.mark.parametrize("arguments", [{"n": -1}, {"n": "2"}, {"n": 2.0}, {"n": 1, "seed": -1}, {"n": 1, "seed": "a"}])
def test_wrong_numbers_of_samples_are_refused(fitted, arguments):
    with pytest.raises(ValueError, match=r"(n|seed)=.*expected an integer from 0"):
        fitted.sample([0], **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"seed": 2**40},
        {"augmented_weight": -1},
        {"learning_rate": 0},
        {"epochs": "2"},
    ],
)
def test_wrong_numbers_of_an_adjustment_are_refused(fitted, arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}=.*expected"):
        fitted.adjust(np.zeros((L, D)), None, np.zeros((3, D)), np.eye(3, L, dtype=int), **arguments)
