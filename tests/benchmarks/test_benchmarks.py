"""Runner, table, JSON and plot of `python -m benchmarks`, and every implementation of ours at a tiny shape."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from benchmarks import __main__ as command
from benchmarks.cases import SHAPES, TOPICS, Comparison, Implementation
from benchmarks.documents import documents, step_rows
from benchmarks.harness import report, runner, worker
from benchmarks.harness.runner import Measured
from benchmarks.harness.work import Part, Work
from lsfa_jax.util.console import UserError


def measured(name, *seconds, first=5.0, **more):
    return Measured(name, seconds=list(seconds), spent=list(seconds), first=first, **more)


MISSING = Implementation("missing:nothing", "tiny")


def comparison(**targets):
    return Comparison("step", "tiny", "BCE", MISSING, {"slow": MISSING, "fast": MISSING}, **targets)


def test_a_row_compares_with_the_fastest_and_with_the_smallest_peer():
    results = {
        "ours": measured("ours", 1.0, 3.0, 2.0, peak_mib=50.0),
        "slow": measured("slow", 9.0, 9.0, 9.0, peak_mib=10.0),
        "fast": measured("fast", 4.0, 4.0, 2.0, peak_mib=200.0),
    }
    row = report.row(comparison(time_target=0.5, memory_target=0.2), results)
    assert row["peer"] == "fast"
    assert (row["ours_ms"], row["peer_ms"]) == (2000.0, 4000.0)
    assert row["ratio"] == 0.5
    assert row["range"] == [0.25, 1.0]
    assert row["compile_s"] == 3.0
    assert row["time_met"] is True
    assert row["memory_ratio"] == 5.0  # to the slow peer, which is smaller
    assert row["memory_met"] is False
    assert row["notes"] == ["beside slow, 9,000 ms and 10 MiB, the ratio is 0.22"]


def test_memory_is_that_of_the_device_or_of_a_fact_where_there_is_one():
    results = {name: measured(name, 1.0, peak_mib=100.0, device_mib=7.0, facts={"temporary_mib": 3.0})
               for name in ("ours", "slow", "fast")}  # fmt: skip
    assert report.row(comparison(), results)["ours_mib"] == 7.0
    assert report.row(comparison(memory_fact="temporary_mib"), results)["ours_mib"] == 3.0
    assert report.row(comparison(max_mib=6.9), results)["most_met"] is False


@pytest.mark.parametrize("failed", ["ours", "slow", "fast"])
def test_a_failed_implementation_reports_why_and_the_others_stay_in_the_row(failed, tmp_path, capsys):
    results = {name: measured(name, 1.0) for name in ("ours", "slow", "fast")}
    results[failed] = Measured(failed, error="no module of that name")
    row = report.row(comparison(time_target=0.5), results)
    assert row["notes"][0] == f"{failed}: no module of that name"
    assert ("ratio" in row) == (failed != "ours")
    content = report.document([row], 3, 0)
    report.print_table(content)
    assert "no module of that name" in capsys.readouterr().out
    report.write_json(tmp_path / "x.json", content)
    assert json.loads((tmp_path / "x.json").read_text()) == content
    report.write_plot(tmp_path / "x.png", [row])
    assert Image.open(tmp_path / "x.png").width > 100


def test_a_round_is_the_weighted_sum_of_its_parts():
    calls = []

    def slow():
        calls.append("slow")
        time.sleep(0.05)

    timed = worker.run(Work([Part(10, slow), Part(-0.5, lambda: calls.append("fast"))]))
    assert calls == ["slow", "fast"]
    assert timed["seconds"] > 0.49
    assert 0.05 <= timed["spent"] < timed["seconds"]


def test_disturbed_rounds_do_not_count_unless_all_are():
    one = measured("ours", 1.0, 2.0, 3.0, processor=[1.0] * 3, others=[0.0, 0.9, 0.0])
    one.keep([0, 2])
    assert (one.seconds, one.spent, one.others, one.disturbed) == ([1.0, 3.0], [1.0, 3.0], [0.0, 0.0], False)
    one.keep([])
    assert (one.seconds, one.disturbed) == ([1.0, 3.0], True)


def test_the_load_of_other_processes_is_measured():
    start = time.perf_counter()

    def wait():
        # This process sleeps while another works.
        busy = "import time; t = time.perf_counter()\nwhile time.perf_counter() < t + 0.6: pass"
        subprocess.run([sys.executable, "-c", busy], check=True)

    timed = worker.run(Work([Part(1, wait)]))
    assert timed["spent"] == pytest.approx(time.perf_counter() - start, rel=0.2)
    assert timed["others"] > 0.2


def test_a_missing_peer_is_an_error_with_its_remedy():
    in_peers_python = Implementation("missing:nothing", "tiny", peers_python=True)
    peers = {"peer": MISSING, "separate": in_peers_python}
    results = runner.measure(Comparison("t", "tiny", "x", MISSING, peers), 1, 0, sys.executable, print)
    assert "missing" in results["ours"].error
    assert "pip install -e '.[peers]'" in results["peer"].error
    assert "--peers-python" in results["separate"].error
    results = runner.measure(Comparison("t", "tiny", "x", in_peers_python), 1, 0, "/missing/python", print)
    assert "/missing/python" in results["ours"].error


def test_documents_have_the_lengths_and_labels_of_their_shape():
    shape = SHAPES["rcv1"]
    drawn = documents(shape, 0)
    assert drawn.scale == pytest.approx(23_149 / 12_000)
    assert 125 < drawn.lengths.mean() < 145  # cut at 500 words
    document, label = drawn.pairs(np.arange(3))
    assert len(set(zip(document, label, strict=True))) == len(label)
    assert label.max() < shape.num_labels
    rows = step_rows(drawn, shape)
    assert drawn.lengths[rows].max() <= shape.step_words
    assert drawn.lengths[rows].min() >= 0.75 * shape.step_words


def test_every_comparison_has_a_different_key():
    keys = [each.key for topic in TOPICS.values() for shape in SHAPES for each in topic.comparisons(shape)]
    assert len(keys) == len(set(keys))


@pytest.mark.slow
def test_one_command_from_the_topic_to_the_plot(tmp_path, capsys, monkeypatch, compiled):
    for name, value in compiled.items():
        monkeypatch.setenv(name, value)
    line = ["label-attention", "--shape", "tiny", "--rounds", "2", "--json", str(tmp_path / "a.json"), "--resume"]
    command.main([*line, "--plot", str(tmp_path / "a.png")])
    assert "label-attention, tiny: loss and gradients (plain JAX)" in capsys.readouterr().out
    content = json.loads((tmp_path / "a.json").read_text())
    (row,) = content["rows"]
    assert len(row["measured"]["ours"]["seconds"]) == 2
    assert row["ours_ms"] > 0
    assert row["ours_mib"] > 0
    assert "jax" in content["versions"]
    assert (tmp_path / "a.png").stat().st_size > 1000
    # A resumed table does not measure its rows again.
    command.main(line)
    assert json.loads((tmp_path / "a.json").read_text())["rows"] == [row]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["nothing"], "no topic nothing; there are lstm"),
        (["--resume"], "--resume needs --json"),
        (["--rounds", "0"], "--rounds must be 1 or more"),
        (["--shape", "round"], "--shape"),
        (["lstm", "--json", "/missing/folder/x"], "cannot be written"),
        (["lstm", "--plot", "/missing/folder/x"], "cannot be written"),
        (["lstm", "--peers-python", "/missing/python"], "is not an interpreter"),
    ],
)
def test_a_wrong_command_line_is_refused_before_the_measurement(line, message, capsys):
    with pytest.raises(SystemExit) as error:
        command.parse(line)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a,b\n", "{}", "[]", '{"row": 1}'])
def test_a_table_is_not_resumed_from_another_file(text, tmp_path):
    (tmp_path / "x").write_text(text)
    with pytest.raises(UserError, match="not a JSON file of this command"):
        report.read_rows(tmp_path / "x")


def our_implementations():
    """Lists every implementation of ours once, at the tiny shape."""
    comparisons = [each for topic in TOPICS.values() for each in topic.comparisons("tiny")]
    # Of the stages on a mesh, two on two devices show what all on eight do.
    quick = {"devices": (2,), "stage": ("adjustment", "collection")}

    def is_quick(ours):
        return all(ours.arguments.get(name, values[0]) in values for name, values in quick.items())

    ours = [each.ours for each in comparisons if is_quick(each.ours)]
    return {(each.function, *each.arguments.items()): each for each in ours}.values()


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("ours", our_implementations(), ids=lambda ours: f"{ours.function} {dict(ours.arguments)}")
def test_every_implementation_of_ours_runs(ours):
    work = worker.build(ours.function, {**ours.arguments, "shape": "tiny", "seed": 0, "keep_freed_memory": False})
    assert np.isfinite(worker.run(work)["seconds"])
