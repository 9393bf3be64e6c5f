"""Windows: how a transformer reads a text that is longer than its positions, and how their states are joined.

Shapes: B documents, T tokens (padded), W windows of S tokens (their first and last token included), H hidden units.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lsfa_jax.model.attention import token_mask
from lsfa_jax.model.encoders.interface import Architecture
from lsfa_jax.types import Array, HostArray


class Windows(NamedTuple):
    """How texts are read: windows of `size` tokens that start every `stride` tokens and overlap in between."""

    number: int
    size: int
    stride: int

    @property
    def starts(self) -> HostArray:
        """First token of each window, int[W]."""
        return np.arange(self.number) * self.stride

    def lengths(self, lengths: Array) -> Array:
        """Returns int32[B, W], the tokens that each window holds of documents of the given lengths, int32[B]."""
        is_needed = np.arange(self.number) <= self._last(lengths)[:, None]
        return jnp.where(is_needed, jnp.clip(lengths[:, None] - self.starts, 0, self.size), 0)

    def of_tokens(self, lengths: Array, num_tokens: int) -> Array:
        """Returns int32[B, T], the window in which each token is farthest from an edge.

        The end of the text is no edge. No window depends on T, so that padding changes no state.
        """
        overlap = self.size - self.stride
        farthest = np.maximum((np.arange(num_tokens) - overlap // 2) // self.stride, 0)
        return jnp.minimum(farthest, self._last(lengths)[:, None])

    def _last(self, lengths: Array) -> Array:
        """Returns int32[B], the window that holds the last token of each document and begins first."""
        ends = self.size + self.starts[:-1]
        return jnp.sum(lengths[:, None] > ends, axis=1, dtype=jnp.int32)


def windows_of(num_tokens: int, largest: int) -> Windows:
    """Returns the windows that cover `num_tokens` tokens, of at most `largest` each; neighbours share a quarter."""
    if num_tokens <= largest:
        return Windows(1, num_tokens, 1)
    stride = stride_of(largest)
    return Windows(1 + -(-(num_tokens - largest) // stride), largest, stride)


def stride_of(largest: int) -> int:
    """Returns the tokens between the starts of neighbouring windows of `largest` tokens each."""
    return largest - largest // 4


def split_windows(
    token_ids: Array, lengths: Array, windows: Windows, architecture: Architecture
) -> tuple[Array, Array]:
    """Returns the windows of each document, int32[B W, S] and their lengths int32[B W], with first and last token."""
    pieces = token_ids
    if windows.number > 1:
        needed = int(windows.starts[-1]) + windows.size - token_ids.shape[1]
        index = windows.starts[:, None] + np.arange(windows.size)
        pieces = jnp.pad(token_ids, ((0, 0), (0, needed)))[:, index].reshape(-1, windows.size)
    lengths = windows.lengths(lengths).reshape(-1, 1)
    ids = jnp.pad(pieces, ((0, 0), (1, 1)), constant_values=architecture.first_id)
    ids = jnp.where(jnp.arange(windows.size + 2) == lengths + 1, architecture.last_id, ids)
    return ids, lengths[:, 0] + 2


def join_windows(states: Array, lengths: Array, windows: Windows, num_tokens: int) -> Array:
    """Returns the state of each token from one window, [B, T, H] from states [B W, S, H]; zero beyond the lengths."""
    if windows.number == 1:
        states = states[:, 1:-1]
    else:
        window = windows.of_tokens(lengths, num_tokens)
        place = window * (windows.size + 2) + 1 + np.arange(num_tokens) - window * windows.stride
        flat = states.reshape(lengths.shape[0], -1, states.shape[-1])
        states = jnp.take_along_axis(flat, place[..., None], axis=1)
    return states * token_mask(lengths, num_tokens)[..., None]
