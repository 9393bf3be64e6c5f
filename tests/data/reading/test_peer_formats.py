"""Files as the tools that users come from write them, each small and with the right result."""

import csv
import gzip
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from lsfa_jax.data.reading.splits import Files, find_splits
from lsfa_jax.util.console import UserError
from tests.data.reading.files import read, write

NAMES = ["heating", "library", "traffic"]
# Texts of eight words and their labels; each label occurs in many rows.
ROWS = [
    (f"the old pump in place {number} was noted today", [NAMES[i] for i in range(3) if (number + i) % (i + 2) == 0])
    for number in range(24)
]
ROWS = [(text, labels or ["library"]) for text, labels in ROWS]
DOCUMENTS = [(text, tuple(labels)) for text, labels in ROWS]


def documents(source, **options):
    return [(document.text, document.labels) for document in read(source, **options)[0]]


def table(rows, delimiter=",", **dialect):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, **dialect).writerows(rows)
    return file.getvalue()


def stream(content):
    return io.BytesIO(content if isinstance(content, bytes) else content.encode())


def indicators(labels, one="1", zero="0"):
    return [one if name in labels else zero for name in NAMES]


@pytest.mark.parametrize(("one", "zero"), [("1", "0"), ("True", "False"), ("1.0", "0.0"), ("x", "")])
def test_columns_of_0_and_1_are_labels(one, zero, capsys):
    content = table([["id", "comment", *NAMES], *([i, t, *indicators(x, one, zero)] for i, (t, x) in enumerate(ROWS))])
    assert documents(stream(content)) == DOCUMENTS
    assert "labels are the 3 columns of 0 and 1 'heating', 'library', 'traffic'" in capsys.readouterr().out
    without_traffic = [(text, tuple(x for x in labels if x != "traffic")) for text, labels in ROWS]
    assert documents(stream(content), label_columns="heating..library") == without_traffic
    assert documents(stream(content), label_columns="heat*,library") == without_traffic
    with pytest.raises(
        UserError, match=r"'heating' holds only 0 and 1, as 3 columns do.* --data.label-columns 'heating..traffic'"
    ):
        documents(stream(content), labels_field="heating")
    with pytest.raises(UserError, match=r"no column 'x\.\.y' \(--data.label-columns\); there are 'id', 'comment'"):
        documents(stream(content), label_columns="x..y")


def test_one_column_of_0_and_1_is_read_as_labels_with_a_warning(capsys):
    content = table([["text", "label"], *([text, i % 2] for i, (text, _) in enumerate(ROWS))])
    assert {labels for _, labels in documents(stream(content))} == {("0",), ("1",)}
    assert (
        "warning: standard input: column 'label' holds only '0' and '1', which become the labels"
        in capsys.readouterr().out
    )


def test_a_value_that_is_not_0_or_1_is_a_bad_row():
    content = table([["text", *NAMES], ["some words", 1, 0, 0], ["other words", -1, -1, -1]])
    with pytest.raises(UserError, match="standard input:3: column 'heating' holds a value for its label that is not 0"):
        documents(stream(content), label_columns="heating..traffic")


def test_several_columns_of_text_and_of_labels():
    header = ["title", "abstract", "label1", "label2", "label3"]
    rows = [[f"Title {i}", text, *labels, *[""] * (3 - len(labels))] for i, (text, labels) in enumerate(ROWS)]
    expected = [(f"Title {i}\n{text}", labels) for i, (text, labels) in enumerate(DOCUMENTS)]
    for labels_field in ("label1,label2,label3", "label*"):
        assert (
            documents(stream(table([header, *rows])), text_field="title,abstract", labels_field=labels_field)
            == expected
        )


