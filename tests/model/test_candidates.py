import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax.model import candidates
from lsfa_jax.model.label_loss import TileSize, Tiling

ESTIMATES = np.array([[0.1, 3.0, -1.0, 2.0, 5.0], [4.0, 1.0, 2.0, 3.0, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("listed", "number", "expected"),
    [
        ([[4, -1], [0, 3]], 2, [[4, -1, 1, 3], [0, 3, 2, 1]]),
        ([[-1, -1], [1, 2]], 1, [[-1, -1, 4], [1, 2, 0]]),
        ([[3], [-1]], 9, [[3, 4, 1, 0, 2, -1], [-1, 0, 3, 2, 1, 4]]),
        ([[4, 3, 2, 1, 0], [0, 1, 2, 3, 4]], 1, [[4, 3, 2, 1, 0, -1], [0, 1, 2, 3, 4, -1]]),
    ],
    ids=["two more", "no candidates", "more than there are", "all are candidates"],
)
@pytest.mark.parametrize(("block", "shards"), [(9, 1), (2, 1), (1, 3), (2, 2)])
def test_the_best_labels_that_are_no_candidates_are_added(listed, number, expected, block, shards):
    """The rows of the table are the estimates of the labels; padding of the shards behind them has the largest."""
    listed, num_labels = np.array(listed, np.int32), ESTIMATES.shape[1]
    rows = np.pad(ESTIMATES.T, ((0, -num_labels % shards), (0, 0)), constant_values=9.0)
    tiling = Tiling((2, 1), len(rows), TileSize(block, 0, label_shards=shards))
    actual = candidates.with_best_others(listed, jnp.transpose, jnp.asarray(rows), num_labels, number, tiling)
    width = listed.shape[1] + min(number, num_labels)
    np.testing.assert_array_equal(actual[:, :width], expected)
    assert np.all(actual[:, width:] == -1)


def test_the_blocks_of_a_tiling_have_each_label_at_its_place():
    tiling = Tiling((1, 1), 12, TileSize(2, 0, label_shards=2))
    block, place = tiling.places(jnp.arange(12))
    tiled = np.asarray(tiling.tile_labels(jnp.arange(12)))
    np.testing.assert_array_equal(tiled[block, place], np.arange(12))
