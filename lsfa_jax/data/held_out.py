"""Which documents are held out of training as test and validation documents, where a corpus has none."""

from typing import Literal

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.util.random_streams import Stream, stream

ValidationFraction = Literal["auto"] | float

# Of "auto": documents up to which 15 % are held out, and the most documents.
_FEW_VALIDATION, _MOST_VALIDATION = 450, 2_000

# At least this share of a label's documents stays in training when validation documents are held out.
_SHARE_KEPT = 0.5


def draw_test_split(num_documents: int, fraction: float, seed: int, same_text: np.ndarray | None = None) -> np.ndarray:
    """Draws test documents at random, bool[N]: at least one where the fraction is not zero, and never all.

    Args:
        num_documents: N.
        fraction: of the documents.
        seed: of the draw.
        same_text: int64[N], the index of the first document with the text of each: all are drawn, or none. Fewer than
            the fraction are drawn where no such group fits.
    """
    size = min(max(round(fraction * num_documents), int(fraction > 0)), num_documents - 1)
    in_test = np.zeros(num_documents, bool)
    order = stream(Stream.TEST_SPLIT, seed).permutation(num_documents)
    if same_text is None or (same_text == np.arange(num_documents)).all():
        in_test[order[: max(0, size)]] = True
        return in_test
    groups = _groups(same_text)
    for document in order:
        group = groups.row(same_text[document])
        if len(group) <= size and not in_test[document]:
            in_test[group] = True
            size -= len(group)
    if size > 0 and not in_test.any():
        smallest = groups.row(same_text[np.argmin(groups.sizes[same_text])])
        in_test[smallest] = len(smallest) < num_documents
    return in_test


def _groups(same_text: np.ndarray) -> Ragged:
    """Returns the documents with the text of document i as row i, where i is the first of them."""
    sizes = np.bincount(same_text, minlength=len(same_text))
    return Ragged.from_sizes(np.argsort(same_text, kind="stable"), sizes)


def hold_out(
    labels: Ragged, num_labels: int, fraction: ValidationFraction, seed: int, same_text: np.ndarray | None = None
) -> np.ndarray:
    """Draws validation documents at random, so that each label keeps at least half of its documents in training.

    `same_text` is that of `draw_test_split`.

    Returns:
        bool[N], true where a document is held out; fewer than `fraction` x N where rare labels forbid more.
    """
    num_documents = labels.num_rows
    same_text = np.arange(num_documents) if same_text is None else same_text
    groups = _groups(same_text)
    counts = np.bincount(labels.values, minlength=num_labels)
    left, least = counts.copy(), np.maximum(1, np.ceil(counts * _SHARE_KEPT))
    size = validation_size(fraction, num_documents)
    held_out = np.zeros(num_documents, bool)
    for document in stream(Stream.VALIDATION_SPLIT, seed).permutation(num_documents):
        if size == 0:
            break
        group = groups.row(same_text[document])
        if len(group) > size or held_out[document]:
            continue
        used, times = np.unique(np.concatenate([labels.row(member) for member in group]), return_counts=True)
        if np.all(left[used] - times >= least[used]):
            left[used] -= times
            held_out[group] = True
            size -= len(group)
    return held_out


def validation_size(fraction: ValidationFraction, num_documents: int) -> int:
    """Returns how many of N documents to hold out for validation.

    "auto" is a tenth, at least 15 % up to 450 documents, and 2,000 at most: weights, threshold and the fused score are
    chosen on them, which takes hundreds of documents however few there are.
    """
    if fraction == "auto":
        size = min(max(0.1 * num_documents, min(0.15 * num_documents, _FEW_VALIDATION)), _MOST_VALIDATION)
    else:
        size = fraction * num_documents
    return min(round(size), num_documents - 1)
