import asyncio
import base64
import csv
import io
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("python_multipart", reason="the extra serve is not installed")
pytest.importorskip("httpx2", reason="the library of the test client is not installed")

from starlette.testclient import TestClient

from lsfa_jax.cli import predict
from lsfa_jax.serving.predictor import Prediction, Predictor
from lsfa_jax.serving.service import openapi
from lsfa_jax.serving.service.app import Service
from lsfa_jax.serving.service.limits import Limits
from lsfa_jax.serving.service.models import Models
from lsfa_jax.training import model_folder
from tests import training_corpus

SCRIPT = "<script>alert(1)</script>"
FORMULA = '=HYPERLINK("x")'
WORDS = [f"word{i}" for i in range(20)]
LABELS = [FORMULA, SCRIPT, *(f"label {i}" for i in range(training_corpus.NUM_LABELS - 2))]
TEXTS = ["word1 word2, word3!", "", "word4 " * 30, "word5\nword6"]
SECRET = "confidential"
LIMITS = Limits()


@pytest.fixture(scope="module")
def model():
    """Half of the labels are in the tail."""
    model = training_corpus.trained_model(WORDS, LABELS, (8,), 0.75)
    return replace(model, label_counts=np.repeat([20, 3], len(LABELS) // 2))


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model_folder.write(folder, model)
    return folder


@pytest.fixture(scope="module")
def models(run):
    return Models({"first": run, "second": run}, warm_up=False)


def client(models, limits=LIMITS, **options):
    return TestClient(Service(models, limits=limits, batch_size=8, **options).app)


@pytest.fixture(scope="module")
def served(models):
    with client(models) as started:
        yield started


def ask(client, path="/v1/predict", **fields):
    return client.post(path, json=fields)


# --- answers


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, []),
        ({"threshold": "auto"}, ["--threshold", "auto"]),
        ({"threshold": 0.4, "model": "second"}, ["--threshold", "0.4"]),
    ],
)
def test_predictions_are_those_of_the_command(served, run, tmp_path, fields, options):
    rows, out = tmp_path / "texts.jsonl", tmp_path / "out.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    assert predict.main(["--run", str(run), str(rows), "--output", str(out), *options]) == 0
    expected = [json.loads(line) for line in out.read_text().splitlines()]
    answer = ask(served, texts=TEXTS, **fields)
    assert answer.status_code == 200
    assert answer.json()["model"] == fields.get("model", "first")
    assert [{"id": i, **one} for i, one in enumerate(answer.json()["predictions"], 1)] == expected
    assert answer.headers["cache-control"] == "no-store"
    # Fewer labels are the first of these.
    few = ask(served, texts=TEXTS, top=2, **fields).json()["predictions"]
    assert few == [{name: values[:2] for name, values in row.items() if name != "id"} for row in expected]


def test_requests_at_the_same_time_share_batches_and_get_their_answers(models):
    texts = [f"word{i % 20} word{i * 7 % 20}" for i in range(40)]
    expected = list(Predictor(models["first"].model).predict(texts, 5))
    with client(models, gather_seconds=1000) as served, ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda text: ask(served, text=text, top=2).json()["predictions"], texts))
        metrics = served.get("/metrics").text
    for (one,), (label_ids, probabilities) in zip(answers, expected, strict=True):
        assert one["labels"] == [LABELS[label] for label in label_ids[:2]]
        np.testing.assert_allclose(one["probabilities"], probabilities[:2], rtol=1e-5)
    assert "lsfa_batch_texts_sum 40.0" in metrics
    assert "lsfa_batch_texts_count 5.0" in metrics
    assert 'lsfa_request_seconds_count{endpoint="/v1/predict",status="200"} 40.0' in metrics


def test_explanations_are_those_of_the_predictor(served, models):
    answer = ask(served, "/v1/explain", texts=TEXTS, top=2).json()["explanations"]
    for one, expected in zip(answer, Predictor(models["first"].model).explain(TEXTS, 5), strict=True):
        assert one["labels"] == [LABELS[label] for label in expected.label_ids[:2]]
        assert (one["text"], one["votes"]) == (expected.text, None)
        assert one["words"] == [list(span) for span in expected.spans]
        np.testing.assert_allclose(one["attention"], expected.attention[:2], atol=1e-4)


def test_labels_have_their_counts_and_groups(served):
    answer = served.get("/v1/labels", params={"model": "second"}).json()
    assert (answer["model"], answer["threshold"], answer["head_threshold"]) == ("second", 0.75, 13)
    assert answer["labels"][0] == {"name": FORMULA, "documents": 20, "group": "head"}
    assert answer["labels"][-1] == {"name": LABELS[-1], "documents": 3, "group": "tail"}


