import numpy as np
import pytest

from lsfa_jax.model.encoders.windows import windows_of
from tests.reference import transformer as reference


@pytest.mark.parametrize("largest", [1, 3, 8, 14, 16, 254])
@pytest.mark.parametrize("strides", [0, 1, 3])
def test_each_token_is_read_in_the_window_in_which_it_is_farthest_from_a_cut(largest, strides):
    longest = largest + strides * max(1, 3 * largest // 4) + 1
    lengths = np.unique(np.clip([1, largest - 1, largest, largest + 1, longest - 1, longest], 1, longest))
    windows = windows_of(longest, largest)
    held, of_tokens = windows.lengths(lengths), windows.of_tokens(lengths, longest)
    for length, held_of_text, windows_of_text in zip(lengths, held, of_tokens, strict=True):
        spans = reference.windows(length, largest)
        expected = [end - start for start, end in spans]
        assert held_of_text.tolist() == expected + [0] * (windows.number - len(spans))
        assert windows_of_text[:length].tolist() == reference.windows_of_tokens(spans)


@pytest.mark.parametrize("largest", [4, 14, 30])
def test_the_windows_of_a_text_are_as_few_as_cover_it(largest):
    for length in range(5 * largest):
        windows = windows_of(length, largest)
        assert windows.starts[-1] + windows.size >= length
        assert windows.number == 1 or windows.starts[-2] + windows.size < length
