"""The corpora that have a name: what they are, where people get them, what their licence is."""

from dataclasses import dataclass

from lsfa_jax.data.generated import SHAPES


@dataclass(frozen=True)
class Entry:
    """A corpus with a name."""

    documents: str
    """Of training and test, for people."""
    labels: str
    origin: str
    licence: str
    expected: str = ""
    """What --data-dir has to hold, and where people get it; empty where the corpus brings its own documents."""


CATALOGUE = {
    "rcv1": Entry(
        documents="23,149 + 7,965",
        labels="102",
        origin="fetches itself",
        licence="Reuters, research only",
    ),
    "aapd": Entry(
        documents="54,840 + 1,000",
        labels="54",
        origin="SGM repository",
        licence="arXiv abstracts, see there",
        expected=(
            "text_train, label_train, text_val, label_val, text_test and label_test, as the repository lancopku/SGM of "
            "the paper that made AAPD (Yang et al., 2018) offers them"
        ),
    ),
    "eurlex4k": Entry(
        documents="11,585 + 3,865",
        labels="3,956",
        origin="AttentionXML's data",
        licence="EU reuse policy",
        expected=(
            "train_texts.txt, train_labels.txt, test_texts.txt and test_labels.txt (raw texts, labels separated by "
            "spaces), as in the EUR-Lex data of AttentionXML's repository; the extreme classification repository lists "
            "the corpus as EURLex-4K, mostly as numbers, which are no texts"
        ),
    ),
    "eurlex57k": Entry(
        documents="45,000 + 6,000",
        labels="4,271",
        origin="nlp.cs.aueb.gr",
        licence="CC BY-SA 4.0",
        expected=(
            "the folders train, dev and test of one JSON file a law (title, recitals, main_body, concepts), unpacked "
            "from the EURLEX57K archive that the group nlp.cs.aueb.gr made (Chalkidis et al., 2019) and archive.org "
            "keeps as 'EURLEX57K'"
        ),
    ),
    "synthetic": Entry(documents="2,400 + 2,000", labels="60", origin="made here", licence="free"),
    **{
        name: Entry(f"{shape.num_train:,} + {shape.num_test:,}", f"{shape.num_labels:,}", "made here", "free")
        for name, shape in SHAPES.items()
    },
}


def what_to_give(name: str) -> str:
    """Says what --data-dir has to hold for a corpus that does not bring its own documents."""
    own = CATALOGUE[name].expected if name in CATALOGUE else ""
    either = f"{own}; or " if own else ""
    return (
        f"--dataset {name} needs --data-dir, a folder with {either}train.jsonl and test.jsonl whose rows are "
        '{"labels": ["name", ...], "text": "..."}; or the same as .csv, .tsv, .parquet or text pairs, plain or '
        "compressed; or one such file"
    )
