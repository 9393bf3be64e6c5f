"""Files of every kind: orders of columns x spellings of label lists x delimiters x encodings x scripts x label names.

No label is ever invented: the labels of each document that are read are those that were written, or there is an error.
The environment variable LSFA_KINDS sets the number of combinations (2,000).
"""

import csv
import io
import json
import os
import random
import warnings

import pytest

from lsfa_jax.data.reading.documents import ReadReport, read_documents
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.util.console import UserError, quiet

NUMBER = int(os.environ.get("LSFA_KINDS", "2000"))
CHUNKS = 20

# Words of texts, which are never labels, and names of labels.
SCRIPTS = {
    "latin": ["lorry", "signal", "pump", "boiler", "soup", "oven", "rose", "hedge", "novel", "shelf", "crane", "dock"],
    "accents": ["café", "jardín", "über", "naïve", "señal", "bøker", "łódź", "čaj", "ölçü", "être", "más", "año"],
    "cyrillic": [
        "котёл",
        "насос",
        "книга",
        "полка",
        "суп",
        "печь",
        "роза",
        "кран",
        "порт",
        "поезд",
        "дорога",
        "сигнал",
    ],
    "greek": ["λέβητας", "αντλία", "βιβλίο", "ράφι", "σούπα", "φούρνος", "τριαντάφυλλο", "λιμάνι", "δρόμος", "σήμα"],
    "han": [
        "锅炉漏水",
        "图书目录",
        "玫瑰开花",
        "水泵噪音",
        "堆肥味道",
        "请尽快处理",
        "小说很受",
        "今天上午",
        "居民反映",
    ],
    "arabic": ["مضخة", "كتاب", "رف", "حساء", "فرن", "وردة", "رافعة", "ميناء", "طريق", "إشارة"],
}
LABELS = {
    "words": ["heating", "library", "traffic", "garden", "kitchen", "harbour"],
    "names": ["Road traffic", "Public library", "Garden", "Central heating", "Kitchen", "Old harbour"],
    "codes": ["C15", "GPOL", "M11", "E512", "CCAT", "G_1"],
    "numbers": ["0", "1", "2", "3", "14", "25"],
    "marks": ["C++", "C#", ".NET", "Physics (general)", "R&D", "A/B tests"],
    "commas": ["Heating, ventilation", "Road, rail", "Garden", "Books, rare", "Kitchen", "Harbour"],
    "scripts": ["暖气", "交通", "жильё", "Jardín", "موسيقى", "λιμάνι"],
    "uris": [f"http://example.org/t/{name}" for name in ("heating", "library", "traffic", "garden", "kitchen")],
}
SPELLINGS = {
    "semicolon": lambda labels: ";".join(labels),
    "semicolon space": lambda labels: "; ".join(labels),
    "bar": lambda labels: "|".join(labels),
    "comma": lambda labels: ",".join(labels),
    "comma space": lambda labels: ", ".join(labels),
    "space": lambda labels: " ".join(labels),
    "plus": lambda labels: " + ".join(labels),
    "line": lambda labels: "\n".join(labels),
    "python": lambda labels: repr(list(labels)),
    "json": lambda labels: json.dumps(list(labels)),
    "numpy": lambda labels: "[" + " ".join(map(repr, labels)) + "]",
    "tuple": lambda labels: repr(tuple(labels)),
    "set": lambda labels: "{" + ", ".join(map(repr, labels)) + "}" if labels else "set()",
    "bare": lambda labels: "[" + ", ".join(labels) + "]",
    "angles": lambda labels: " ".join(f"<{label}>" for label in labels),
    "single": lambda labels: labels[0] if labels else "",
    "dict": lambda labels: repr({label: float(label in labels) for label in sorted({*labels, "unused"})}),
}
ORDERS = [
    *(("text", "labels"), ("labels", "text"), ("id", "text", "labels"), ("id", "labels", "text")),
    *(("text", "labels", "id"), ("labels", "text", "id")),
]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "cp1252", "cp1251", "gb18030"]


def documents_of(choice, script, names, single):
    """40 documents with two or three words of their labels and others."""
    words, labels = SCRIPTS[script], LABELS[names]
    join = "" if script == "han" else " "
    rows = []
    for number in range(40):
        size = 1 if single else choice.choice([1, 1, 2, 2, 3])
        text = join.join(choice.choices(words, k=choice.randint(5, 14)))
        rows.append((f"{text}{join}{number}", tuple(choice.sample(labels, size))))
    return rows


def table(rows, order, header, delimiter, spell):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    if header:
        writer.writerow(header)
    for number, (text, labels) in enumerate(rows):
        cells = {"text": text, "labels": spell(labels), "id": f"d{number}"}
        writer.writerow([cells[name] for name in order])
    return file.getvalue()


def json_lines(rows, order, spell):
    lines = []
    for number, (text, labels) in enumerate(rows):
        cells = {"text": text, "labels": spell(labels) if spell else list(labels), "id": number}
        lines.append(json.dumps({name: cells[name] for name in order}, ensure_ascii=False))
    return "\n".join(lines)


def case(choice):
    """The content of a file in some kind, its options, its documents and a description."""
    script, names = choice.choice(list(SCRIPTS)), choice.choice(list(LABELS))
    order, spelling = choice.choice(ORDERS), choice.choice(list(SPELLINGS))
    form = choice.choice(["csv", "csv", "tsv", "jsonl", "json", "fasttext"])
    rows = documents_of(choice, script, names, single=spelling == "single")
    encoding = choice.choice(ENCODINGS)
    spell = SPELLINGS[spelling]
    header = [*order] if choice.random() < 0.5 else None
    if header and choice.random() < 0.3:
        header = [{"text": "Abstract", "labels": "Themes", "id": "id"}[name] for name in order]
    delimiter = "\t" if form == "tsv" else choice.choice([",", ";", "|"])
    if form in ("csv", "tsv"):
        content = table(rows, order, header, delimiter, spell)
    elif form == "jsonl":
        content = json_lines(rows, order, choice.choice([None, spell]))
    elif form == "json":
        content = "[\n" + ",\n".join(json_lines(rows, order, None).split("\n")) + "\n]"
    else:
        rows = [(text, tuple(label.replace(" ", "_") for label in labels)) for text, labels in rows]
        content = "\n".join(" ".join([*(f"__label__{label}" for label in labels), text]) for text, labels in rows)
    about = (form, delimiter, order, header, spelling, names, script, encoding)
    return content, encoding, rows, about


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_label_is_ever_invented(chunk):
    choice = random.Random(chunk)
    right = 0
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(NUMBER // CHUNKS):
            content, encoding, rows, about = case(choice)
            try:
                data = content.encode(encoding)
            except UnicodeEncodeError:
                data, encoding = content.encode(), "utf-8"
            given = encoding if encoding in ("cp1252", "cp1251", "gb18030") else "auto"
            try:
                options = ReadOptions(encoding=given)
                documents = list(read_documents(io.BytesIO(data), options=options, report=ReadReport()))
            except UserError:
                continue
            expected = [(text, set(labels)) for text, labels in rows]
            assert [(document.text, set(document.labels)) for document in documents] == expected, about
            right += 1
    # Errors are for what cannot be told apart: most kinds are read.
    assert right >= 0.5 * (NUMBER // CHUNKS)