@pytest.mark.parametrize("delimiter", ["\t", ",", ";", "|"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 0, 1), (2, 1, 0), (0, 1, 2)])
def test_a_table_without_a_header_is_read_by_its_content(delimiter, order, capsys):
    mark = "," if delimiter != "," else ";"
    rows = [[(text, mark.join(labels), f"d{i}")[place] for place in order] for i, (text, labels) in enumerate(ROWS)]
    assert documents(stream(table(rows, delimiter))) == DOCUMENTS
    out = capsys.readouterr().out
    assert f"labels from 'column {order.index(1) + 1}' separated by {mark!r}" in out
    assert f"first document: {ROWS[0][0]!r} -> 'heating'" in out
    unlabelled = read(stream(table(rows, delimiter)), labelled=False)[0]
    assert [(document.text, document.labels) for document in unlabelled] == [(text, ()) for text, _ in ROWS]
    assert f"not read: 'column {order.index(1) + 1}'" in capsys.readouterr().out


def test_columns_that_are_alike_are_refused_with_the_option_that_names_them():
    rows = [[f"{a} b", f"{a} c"] for a in "abcdefgh"]
    with pytest.raises(UserError, match=r"not clear which of its 2 columns.* --data.columns text,labels"):
        documents(stream(table(rows)))
    assert documents(stream(table(rows)), columns="labels,text", label_separator="none")[0] == ("a c", ("a b",))
    with pytest.raises(UserError, match=r"--data.columns text,labels,id: the rows have 2 columns"):
        documents(stream(table(rows)), columns="text,labels,id")
    two = [[text, text.replace("pump", "stove"), labels[0]] for text, labels in ROWS]
    with pytest.raises(UserError, match=r"more than one column looks like the text. .*--data.text-field a,b"):
        documents(stream(table([["a", "b", "topic"], *two])))


def test_columns_of_equal_names_can_be_named():
    content = table([["text", "labels", "text"], *([text, labels[0], "x"] for text, labels in ROWS)])
    with pytest.raises(UserError, match=r"'text' and 'text' both could hold the text. .*--data.columns text,labels,-"):
        documents(stream(content))
    assert documents(stream(content), columns="text,labels,-") == [(text, (labels[0],)) for text, labels in ROWS]


def test_a_column_that_contradicts_its_name_is_refused():
    content = table([["text", "abstract", "label"], *([i, text, labels[0]] for i, (text, labels) in enumerate(ROWS))])
    with pytest.raises(UserError, match=r"column 'text' holds '0', and 'abstract' looks like the text"):
        documents(stream(content))
    content = table([["text", "label"], *([labels[0], text] for text, labels in ROWS)])
    with pytest.raises(UserError, match=r"column 'label' looks like a text, as in 'the old"):
        documents(stream(content))


def test_commas_within_labels_are_not_taken_for_separators():
    labels = ["Heating, ventilation", "Road, rail", "Garden"]
    content = table([["text", "label"], *([text, labels[i % 3]] for i, (text, _) in enumerate(ROWS))])
    with pytest.raises(UserError, match=r"hold ',', but what it separates never occurs apart, as in 'Heating, vent"):
        documents(stream(content))
    assert {x for _, (x,) in documents(stream(content), label_separator="none")} == set(labels)


