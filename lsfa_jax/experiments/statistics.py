"""Metrics as ratios of sums over documents, and from these the intervals of differences between two variants.

Every metric is a mean over M ratios of sums over the N documents; M is 1, or for macro P@5 the number of labels.
A bootstrap then needs sums alone, and one function serves all metrics. Names are those of metrics.json, such as
`PSP@5`, with `head ` or `tail ` in front for a group; `PSP@5 (0.6, 2.6)` has other constants A and B.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse import csr_array, hstack

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import ranking
from lsfa_jax.evaluation.bootstrap import resampled_sums
from lsfa_jax.evaluation.ranking import USUAL, Bools, Floats, Integers, Propensity
from lsfa_jax.util.console import UserError
from lsfa_jax.util.random_streams import Stream, stream

DRAWS = 1000
"""Bootstrap samples."""

_LEVEL = 95.0

Verdict = Literal["holds", "does not hold", "undecided"]

_GROUPS = ("all", "head", "tail")
_NAME = re.compile(r"(?:(head|tail) )?(P|R|RP|N|PSP|macro_P)@([1-5])(?: \(([\d.]+), ([\d.]+)\))?")


class Truth(NamedTuple):
    """What rankings of N test documents are compared with.

    Attributes:
        labels: of the N documents.
        label_counts: int64[L], training documents of each label, held-out ones included.
        num_documents: training documents.
        is_head: bool[L].
    """

    labels: Ragged
    label_counts: Integers
    num_documents: int
    is_head: Bools


class Contributions(NamedTuple):
    """A metric of N documents: 100 x the mean over M columns of sum(hits) / sum(possible), 0 / 0 = 0.

    Attributes:
        hits: float64[N, M], sparse.
        possible: float64[N, M], sparse.
    """

    hits: csr_array
    possible: csr_array


class Interval(NamedTuple):
    """A difference between two variants in percentage points, with the limits of its 95 % interval."""

    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Whether the claim that the difference is above 0 holds."""
        if self.low > 0:
            return "holds"
        return "does not hold" if self.high <= 0 else "undecided"


def check_metric(name: str, where: str) -> None:
    """Raises UserError where a plan names a metric that there is not."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{where}: {name!r}: expected a metric such as P@5, N@5, tail PSP@5 or PSP@5 (0.6, 2.6)")


def contributions(name: str, top: Integers, truth: Truth) -> Contributions:
    """Computes the contributions of each document to a metric.

    Args:
        name: of the metric.
        top: int32[3, N, 5], rankings within all, head and tail labels.
        truth: of the N documents.
    """
    match = _NAME.fullmatch(name)
    assert match
    group, metric, place = match[1] or "all", match[2], int(match[3])
    propensity = Propensity(float(match[4]), float(match[5])) if match[4] else USUAL
    members = {"all": np.ones_like(truth.is_head), "head": truth.is_head, "tail": ~truth.is_head}[group]
    if metric == "macro_P":
        return _by_label(top[0][:, :place], truth.labels, members)
    labels = ranking.restrict(truth.labels, members)
    counted = np.ones(labels.num_rows, bool) if group == "all" else ranking.documents_with_labels(labels)
    listed = top[_GROUPS.index(group)]
    hit = ranking.hits(listed, labels)
    if metric == "PSP":
        weights = ranking.inverse_propensity(truth.label_counts, truth.num_documents, *propensity)
        attained, attainable = ranking.document_psp(hit, listed, labels, weights, place)
        return _of_documents(attained[:, -1], attainable[:, -1])
    shares = {
        "P": lambda: hit[:, :place].mean(axis=1),
        "R": lambda: hit[:, :place].sum(axis=1) / np.maximum(labels.sizes, 1),
        "RP": lambda: ranking.document_r_precision(hit, labels, place)[:, -1],
        "N": lambda: ranking.document_ndcg(hit, labels, place)[:, -1],
    }
    return _of_documents(shares[metric](), counted.astype(np.float64))


def value(metric: Contributions) -> float:
    """Returns the metric of the documents, in percent."""
    return float(_mean_ratio(metric.hits.sum(axis=0)[None], metric.possible.sum(axis=0)[None])[0])


def interval(better: Sequence[Contributions], worse: Sequence[Contributions], draws: int = DRAWS) -> Interval:
    """Computes the interval of a difference by a paired bootstrap over documents and seeds.

    Each sample draws documents, the same for both variants and for all seeds, and seeds.

    Args:
        better: a metric of one variant, by seed.
        worse: of the other one, by the same seeds, on the same documents.
        draws: samples.
    """
    random = stream(Stream.EXPERIMENT_BOOTSTRAP, 0)
    parts = [part for pair in zip(better, worse, strict=True) for metric in pair for part in metric]
    number = max(part.shape[0] for part in parts)
    sums = resampled_sums(csr_array(hstack([_padded(part, number) for part in parts], format="csr")), draws, random)
    ends = np.cumsum([part.shape[1] for part in parts])
    columns = [sums[:, end - part.shape[1] : end] for part, end in zip(parts, ends, strict=True)]
    by_seed = np.stack(
        [
            _mean_ratio(*columns[first : first + 2]) - _mean_ratio(*columns[first + 2 : first + 4])
            for first in range(0, len(columns), 4)
        ],
        axis=1,
    )
    seeds = random.integers(0, by_seed.shape[1], by_seed.shape)
    differences = np.take_along_axis(by_seed, seeds, axis=1).mean(axis=1)
    low, high = np.percentile(differences, [(100 - _LEVEL) / 2, (100 + _LEVEL) / 2])
    measured = np.mean([value(a) - value(b) for a, b in zip(better, worse, strict=True)])
    return Interval(float(measured), float(low), float(high))


def gini(counts: Floats) -> float:
    """Computes the Gini coefficient of int or float[L] counts: 0 where all labels are equally frequent, below 1."""
    ordered = np.sort(np.asarray(counts, np.float64))
    number, total = len(ordered), ordered.sum()
    if not total:
        return 0.0
    return float(2 * (np.arange(1, number + 1) @ ordered) / (number * total) - (number + 1) / number)


def _of_documents(hits: Floats, possible: Floats) -> Contributions:
    hits = np.where(possible > 0, hits, 0.0)
    return Contributions(csr_array(hits[:, None]), csr_array(possible[:, None]))


def _by_label(top: Integers, labels: Ragged, members: Bools) -> Contributions:
    """Counts in which documents each label is predicted in the top places, and rightly."""
    columns = np.cumsum(members) - 1
    rows, places = np.nonzero((top >= 0) & members[top])
    right = ranking.hits(top, labels)[rows, places].astype(np.float64)
    cells = rows, columns[top[rows, places]]
    shape = len(top), int(members.sum())
    return Contributions(csr_array((right, cells), shape=shape), csr_array((np.ones(len(rows)), cells), shape=shape))


def _mean_ratio(hits: Floats, possible: Floats) -> Floats:
    """Computes 100 x the mean over M of float64[draws, M] / float64[draws, M]; a metric over nothing is 0."""
    if not hits.shape[1]:
        return np.zeros(len(hits))
    return 100 * np.divide(hits, possible, out=np.zeros(hits.shape), where=possible > 0).mean(axis=1)


def _padded(part: csr_array, number: int) -> csr_array:
    # Test documents of seeds are the same but where a corpus is generated from the seed, with a few less labels.
    part = csr_array(part)
    if part.shape[0] < number:
        part.resize(number, part.shape[1])
    return part
