"""Turns, table, JSON and plot of `python -m benchmarks`."""

import json
import subprocess
import sys
import time

import pytest
from PIL import Image

from benchmarks import __main__ as command
from benchmarks import documents as shapes
from benchmarks.cases import TOPICS, Comparison, Implementation
from benchmarks.harness import report, worker
from benchmarks.harness import runner as turns
from benchmarks.harness.runner import Measured
from benchmarks.harness.work import Part, Work
from lsfa_jax.util.console import UserError


def measured(name, *seconds, **more):
    return Measured(name, seconds=list(seconds), spent=list(seconds), first=more.pop("first", 5.0), **more)


def comparison(**more):
    nowhere = Implementation("nowhere:nothing", {})
    return Comparison("step", "tiny", "BCE", nowhere, {"slow": nowhere, "quick": nowhere}, **more)


def test_the_best_peer_counts_in_time_and_in_memory():
    found = {
        "ours": measured("ours", 1.0, 3.0, 2.0, peak_mib=50.0),
        "slow": measured("slow", 9.0, 9.0, 9.0, peak_mib=10.0),
        "quick": measured("quick", 4.0, 4.0, 2.0, peak_mib=200.0),
    }
    row = report.row(comparison(time=0.5, memory=0.2), found)
    assert row["peer"] == "quick"
    assert (row["ours_ms"], row["peer_ms"]) == (2000.0, 4000.0)
    assert row["ratio"] == 0.5
    assert row["range"] == [0.25, 1.0]
    assert row["compile_s"] == 3.0
    assert row["time_met"] is True
    assert row["memory_ratio"] == 5.0  # beside the slow one, which needs less
    assert row["memory_met"] is False
    assert row["notes"] == ["beside slow, 9,000 ms and 10 MiB, the ratio is 0.22"]


def test_memory_of_a_device_or_of_a_fact_instead_of_the_process():
    found = {name: measured(name, 1.0, peak_mib=100.0, device_mib=7.0, facts={"temporary_mib": 3.0})
             for name in ("ours", "slow", "quick")}  # fmt: skip
    assert report.row(comparison(), found)["ours_mib"] == 7.0
    assert report.row(comparison(memory_fact="temporary_mib"), found)["ours_mib"] == 3.0
    assert report.row(comparison(most_mib=6.9), found)["most_met"] is False


@pytest.mark.parametrize("failed", ["ours", "slow", "quick"])
def test_what_fails_says_why_and_the_others_keep_their_figures(failed, tmp_path, capsys):
    found = {name: measured(name, 1.0) for name in ("ours", "slow", "quick")}
    found[failed] = Measured(failed, error="no module named so")
    row = report.row(comparison(time=0.5), found)
    assert row["notes"][0] == f"{failed}: no module named so"
    assert ("ratio" in row) == (failed != "ours")
    written = report.document([row], 3, 0)
    report.print_table(written)
    assert "no module named so" in capsys.readouterr().out
    report.write_json(tmp_path / "x.json", written)
    assert json.loads((tmp_path / "x.json").read_text()) == written
    report.write_plot(tmp_path / "x.png", [row])
    assert Image.open(tmp_path / "x.png").width > 100


def test_an_epoch_is_added_up_from_its_parts():
    calls = []
    found = worker.run(Work([Part(10, lambda: calls.append("a")), Part(0.5, lambda: calls.append("b"))]))
    assert calls == ["a", "b"]
    assert found["seconds"] > 0
    assert found["spent"] > 0


def test_a_peer_that_is_not_there_is_a_row():
    nowhere = Implementation("nowhere:nothing", {})
    found = turns.measure(Comparison("t", "tiny", "x", nowhere, {"peer": nowhere}), 1, 0, "no-such-python", str)
    assert "nowhere" in found["ours"].error
    own = Implementation("nowhere:nothing", {}, own_python=True)
    found = turns.measure(Comparison("t", "tiny", "x", own, {}), 1, 0, "/no/such/python", str)
    assert "/no/such/python" in found["ours"].error