def test_excel_mysql_and_joined_files():
    joined = table([["text", "labels"], *([text, "|".join(labels)] for text, labels in ROWS)], ";")
    assert documents(stream("sep=;\r\n" + joined)) == DOCUMENTS
    assert documents(stream(joined + joined)) == DOCUMENTS * 2
    report = read(stream(joined + joined))[1]
    assert report.notes["repeated header, left out"] == 1
    assert (report.read, report.kept) == (48, 48)
    # SELECT ... INTO OUTFILE ... FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '"'
    rows = [f'{i},"the \\"old\\" pump, in place {i}","{";".join(labels)}"' for i, (_, labels) in enumerate(ROWS)]
    rows[3] = '3,"the \\"old\\" pump, in place 3",\\N'
    read_rows = documents(stream("\n".join(rows)))
    assert read_rows[1] == ('the "old" pump, in place 1', DOCUMENTS[1][1])
    assert read_rows[3] == ('the "old" pump, in place 3', ())
    # COPY ... TO of PostgreSQL
    lines = [f"{i}\told\\tpump,\\nin place {i} \\\\ noted\t{labels[0]}" for i, (_, labels) in enumerate(ROWS)]
    lines[3] = "3\tthe old pump in place 3\t\\N"
    read_rows = documents(stream("\n".join(lines)))
    assert read_rows[1] == ("old\tpump,\nin place 1 \\ noted", (ROWS[1][1][0],))
    assert read_rows[3] == ("the old pump in place 3", ())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_text_with_a_byte_order_mark_is_read(encoding):
    content = "text\tlabels\n" + "".join(f"{text} café\t{labels[0]}\n" for text, labels in ROWS)
    assert documents(stream(content.encode(encoding)))[0] == (f"{ROWS[0][0]} café", (ROWS[0][1][0],))


def test_another_encoding_is_named_and_read():
    content = "text,labels\n" + "".join(f"{text} — café,{labels[0]}\n" for text, labels in ROWS)
    data = content.encode("cp1252")
    message = r"24 of the first 24 lines .* not UTF-8.* cp1252 reads '— café,heating'.* Set --data.encoding"
    with pytest.raises(UserError, match=message):
        documents(stream(data))
    assert documents(stream(data), encoding="cp1252")[0] == (f"{ROWS[0][0]} — café", ("heating",))
    with pytest.raises(UserError, match=r"--data.encoding utf-99: expected auto, or an encoding such as cp1252"):
        documents(stream(data), encoding="utf-99")
    chinese = "text,labels\n锅炉漏水请尽快处理,暖气\n".encode("gb18030")
    assert documents(stream(chinese), encoding="gb18030") == [("锅炉漏水请尽快处理", ("暖气",))]
    # A byte that the encoding lacks costs its row alone.
    cut, report = read(stream(b"text,labels\ngood,a\nbad \x81,a\n"), encoding="cp1252", bad_rows="skip")
    assert [document.text for document in cut] == ["good"]
    assert report.skipped == {"invalid UTF-8": 1}


def test_pandas_to_json_in_all_forms():
    frame = {"text": [text for text, _ in ROWS], "labels": [labels for _, labels in ROWS]}
    index = [str(i) for i in range(len(ROWS))]
    records = [{"text": text, "labels": labels} for text, labels in ROWS]
    forms = {
        "records": records,
        "columns": {name: dict(zip(index, values, strict=True)) for name, values in frame.items()},
        "index": dict(zip(index, records, strict=True)),
        "split": {"columns": ["text", "labels"], "index": index, "data": [[text, labels] for text, labels in ROWS]},
        "table": {"schema": {"fields": []}, "data": records},
        "lists": frame,
    }
    for name, content in forms.items():
        for indent in (None, 1):
            assert documents(stream(json.dumps(content, indent=indent))) == DOCUMENTS, name
    assert documents(stream("\n".join(map(json.dumps, records)))) == DOCUMENTS
    values = json.dumps([[text, labels] for text, labels in ROWS], indent=1)
    assert documents(stream(values), columns="text,labels") == DOCUMENTS
    with pytest.raises(
        UserError, match=r"standard input:4: not JSON .*Expected one JSON object a line, or one JSON array"
    ):
        documents(stream('[\n{"text": "a"},\n{"text": \n]'))
    with pytest.raises(UserError, match="is one JSON document, and no table"):
        documents(stream('{\n"text": "a",\n"labels": 3\n}'))


