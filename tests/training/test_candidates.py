import pytest

from lsfa_jax.config import Config
from lsfa_jax.training import candidates


@pytest.mark.parametrize(
    ("setting", "num_labels", "expected"),
    [
        ("auto", 999, "all"),
        ("auto", 1000, "linear"),
        ("auto", 30_001, "all"),
        ("linear", 101, "linear"),
        ("linear", 100, "all"),
        ("all", 10_000, "all"),
    ],
)
def test_auto_means_proposals_where_labels_are_many(setting, num_labels, expected):
    assert candidates.resolved(Config(preset="quick", candidates=setting), num_labels) == expected


@pytest.mark.parametrize("settings", [{"preset": "full"}, {"preset": "quick", "profile": "released"}])
def test_the_papers_sizes_and_the_released_code_compare_with_all_labels(settings):
    assert candidates.resolved(Config.model_validate(settings), 4_000) == "all"
