import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from lsfa_jax.cli import common, serve
from lsfa_jax.training import model_folder
from lsfa_jax.util.console import UserError
from tests import training_corpus

ROOT = Path(__file__).parents[2]
WORDS = [f"word{i}" for i in range(20)]
LABELS = [f"label {i}" for i in range(training_corpus.NUM_LABELS)]


@pytest.fixture
def packages(monkeypatch):
    """As if the packages of the extra were installed."""
    monkeypatch.setattr(common, "check_packages", lambda *arguments: None)


def error(capsys, *line):
    assert serve.main([*line]) == 2
    return capsys.readouterr().err


def test_a_package_that_is_missing_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else object())
    message = error(capsys, "--run", "runs/first")
    assert "bin/serve needs the packages of the extra serve, of which uvicorn cannot be imported. " in message
    assert f"{sys.executable} -m pip install starlette uvicorn prometheus-client python-multipart" in message


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("runs", [["a", "b/a"], ["x=a", "x=b"], ["x="], ["=a"]])
def test_two_models_of_one_name_or_none_are_refused(capsys, runs):
    assert f"--run {runs[-1]}: expected FOLDER or NAME=FOLDER, each name once" in error(capsys, "--run", *runs)
    assert "--run: give it once, with all models: --run FOLDER FOLDER" in error(capsys, "--run", "a", "--run", "b")
    assert "--run: give it once" in error(capsys, "--run=a", "--run=b")


@pytest.mark.usefixtures("packages")
def test_an_address_for_others_needs_a_token(monkeypatch, capsys):
    monkeypatch.delenv(serve.TOKEN, raising=False)
    line = ("--run", "none", "--port", "0", "--host")
    assert "--host 0.0.0.0: others could reach the service; set the environment variable LSFA_TOKEN" in error(
        capsys, *line, "0.0.0.0"
    )
    with serve._bound("0.0.0.0", 0, "secret") as listening:
        address, port = listening.getsockname()
        assert address == "0.0.0.0"
        with pytest.raises(UserError, match=f"--port {port}: cannot listen there"):
            serve._bound("0.0.0.0", port, "secret")


@pytest.mark.usefixtures("packages")
def test_a_port_that_is_used_and_a_host_that_is_none_are_errors(capsys):
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        assert f"--host 127.0.0.1 --port {port}: cannot listen there (" in error(capsys, "--run", "a", "--port", port)
    assert "--host no.such.host.invalid --port 8000: cannot listen there (" in error(
        capsys, "--run", "a", "--host", "no.such.host.invalid"
    )


@pytest.mark.usefixtures("packages")
def test_a_name_that_is_no_host_is_an_error(capsys):
    assert error(capsys, "--run", "a", "--host", "a..b").endswith("--host a..b: is no name of a host\n")


def test_a_socket_that_cannot_listen_is_closed(monkeypatch):
    class Recorded(socket.socket):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            opened.append(self)

    opened = []
    with socket.create_server(("127.0.0.1", 0)) as used:
        monkeypatch.setattr(socket, "socket", Recorded)
        with pytest.raises(UserError, match="cannot listen there"):
            serve._bound("127.0.0.1", used.getsockname()[1], "")
    assert [each.fileno() for each in opened] == [-1]


def get(url, **body):
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(url, data, timeout=60) as answer:
        return json.load(answer)


def test_a_service_answers_reloads_and_ends_with_code_0_after_sigterm(tmp_path, compiled):
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
    pytest.importorskip("python_multipart", reason="the extra serve is not installed")
    model_folder.write(tmp_path / "mine", training_corpus.trained_model(WORDS, LABELS, (8,), 0.75))
    service = subprocess.Popen(
        [sys.executable, "-m", "lsfa_jax", "serve", "--run", str(tmp_path / "mine"), "--port", "0", "--no-warm-up"],
        env=os.environ | compiled | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = iter(service.stdout.readline, "")
        url = next(match[1] for line in lines if (match := re.match(r"Serving at (\S+)/ ", line)))
        answer = get(f"{url}/v1/predict", text="word1 confidential", top=3)
        assert answer["model"] == "mine"
        assert set(answer["predictions"][0]["labels"]) < set(LABELS)
        service.send_signal(signal.SIGHUP)
        assert next(lines) == "model mine: read again\n"
        assert get(f"{url}/health")["status"] == "ok"
        service.send_signal(signal.SIGTERM)
        rest, _ = service.communicate(timeout=60)
    finally:
        service.kill()
    assert (service.returncode, rest) == (0, "The service has ended.\n")
