import pytest

from lsfa_jax.training import candidates


@pytest.mark.parametrize(
    ("setting", "num_labels", "expected"),
    [("auto", 999, "all"), ("auto", 1000, "tree"), ("tree", 1, "tree"), ("all", 10**6, "all")],
)
def test_auto_means_the_tree_where_labels_are_many(setting, num_labels, expected):
    assert candidates.resolved(setting, num_labels) == expected