def test_documents_have_the_shape_that_is_asked_for():
    shape = shapes.SHAPES["rcv1"]
    made = shapes.documents(shape, 0)
    assert made.scale == pytest.approx(23_149 / 12_000)
    assert 125 < made.lengths.mean() < 145  # cut at 500 words
    document, label = made.pairs(range(3))
    assert len(set(zip(document, label, strict=True))) == len(label)
    assert label.max() < shape.num_labels
    rows = shapes.step_rows(made, shape)
    assert made.lengths[rows].max() <= shape.step_words
    assert made.lengths[rows].min() >= 0.75 * shape.step_words


def test_every_row_has_a_name_of_its_own():
    keys = [row.key for topic in TOPICS.values() for shape in shapes.SHAPES for row in topic.rows(shape)]
    assert len(keys) == len(set(keys))


def test_one_command_from_the_topic_to_the_plot(tmp_path, capsys):
    line = ["label-attention", "--shape", "tiny", "--rounds", "2", "--json", str(tmp_path / "a.json"), "--resume"]
    command.main([*line, "--plot", str(tmp_path / "a.png")])
    out = capsys.readouterr().out
    assert "label-attention, tiny: loss and gradients (plain JAX)" in out
    written = json.loads((tmp_path / "a.json").read_text())
    (row,) = written["rows"]
    assert len(row["measured"]["ours"]["seconds"]) == 2
    assert row["ours_ms"] > 0
    assert row["ours_mib"] > 0
    assert "jax" in written["versions"]
    assert (tmp_path / "a.png").stat().st_size > 1000
    # What is there already is not measured again.
    command.main(line)
    assert json.loads((tmp_path / "a.json").read_text())["rows"] == [row]


@pytest.mark.parametrize("line", [["nothing"], ["--resume"], ["--rounds", "0"], ["--shape", "round"]])
def test_wrong_command_lines(line, capsys):
    with pytest.raises(SystemExit):
        command.parse(line)
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_told_of_before_the_measurement(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.parse(["lstm", option, str(tmp_path / "no" / "x")])
    assert "cannot be written" in capsys.readouterr().err


def test_an_interpreter_that_is_not_there_is_told_of(capsys):
    with pytest.raises(SystemExit):
        command.parse(["lstm", "--peers-python", "/no/such/python"])
    assert "is no interpreter" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a,b\n", "{}", "[]", '{"row": 1}'])
def test_rows_of_another_file_are_not_read(text, tmp_path):
    (tmp_path / "x").write_text(text)
    with pytest.raises(UserError, match="not figures of this command"):
        report.read_rows(tmp_path / "x")


def test_what_installs_a_missing_peer_is_said():
    own = Implementation("nowhere:nothing", {})
    found = turns.measure(Comparison("t", "tiny", "x", own, {"peer": own}), 1, 0, sys.executable, str)
    assert "pip install -e '.[peers]'" in found["peer"].error
    elsewhere = Implementation("nowhere:nothing", {}, own_python=True)
    found = turns.measure(Comparison("t", "tiny", "x", own, {"peer": elsewhere}), 1, 0, sys.executable, str)
    assert "--peers-python" in found["peer"].error


def test_rounds_that_were_disturbed_do_not_count():
    one = measured("ours", 1.0, 2.0, 3.0, processor=[1.0] * 3, others=[0.0, 0.9, 0.0])
    one.keep([0, 2])
    assert (one.seconds, one.spent, one.others, one.disturbed) == ([1.0, 3.0], [1.0, 3.0], [0.0, 0.0], False)
    one.keep([])
    assert (one.seconds, one.disturbed) == ([1.0, 3.0], True)


def test_others_are_seen():
    started = time.perf_counter()

    def wait():
        # Another process works meanwhile; this one sleeps.
        busy = "import time; t = time.perf_counter()\nwhile time.perf_counter() < t + 0.6: pass"
        subprocess.run([sys.executable, "-c", busy], check=True)

    found = worker.run(Work([Part(1, wait)]))
    assert found["spent"] == pytest.approx(time.perf_counter() - started, rel=0.2)
    assert found["others"] > 0.2