def test_numbers_scores_and_multi_hot_lists_are_labels_in_json_and_parquet(tmp_path, capsys):
    numbers = [[NAMES.index(name) for name in labels] for _, labels in ROWS]
    hot = [[int(name in labels) for name in NAMES] for _, labels in ROWS]
    cats = [{name: float(name in labels) for name in NAMES} for _, labels in ROWS]
    flags = [{name: name in labels for name in NAMES} for _, labels in ROWS]
    texts = [text for text, _ in ROWS]
    by_number = [(text, tuple(map(str, row))) for text, row in zip(texts, numbers, strict=True)]
    for values, expected in ((numbers, by_number), (hot, by_number), (cats, DOCUMENTS)):
        rows = [{"text": text, "labels": value} for text, value in zip(texts, values, strict=True)]
        assert documents(stream("\n".join(map(json.dumps, rows)))) == expected
        pq.write_table(pa.table({"text": texts, "labels": values}), tmp_path / "x.parquet")
        assert documents(tmp_path / "x.parquet") == expected
    assert "lists of 0 and 1 with a place for each of 3" in capsys.readouterr().out
    rows = [{"text": text} | flag for text, flag in zip(texts, flags, strict=True)]
    assert documents(stream("\n".join(map(json.dumps, rows)))) == DOCUMENTS
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert documents(tmp_path / "x.parquet") == DOCUMENTS
    content = table([["text", "labels"], *([text, str(row)] for text, row in zip(texts, hot, strict=True))])
    assert documents(stream(content)) == by_number


@pytest.mark.parametrize("kind", ["Sequence", "List", "ClassLabel"])
def test_class_names_in_the_metadata_of_parquet_are_used(tmp_path, kind):
    classes = {"names": NAMES, "_type": "ClassLabel"}
    feature = classes if kind == "ClassLabel" else {"feature": classes, "_type": kind}
    numbers = [[NAMES.index(name) for name in labels] for _, labels in ROWS]
    values = [row[0] for row in numbers] if kind == "ClassLabel" else numbers
    columns = pa.table({"text": [text for text, _ in ROWS], "labels": values})
    info = json.dumps({"info": {"features": {"labels": feature}}})
    pq.write_table(columns.replace_schema_metadata({"huggingface": info}), tmp_path / "x.parquet")
    expected = [(text, labels[:1]) for text, labels in DOCUMENTS] if kind == "ClassLabel" else DOCUMENTS
    assert documents(tmp_path / "x.parquet") == expected


def test_pecos_folders(tmp_path):
    numbers = [[NAMES.index(name) for name in labels] for _, labels in ROWS]
    lines = [f"{','.join(map(str, row))}\t{text}" for (text, _), row in zip(ROWS, numbers, strict=True)]
    write(tmp_path, train__txt="\n".join(lines), names__txt="\n".join(NAMES) + "\n")
    by_number = [(text, tuple(map(str, row))) for (text, _), row in zip(ROWS, numbers, strict=True)]
    assert documents(find_splits(tmp_path)["train"]) == by_number
    assert documents(find_splits(tmp_path)["train"], label_names=str(tmp_path / "names.txt")) == DOCUMENTS

    folder = tmp_path / "npz"
    folder.mkdir()
    hot = np.array([[name in labels for name in NAMES] for _, labels in ROWS], np.float32)
    for split in ("trn", "tst"):
        (folder / f"X.{split}.txt").write_text("".join(f"{text}\n" for text, _ in ROWS))
        sparse.save_npz(folder / f"Y.{split}.npz", sparse.csr_matrix(hot))
    splits = find_splits(folder)
    assert sorted(splits) == ["test", "train"]
    assert documents(splits["train"]) == by_number
    assert len(documents(splits["train"], labelled=False)) == len(ROWS)
    (folder / "Z.all.txt").write_text("\n".join(NAMES) + "\n")
    assert documents(find_splits(folder)["test"]) == DOCUMENTS
    (folder / "X.tst.txt").write_text("one\n")
    with pytest.raises(UserError, match="different numbers of texts and of rows"):
        documents(find_splits(folder)["test"])
    (folder / "Y.trn.npz").write_bytes(b"PK\x03\x04 no matrix")
    with pytest.raises(UserError, match=r"Y\.trn\.npz: is no sparse matrix that can be read"):
        documents(find_splits(folder)["train"])