def test_every_route_of_the_api_is_documented_and_every_reference_resolves(served):
    document = served.get("/openapi.json").json()
    assert set(document["paths"]) == {endpoint.path for endpoint in openapi.ENDPOINTS}
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])
    assert set(document["paths"]["/health"]["get"]["responses"]) == {"200"}  # open, whether or not there is a token
    assert set(document["paths"]["/v1/labels"]["get"]["responses"]) == {"200", "401", "404"}
    page = served.get("/docs").text
    for endpoint in openapi.ENDPOINTS:
        assert f"{endpoint.method} {endpoint.path}</code>" in page
        answer = served.request(endpoint.method, endpoint.path, json={"text": "a"} if endpoint.request else None)
        assert answer.status_code == 200
        if endpoint.response:
            endpoint.response.model_validate_json(answer.content)


# --- wrong requests

LONG = SECRET + "x" * 200


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b'{"text": "\xff"}', 400, "not JSON"),
        (b'{"text": "\\ud800"}', 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"texts": ' + b"[" * 1000 + b"]" * 1000 + b"}", 400, "not JSON"),
        (b"[]", 422, "not an object"),
        (b"null", 422, "not an object"),
        (b"{}", 422, "expected one of text and texts"),
        (b'{"text": "a", "texts": []}', 422, "expected one of text and texts"),
        (b'{"text": 1}', 422, "text: expected a text"),
        (b'{"texts": "a"}', 422, "texts: expected a list of texts"),
        (b'{"texts": ["confidential", null]}', 422, "texts: expected a list of texts"),
        (b'{"text": "a", "top": 0}', 422, "top: expected labels a text at most, from 1 to 1,000"),
        (b'{"text": "%s"}' % LONG.encode(), 413, "text: has 212 characters; at most 200"),
        (b'{"text": "a", "top": 1e400}', 422, "top: expected labels"),
        (b'{"text": "a", "top": true}', 422, "top: expected labels"),
        (b'{"text": "a", "threshold": 2}', 422, "threshold: expected none; auto"),
        (b'{"text": "a", "threshold": NaN}', 422, "threshold: expected none; auto"),
        (
            b'{"text": "a", "treshold": "confidential"}',
            422,
            "treshold: unknown field (did you mean threshold?); expected",
        ),
        (b'{"text": "a", "%s": 1}' % (b"x" * 100), 422, f"{'x' * 40}: unknown field; expected text, texts, model"),
        (b'{"text": "a", "model": "third"}', 404, "model: expected one of first, second"),
        (b'{"texts": ["a", "a", "a", "a"]}', 413, "texts: 4 texts; at most 3 a request"),
        (b'{"texts": ["a", "%s"]}' % LONG.encode(), 413, "texts: text 2 has 212 characters; at most 200"),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else value,
)
def test_a_wrong_request_is_a_short_error_without_its_text(models, body, status, problem):
    with client(models, Limits(characters=200, texts=3)) as served:
        answer = served.post("/v1/predict", content=body)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(problem)
    assert SECRET not in answer.text
    assert len(answer.text) < 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/predict", 405), ("POST", "/health", 405), ("GET", "/none", 404), ("GET", "/v1/labels?model=x", 404)],
)
def test_other_paths_and_methods_are_errors_too(served, method, path, status):
    answer = served.request(method, path)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def receive_of(parts, delay=0.0):
    """Sends a body in parts, each of them after a delay; records how many were taken."""
    taken = []

    async def receive():
        await asyncio.sleep(delay)
        taken.append(None)
        return {"type": "http.request", "body": parts, "more_body": True}

    return receive, taken


async def respond(service, receive, headers=()):
    """Calls the application as a server does; returns status and body."""
    sent = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/predict",
        "raw_path": b"/v1/predict",
        "query_string": b"",
        "headers": list(headers),
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }

    async def send(message):
        sent.append(message)

    await service.app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]


def test_a_body_that_is_too_large_is_cut_off(models):
    service = Service(models, limits=Limits(bytes=1000))
    receive, taken = receive_of(b" " * 400)
    problem = (413, "the body has more than 1,000 bytes")
    assert asyncio.run(respond(service, receive)) == problem
    assert len(taken) == 3
    # A length that is announced is not waited for.
    receive, taken = receive_of(b" " * 400)
    assert asyncio.run(respond(service, receive, [(b"content-length", b"1000000000")])) == problem
    assert taken == []


