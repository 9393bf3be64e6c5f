"""The pages in a browser: what a user pastes, clicks and types; nothing is logged as an error or asked of others."""

import shutil
import socket
import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("python_multipart", reason="the extra serve is not installed")

import uvicorn
from playwright import sync_api

from lsfa_jax.cli import predict
from lsfa_jax.serving.service.app import Service
from lsfa_jax.serving.service.limits import Limits
from lsfa_jax.serving.service.models import Models
from lsfa_jax.training import model_folder
from tests import training_corpus

WORDS = [f"word{i}" for i in range(20)]
LABELS = [f"label {i}" for i in range(training_corpus.NUM_LABELS)]
TEXT = "word1 word2, word3!\nword4 word5"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model = training_corpus.trained_model(WORDS, LABELS, (8,), 0.5)
    model_folder.write(folder, replace(model, label_counts=np.repeat([20, 3], len(LABELS) // 2)))
    return folder


@pytest.fixture(scope="module")
def browser():
    """A Chromium of this machine."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium starts: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture
def page(browser):
    """A page that must not log an error nor ask for anything but the document's address."""
    context = browser.new_context(viewport={"width": 900, "height": 700})
    context.set_default_timeout(10_000)
    opened, problems, hosts = context.new_page(), [], set()
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("requestfailed", lambda request: problems.append(request.url))
    opened.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    yield opened
    assert problems == []
    assert len(hosts - {""}) <= 1  # data: and file: addresses have none
    context.close()


@pytest.fixture
def address(run):
    """The service at a free port."""
    service = Service(Models({"first": run}, warm_up=False), limits=Limits(), batch_size=8)
    server = uvicorn.Server(uvicorn.Config(service.app, lifespan="on", log_config=None))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


def colours(page, article):
    """Returns the background of each word of a document."""
    return article.locator(".text span").evaluate_all("words => words.map(w => getComputedStyle(w).backgroundColor)")


def check_labels(page):
    """Chooses labels of the first document with the mouse and with keys: the words change their colours."""
    article = page.locator("article").first
    assert article.locator("label").count() == 5
    first = colours(page, article)
    article.locator("label").nth(1).click()
    second = colours(page, article)
    assert len(first) == 5
    assert first != second
    page.keyboard.press("ArrowUp")
    assert article.locator("input").first.is_checked()
    assert colours(page, article) == first


def test_a_text_is_pasted_into_the_page_of_the_service(page, address):
    page.goto(address)
    page.get_by_label("Text", exact=True).fill(TEXT)
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Show labels").press("Enter")
    page.wait_for_selector("#results")
    assert page.get_by_label("Text", exact=True).input_value() == TEXT
    check_labels(page)
    with page.expect_download() as download:
        page.get_by_text("All labels as CSV").click()
    assert download.value.suggested_filename == "labels.csv"
    page.get_by_text("For programs there is an API").click()
    sync_api.expect(page).to_have_title("API of the service")


def test_an_explanation_page_follows_keys_filters_and_the_dark_mode(page, run, tmp_path):
    texts, out = tmp_path / "texts.csv", tmp_path / "why.html"
    texts.write_text('text,labels\n"word1 word2 word3 word4 word5",label 1\n"word6 word7",label 2\n')
    line = [
        "--run",
        str(run),
        str(texts),
        "--label-separator",
        ";",
        "--output",
        str(tmp_path / "out.jsonl"),
        "--explain",
        str(out),
    ]
    assert predict.main(line) == 0
    page.goto(out.as_uri())
    check_labels(page)
    page.get_by_label("with a missed label").check()
    shown = [article.is_visible() for article in page.locator("article").all()]
    assert shown == [article.locator(".missed").count() > 0 for article in page.locator("article").all()]
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.set_viewport_size({"width": 360, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
