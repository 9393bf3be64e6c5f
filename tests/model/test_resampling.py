import jax
import jax.numpy as jnp
import numpy as np

from lsfa_jax.model import augmentation, resampling

L, D = 4, 2
LABEL_IDS = np.array([2, 0, 2, 3, 2, 0], np.int32)
FEATURES = np.arange(12, dtype=np.float32).reshape(6, 2)


def test_features_are_those_of_the_label_each_equally_often():
    real = resampling.fit(FEATURES, LABEL_IDS, L)
    n = 3000
    for label in (0, 2, 3):
        drawn = np.asarray(
            augmentation.draw_features(
                resampling.sampler(real), jax.random.key(4), jnp.full(n, label), jnp.arange(n), jnp.zeros((n, D))
            )
        )
        rows, counts = np.unique(drawn, axis=0, return_counts=True)
        np.testing.assert_array_equal(rows, FEATURES[np.equal(LABEL_IDS, label)])
        share = 1 / len(rows)
        assert np.all(np.abs(counts - n * share) <= 5 * np.sqrt(n * share * (1 - share)))


def test_empty_has_the_shapes_of_a_fit():
    fitted, empty = resampling.fit(FEATURES, LABEL_IDS, L), resampling.empty(L, len(FEATURES), D)
    assert [(x.shape, x.dtype) for x in fitted] == [(x.shape, x.dtype) for x in empty]