def test_the_repository_of_extreme_classification(tmp_path):
    lines = [
        json.dumps(
            {
                "uid": f"u{i}",
                "title": f"Title {i}",
                "content": text,
                "target_ind": [NAMES.index(x) for x in labels],
                "target_rel": [1.0] * len(labels),
            }
        )
        for i, (text, labels) in enumerate(ROWS)
    ]
    for name in ("trn", "tst"):
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    titles = "\n".join(json.dumps({"uid": name, "title": name}) for name in NAMES)
    (tmp_path / "lbl.json.gz").write_bytes(gzip.compress(titles.encode()))
    splits = find_splits(tmp_path)
    assert splits["train"] == Files((tmp_path / "trn.json.gz",), names=tmp_path / "lbl.json.gz")
    expected = [(f"Title {i}\n{text}", labels) for i, (text, labels) in enumerate(DOCUMENTS)]
    assert documents(splits["train"]) == documents(splits["test"]) == expected
    (tmp_path / "lbl.json.gz").unlink()
    assert documents(find_splits(tmp_path)["train"])[0][1] == tuple(str(NAMES.index(x)) for x in ROWS[0][1])


def test_annif_corpora_and_vocabularies(tmp_path):
    uris = {name: f"http://example.org/t/{name}" for name in NAMES}
    lines = ["\t".join([text, " ".join(f"<{uris[name]}>" for name in labels)]) for text, labels in ROWS]
    write(tmp_path, short__tsv="\n".join(lines))
    assert documents(tmp_path / "short.tsv") == [(text, tuple(uris[x] for x in labels)) for text, labels in ROWS]
    vocabulary = write(tmp_path, vocab__tsv="".join(f"<{uri}>\t{name}\n" for name, uri in uris.items())) / "vocab.tsv"
    assert documents(tmp_path / "short.tsv", label_names=str(vocabulary)) == DOCUMENTS
    in_csv = "uri,notation,label_en\n" + "".join(f"{uri},,{name}\n" for name, uri in uris.items())
    (tmp_path / "vocab.csv").write_text(in_csv)
    assert documents(tmp_path / "short.tsv", label_names=str(tmp_path / "vocab.csv")) == DOCUMENTS
    # A row without the id, which stands last, is left out.
    (tmp_path / "vocab.csv").write_text("label,uri\nshort\n" + "".join(f"{name},{uri}\n" for name, uri in uris.items()))
    assert documents(tmp_path / "short.tsv", label_names=str(tmp_path / "vocab.csv")) == DOCUMENTS

    folder = tmp_path / "full"
    folder.mkdir()
    for number, (text, labels) in enumerate(ROWS):
        (folder / f"doc{number:02}.txt").write_text(f"{text}\n")
        subjects = "".join(f"<{uris[name]}>\t{name}\n" for name in labels)
        keys = "".join(f"{name}\n" for name in labels)
        (folder / f"doc{number:02}.{'tsv' if number % 2 else 'key'}").write_text(subjects if number % 2 else keys)
    (folder / "notes.txt").write_text("no subjects\n")
    assert find_splits(folder) == {"train": folder}
    rows, report = read(folder)
    assert [(document.text, document.labels) for document in rows] == DOCUMENTS
    assert [document.id for document in rows][:2] == ["doc00", "doc01"]
    assert report.kept == len(ROWS)
    assert len(read(folder, labelled=False)[0]) == len(ROWS) + 1


def test_names_of_labels_that_contradict_each_other(tmp_path):
    write(tmp_path, names__txt="a\tx\na\ty\n", same__txt="x\nx\nz\n", empty__txt="\n")
    with pytest.raises(UserError, match="'a' has two names, 'x' and 'y'"):
        documents(stream('{"text": "t", "labels": ["a"]}'), label_names=str(tmp_path / "names.txt"))
    rows = '{"text": "t", "labels": [0, 1, 2]}'
    assert documents(stream(rows), label_names=str(tmp_path / "same.txt")) == [("t", ("x (0)", "x (1)", "z"))]
    with pytest.raises(UserError, match="holds no names of labels"):
        documents(stream(rows), label_names=str(tmp_path / "empty.txt"))


