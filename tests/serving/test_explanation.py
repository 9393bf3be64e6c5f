import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER
from lsfa_jax.serving.explanation import About, Explained, Pages, Scale
from lsfa_jax.util.atomic import TextFiles

SCRIPT = "<script>alert('x')</script> & \"quoted\""
ABOUT = About(title="Why", model=SCRIPT, source="texts.csv", scale=Scale(max_words=4, threshold=0.5, head_threshold=10))
VOID = {"meta", "input", "br"}
KINDS = ("tail-predicted", "none-predicted", "missing", "none-predicted missing", "")


class Page(HTMLParser):
    """The page as a browser parses it: documents with their labels, text and the words that carry attention."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.documents, self.links, self.tags, self.attributes = [], [], {}, set(), []
        self.title = self.css = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def inside(self, tag, css_class=None):
        return any(tag == name and css_class in (None, attributes.get("class")) for name, attributes in self.open)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.attributes += attributes.items()
        if tag == "article":
            self.documents.append({"name": "", "inputs": [], "labels": [], "text": "", "unread": "", "words": []})
        if tag == "input" and self.inside("article"):
            self.documents[-1]["inputs"].append(attributes)
        if tag == "label" and self.inside("article"):
            self.documents[-1]["labels"].append({"for": attributes["for"], "text": ""})
        if tag == "span" and "style" in attributes and self.inside("p", "text"):
            self.documents[-1]["words"].append([attributes["style"], ""])
        if tag == "a":
            self.links[attributes["rel"]] = attributes["href"]
        if tag not in VOID:
            self.open.append((tag, attributes))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.inside("style"):
            self.css += data
        if self.inside("title"):
            self.title += data
        if not self.inside("article"):
            return
        document = self.documents[-1]
        if self.inside("h2"):
            document["name"] += data
        if self.inside("label"):
            document["labels"][-1]["text"] += data
        if self.inside("p", "text"):
            document["unread" if self.inside("s") else "text"] += data
            if self.open[-1][0] == "span":
                document["words"][-1][1] += data


def explained(text, labels=("one", "two"), probabilities=(0.9, 0.25), attention=None, name="1", max_words=4):
    spans = DEFAULT_TOKENIZER.spans(text)[:max_words]
    if attention is None:
        attention = np.full((len(labels), len(spans)), 1 / max(1, len(spans)))
    return Explained(
        name, DEFAULT_TOKENIZER.normalised(text), labels, probabilities, spans, np.asarray(attention, np.float32)
    )


def write(folder, documents, per_page=100, name="out.html"):
    with TextFiles() as files:
        pages = Pages(folder / name, per_page, ABOUT, files)
        for document in documents:
            pages.add(document)
        pages.end()
    return pages.written


def page(folder, documents):
    write(folder, documents)
    return Page((folder / "out.html").read_text())


def test_words_carry_the_attention_of_each_label_relative_to_its_strongest_word(tmp_path):
    attention = [[0.5, 0.25, 0.25, 0], [0, 0, 0.001, 0.999]]
    shown = page(tmp_path, [explained("Red, green blue: RED!", attention=attention, name="CELEX:7")])
    (document,) = shown.documents
    assert document["name"] == "Document CELEX:7"
    assert document["text"] == "Red, green blue: RED!"[: -len("!")]
    assert document["words"] == [
        ["--a1:1", "Red"],
        ["--a1:0.5", "green"],
        ["--a1:0.5", "blue"],
        ["--a2:1", "RED"],
    ]
    # The labels with their words, repeated ones added up, for users who do not see colours.
    assert [" ".join(label["text"].split()) for label in document["labels"]] == [
        "0.90 one red 50% green 25% blue 25%",
        "0.25 two red 100%",
    ]
    # Each label's button colours with its numbers; the first is chosen.
    assert "input:nth-of-type(2):checked ~ .text span { --w: var(--a2, 0); }" in shown.css
    assert [button["type"] for button in document["inputs"]] == ["radio", "radio"]
    assert [button["id"] for button in document["inputs"]] == [label["for"] for label in document["labels"]]
    assert len({button["name"] for button in document["inputs"]}) == 1
    assert ["checked" in button for button in document["inputs"]] == [True, False]


def test_votes_stand_beside_their_label_and_are_explained(tmp_path):
    votes = [[(SCRIPT, 1.234), ("blue", 0.5)], []]
    shown = page(tmp_path, [explained("Red", attention=[[1], [1]])._replace(votes=votes), explained("a")])
    first, second = shown.documents
    assert [" ".join(label["text"].split()) for label in first["labels"]] == [
        f"0.90 one red 100% votes: {SCRIPT} +1.23 blue +0.50",
        "0.25 two red 100%",
    ]
    assert not any("votes" in label["text"] for label in second["labels"])
    assert "script" not in shown.tags
    assert "the votes of the linear model" in (tmp_path / "out.html").read_text()
    page(tmp_path, [explained("a")])
    assert "the votes of the linear model" not in (tmp_path / "out.html").read_text()


def test_the_threshold_is_drawn_above_the_first_label_below_it(tmp_path):
    page(tmp_path, [explained("a", ("x", "y", "z"), (0.9, 0.5, 0.4), np.ones((3, 1)))])
    html = (tmp_path / "out.html").read_text()
    above, below = html.split('<p class="threshold">threshold 0.50</p>')
    assert [name for name in "xyz" if f"<bdi>{name}</bdi>" in above] == ["x", "y"]
    assert "<bdi>z</bdi>" in below
    page(tmp_path, [explained("a", ("x",), (0.5,), np.ones((1, 1)))])
    assert 'class="threshold"' not in (tmp_path / "out.html").read_text()


def test_a_label_is_marked_as_head_or_tail_with_its_training_documents(tmp_path):
    shown = page(tmp_path, [explained("Red", attention=[[1], [1]])._replace(counts=[1234, 1]), explained("a")])
    first, second = shown.documents
    assert [" ".join(label["text"].split()) for label in first["labels"]] == [
        "0.90 one head 1,234 red 100%",
        "0.25 two tail 1 red 100%",
    ]
    assert " ".join(second["labels"][0]["text"].split()) == "0.90 one a 100%"
    assert ("title", "1,234 documents in training") in shown.attributes
    assert ("title", "1 document in training") in shown.attributes


def test_documents_can_be_selected_and_labels_be_compared_on_one_scale(tmp_path):
    attention = [[0.5, 0.25], [0.1, 0.2]]
    tail, head, none = (
        explained("Red, blue", probabilities=p, attention=attention) for p in ((0.9, 0.8), (0.9, 0.2), (0.1, 0))
    )
    counts = [50, 3]
    shown = page(tmp_path, [tail._replace(counts=counts), head._replace(counts=counts), none])
    articles = [value for name, value in shown.attributes if name == "class" and value in KINDS]
    assert articles == ["tail-predicted", "", "none-predicted"]
    assert ("style", "--s1:0.5;--s2:0.2") in shown.attributes
    assert "--w: min(1, 4 * var(--a2, 0) * var(--s2)); }" in shown.css
    assert {value for name, value in shown.attributes if name == "id"} >= {"absolute", "with-tail", "without-label"}
    # One document needs no selection.
    assert "with-tail" not in {value for _, value in page(tmp_path, [none]).attributes}


def test_true_labels_are_marked_and_those_that_are_missed(tmp_path):
    text = "Red, blue"
    right, missed, unlisted, unknown = (
        explained(text, ("one", "two"), (0.9, 0.2))._replace(truth=truth)
        for truth in (("one",), ("one", "two"), ("three", SCRIPT), None)
    )
    none = explained(text, ("one",), (0.1,))._replace(truth=("one",))
    shown = page(tmp_path, [right, missed, unlisted, unknown, none])
    marks = [
        [re.search("(true|missed|) red", " ".join(label["text"].split()))[1] for label in document["labels"]]
        for document in shown.documents
    ]
    assert marks == [["true", ""], ["true", "missed"], ["", ""], ["", ""], ["missed"]]
    articles = [value for name, value in shown.attributes if name == "class" and value in KINDS]
    assert articles == ["", "missing", "missing", "", "none-predicted missing"]
    html = (tmp_path / "out.html").read_text()
    names = "<bdi>three</bdi>, <bdi>&lt;script&gt;"
    assert f'<span class="group missed">missed</span> and not listed: {names}' in html
    assert html.count("and not listed") == 1
    assert ("id", "with-missed") in shown.attributes
    # Where no label is known, nothing speaks of true ones.
    page(tmp_path, [unknown, unknown])
    assert "missed" not in (tmp_path / "out.html").read_text().split("</style>")[1]


def test_words_beyond_the_models_reach_are_marked(tmp_path):
    texts = ["one two three four five, six.", "one two.", "one two three four" + " more" * 1000]
    read, short, long = page(tmp_path, [explained(text) for text in texts]).documents
    assert (read["text"], read["unread"]) == ("one two three four", " five, six.")
    assert (short["text"], short["unread"]) == ("one two.", "")
    assert long["unread"] == (" more" * 400 + " … (3,000 more characters)")


def test_nothing_of_a_text_or_label_becomes_markup(tmp_path):
    labels = [SCRIPT, '"><img src=x onerror=alert(1)>']
    shown = page(tmp_path, [explained(SCRIPT, labels, name=SCRIPT), explained("a\0b <!-- ]]> &amp; \u2028")])
    first, second = shown.documents
    assert first["text"] + first["unread"] == SCRIPT
    assert first["name"] == f"Document {SCRIPT}"
    assert first["labels"][0]["text"].startswith(f"0.90 {SCRIPT} ")
    assert second["text"] + second["unread"] == "a\0b <!-- ]]> &amp; \u2028"
    assert not shown.tags & {"script", "img", "iframe", "object", "link"}
    assert not [name for name, _ in shown.attributes if name.startswith("on")]


def test_a_page_has_no_external_resources(tmp_path):
    shown = page(tmp_path, [explained("some text")])
    assert not [(name, value) for name, value in shown.attributes if name in ("src", "href", "srcset", "action")]
    assert not re.search(r"url\(|@import|http", shown.css)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in shown.attributes
    assert shown.title == "Why"


def test_texts_without_words_and_documents_without_labels(tmp_path):
    documents = [explained(""), explained("... !!"), explained("some words", (), (), np.zeros((0, 2)))]
    empty, punctuation, unlabelled = page(tmp_path, documents).documents
    assert (empty["text"], empty["words"], len(empty["labels"])) == ("", [], 2)
    assert (punctuation["text"], punctuation["words"]) == ("... !!", [])
    assert (unlabelled["text"], unlabelled["words"], unlabelled["labels"]) == ("some words", [], [])
    html = (tmp_path / "out.html").read_text()
    assert html.count("The text is empty.") == 1
    assert html.count("No label reaches the threshold.") == 1


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (1, 1), (2, 1), (3, 2), (5, 3)])
def test_documents_go_to_pages_that_link_to_each_other(tmp_path, count, pages):
    name = "why? 50%.htm"
    assert write(tmp_path, [explained("a b", name=str(i)) for i in range(count)], per_page=2, name=name) == pages
    names = [name, *(f"why? 50%-{number}.htm" for number in range(2, pages + 1))]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    shown = [Page((tmp_path / name).read_text()) for name in names]
    assert [document["name"] for one in shown for document in one.documents] == [f"Document {i}" for i in range(count)]
    links = [{rel: unquote(href) for rel, href in one.links.items()} for one in shown]
    assert [link.get("next") for link in links] == [*(f"./{name}" for name in names[1:]), None]
    assert [link.get("prev") for link in links] == [None, *(f"./{name}" for name in names[:-1])]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.text(max_size=5), st.data())
def test_any_text_is_on_the_page_unchanged(tmp_path, text, label, data):
    text = DEFAULT_TOKENIZER.normalised(text)
    spans = DEFAULT_TOKENIZER.spans(text)[:4]
    weights = data.draw(st.lists(st.floats(0, 1, width=32), min_size=len(spans), max_size=len(spans)))
    (document,) = page(tmp_path, [explained(text, [label], [0.5], [weights])]).documents
    shown = document["text"] + document["unread"]
    # HTML has one kind of line end.
    assert shown.rstrip() == re.sub("\r\n?", "\n", text).rstrip()
    assert all(word in [text[start:end] for start, end in spans] for _, word in document["words"])
