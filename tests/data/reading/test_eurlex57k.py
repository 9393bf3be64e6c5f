import gzip
import json

import pytest

from lsfa_jax.data.reading import compression
from lsfa_jax.data.reading.splits import find_splits
from lsfa_jax.util.console import UserError
from tests.data.reading.files import read

LAW = {
    "celex_id": "31960D0712",
    "uri": "http://example.org",
    "type": "Decision",
    "concepts": ["1086", "1196"],
    "title": "A title",
    "header": "A header\n",
    "recitals": "",
    "main_body": ["Article 1", "Article 2"],
    "attachments": "Done",
}


@pytest.fixture
def eurlex(tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / split).mkdir()
        for name in ("b.json", "a.json"):
            (tmp_path / split / name).write_text(json.dumps({**LAW, "celex_id": f"{split}/{name}"}, indent=1))
    (tmp_path / "train" / "c.json.gz").write_bytes(gzip.compress(json.dumps(LAW).encode()))
    (tmp_path / "EURLEX57K.json").write_text("{}")
    return tmp_path


def test_eurlex_folder(eurlex):
    splits = find_splits(eurlex)
    assert splits == {
        split: eurlex / name for split, name in (("train", "train"), ("test", "test"), ("validation", "dev"))
    }
    documents, report = read(splits["train"])
    assert [row.id for row in documents] == ["train/a.json", "train/b.json", "31960D0712"]
    assert {row.text for row in documents} == {"A title\nA header\n\nArticle 1\nArticle 2\nDone"}
    assert {row.labels for row in documents} == {("1086", "1196")}
    assert report.summary() == "3 rows read, 3 kept"


def test_eurlex_documents_in_another_encoding(tmp_path):
    for number in range(2):
        law = {**LAW, "title": f"Décret {number}"}
        (tmp_path / f"{number}.json").write_text(json.dumps(law, ensure_ascii=False), encoding="cp1252")
    documents, _ = read(tmp_path, encoding="cp1252")
    assert [document.text.splitlines()[0] for document in documents] == ["Décret 0", "Décret 1"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        (json.dumps({"concepts": []}), "no text"),
        (json.dumps({"title": "x"}), "no list 'concepts'"),
        (json.dumps({**LAW, "concepts": [[1]]}), "a label in 'concepts' is not a string"),
        (json.dumps({**LAW, "main_body": [1]}), "'main_body' is not text"),
        (b'{"title": "\xe9"}', "invalid UTF-8"),
    ],
)
def test_eurlex_document_that_cannot_be_used(eurlex, content, reason):
    path = eurlex / "test" / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"a.json:1: {reason}: expected"):
        read(eurlex / "test")
    documents, report = read(eurlex / "test", bad_rows="skip")
    assert len(documents) == 1
    assert report.skipped == {reason: 1}


def test_eurlex_document_that_is_cut_off_or_too_long(eurlex, monkeypatch):
    path = eurlex / "train" / "c.json.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"c\.json\.gz:1: cannot be read further"):
        read(eurlex / "train")
    monkeypatch.setattr(compression, "MAX_LINE", 10)
    with pytest.raises(UserError, match=r"a.json:\d: the line is longer"):
        read(eurlex / "test")
