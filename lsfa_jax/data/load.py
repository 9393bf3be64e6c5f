"""From settings to a corpus and word vectors: which source a name stands for, what was read; prepared once."""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lsfa_jax.config import Config, Data
from lsfa_jax.data import build_corpus, cache, download, generated, synthetic, word_vectors
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.named import what_to_give
from lsfa_jax.data.reading import documents
from lsfa_jax.data.reading.documents import Document, Files, ReadOptions, ReadReport, Source
from lsfa_jax.data.vocabulary import NUM_SPECIAL, PADDING
from lsfa_jax.util import console
from lsfa_jax.util.console import UserError, note

_SYNTHETIC_TRAIN = 2_400
_SYNTHETIC_TEST = 2_000

# Raised by one when the same documents and settings would give other arrays.
_FORMAT = 1

_OWN_DOCUMENTS = ("synthetic", "rcv1", *generated.SHAPES)


def load_corpus(config: Config) -> Corpus:
    """Returns the corpus that the settings name, prepared before or now, and prints what was read.

    Raises:
        UserError: a file is missing or a row cannot be read, or the name and the folder do not go together.
    """
    if config.dataset in _OWN_DOCUMENTS and config.data_dir:
        raise UserError(
            f"--data-dir: {config.dataset} brings its own documents; say --dataset custom to use the folder's"
        )
    if config.dataset == "synthetic":
        train = synthetic.documents(_SYNTHETIC_TRAIN, seed=config.seed, split=0)
        test = synthetic.documents(_SYNTHETIC_TEST, seed=config.seed, split=1)
        return build_corpus.build(
            config.dataset,
            train,
            test,
            None,
            max_words=config.data.max_words,
            max_vocabulary=config.data.max_vocabulary,
            validation_fraction=config.data.validation_fraction,
            seed=config.seed,
        )
    splits = _sources(config)
    folder = cache.folder(config.dataset, _decides(config, splits), lambda empty: _prepare(config, splits, empty))
    build_corpus.say(folder)
    _say_what_was_read(config, folder)
    corpus = build_corpus.read(folder, config.dataset)
    if config.dataset == "rcv1":
        _check_rcv1(corpus)
    return corpus


def read_split(config: Config, split: Literal["train", "test"]) -> Iterator[Document]:
    """Yields the documents of the published training split or of the test split again, where their texts are needed.

    Raises:
        UserError: the files that the settings name are missing or cannot be read.
    """
    if config.dataset == "synthetic":
        number, sizes = ("train", "test").index(split), (_SYNTHETIC_TRAIN, _SYNTHETIC_TEST)
        yield from synthetic.documents(sizes[number], seed=config.seed, split=number)
        return
    splits = _sources(config)
    from_train = split == "test" and "test" not in splits
    in_test = None if "test" in splits else _drawn(config, splits)
    reports: list[tuple[str, ReadReport]] = []
    with console.progress(f"Reading {config.dataset} ({split})", None, unit="documents") as advance:
        documents = _counted(_documents(config, splits, "train" if from_train else split, reports), advance)
        for number, document in enumerate(documents):
            if in_test is None or in_test[number] == from_train:
                yield document
    for source, report in reports:
        note(f"{source}: {report.summary()}")


def _drawn(config: Config, splits: dict[str, list[Source]]) -> np.ndarray:
    """Returns which documents of a corpus without a test split were drawn as test documents, bool[N]."""
    with console.quiet():
        number = sum(1 for _ in _documents(config, splits, "train", []))
    return build_corpus.drawn(number, config.data.test_fraction, config.seed)


def prepared_folder(config: Config) -> Path:
    """Returns where the cache keeps the corpus that the settings name, or would keep it."""
    return cache.path(config.dataset, _decides(config, _sources(config)))


def _sources(config: Config) -> dict[str, list[Source]]:
    """Returns what each split that the corpus has is read from; nothing where it is generated."""
    if config.dataset in generated.SHAPES:
        return {"train": [], "test": []}
    if config.dataset == "rcv1":
        files = download.rcv1_files()
        # The copy splits the official 23,149 training documents into train and dev.
        return {"train": [files["train"], files["dev"]], "test": [files["test"]]}
    if not config.data_dir:
        raise UserError(what_to_give(config.dataset))
    return {split: [source] for split, source in documents.find_splits(Path(config.data_dir).expanduser()).items()}


def _files(source: Source) -> list[Path]:
    if isinstance(source, Files):
        return [*source.texts, *([source.labels] if source.labels else [])]
    if not isinstance(source, Path):
        raise TypeError(source)
    return sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]


