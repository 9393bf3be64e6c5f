"""From settings to a corpus: which source a name stands for, what was read, word vectors."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from lsfa_jax.config import Config
from lsfa_jax.console import UserError, note
from lsfa_jax.data import corpus, readers, sources, synthetic, vectors
from lsfa_jax.data.readers import Document, ReadOptions, ReadReport, Source
from lsfa_jax.data.vocabulary import NUM_SPECIAL, PADDING

_SYNTHETIC_TRAIN = 2_400
_SYNTHETIC_TEST = 2_000


def load_corpus(config: Config) -> corpus.Corpus:
    """Reads the corpus that the settings name and prints what was read.

    Raises:
        UserError: a file is missing or a row cannot be read, or the name and the folder do not go together.
    """
    reports: list[tuple[Source, ReadReport]] = []

    options = ReadOptions(bad_rows=config.data.bad_rows)

    def read(source: Source, options: ReadOptions = options) -> Iterator[Document]:
        report = ReadReport()
        reports.append((source, report))
        return readers.read_documents(source, options=options, report=report)

    validation = None
    if config.dataset in ("synthetic", "rcv1") and config.data_dir:
        raise UserError(
            f"--data-dir: {config.dataset} brings its own documents; say --dataset custom to use the folder's"
        )
    if config.dataset == "synthetic":
        train = synthetic.documents(_SYNTHETIC_TRAIN, seed=config.seed, split=0)
        test = synthetic.documents(_SYNTHETIC_TEST, seed=config.seed, split=1)
    elif config.dataset == "rcv1":
        files = {name: read(path) for name, path in sources.rcv1_files().items()}
        # The copy splits the official 23,149 training documents into train and dev.
        train, test = chain(files["train"], files["dev"]), files["test"]
    else:
        if not config.data_dir:
            raise UserError(
                f"--dataset {config.dataset} needs --data-dir, a folder with train.jsonl and test.jsonl whose rows are "
                '{"labels": ["name", ...], "text": "..."}; .gz and .xz are read too'
            )
        splits = readers.find_splits(Path(config.data_dir))
        if "test" not in splits:
            raise UserError(f"{config.data_dir}: no file for the test split; expected test.jsonl, test.csv or the like")
        train, test = read(splits["train"]), read(splits["test"])
        validation = read(splits["validation"]) if "validation" in splits else None
    built = corpus.build(
        config.dataset,
        train,
        test,
        validation,
        max_words=config.data.max_words,
        max_vocabulary=config.data.max_vocabulary,
        validation_fraction=config.data.validation_fraction,
        seed=config.seed,
    )
    for path, report in reports:
        note(f"{path}: {report.summary()}")
    if config.dataset == "rcv1":
        _check_rcv1(built)
    return built


def _check_rcv1(built: corpus.Corpus) -> None:
    found = (built.published_documents, len(built.test), built.num_labels)
    if found != (23_149, 7_965, 101):
        raise UserError(
            f"rcv1: found {found[0]:,} training and {found[1]:,} test documents and {found[2]} labels, expected "
            f"23,149, 7,965 and 101; remove {sources.cache_dir() / 'rcv1'} and start again"
        )


def load_embedding(config: Config, words: list[str]) -> np.ndarray:
    """Makes the word vector table, float32[vocabulary size, E], the padding's vector zero; prints the coverage."""
    loaded = vectors.load_vectors(config.vectors, words, config.seed, config.encoder.embedding_size)
    if config.vectors != "none":
        share = 100 * loaded.found.mean() if len(words) else 0.0
        note(f"Word vectors {config.vectors}: {loaded.found.sum():,} of {len(words):,} words found ({share:.1f} %)")
    table = np.zeros((NUM_SPECIAL + len(words), loaded.table.shape[1]), np.float32)
    table[NUM_SPECIAL:] = loaded.table
    # The unknown word is the mean of the others: nothing is known of it but that it is a word.
    table[PADDING + 1] = loaded.table.mean(axis=0) if len(words) else 0.0
    return table
