"""Which files are the splits of a corpus: train, test and validation files of any format in a folder, or one file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lsfa_jax.data.reading.annif import text_documents
from lsfa_jax.data.reading.eurlex57k import json_documents
from lsfa_jax.data.reading.lyrl2004 import TOPICS
from lsfa_jax.util.console import UserError

_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")
_COMPRESSED = ("", ".gz", ".xz", ".bz2", ".zst")
_SPLIT_STEMS = {
    "train": ("train", "trn"),
    "test": ("test", "tst"),
    "validation": ("validation", "valid", "val", "dev"),
}


@dataclass(frozen=True)
class Files:
    """Several files that are one split.

    Attributes:
        texts: files read one after another.
        labels: the file with the labels of all documents, where there is a separate one.
        names: the file with the names of labels that are numbers, where there is one.
        filters: the file with pairs of document and label that are neither predicted nor counted, where there is one.
    """

    texts: tuple[Path, ...]
    labels: Path | None = None
    names: Path | None = None
    filters: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        return [*self.texts, *filter(None, (self.labels, self.names, self.filters))]

    def __str__(self) -> str:
        names = ", ".join(map(str, self.texts))
        return f"{names} with {self.labels}" if self.labels else names


Source = Path | BinaryIO | Files
"""What documents are read from: a file or a folder of documents, a stream of bytes, or several files."""


def find_splits(data_dir: Path) -> dict[str, Path | Files]:
    """Finds the files of the splits in a folder, of any format; a single file is all 'train'.

    Returns:
        Sources for `read_documents`, under 'train' and, where there is one, 'test' and 'validation' (named validation,
        valid, val or dev).

    Raises:
        UserError: no such folder, no file for training, two for one split, or one of several that belong together is
            missing.
    """
    if data_dir.is_file():
        return {"train": with_label_file(data_dir)}
    try:
        present = sorted(entry.name for entry in data_dir.iterdir())
    except FileNotFoundError:
        raise UserError(f"{data_dir}: there is neither a file nor a folder of this name. Check the path.") from None
    except OSError as error:
        raise UserError(
            f"{data_dir}: neither a file nor a folder that can be read ({error.strerror}). Check the path."
        ) from None
    splits: dict[str, Path | Files] = {}
    for split, stems in _SPLIT_STEMS.items():
        sources = [source for stem in stems for source in _candidates(data_dir, stem)]
        if len(sources) > 1:
            names = " and ".join(source.name if isinstance(source, Path) else str(source) for source in sources)
            raise UserError(f"{data_dir}: {names} both could be the {split} split. Keep one of them.")
        if sources:
            splits[split] = sources[0]
        elif split == "train":
            if text_documents(data_dir):
                return {"train": data_dir}
            if len(only := [path for path in map(data_dir.joinpath, present) if _is_data(path)]) == 1:
                splits["train"] = with_label_file(only[0])
                continue
            if (data_dir / "data").is_dir():
                # As public hubs lay out a repository of Parquet files.
                return find_splits(data_dir / "data")
            listed = ", ".join(present[:20]) + (f" and {len(present) - 20} more" if len(present) > 20 else "")
            raise UserError(
                f"{data_dir}: no file for the {split} split; expected {split}.jsonl, {split}.csv or another format's "
                f"name, plain or compressed; the folder holds {listed or 'nothing'}."
            )
    return splits


def _is_data(path: Path) -> bool:
    """Whether the name is one of a file of documents."""
    stem, _, suffix = _unpacked_name(path).rpartition(".")
    other = stem.lower() in (*_SPLIT_STEMS["test"], *_SPLIT_STEMS["validation"])
    return path.is_file() and f".{suffix}" in (".jsonl", ".json", ".csv", ".tsv", ".parquet") and not other


def _unpacked_name(path: Path) -> str:
    """Returns the name of a file without the suffix of a compression."""
    return next((path.name.removesuffix(end) for end in _COMPRESSED[1:] if path.name.endswith(end)), path.name)


def source_files(path: Path) -> list[Path]:
    """Lists what may be read of a path: a file and that of its labels, or of a folder its splits or its documents."""
    try:
        return [file for source in find_splits(path).values() for file in files_of(source)]
    except UserError:  # no splits: a folder of documents, or an error that is reported when the corpus is read
        return [file for file in path.iterdir() if file.is_file()] if path.is_dir() else []


def files_of(source: Source) -> list[Path]:
    """Lists the files of a source, of a folder also those in its folders.

    Raises:
        TypeError: the source is a stream.
    """
    if isinstance(source, Files):
        return source.paths
    if not isinstance(source, Path):
        raise TypeError(source)
    return sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]


def with_label_file(path: Path) -> Path | Files:
    """Adds the file of labels that belongs to a file of texts by its name, where the folder has one."""
    stem = _unpacked_name(path)
    topics = compressed_or_plain(path.parent, TOPICS) if stem.startswith("lyrl2004_tokens_") else []
    if len(topics) == 1:
        return Files((path,), topics[0])
    if stem.endswith(".txt") or "." not in stem:
        for texts, labels in (("texts", "labels"), ("text", "label")):
            files = compressed_or_plain(path.parent, stem.replace(texts, labels, 1)) if texts in stem else []
            if len(files) == 1:
                return Files((path,), files[0])
    return path


def compressed_or_plain(folder: Path, name: str) -> list[Path]:
    """Lists the files of that name in a folder, with and without the suffix of a compression."""
    return [folder / (name + end) for end in _COMPRESSED if (folder / (name + end)).is_file()]


def _candidates(folder: Path, stem: str) -> Iterator[Path | Files]:
    """Yields what could be the split of that name."""
    names, filters = _first(compressed_or_plain(folder, "lbl.json")), _filters(folder, stem)
    for suffix in _SUFFIXES:
        for path in compressed_or_plain(folder, stem + suffix):
            belong = stem in ("trn", "tst") and (names or filters)
            yield Files((path,), names=names, filters=filters) if belong else path
    for path in compressed_or_plain(folder, f"{stem}_X.txt"):
        names = _first(compressed_or_plain(folder, "Y.txt"))
        yield Files((path,), _only(folder, f"{stem}_X_Y.txt"), names, filters)
    for texts, labels in ((f"{stem}_texts.txt", f"{stem}_labels.txt"), (f"text_{stem}", f"label_{stem}")):
        for path in compressed_or_plain(folder, texts):
            yield Files((path,), _only(folder, labels))
    parts = [f"lyrl2004_tokens_test_pt{i}.dat" for i in range(4)] if stem == "test" else [f"lyrl2004_tokens_{stem}.dat"]
    if any(compressed_or_plain(folder, part) for part in parts):
        yield Files(tuple(_only(folder, part) for part in parts), _only(folder, TOPICS))
    if (folder / stem).is_dir() and (json_documents(folder / stem) or text_documents(folder / stem)):
        yield folder / stem
    yield from _pecos(folder, stem)
    shards = sorted(folder.glob(f"{stem}-?????-of-?????.parquet"))
    if shards:
        total = int(shards[0].stem[-5:]) if shards[0].stem[-5:].isdigit() else 0
        yield Files(tuple(_only(folder, f"{stem}-{i:05}-of-{total:05}.parquet") for i in range(total)))


def _filters(folder: Path, stem: str) -> Path | None:
    """Returns the filter file of the Extreme Classification Repository; those of training documents are not needed."""
    names = ("filter_labels_test.txt", "tst_filter_labels.txt") if stem == "tst" else ()
    return _first([path for name in names for path in compressed_or_plain(folder, name)])


def _pecos(folder: Path, stem: str) -> Iterator[Files]:
    """Yields the files of PECOS: X.trn.txt with texts, Y.trn.npz with labels, and Z.all.txt with their names."""
    for path in compressed_or_plain(folder, f"X.{stem}.txt"):
        yield Files((path,), _only(folder, f"Y.{stem}.npz"), _first(compressed_or_plain(folder, "Z.all.txt")))


def _first(paths: list[Path]) -> Path | None:
    return paths[0] if paths else None


def _only(folder: Path, name: str) -> Path:
    files = compressed_or_plain(folder, name)
    if len(files) != 1:
        problem = f"{' and '.join(path.name for path in files)} are there" if files else "it is missing"
        raise UserError(f"{folder}: expected one file {name} (plain or compressed), but {problem}.")
    return files[0]