def _decides(config: Config, splits: dict[str, list[Source]]) -> dict[str, Any]:
    """Names all that decides the arrays: the bytes of the files, and those settings that these files give a say."""

    def content(split: str) -> list[tuple[str, str]]:
        return [(path.name, _digest(path)) for source in splits[split] for path in _files(source)]

    data, shape = config.data, generated.SHAPES.get(config.dataset)
    draws = {"validation": data.validation_fraction, "test": data.test_fraction}
    held_out = {split: fraction for split, fraction in draws.items() if split not in splits}
    return {
        "format": _FORMAT,
        "files": {split: sha256(json.dumps(content(split)).encode()).hexdigest() for split in sorted(splits)},
        "held_out": held_out,
        "seed": config.seed if held_out else None,
        "generated": [generated.FORMAT, *astuple(shape), config.seed] if shape else None,
        # Batches are made from the prepared corpus: how they are padded changes nothing in it.
        "settings": data.model_dump(exclude={"length_buckets", "validation_fraction", "test_fraction"}),
        # Another version of Unicode may have other letters.
        "unicode": unicodedata.unidata_version,
    }


def _digest(path: Path) -> str:
    try:
        return cache.digest(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check the path.") from None


def read_options(data: Data) -> ReadOptions:
    """Returns what the settings say about the format of the files."""
    return ReadOptions(
        format=data.format,
        text_field=data.text_field,
        labels_field=data.labels_field,
        label_separator=data.label_separator,
        bad_rows=data.bad_rows,
    )


def _prepare(config: Config, splits: dict[str, list[Source]], folder: Path) -> None:
    reports: list[tuple[str, ReadReport]] = []
    with console.progress(f"Preparing {config.dataset}", None, unit="documents") as advance:

        def documents(split: str) -> Iterator[Document] | None:
            if split not in splits:
                return None
            return _counted(_documents(config, splits, split, reports), advance)

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
            name=config.dataset,
        )
    content = {"root": _root(config), "lines": [f"{source}: {report.summary()}" for source, report in reports]}
    (folder / "read.json").write_text(json.dumps(content), encoding="utf-8")


def _documents(
    config: Config, splits: dict[str, list[Source]], split: str, reports: list[tuple[str, ReadReport]]
) -> Iterator[Document]:
    if config.dataset in generated.SHAPES:
        yield from generated.documents(generated.SHAPES[config.dataset], config.seed, split)
    options = ReadOptions(bad_rows=config.data.bad_rows) if config.dataset == "rcv1" else read_options(config.data)
    for source in splits[split]:
        reports.append((str(source), ReadReport()))
        yield from documents.read_documents(source, options=options, report=reports[-1][1])


def _counted(documents: Iterable[Document], advance: console.Advance) -> Iterator[Document]:
    seen = 0
    for seen, document in enumerate(documents, 1):
        # Moving a bar costs as much as reading a short document.
        if seen % 100 == 0:
            advance(100)
        yield document
    advance(seen % 100)


def _root(config: Config) -> str:
    return str(Path(config.data_dir).absolute() if config.data_dir else download.cache_dir())


def _say_what_was_read(config: Config, folder: Path) -> None:
    read = json.loads((folder / "read.json").read_text(encoding="utf-8"))
    for line in read["lines"]:
        # The same files may have been elsewhere when they were read.
        note(line.replace(read["root"], _root(config)))


def _check_rcv1(corpus: Corpus) -> None:
    found = (corpus.published_documents, len(corpus.test), corpus.num_labels)
    if found != (23_149, 7_965, 101):
        raise UserError(
            f"rcv1: found {found[0]:,} training and {found[1]:,} test documents and {found[2]} labels, expected "
            f"23,149, 7,965 and 101; remove {download.cache_dir() / 'rcv1'} and start again"
        )


def load_embedding(config: Config, words: list[str]) -> np.ndarray:
    """Makes the word vector table, float32[vocabulary size, E], the padding's vector zero; prints the coverage."""
    if config.vectors == "none":
        return _table(config, words)[0]
    content = {
        "format": _FORMAT,
        "vectors": _vectors_digest(config.vectors),
        "words": sha256("\n".join(words).encode()).hexdigest(),
        "seed": config.seed,
    }

    def write(folder: Path) -> None:
        table, found = _table(config, words)
        np.save(folder / "table.npy", table)
        (folder / "found.json").write_text(json.dumps(found))

    folder = cache.folder("vectors", content, write)
    found = json.loads((folder / "found.json").read_text())
    share = 100 * found / len(words) if words else 0.0
    note(f"Word vectors {config.vectors}: {found:,} of {len(words):,} words found ({share:.1f} %)")
    return np.asarray(np.load(folder / "table.npy", mmap_mode="r", allow_pickle=False))


def _vectors_digest(source: str) -> str:
    if source == "glove-50d":
        return download.GLOVE_50D.sha256
    path = Path(source).expanduser()
    # What is no file is refused, with a reason, where it is read.
    return _digest(path) if path.is_file() else source


def _table(config: Config, words: list[str]) -> tuple[np.ndarray, int]:
    """Makes the table, and counts the words that the source has."""
    loaded = word_vectors.load_vectors(config.vectors, words, config.seed, config.encoder.embedding_size)
    table = np.zeros((NUM_SPECIAL + len(words), loaded.table.shape[1]), np.float32)
    table[NUM_SPECIAL:] = loaded.table
    # The unknown word is the mean of the others: nothing is known of it but that it is a word.
    table[PADDING + 1] = loaded.table.mean(axis=0) if len(words) else 0.0
    return table, int(loaded.found.sum())
