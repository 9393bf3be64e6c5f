"""The page of a run, from the files of a folder that nothing was trained in."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lsfa_jax.config import Config, to_toml
from lsfa_jax.training import report

SCRIPT = "<script>alert(1)"


class Page(HTMLParser):
    """What a reader sees: headings, table rows, charts with the texts of their points; and all tags and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.tags, self.attributes = html, set(), []
        self.headings, self.rows, self.charts, self.best = [], [], {}, []
        self._open, self._chart = [], ""
        self.feed(html)

    @property
    def text(self) -> str:
        return " ".join(re.sub("<[^>]*>", "", self.html.split("<body>")[1]).split())

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        self._open.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "svg":
            self._chart = dict(attributes)["aria-label"]
            self.charts[self._chart] = []

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        where = [tag for tag, _ in self._open]
        if "td" in where or "th" in where:
            self.rows[-1][-1] += data
            if ("class", "best") in self._open[-1][1].items():
                self.best.append(data)
        if where[-1:] == ["h2"]:
            self.headings.append(data)
        if where[-2:] == ["circle", "title"]:
            self.charts[self._chart].append(data)


def measured(n5: float, tail: float) -> dict:
    return {"P@1": 90.0, "N@5": n5, "PSP@5": 50.0, "head": {"N@5": n5 + 1}, "tail": {"N@5": tail, "PSP@5": tail}}


HISTORY = [
    {"stage": "representation", "step": 4, "epoch": 1.0, "time": 1e9, "bce": 0.5, "psc": 2.0, "learning_rate": 0.1,
     "encoder_learning_rate": 0.1, "documents/s": 9.0, "input_wait": 0.0, "validation": measured(60.0, 20.0)},
    {"stage": "representation", "step": 8, "epoch": 2.0, "time": 1e9, "bce": 0.25, "psc": 1.0, "learning_rate": 0.1,
     "encoder_learning_rate": 0.05, "documents/s": 9.0, "input_wait": 0.0, "validation": measured(61.5, 21.0)},
    {"stage": "transfer", "step": 3, "epoch": 1.0, "kl": 7.5, "negative_elbo": -3.0, "features/s": 9.0,
     "input_wait": 0.0},
]  # fmt: skip
METRICS = {
    "dataset": "custom",
    "split": {"train": 1234, "validation": 10, "test": 20},
    "num_labels": 900,
    "stages": {
        "tree": {"validation": measured(1.0, 2.0), "test": measured(60.0, 24.25)},
        "representation": {"test": measured(61.0, 20.0), "macro_P@5_bins": [70.0, 30.0]},
        "adjusted": {"test": measured(60.5, 23.0), "macro_P@5_bins": [69.0, 35.5]},
    },
    "pvae": {"relative_mean_error": 0.125, "variance_ratio": 0.875},
    "kept": "adjusted",
    "test": measured(60.5, 23.0),
    "seconds": {"linear": 30.0, "representation": 1200.0},
}


@pytest.fixture
def folder(tmp_path) -> Path:
    sections = {"representation": {"epochs": 3}, "report": {"bin_size": 500}}
    config = Config(dataset="custom", data_dir=f"/data/{SCRIPT}", seed=7, **sections)
    (tmp_path / "config.toml").write_text(to_toml(config))
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in HISTORY) + '{"stage": "tra')
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    return tmp_path


def test_the_page_has_results_charts_diagnostics_settings_and_times(folder):
    report.write(folder, folder / report.NAME)
    page = Page((folder / report.NAME).read_text())
    assert page.headings == [
        "Results", "Generated features", "Stage representation", "Stage transfer", "Time", "Settings"
    ]  # fmt: skip
    assert page.rows[0] == ["model", "P@1", "P@3", "P@5", "N@5", "PSP@5", "head N@5", "tail N@5", "tail PSP@5"]
    assert page.rows[1:5] == [
        ["tree", "90.00", "", "", "60.00", "50.00", "61.00", "24.25", "24.25"],
        ["representation", "90.00", "", "", "61.00", "50.00", "62.00", "20.00", "20.00"],
        ["adjusted *", "90.00", "", "", "60.50", "50.00", "61.50", "23.00", "23.00"],
        ["adjusted minus representation", "+0.00", "", "", "-0.50", "+0.00", "-0.50", "+3.00", "+3.00"],
    ]
    assert page.best == ["90.00", "50.00", "24.25", "24.25", "90.00", "61.00", "50.00", "62.00", "90.00", "50.00"]
    assert page.charts["Binary cross-entropy (Eq. 6), over epoch"] == ["bce, epoch 1: 0.5", "bce, epoch 2: 0.25"]
    assert page.charts["KL divergence of the latent variable, over epoch"] == ["kl, epoch 1: 7.5"]
    assert page.charts["Validation N@5, percent, over epoch"] == [
        f"{group}, epoch {epoch}: {value}"
        for group, values in (("all labels", (60, 61.5)), ("head", (61, 62.5)), ("tail", (20, 21)))
        for epoch, value in zip((1, 2), values, strict=True)
    ]
    rates = page.charts["Learning rates, over epoch"]
    assert {"learning_rate, epoch 2: 0.1", "encoder_learning_rate, epoch 2: 0.05"} <= set(rates)
    (bins,) = (points for title, points in page.charts.items() if "Fig. 1b" in title)
    assert bins[-2:] == ["adjusted, rank 1: 69", "adjusted, rank 501: 35.5"]
    assert "relative error of the mean 0.125 (best: 0), ratio of the variances 0.875 (best: 1)" in page.text
    assert ["representation", "1,200", ""] in page.rows
    changed = {row[0]: row[1:] for row in page.rows if "." in row[0] or row[0] in ("seed", "dataset")}
    assert changed == {
        "dataset": ["custom", "synthetic"],
        "seed": ["7", "0"],
        "representation.epochs": ["3", str(Config().representation.epochs)],
        "report.bin_size": ["500", "400"],
    }
    assert "1,234 train, 10 validation, 20 test documents, 900 labels" in page.text
    assert "The run is complete. Last line" not in page.text  # a line of an earlier version has no time


@pytest.mark.parametrize("network", [False, True])
def test_the_page_says_where_the_linear_model_ranks_labels_alone(folder, network):
    (folder / "metrics.json").write_text(json.dumps(METRICS | {"evidence": {"linear": "tree", "network": network}}))
    assert ("The label tree ranks labels alone" in Page(report.page(folder)).text) != network


def test_the_page_has_no_script_and_nothing_from_outside(folder):
    page = Page(report.page(folder))
    assert not page.tags & {"script", "img", "link", "iframe", "object"}
    assert not [name for name, _ in page.attributes if name in ("src", "href") or name.startswith("on")]
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert not re.search(r"url\(|@import|http:", page.html)
    assert SCRIPT.replace("<", "&lt;").replace(">", "&gt;") in page.html


def test_a_run_that_has_begun_has_a_page_that_is_loaded_again(folder):
    assert ("http-equiv", "refresh") not in Page(report.page(folder)).attributes
    (folder / "metrics.json").unlink()
    lines = (folder / "history.jsonl").read_text().splitlines()
    (folder / "history.jsonl").write_text(lines[0] + "\n")
    page = Page(report.page(folder))
    assert ("http-equiv", "refresh") in page.attributes
    assert page.headings == ["Stage representation", "Settings"]
    assert "epoch 1 of at most 3" in page.text
    assert "Last line of the history: 2001-09-09 01:46:40 UTC." in page.text
    (folder / "history.jsonl").unlink()
    assert "There is no validation yet." in report.page(folder)
