"""From settings to a corpus: which sources a name stands for; prepared once, kept in the cache."""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from lsfa_jax.config import Config
from lsfa_jax.data import build_corpus, cache, named, synthetic
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.held_out import draw_test_split
from lsfa_jax.data.pieces import Pieces, folder_of, read_tokenizer
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.reading.documents import Document, ReadReport, read_documents
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.data.reading.splits import Source, files_of, find_splits
from lsfa_jax.data.same_text import Rows, same_texts
from lsfa_jax.data.tokenizer import Tokenizer
from lsfa_jax.util import console
from lsfa_jax.util.cache_dir import cache_dir
from lsfa_jax.util.console import UserError, note

# Increased when the same documents and settings would give other arrays, or the folder another form.
_FORMAT = 7

# Settings that change nothing in the arrays, or only where a split is drawn.
_OTHER_SETTINGS = {"length_buckets", "validation_fraction", "test_fraction", "verify", "label_names"}

Sources = Mapping[str, Sequence[Source]]
"""What each split that the corpus has is read from; nothing where it is generated."""


def load_corpus(config: Config, prints: bool = True, known: Sequence[str] = (), tokenizer: str = "") -> Corpus:
    """Returns the corpus that the settings name, from the cache or prepared now.

    Args:
        config: the corpus and how its texts are read.
        prints: whether to print what was read and what was skipped.
        known: words that the vocabulary begins with.
        tokenizer: of word pieces as JSON, in place of that of the pretrained encoder that the settings name.

    Raises:
        UserError: a file is missing or a row cannot be read, or the name and the folder do not go together.
    """
    entry = named.entry(config.dataset)
    pieces = load_pieces(config, tokenizer)
    if config.data_dir and not entry.needs_data_dir:
        raise UserError(
            f"--data-dir: {config.dataset} brings its documents with it; use --dataset custom for the folder's"
        )
    if entry.shape and entry.in_memory:
        train, test = (synthetic.documents(entry.shape, config.seed, split) for split in ("train", "test"))
        return in_memory(config, config.dataset, train, test, pieces, known)
    sources = _sources(config)
    folder = cache.folder(
        config.dataset,
        _inputs(config, sources, pieces, known),
        lambda empty: _prepare(config, sources, empty, pieces, known),
        sources=[*_files(sources), *_label_names_file(config)],
        verify=config.data.verify,
    )
    if prints:
        build_corpus.print_notes(folder)
        _print_reports(config, folder)
    corpus = build_corpus.read(folder, config.corpus_name, pieces=pieces)
    size = (corpus.published_documents, len(corpus.test), corpus.num_labels)
    if entry.size and size != entry.size:
        raise UserError(
            f"{config.dataset}: has {size[0]:,} training and {size[1]:,} test documents and {size[2]} labels, expected "
            f"{entry.size[0]:,}, {entry.size[1]:,} and {entry.size[2]}; remove {cache_dir() / config.dataset} and "
            "start again"
        )
    return corpus


def in_memory(
    config: Config,
    name: str,
    train: Iterable[Document],
    test: Iterable[Document] = (),
    pieces: Pieces | None = None,
    known: Sequence[str] = (),
) -> Corpus:
    """Prepares documents in memory, as the settings say; validation documents are held out of the training ones.

    Args:
        config: how texts are read.
        name: of the corpus.
        train: training documents.
        test: test documents.
        pieces: of the pretrained encoder that the settings name (`load_pieces`).
        known: words that the vocabulary begins with.
    """
    return build_corpus.build(
        name,
        train,
        test,
        None,
        max_words=config.data.max_words,
        max_vocabulary=config.data.max_vocabulary,
        validation_fraction=config.data.validation_fraction,
        seed=config.seed,
        tokenizer=Tokenizer.from_settings(config.data),
        pieces=pieces,
        known=known,
    )