def test_lists_that_were_shortened_when_they_were_printed_are_refused():
    content = table([["text", "labels"], ["a b c d", "['x' 'y']"], ["e f g h", "['x' 'y' ... 'z']"]])
    with pytest.raises(UserError, match=r"a list that was shortened when it was printed"):
        documents(stream(content))
    content = table([["text", "labels"], ["a b c d", "['x', 'y']"], ["e f g h", "x"]])
    with pytest.raises(
        UserError, match=r"the labels of some rows are lists, as in .* those of others are not, as in 'x'"
    ):
        documents(stream(content))


def test_the_first_line_of_prose_is_no_header(tmp_path):
    lines = ["I agree,", "so do I,", "nobody else, though,"]
    assert [document.text for document in read(stream("\n".join(lines)), labelled=False)[0]] == lines
    rows = [["", ROWS[0][0]], *([labels[0], text] for text, labels in ROWS)]
    assert documents(stream(table(rows)))[0] == (ROWS[0][0], ())


def test_a_csv_to_predict_is_a_table_whatever_it_holds(tmp_path):
    texts = [text for text, _ in ROWS]
    for name, rows in {
        "one.csv": [["question"], *([text] for text in texts)],
        "many.csv": [["Nr", "What did you like?"], *([i, f"{text}\nand more, too"] for i, text in enumerate(texts))],
        "bare.csv": [[i, f"{text}, too"] for i, text in enumerate(texts)],
    }.items():
        (tmp_path / name).write_text(table(rows), newline="")
        read_rows = read(tmp_path / name, labelled=False)[0]
        assert len(read_rows) == len(texts)
        assert all(document.text.startswith("the old pump") for document in read_rows)


def test_a_first_row_that_may_be_names_or_a_document():
    rows = [["What did you like about the course in the end?", "Code"], *([text, labels[0]] for text, labels in ROWS)]
    with pytest.raises(
        UserError, match=r"not clear whether the first row .* Set --data.header yes or --data.header no"
    ):
        documents(stream(table(rows)))
    expected = [(text, (labels[0],)) for text, labels in ROWS]
    assert documents(stream(table(rows)), header="yes") == expected
    assert documents(stream(table(rows)), header="no") == [(rows[0][0], ("Code",)), *expected]
    assert documents(stream(table([["0", "1"], *rows[1:]]))) == expected
    assert documents(stream(table([["A report"], ["Review", "Topic"], *rows[1:]]))) == expected
    assert documents(stream(table([["Review", ""], *rows[1:]]))) == expected


def test_marks_that_may_separate_labels_are_asked_about():
    labels = ["farm", "trade", "law", "ship", "work", "art"]
    for mark in ("#", "/", "::", " - ", "·"):
        pairs = [mark.join([labels[i % 6], labels[(i * i + 1) % 6], labels[(i + 4) % 6]]) for i in range(24)]
        content = table([["text", "labels"], *([text, pair] for (text, _), pair in zip(ROWS, pairs, strict=True))])
        with pytest.raises(UserError, match="which may be a part of them or separate them"):
            documents(stream(content))
        assert documents(stream(content), label_separator=mark.strip())[0][1] == tuple(
            dict.fromkeys(pairs[0].split(mark))
        )
    names = ["CIVIL LAW", "TAX LAW", "ARTICLE 5"]
    content = table([["text", "label"], *([text, names[i % 3]] for i, (text, _) in enumerate(ROWS))])
    with pytest.raises(UserError, match="hold only white space"):
        documents(stream(content))


