"""The row of a corpus in the paper's Table 1."""

from dataclasses import astuple, dataclass

from lsfa_jax.data.corpus import Corpus


@dataclass(frozen=True)
class TableRow:
    """A row of Table 1. 'Training' is the published split, documents held out for validation included."""

    num_train: int
    """N_trn, training documents."""
    num_test: int
    """N_tst, test documents."""
    num_words: int | None
    """D_vocab, distinct words; None where texts are read as word pieces."""
    num_labels: int
    """L, labels that occur in any split."""
    labels_per_document: float
    """L_avg, labels a training document."""
    documents_per_label: float
    """N_avg, training documents a label, over the labels that training has."""
    train_length: float
    """W_trn, words a training document, before texts are cut."""
    test_length: float
    """W_tst, words a test document, before texts are cut."""

    def shown(self) -> list[str]:
        """Formats the numbers, in the order of the table."""
        return ["-" if x is None else f"{x:,}" if isinstance(x, int) else f"{x:,.2f}" for x in astuple(self)]


HEADER = ("N_trn", "N_tst", "D_vocab", "L", "L_avg", "N_avg", "W_trn", "W_tst")

_PRINTED = {
    "aapd": TableRow(54_840, 1_000, 69_399, 54, 2.41, 2444.04, 163.42, 171.65),
    "rcv1": TableRow(23_149, 781_265, 47_236, 103, 3.18, 729.67, 259.47, 269.23),
    "eurlex4k": TableRow(11_585, 3_865, 171_120, 3_956, 5.32, 15.59, 1225.20, 1248.07),
}

PAPER = _PRINTED | {
    "synthetic-aapd": _PRINTED["aapd"],
    "synthetic-rcv1": _PRINTED["rcv1"],
    "synthetic-eurlex": _PRINTED["eurlex4k"],
}
"""Table 1 as printed; eurlex4k is its EUR-Lex. A generated corpus is compared with the one whose shape it has."""


def table_row(corpus: Corpus) -> TableRow:
    """Computes the row; D_vocab are the words of the model's vocabulary, of the documents that are trained on."""
    pairs = int(corpus.published_counts.sum())
    documents, tests = corpus.published_documents, len(corpus.test)
    return TableRow(
        num_train=documents,
        num_test=tests,
        num_words=None if corpus.pieces else len(corpus.words),
        num_labels=len(corpus.labels),
        labels_per_document=pairs / documents,
        documents_per_label=pairs / corpus.num_labels,
        train_length=corpus.published_words / documents,
        test_length=corpus.test_words / tests if tests else 0.0,
    )