def read_split(config: Config, split: Literal["train", "test"]) -> Iterator[Document]:
    """Yields the documents of the published training split or of the test split again, where their texts are needed.

    They are those of `load_corpus`, in its order: rows of one document are merged.

    Raises:
        UserError: the files that the settings name are missing or cannot be read.
    """
    sources = _sources(config)
    drawn = "test" not in sources
    source = "train" if drawn else split
    plan = _plan(config, sources, source, drawn)
    reports: list[tuple[str, ReadReport]] = []
    with console.progress(f"Reading {config.corpus_name} ({split})", None, unit="documents") as advance:
        documents = console.counted(_documents(config, sources, source, reports), advance)
        for number, document in enumerate(documents):
            if plan is None:
                yield document
            elif plan.is_first[number] and plan.in_test[number] == (split == "test"):
                yield document._replace(labels=plan.labels(number))
    for path, report in reports:
        note(f"{path}: {report.summary()}")


class _Plan(NamedTuple):
    """Which of the N rows of a source are documents, with which labels, and which of them were drawn as test."""

    is_first: np.ndarray
    in_test: np.ndarray
    label_ids: Ragged
    names: list[str]

    def labels(self, row: int) -> tuple[str, ...]:
        """Returns the labels of the document that begins at a row."""
        return tuple(self.names[label] for label in self.label_ids.row(row))


def _plan(config: Config, sources: Sources, source: str, drawn: bool) -> _Plan | None:
    """Reads a source to see which rows are one document; None where each is one and none is drawn as test."""
    rows = Rows(Tokenizer.from_settings(config.data), config.data.max_words)
    with console.quiet():
        for document in _documents(config, sources, source, []):
            if len(document.labels) > 1 and not drawn:
                return None
            rows.add(document)
    is_first, label_ids = rows.documents()
    in_test = np.zeros(len(rows), bool)
    if drawn:
        same_text = same_texts(rows.digests[is_first])
        in_test[is_first] = draw_test_split(len(same_text), config.data.test_fraction, config.seed, same_text)
    elif source == "test":
        in_test[:] = True
    return _Plan(is_first, in_test, label_ids, list(rows.label_ids))


def prepared_folder(config: Config) -> Path:
    """Returns the path of the cache's folder for the corpus that the settings name, whether or not it exists."""
    return cache.path(config.dataset, _inputs(config, _sources(config), load_pieces(config)))


def load_pieces(config: Config, tokenizer: str = "") -> Pieces | None:
    """Returns the vocabulary of the pretrained encoder that the settings name; None where texts are words.

    Args:
        config: all settings.
        tokenizer: as JSON; "" for the one that the encoder's folder has.

    Raises:
        UserError: the encoder is not there, or has no tokenizer.
    """
    _check_encoder(config)
    if not config.encoder.pretrained:
        return None
    tokenizer = tokenizer or read_tokenizer(folder_of(config.encoder.pretrained))
    return Pieces(tokenizer, Tokenizer.from_settings(config.data), config.data.max_words)


def _sources(config: Config) -> Sources:
    entry = named.entry(config.dataset)
    if entry.shape:
        return {"train": (), "test": ()}
    if entry.fetch:
        return entry.fetch()
    named.check_data_dir(config.dataset, config.data_dir)
    return {split: [source] for split, source in find_splits(Path(config.data_dir).expanduser()).items()}


def _files(sources: Sources) -> list[Path]:
    """Lists the files of all splits."""
    return [path for split in sorted(sources) for source in sources[split] for path in files_of(source)]


def _label_names_file(config: Config) -> list[Path]:
    return [Path(config.data.label_names).expanduser()] if config.data.label_names else []


def _check_encoder(config: Config) -> None:
    """Raises UserError where settings of the encoder contradict each other."""
    encoder = config.encoder
    if encoder.kind == "transformer" and not encoder.pretrained:
        raise UserError("encoder.kind transformer: name its weights, with --encoder minilm or --encoder FOLDER")
    if encoder.pretrained and encoder.kind != "transformer":
        raise UserError(
            f"encoder.pretrained {encoder.pretrained}: weights of a transformer, and encoder.kind is {encoder.kind}; "
            "choose one of them with --encoder"
        )
    if encoder.train != "all" and not encoder.pretrained:
        raise UserError(
            f"--encoder.train {encoder.train}: {encoder.kind} starts from random weights, so all of it is trained; "
            "choose a pretrained encoder with --encoder minilm or --encoder FOLDER"
        )
    if encoder.pretrained and config.vectors != "none":
        raise UserError(f"--vectors {config.vectors}: a pretrained encoder has its word pieces' vectors; leave it out")
    if encoder.pretrained and encoder.embedding_trainable != "yes":
        raise UserError(
            f"--encoder.embedding-trainable {encoder.embedding_trainable}: not for a pretrained encoder, of which "
            "--encoder.train says what is trained; the released profile has no such encoder"
        )
    if encoder.attention == "lsan" and (encoder.kind != "bilstm" or encoder.append_embedding):
        raise UserError(
            "--encoder.attention lsan: attends to the two directions of a BiLSTM; add --encoder bilstm "
            "--encoder.no-append-embedding"
        )


