"""Fitting the fused score on validation documents, and the evidence that the network adds to the linear model."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lsfa_jax.data.batches import Batches
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import Ranked
from lsfa_jax.evaluation import ranking
from lsfa_jax.evaluation.bootstrap import resampled_sums
from lsfa_jax.evaluation.scorer import over_split, scored_labels
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.sparse import fusion
from lsfa_jax.sparse.fusion import Cells, Fusion
from lsfa_jax.sparse.linear import Kind
from lsfa_jax.training.linear_side import LinearSide
from lsfa_jax.util.random_streams import Stream, stream

LEAST_DOCUMENTS = 30
"""Fewer validation documents are no evidence for or against the network."""

# More validation documents than this change the weights little and take long.
_MOST_DOCUMENTS = 3000

# The network takes part where this share of bootstrap samples says that it adds to the linear model.
_SHARE, _SAMPLES = 0.75, 1000


class Evidence(NamedTuple):
    """What the network adds to the linear model on validation documents, in N@5 of weights fitted on the others."""

    gain: float
    """Percentage points of the fused score over the linear model."""
    share: float
    """Share of the bootstrap samples with a gain."""

    @property
    def speaks_for_network(self) -> bool:
        """Whether the network takes part in the fused score."""
        return self.share >= _SHARE


def fit(
    model: Lsfa, params: Any, batches: Batches, mesh: Mesh, linear: LinearSide, counts: np.ndarray, seed: int
) -> tuple[Fusion, Evidence | None]:
    """Fits the weights of the fused score.

    Args:
        model: the classifier of L labels.
        params: its parameters, on the devices of `mesh`.
        batches: the N validation documents.
        mesh: the devices.
        linear: the linear model and its lists of them.
        counts: int64[L], the training count of each label.
        seed: of the run.

    Returns:
        The weights, without the network if the evidence is against it; the evidence, None of too few documents.
    """
    kind = linear.model.kind
    chosen = collect(model, params, batches, mesh, linear.ranked("validation"), seed)
    evidence = None
    if len(batches.split) >= LEAST_DOCUMENTS:
        evidence = measure(chosen, batches.split.labels, counts, kind, seed)
    fit_weights = fusion.fit if evidence is None or evidence.speaks_for_network else fusion.fit_linear
    return fusion.calibrated(fit_weights(chosen, counts, kind), chosen, len(batches.split)), evidence


def collect(model: Lsfa, params: Any, batches: Batches, mesh: Mesh, ranked: Ranked, seed: int) -> Cells:
    """Collects the cells of validation documents, `_MOST_DOCUMENTS` at most, in one pass."""
    compute = functools.partial(jax.jit(scored_labels, static_argnums=0), model, params)
    truth, num_documents = batches.split.labels, len(batches.split)
    rank = stream(Stream.FUSION_EVIDENCE, seed, 0).permutation(num_documents)
    parts: list[Cells] = []

    for number, (batch, (logits, label_ids)) in enumerate(over_split(compute, batches, mesh, "fusing")):
        places = np.flatnonzero(batch.document_mask & (rank[batch.rows] < _MOST_DOCUMENTS))
        documents = batch.rows[places]
        labels = [truth.row(document) for document in documents]
        random = stream(Stream.FUSION_CELLS, seed, number)
        scores, lists = np.asarray(logits)[places], ranked.take(documents)
        if label_ids is not None:
            ids = np.asarray(label_ids)[places]
            parts.append(fusion.candidate_cells(documents, ids, scores, lists, labels))
        elif len(places):
            parts.append(fusion.chosen_cells(documents, scores[:, : model.num_labels], lists, labels, random))
    return fusion.concatenate(parts)


def measure(cells: Cells, truth: Ragged, counts: np.ndarray, kind: Kind, seed: int) -> Evidence:
    """Compares the fused score with the linear model on documents of which its weights were not fitted, in two folds.

    Args:
        cells: of the documents.
        truth: their labels.
        counts: int64[L].
        kind: of the linear model.
        seed: of the run.
    """
    num_documents = truth.num_rows
    random = stream(Stream.FUSION_EVIDENCE, seed, 1)
    fold = random.permutation(num_documents) % 2
    both, alone = np.zeros((2, num_documents))
    without = cells._replace(network=np.zeros_like(cells.network))
    for part in (0, 1):
        inside, of_part = fold[cells.documents] == part, fold == part
        for result, of in ((both, cells), (alone, without)):
            fitted_on, scored = (Cells(*(values[rows] for values in of)) for rows in (~inside, inside))
            scores = fusion.score(fusion.fit(fitted_on, counts, kind), scored)
            top = fusion.best(scores, scored, num_documents, ranking.NUM_RANKED)
            gains = ranking.document_ndcg(ranking.hits(top, truth), truth, ranking.NUM_RANKED)[:, -1]
            result[of_part] = 100 * gains[of_part]
    gains = (both - alone)[np.unique(cells.documents)]
    sums = resampled_sums(gains[:, None], _SAMPLES, random)
    return Evidence(float(gains.mean()), float((sums > 0).mean()))
