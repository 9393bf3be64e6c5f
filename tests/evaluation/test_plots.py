import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from lsfa_jax.evaluation.plots import as_picture, curve, in_characters
from lsfa_jax.util.console import UserError

LONG_TAIL = (3000 / np.arange(1, 2001) ** 1.2).astype(int)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=2000))
def test_curve_goes_down_from_the_most_frequent_to_the_last(counts):
    ranks, documents = curve(np.array(counts))
    assert (ranks[0], ranks[-1]) == (1, len(counts))
    assert (np.diff(ranks) > 0).all()
    assert (np.diff(documents) <= 0).all()
    expected = sorted(counts, reverse=True)
    assert documents.tolist() == [max(expected[rank - 1], 0.5) for rank in ranks]


def test_in_characters():
    drawn = in_characters(LONG_TAIL, 50, "curve")
    lines = drawn.splitlines()
    assert len(lines) == 24
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in drawn
    assert "curve" in lines[0]
    threshold = next(line for line in lines if "N_t 50┤" in line)
    assert threshold.count("-") > 50
    assert "3,000┤•" in drawn
    # The curve falls: each line's first dot is to the right of the one above.
    first = [line.index("•") for line in lines if "•" in line]
    assert first == sorted(first)
    assert len(first) > 10


@pytest.mark.parametrize(("counts", "threshold"), [([1], 50), ([5, 0, 0], 0), ([7, 7], 9), ([10**6] * 3, 2)])
def test_any_counts_are_drawn(counts, threshold, tmp_path):
    assert "•" in in_characters(np.array(counts), threshold, "")
    as_picture(np.array(counts), threshold, "", tmp_path / "x.png")


def test_as_picture(tmp_path):
    path = tmp_path / "curve.png"
    as_picture(LONG_TAIL, 50, "curve", path)
    image = imread(path)[..., :3]
    assert image.shape[:2] == (675, 1050)
    # The curve's blue and the threshold's red are there; the red line lies level over most of the width.
    red = np.abs(image - np.array([0xB5, 0x47, 0x1B]) / 255).max(axis=-1) < 0.05
    blue = np.abs(image - np.array([0x1F, 0x4E, 0x79]) / 255).max(axis=-1) < 0.05
    assert red.sum(axis=1).max() > 300
    assert blue.sum() > 1000


def test_a_picture_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--png .*file/x\.png: cannot be written"):
        as_picture(LONG_TAIL, 50, "curve", tmp_path / "file" / "x.png")