def test_a_body_that_takes_too_long_is_given_up(models):
    service = Service(models, limits=Limits(seconds=0.05))
    receive, _ = receive_of(b"", delay=0.01)
    assert asyncio.run(respond(service, receive)) == (408, "the body has not arrived within 0.05 seconds")


def test_a_body_that_ends_early_is_an_error(models):
    async def receive():
        return {"type": "http.disconnect"}

    service = Service(models, limits=Limits())
    assert asyncio.run(respond(service, receive)) == (400, "the connection ended within the body")


# --- load, errors, tokens


class Slow:
    """A predictor that waits until it may go on."""

    def __init__(self, model):
        self.model, self.started, self.may_go_on = model, threading.Event(), threading.Event()

    def predict(self, texts, top):
        self.started.set()
        assert self.may_go_on.wait(500)
        return [Prediction(np.arange(top), np.linspace(0.9, 0.1, top, dtype=np.float32)) for _ in texts]


class OneModel:
    """Models of which one is served."""

    names = ("first",)

    def __init__(self, models, predictor):
        self._served, self.problems = replace(models["first"], predictor=predictor), {}

    def __getitem__(self, name):
        return self._served

    def changed(self):
        return []


def test_a_full_queue_is_429(models):
    slow = Slow(models["first"].model)
    with (
        client(OneModel(models, slow), Limits(seconds=500), most_waiting=2) as served,
        ThreadPoolExecutor(2) as threads,
    ):
        first = threads.submit(ask, served, text="word1")
        assert slow.started.wait(500)
        second = threads.submit(ask, served, texts=["word2", "word3"])
        while served.get("/metrics").text.count("lsfa_waiting_texts 2.0") == 0:
            time.sleep(0.01)
        refused = ask(served, text="word4")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json() == {"error": "too many texts wait; send fewer, or later"}
        slow.may_go_on.set()
        assert [waiting.result().status_code for waiting in (first, second)] == [200, 200]


def test_what_is_not_computed_in_time_is_503(models):
    slow = Slow(models["first"].model)
    with client(OneModel(models, slow), Limits(seconds=0.1)) as served:
        answer = ask(served, text="word1")
        assert (answer.status_code, answer.json()) == (503, {"error": "not computed within 0.1 seconds"})
        slow.may_go_on.set()


def test_an_error_of_the_model_is_500_without_its_message(models, capsys):
    class Broken(Slow):
        def predict(self, texts, top):
            raise ValueError(texts)

    with client(OneModel(models, Broken(models["first"].model))) as served:
        answer = ask(served, text=SECRET)
        assert served.get("/health").status_code == 200
    assert (answer.status_code, list(answer.json())) == (500, ["error"])
    printed = "".join(capsys.readouterr())
    assert re.search(r"/v1/predict: ValueError at test_service.py:\d+", printed)
    assert SECRET not in answer.text + printed


def basic(password):
    return "Basic " + base64.b64encode(f"any:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("", 401),
        ("Bearer wrong", 401),
        ("Basic !", 401),
        (basic("wrong"), 401),
        ("token", 401),
        ("Bearer token", 200),
        (basic("token"), 200),
    ],
)
def test_a_token_is_needed_but_for_health(models, header, status):
    with client(models, token="token") as served:
        headers = {"authorization": header} if header else {}
        for path in ("/", "/v1/labels", "/metrics", "/openapi.json"):
            answer = served.get(path, headers=headers)
            assert answer.status_code == status
            assert ("www-authenticate" in answer.headers) == (status == 401)
        assert served.get("/health").status_code == 200


def test_a_token_may_have_any_letters(models):
    with client(models, token="clé") as served:
        for header, status in (("Bearer clé", 200), ("Bearer cle", 401)):
            answer = served.get("/metrics", headers={"authorization": header.encode()})
            assert answer.status_code == status


# --- models that change


def test_whatever_a_reload_raises_the_model_before_is_served(model, tmp_path, monkeypatch):
    def full(folder):
        raise MemoryError

    model_folder.write(tmp_path, model)
    models = Models({"first": tmp_path}, warm_up=False)
    monkeypatch.setattr("lsfa_jax.serving.service.models.model_folder.read", full)
    assert not models.reload("first")
    assert models.problems == {"first": "MemoryError"}
    assert models["first"].model.labels == model.labels


