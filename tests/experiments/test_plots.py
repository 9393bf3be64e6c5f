import re

import numpy as np

from lsfa_jax.experiments import plots


def test_the_legend_names_lines_that_are_over_each_other(tmp_path):
    tree, gap = np.array([[20.0, 30.0, np.nan]]), np.array([[0.0, 0.04, 0.0]])
    # More lines than there are markers.
    others = {f"svm {number}": tree + 1 + number for number in range(7)}
    panels = {
        "PSP@5": {"network": tree - 5, "tree": tree, "fused": tree + gap, **others},
        "F1": {"tree": tree, "fused": tree + 0.1},
    }
    plots.lines(tmp_path / "x", "title", "documents", panels)
    texts = re.findall("<!-- (.*) -->", (tmp_path / "x.svg").read_text())
    names = ["network", "tree = fused", *others, "tree", "fused"]
    assert [text for text in texts if text in names] == names


def test_both_panels_of_features_show_all_points_at_the_same_scale(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    real, generated = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[-9.0, 2.0], [3.0, 7.0]])
    plots.scatter(tmp_path / "x", "title", {"A": [("label", real, generated)]})
    first, second = figures[0].axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()
    assert first.get_xlim()[0] < -9
    assert second.get_ylim()[1] > 7
