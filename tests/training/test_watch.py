"""What shows a run: event files that follow the history, the page's share of the time, which process writes."""

import struct
from pathlib import Path

import pytest

from lsfa_jax.training import report, watch
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.tensorboard import EventFiles, scalars
from lsfa_jax.training.watch import watched
from lsfa_jax.util import processes

TAGS = {"bce", "learning_rate", "documents/s", "validation/N@5", "validation/tail/N@5"}


def line(stage: str, step: int, loss: float) -> dict:
    validation = {"N@5": 10.0 * loss, "tail": {"N@5": loss}}
    rates = {"learning_rate": 0.1, "documents/s": 5.0}
    return {"stage": stage, "step": step, "epoch": step / 4, "time": 1e9 + step, "bce": loss, **rates} | (
        {"validation": validation} if stage == "adjustment" else {}
    )


def events(folder: Path) -> list[tuple[str, int, float, float]]:
    """Returns tag, step, value and time of each event, in the order of the files."""
    from tensorboardX.proto.event_pb2 import Event

    read = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])  # then a checksum, and one behind the record
            event = Event.FromString(data[12 : 12 + size])
            read += [(v.tag, event.step, v.simple_value, event.wall_time) for v in event.summary.value]
            data = data[16 + size :]
    return read


def expected(folder: RunFolder) -> list[tuple[str, int, float, float]]:
    return [
        (tag, line["step"], pytest.approx(value), line["time"])
        for line in folder.read_history()
        for tag, value in scalars(line)
    ]


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path)
    (tmp_path / "config.toml").write_text('dataset = "tiny"\n')
    return folder


def test_event_files_have_each_step_of_the_history_once_also_after_a_kill(folder):
    pytest.importorskip("tensorboardX", reason="the extra watch is not installed")
    folder.append_history(line("representation", 4, 0.5))
    with EventFiles(folder) as files:  # of a command that was given the option late
        folder.append_history(line("representation", 8, 0.25))
        files.update()
        folder.append_history(line("adjustment", 4, 0.5))
        files.update()
    assert events(folder.path) == expected(folder)
    assert {tag for tag, *_ in events(folder.path)} == {
        *(f"representation/{tag}" for tag in ("epoch", *TAGS) if "validation" not in tag),
        *(f"adjustment/{tag}" for tag in ("epoch", *TAGS)),
    }
    # The next command drops the lines after its checkpoint, and writes them again.
    with EventFiles(folder) as files:
        folder.drop_history("adjustment", after=0)
        folder.append_history(line("adjustment", 4, 0.75))
        files.update()
        folder.append_history(line("adjustment", 8, 0.5))
        files.update()
    assert events(folder.path) == expected(folder)
    assert len({(tag, step) for tag, step, *_ in events(folder.path)}) == len(events(folder.path))


def test_the_page_takes_a_hundredth_of_the_time_and_is_written_at_the_end(folder, monkeypatch):
    now, written = [0.0], []

    def write(*_: Path) -> None:
        written.append(now[0])
        now[0] += 0.02

    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(report, "write", write)
    with watched(folder, tensorboard=False):
        for step in range(1, 50):
            now[0] = float(step) / 10
            folder.append_history(line("transfer", step, 0.5))
    assert written == pytest.approx([0.1, 2.2, 4.3, 4.9], abs=0.051)


def test_the_page_is_written_where_a_run_is_stopped(folder):
    with pytest.raises(RuntimeError), watched(folder, tensorboard=False):
        raise RuntimeError
    assert "There is no validation yet" in (folder.path / report.NAME).read_text()


def test_of_several_processes_the_first_one_writes(folder, monkeypatch):
    monkeypatch.setattr(processes, "is_first", lambda: False)
    before = sorted(folder.path.iterdir())
    with watched(folder, tensorboard=True):
        folder.append_history(line("transfer", 1, 0.5))
    assert sorted(folder.path.iterdir()) == before