@pytest.mark.parametrize(("first", "later"), [("python", "python#java"), ("a,b", "a;b"), ("python", "python/java")])
def test_a_mark_that_occurs_below_the_first_rows_only_is_a_bad_row(first, later):
    rows = [["text", "labels"], *([f"some words {i}", first if i % 2 else "b"] for i in range(1_100)), ["words", later]]
    with pytest.raises(UserError, match=r"standard input:1102: more than one label perhaps"):
        documents(stream(table(rows)))


def test_columns_with_the_same_labels_are_not_dropped():
    for names in (("label", "label_2"), ("tags", "")):
        rows = [[text, labels[0], labels[-1]] for text, labels in ROWS]
        with pytest.raises(UserError, match=r"hold the same labels. For all of them set --data.labels-field '"):
            documents(stream(table([["text", *names], *rows])))


def test_quotes_around_all_labels_are_removed(capsys):
    content = table([["text", "label"], *([text, f"'{labels[0]}'"] for text, labels in ROWS)])
    assert documents(stream(content)) == [(text, (labels[0],)) for text, labels in ROWS]
    assert "without the quotes around labels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%PDF-1.7\n", "is a PDF"),
        (b"<?xml version='1.0'?>", "is XML"),
        (b"\x80\x05\x95pickled", "is a Python pickle, which is never loaded"),
        (b"{'text': 'a', 'labels': ['b']}\n" * 3, "Python dictionaries, with single quotes, not JSON"),
        ("text,labels\n日本語,暖気\n".encode("iso2022_jp"), "is in ISO-2022-JP. Set --data.encoding iso2022_jp"),
    ],
)
def test_files_of_other_kinds_are_named(content, message):
    for labelled in (True, False):
        with pytest.raises(UserError, match=message):
            documents(stream(content), labelled=labelled)


def test_fasttext_prefixes_in_tables_and_at_the_end_of_lines(tmp_path):
    expected = [(text, (labels[0],)) for text, labels in ROWS]
    for rows in (
        [["label", "text"], *([f"__label__{labels[0]}", text] for text, labels in ROWS)],
        [[f"__label__{labels[0]}", text] for text, labels in ROWS],
    ):
        (tmp_path / "x.csv").write_text(table(rows), newline="")
        assert documents(tmp_path / "x.csv") == expected
    assert documents(stream("\n".join(f"{text} __label__{labels[0]}" for text, labels in ROWS))) == expected
    with pytest.raises(
        UserError, match="a label is not separated from the text by a space, as in '__label__heating,the'"
    ):
        documents(stream("\n".join(f"__label__{labels[0]},{text}" for text, labels in ROWS)))


def test_a_folder_with_one_file_is_a_corpus(tmp_path):
    write(tmp_path, mine__jsonl="\n".join(json.dumps({"text": text, "labels": labels}) for text, labels in ROWS))
    assert documents(find_splits(tmp_path)["train"]) == DOCUMENTS
    write(tmp_path, test__jsonl="{}")
    assert find_splits(tmp_path) == {"train": tmp_path / "mine.jsonl", "test": tmp_path / "test.jsonl"}


def test_an_encoding_that_the_file_does_not_have_is_named():
    with pytest.raises(UserError, match=r"standard input: is not in the encoding utf-16 .* Leave the option out"):
        documents(stream("text,labels\na b,c\n"), encoding="utf-16")


def test_objects_within_objects_are_named():
    rows = [{"id": i, "data": {"text": text}, "result": [{"choices": labels}]} for i, (text, labels) in enumerate(ROWS)]
    with pytest.raises(UserError, match="write one object for each document without objects inside it"):
        documents(stream("\n".join(map(json.dumps, rows))))


def test_joined_files_with_byte_order_marks():
    content = "\ufeff" + table([["text", "labels"], *([text, labels[0]] for text, labels in ROWS)])
    assert documents(stream(content * 2)) == [(text, (labels[0],)) for text, labels in ROWS] * 2
