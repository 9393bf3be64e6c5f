import numpy as np
import pytest

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import ranking
from lsfa_jax.evaluation.groups import best_of_groups, head_and_tail
from lsfa_jax.experiments import statistics
from lsfa_jax.experiments.statistics import Contributions, Interval, Truth
from lsfa_jax.util.console import UserError

N, L = 60, 30
RANDOM = np.random.default_rng(5)
COUNTS = np.maximum(0, (120 / np.arange(1, L + 1)).astype(int) - 4)
IS_HEAD = COUNTS >= 10


def rankings(noise):
    """Truth, with documents of no label and labels that training never saw, and rankings that are right with noise."""
    has = np.random.default_rng(1).random((N, L)) < 2.5 / np.arange(2, L + 2)
    has[::11] = False
    truth = Truth(Ragged.from_rows([np.flatnonzero(row).astype(np.int32) for row in has]), COUNTS, 500, IS_HEAD)
    scores = has + noise * np.random.default_rng(2).normal(size=has.shape)
    listed = np.argsort(-scores, axis=1)[:, :12].astype(np.int32)
    return best_of_groups(listed, head_and_tail(IS_HEAD), 5), truth


@pytest.mark.parametrize("constants", [(0.55, 1.5), (0.6, 2.6)])
def test_values_are_those_of_the_ranking_metrics(constants):
    top, truth = rankings(0.8)
    arguments = truth.label_counts, truth.num_documents, (1, 3, 5), ranking.Propensity(*constants)
    expected = {"": ranking.evaluate(top[0], truth.labels, *arguments)}
    for number, (group, members) in enumerate((("head ", IS_HEAD), ("tail ", ~IS_HEAD)), 1):
        expected[group] = ranking.evaluate_group(top[0], top[number], truth.labels, members, *arguments)
    for group, metrics in expected.items():
        for name, value in metrics.items():
            suffix = f" ({constants[0]}, {constants[1]})" if name.startswith("PSP") and constants[0] == 0.6 else ""
            contributions = statistics.contributions(f"{group}{name}{suffix}", top, truth)
            assert statistics.value(contributions) == pytest.approx(value), f"{group}{name}"
            assert 0 < value < 100


@pytest.mark.parametrize("metric", ["P@3", "tail PSP@5", "macro_P@5"])
def test_an_interval_is_that_of_documents_and_seeds_drawn_in_plain_loops(metric):
    pairs = [
        [statistics.contributions(metric, *rankings(noise)) for noise in noises] for noises in ((0.5, 0.6), (0.8, 0.7))
    ]
    actual = statistics.interval(*pairs, draws=40)

    random = statistics.stream(statistics.Stream.EXPERIMENT_BOOTSTRAP, 0)
    documents = random.integers(0, N, (40, N))
    seeds = random.integers(0, 2, (40, 2))

    def value(metric: Contributions, drawn: np.ndarray) -> float:
        hits, possible = metric.hits.toarray(), metric.possible.toarray()
        columns = []
        for column in range(hits.shape[1]):
            total = sum(possible[i, column] for i in drawn)
            columns.append(100 * sum(hits[i, column] for i in drawn) / total if total else 0.0)
        return sum(columns) / len(columns)

    differences = [
        np.mean([value(pairs[0][seed], drawn) - value(pairs[1][seed], drawn) for seed in chosen])
        for drawn, chosen in zip(documents, seeds, strict=True)
    ]
    everything = np.arange(N)
    measured = np.mean([value(a, everything) - value(b, everything) for a, b in zip(*pairs, strict=True)])
    np.testing.assert_allclose(actual, [measured, *np.percentile(differences, [2.5, 97.5])], atol=1e-9)


def test_verdicts():
    assert Interval(1.0, 0.1, 2.0).verdict == "holds"
    assert Interval(1.0, -0.1, 2.0).verdict == "undecided"
    assert Interval(-1.0, -2.0, -0.1).verdict == "does not hold"
    same = statistics.contributions("N@5", *rankings(0.5))
    assert statistics.interval([same], [same], draws=10) == (0.0, 0.0, 0.0)
    assert statistics.interval([same], [same], draws=10).verdict == "does not hold"


def test_an_unknown_metric_is_an_error():
    statistics.check_metric("tail PSP@5 (0.6, 2.6)", "plan.toml")
    with pytest.raises(UserError, match=r"plan\.toml: 'P@7': expected a metric such as"):
        statistics.check_metric("P@7", "plan.toml")


def test_the_gini_coefficient_is_half_the_mean_difference_over_the_mean():
    counts = np.array([3.0, 0.0, 9.0, 1.0])
    expected = np.abs(counts[:, None] - counts).mean() / (2 * counts.mean())
    assert statistics.gini(counts) == pytest.approx(expected)
    assert statistics.gini(np.full(5, 2)) == pytest.approx(0.0)
