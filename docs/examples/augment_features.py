"""Features of any encoder: generates features for rare labels and adjusts a scikit-learn classifier with them.

    python docs/examples/augment_features.py

Takes about 20 seconds. The features are random; replace them by sentence embeddings such as `model.encode(texts)`.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier

from lsfa_jax import FeatureAugmenter

NUM_LABELS, SIZE = 20, 16
NUM_FREQUENT = 10


def embeddings(count: int, frequent_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws features float32[count, SIZE] and an indicator matrix [count, NUM_LABELS] with one label a document.

    The features of all labels vary in the same four directions, by far more than the distance of their centres.
    """
    fixed, random = np.random.default_rng(0), np.random.default_rng(seed)
    centres, directions = fixed.normal(size=(NUM_LABELS, SIZE)), 1.5 * fixed.normal(size=(4, SIZE))
    frequent = random.random(count) < frequent_share
    labels = np.where(
        frequent, random.integers(NUM_FREQUENT, size=count), random.integers(NUM_FREQUENT, NUM_LABELS, size=count)
    )
    labels[:NUM_LABELS] = np.arange(NUM_LABELS)
    noise = random.normal(size=(count, 4)) @ directions + 0.5 * random.normal(size=(count, SIZE))
    return (centres[labels] + noise).astype(np.float32), np.eye(NUM_LABELS, dtype=int)[labels]


def main() -> None:
    """Trains a classifier, adjusts it with generated features and compares both."""
    features, labels = embeddings(700, frequent_share=0.95, seed=1)
    test_features, test_labels = embeddings(4000, frequent_share=0.5, seed=2)

    classifier = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(features, labels)
    coef = np.vstack([binary.coef_ for binary in classifier.estimators_])
    intercept = np.concatenate([binary.intercept_ for binary in classifier.estimators_])

    # One row for each pair of a document and one of its labels.
    rows, label_index = labels.nonzero()
    augmenter = FeatureAugmenter(head_threshold=20, hidden_size=64, latent_size=8, batch_size=64, epochs=100)
    augmenter.fit(features[rows], label_index)
    print(f"rare labels: {int((~augmenter.is_head_).sum())} of {NUM_LABELS}")
    print(f"variance of generated over real features: {augmenter.diagnostics_['variance_ratio']:.2f}")
    print(f"three features of label 15: {augmenter.sample([15], 3).shape}")

    new_coef, new_intercept = augmenter.adjust(coef, intercept, features, labels, epochs=40)
    for name, scores in (
        ("before", test_features @ coef.T + intercept),
        ("adjusted", test_features @ new_coef.T + new_intercept),
    ):
        f1 = f1_score(test_labels, scores > 0, average=None, zero_division=0)
        frequent, rare = f1[augmenter.is_head_].mean(), f1[~augmenter.is_head_].mean()
        print(f"{name}: F1 of frequent labels {frequent:.3f}, rare {rare:.3f}")

    # Write the adjusted weights back into the classifier.
    for binary, row, bias in zip(classifier.estimators_, new_coef, new_intercept, strict=True):
        binary.coef_, binary.intercept_ = row[None], np.array([bias])
    print(f"in scikit-learn again: {np.array_equal(classifier.predict(test_features), (scores > 0).astype(int))}")


if __name__ == "__main__":
    main()