def _inputs(config: Config, sources: Sources, pieces: Pieces | None, known: Sequence[str] = ()) -> dict[str, object]:
    """Returns everything that decides the arrays: the content of the files, and the settings that matter with them."""

    def content(split: str) -> list[tuple[str, str]]:
        return [(path.name, _digest(path)) for source in sources[split] for path in files_of(source)]

    data, shape = config.data, named.entry(config.dataset).shape
    fractions = {"validation": data.validation_fraction, "test": data.test_fraction}
    drawn = {split: fraction for split, fraction in fractions.items() if split not in sources}
    library = (
        {"library": version("tokenizers"), "pieces": sha256(pieces.content.encode()).hexdigest()} if pieces else {}
    )
    of_known = {"known": sha256("\n".join(known).encode()).hexdigest()} if known else {}
    return (
        library
        | of_known
        | {
            "format": _FORMAT,
            "files": {split: sha256(json.dumps(content(split)).encode()).hexdigest() for split in sorted(sources)},
            "drawn": drawn,
            "seed": config.seed if drawn else None,
            "synthetic": [synthetic.FORMAT, *astuple(shape), config.seed] if shape else None,
            "settings": data.model_dump(exclude=_OTHER_SETTINGS),
            "label_names": [_digest(path) for path in _label_names_file(config)],
            # Another version of Unicode may have more letters.
            "unicode": unicodedata.unidata_version,
        }
    )


def _digest(path: Path) -> str:
    try:
        return cache.digest(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check the path.") from None


def _prepare(config: Config, sources: Sources, folder: Path, pieces: Pieces | None, known: Sequence[str]) -> None:
    reports: list[tuple[str, ReadReport]] = []
    with console.progress(f"Preparing {config.corpus_name}", None, unit="documents") as advance:

        def documents(split: str) -> Iterator[Document] | None:
            if split not in sources:
                return None
            return console.counted(_documents(config, sources, split, reports), advance)

        build_corpus.write(
            folder,
            documents("train") or (),
            documents("test"),
            documents("validation"),
            max_words=config.data.max_words,
            max_vocabulary=config.data.max_vocabulary,
            validation_fraction=config.data.validation_fraction,
            test_fraction=config.data.test_fraction,
            seed=config.seed,
            name=config.corpus_name,
            tokenizer=Tokenizer.from_settings(config.data),
            pieces=pieces,
            known=known,
        )
    content = {"root": _root(config), "lines": [f"{source}: {report.summary()}" for source, report in reports]}
    (folder / "read.json").write_text(json.dumps(content), encoding="utf-8")


def _documents(
    config: Config, sources: Sources, split: str, reports: list[tuple[str, ReadReport]]
) -> Iterator[Document]:
    """Yields the documents of a split; adds a report for each of its sources."""
    entry = named.entry(config.dataset)
    if entry.shape:
        yield from synthetic.documents(entry.shape, config.seed, split)
    # The settings about the format are for --data-dir: a corpus that was fetched has a known one.
    options = ReadOptions(bad_rows=config.data.bad_rows) if entry.fetch else ReadOptions.from_settings(config.data)
    for source in sources[split]:
        reports.append((str(source), ReadReport()))
        yield from read_documents(source, options=options, report=reports[-1][1])


def _root(config: Config) -> str:
    return str(Path(config.data_dir).absolute() if config.data_dir else cache_dir())


def _print_reports(config: Config, folder: Path) -> None:
    content = json.loads((folder / "read.json").read_text(encoding="utf-8"))
    for line in content["lines"]:
        # The same files may have been elsewhere when they were read.
        note(line.replace(content["root"], _root(config)))
