"""The corpora that have a name: what they are, where their documents come from, what their licence is.

A new one is an entry of CATALOGUE and a file configs/NAME.toml.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lsfa_jax.data import download
from lsfa_jax.data.reading.splits import Source
from lsfa_jax.data.synthetic import SHAPES, Shape
from lsfa_jax.util.console import UserError


@dataclass(frozen=True)
class Entry:
    """A corpus with a name. Its documents are fetched (`fetch`), generated (`shape`), or in --data-dir (`contents`)."""

    documents: str
    """Numbers of training and test documents, for the list of corpora."""
    labels: str
    """Number of labels, for the list of corpora."""
    origin: str
    licence: str
    contents: str = ""
    """What --data-dir has to hold, and where to get it."""
    fetch: Callable[[], Mapping[str, Sequence[Source]]] | None = None
    """Fetches the corpus where the cache lacks it and returns the sources of each split."""
    shape: Shape | None = None
    """Of the generated documents."""
    in_memory: bool = False
    """Whether the documents are generated at every start, in less than a second, and the cache does not keep them."""
    size: tuple[int, int, int] | None = None
    """Training documents, test documents and labels in training that a fetched corpus has to have."""

    @property
    def needs_data_dir(self) -> bool:
        return self.fetch is None and self.shape is None


def _rcv1() -> dict[str, list[Source]]:
    files = download.rcv1_files()
    # The copy splits the official 23,149 training documents into train and dev.
    return {"train": [files["train"], files["dev"]], "test": [files["test"]]}


CATALOGUE = {
    "rcv1": Entry(
        documents="23,149 + 7,965",
        labels="102",
        origin="fetched",
        licence="for research only",
        fetch=_rcv1,
        size=(23_149, 7_965, 101),
    ),
    "aapd": Entry(
        documents="54,840 + 1,000",
        labels="54",
        origin="SGM repository",
        licence="see arXiv",
        contents=(
            "text_train, label_train, text_val, label_val, text_test and label_test, as the repository lancopku/SGM of "
            "the paper that introduced AAPD (Yang et al., 2018) offers them"
        ),
    ),
    "eurlex4k": Entry(
        documents="11,585 + 3,865",
        labels="3,956",
        origin="AttentionXML",
        licence="EU reuse policy",
        contents=(
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
        contents=(
            "the folders train, dev and test of one JSON file a law (title, recitals, main_body, concepts), unpacked "
            "from the EURLEX57K archive of the group nlp.cs.aueb.gr (Chalkidis et al., 2019), which archive.org keeps "
            "as 'EURLEX57K'"
        ),
    ),
    **{
        name: Entry(
            documents=f"{shape.num_train:,} + {shape.num_test:,}",
            labels=f"{shape.num_labels:,}",
            origin="generated",
            licence="free",
            shape=shape,
            in_memory=shape.num_train < 10_000,
        )
        for name, shape in SHAPES.items()
    },
}


def entry(name: str) -> Entry:
    """Returns the entry of a corpus; for one without an entry, such as 'custom', an empty one."""
    return CATALOGUE.get(name, Entry(documents="", labels="", origin="", licence=""))


def check_data_dir(name: str, data_dir: str) -> None:
    """Raises UserError where a corpus needs a --data-dir and has none; the message says what that has to hold."""
    if data_dir or not entry(name).needs_data_dir:
        return
    contents = entry(name).contents
    either = f"{contents}; or " if contents else ""
    raise UserError(
        f"--dataset {name} needs --data-dir, a folder with {either}train.jsonl and test.jsonl whose rows are "
        '{"labels": ["name", ...], "text": "..."}; or the same as .csv, .tsv, .parquet or text pairs, plain or '
        "compressed; or one such file"
    )