def test_a_changed_model_is_served_without_losing_a_request_and_a_damaged_one_is_not(model, tmp_path):
    model_folder.write(tmp_path, model)
    other = replace(model, labels=[f"new {label}" for label in model.labels])
    ended, answers = threading.Event(), []

    def ask_on(served):
        while not ended.is_set():
            answers.append(ask(served, text="word1", top=1))

    def wait_for(condition):
        until = time.monotonic() + 500
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.02)

    models = Models({"first": tmp_path}, warm_up=False)
    with client(models, watch_seconds=0.05) as served, ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask_on, served) for _ in range(2)]
        try:
            wait_for(lambda: len(answers) > 2)
            model_folder.write(tmp_path, other)
            wait_for(lambda: answers[-1].json()["predictions"][0]["labels"][0].startswith("new "))
            (tmp_path / "model.json").write_text("{}")
            wait_for(lambda: served.get("/health").json()["models"][0]["problem"])
            assert "model.json" in served.get("/health").json()["models"][0]["problem"]
            count = len(answers)
            wait_for(lambda: len(answers) > count + 2)
        finally:
            ended.set()
        for one in asking:
            one.result()
        metrics = served.get("/metrics").text
    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].json()["predictions"][0]["labels"][0] in LABELS
    assert answers[-1].json()["predictions"][0]["labels"][0].startswith("new ")
    assert 'lsfa_reloads_total{model="first",outcome="done"} 1.0' in metrics
    assert 'lsfa_reloads_total{model="first",outcome="refused"} 1.0' in metrics


# --- the page


def fill(client, file=None, **fields):
    files = {"file": file} if file else {"file": ("", b"")}
    return client.post("/", data=fields, files=files)


def table(html):
    data = re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', html)[1]
    return list(csv.reader(io.StringIO(base64.b64decode(data).decode())))


def test_the_page_shows_the_labels_of_a_text_with_its_words_and_a_table(served, models):
    empty = served.get("/").text
    assert '<form method="post"' in empty
    assert "<article" not in empty
    shown = fill(served, text="\nword1 word2", top="8").text
    assert shown.count("<article") == 1
    assert "\n\nword1 word2</textarea>" in shown
    assert '<span class="group tail" title="3 documents in training">tail 3</span>' in shown
    assert '<span class="group head" title="20 documents in training">head 20</span>' in shown
    assert shown.count('<p class="threshold">threshold 0.75</p>') == 1
    ((label_ids, probabilities),) = Predictor(models["first"].model).predict(["word1 word2"], 8)
    head, *rows = table(shown)
    assert head == ["document", "rank", "label", "probability"]
    assert [float(row[3]) for row in rows] == pytest.approx(probabilities.tolist(), rel=1e-5)
    names = [row[2] for row in rows]
    assert names == [f"'{FORMULA}" if label == 0 else LABELS[label] for label in label_ids]


def test_lines_and_files_are_several_texts(served):
    lines = fill(served, text="word1\n\nword2\n", lines="yes", above="yes", top="3").text
    assert re.findall(r"Document <bdi>(.*?)</bdi>", lines) == ["1", "2"]
    of_file = fill(served, ("x.csv", b"id,text\nfirst,word1 word2\nsecond,word3 word4\n"), text="ignored").text
    assert re.findall(r"Document <bdi>(.*?)</bdi>", of_file) == ["first", "second"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"text": " "}, "no text: paste one"),
        ({"text": "a", "top": "x"}, "labels a text: expected a number from 1 to 100"),
        ({"text": "a", "top": "000000001000000"}, "labels a text: expected a number from 1 to 100"),
        ({"text": "a\n" * 101, "lines": "yes"}, "more than 100 texts"),
        ({"file": (f"{SCRIPT}.csv", b"\x1f\x8b\x08 damaged")}, "damaged"),
        ({"text": "a", "model": SCRIPT}, "model: expected one of first, second"),
    ],
)
def test_what_is_wrong_with_a_form_is_shown_in_the_page(served, fields, problem):
    answer = fill(served, **fields)
    assert answer.status_code in (404, 422)
    shown = re.search(r'role="alert">(.*?)</p>', answer.text, re.DOTALL)[1]
    assert problem in shown
    assert SCRIPT not in answer.text


def test_a_form_that_is_none_is_an_error(served):
    assert served.post("/", content=b"text=a").status_code == 422
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert served.post("/", content=b"--y\r\n", headers=headers).status_code == 422


def test_nothing_of_a_text_or_label_becomes_markup(served):
    shown = fill(served, text=f'{SCRIPT} "</textarea><img src=x>', top="8").text
    assert "&lt;script&gt;" in shown
    for tag in ("<script", "<img", "</textarea><"):
        assert tag not in shown.replace("</textarea>\n", "")


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_and_run_no_script(served, path):
    answer = served.get(path)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"<script|<link|<img|src=|https?:", answer.text)
