"""Lists, describes, prepares and checks corpora: the command behind bin/data."""

import argparse
import functools
import inspect
import operator
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

# An error about a setting is for people, who need no link to a validation library.
os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")

import tyro
from pydantic import Field, ValidationError

from lsfa_jax import config as settings
from lsfa_jax.config import Config, Data, Section
from lsfa_jax.data import cache, check, generated, load, named, statistics
from lsfa_jax.data.reading.detect import ReadOptions
from lsfa_jax.evaluation import plots
from lsfa_jax.util import console
from lsfa_jax.util.cache_dir import cache_dir
from lsfa_jax.util.console import UserError, note, table

Preset = Literal["full", "quick"]
Positional = Annotated[str, tyro.conf.Positional]


class ListArguments(Section):
    """Lists the corpora that have a name: their sizes, where they come from, what of them is prepared.

    Examples:
      bin/data list
    """

    def run(self) -> None:
        rows = []
        for name, entry in named.CATALOGUE.items():
            kept = sorted((cache_dir() / "prepared").glob(f"{name}-*"))
            size = sum(map(cache.bytes_of, kept)) / 1e6
            made = f"{len(kept)} x, {size:,.0f} MB" if kept else "-"
            rows.append((name, entry.documents, entry.labels, entry.origin, entry.licence, made))
        table("Corpora", ("--dataset", "documents", "labels", "from", "licence", "prepared"), rows)
        note(
            "Documents: training + test. What is neither made nor fetched here needs --data-dir: bin/data prepare NAME"
        )
        note(f"says which files. What is prepared is in {cache_dir() / 'prepared'} and may be deleted.")


class CorpusArguments(Section):
    """What says which corpus is meant."""

    name: Positional = Field("custom", description="A name of bin/data list; custom for your own files.")
    data_dir: str = Field("", description="Folder with train, test and perhaps validation files, or one file for all.")
    preset: Preset = Field("full", description="Whose settings: texts are shorter with quick.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the documents that are held out.")
    vectors: str = Field("none", description="Word vectors: glove-50d, none, or a GloVe or word2vec text file.")
    data: Data = Data()

    def settings(self) -> Config:
        """The settings with which bin/train would load the corpus."""
        chosen = {name: getattr(self, name) for name in ("data_dir", "preset", "seed", "vectors", "data")}
        config = settings.validated(settings.layered(self.name, self.preset, "paper"), self.name)
        return config.model_copy(update=chosen)


class DescribeArguments(CorpusArguments):
    """Prints a corpus's row of the paper's Table 1 beside the paper's own, and draws its label-frequency curve.

    Examples:
      bin/data describe rcv1
      bin/data describe eurlex57k --data-dir DIR --png curve.png
      bin/data describe --data-dir mine.csv --data.text-field abstract
    """

    png: str = Field("", description="File for the curve as a picture; NAME-labels.png here where none is given.")

    def run(self) -> None:
        config = self.settings()
        corpus = load.load_corpus(config)
        rows = [("here", *statistics.table_row(corpus).shown())]
        if self.name in statistics.PAPER:
            rows.append(("paper", *statistics.PAPER[self.name].shown()))
        table(f"{self.name}, as in Table 1 of the paper", ("", *statistics.HEADER), rows)
        note(
            f"N_avg is over the {corpus.num_labels:,} labels that training has. D_vocab: distinct words within the "
            f"first {config.data.max_words:,} of each training text. W: whole texts."
        )
        counts, threshold = corpus.label_counts, config.pvae.head_threshold
        head = counts >= threshold
        note(
            f"Without the {len(corpus.validation):,} validation documents, {head.sum():,} labels have at least N_t = "
            f"{threshold:,} training documents (head) and {(~head).sum():,} have fewer (tail); the tail carries "
            f"{100 * counts[~head].sum() / counts.sum():.1f} % of all document-label pairs."
        )
        note("")
        note(plots.in_characters(counts, threshold, self.name))
        path = Path(self.png or f"{self.name}-labels.png").expanduser()
        plots.as_picture(counts, threshold, self.name, path)
        note(f"The curve as a picture: {path}")


class PrepareArguments(CorpusArguments):
    """Prepares a corpus, so that bin/train starts at once; or makes one of any size, as files.

    Examples:
      bin/data prepare rcv1
      bin/data prepare eurlex57k --data-dir DIR --preset quick
      bin/data prepare synthetic --num-labels 670000 --num-documents 500000 --output DIR
    """

    output: str = Field("", description="Write a generated corpus's documents here as JSON Lines; prepare nothing.")
    compression: generated.Compression = Field("zst", description="Of these files.")
    num_documents: int | None = Field(None, gt=0, description="Training documents of synthetic (10,000).")
    num_test: int | None = Field(None, ge=0, description="Its test documents (a tenth as many).")
    num_labels: int | None = Field(None, gt=0, description="Its labels (1,000).")
    labels_per_document: float | None = Field(None, ge=1, description="Its labels a document on average (5).")
    mean_length: float | None = Field(None, ge=4, description="Its words a document on average (100).")
    vocabulary: int | None = Field(None, ge=100, description="Its words, of which a small corpus uses some (50,000).")

    def run(self) -> None:
        asked = [name for name in _SHAPE_OPTIONS if getattr(self, name) is not None]
        if asked and self.name != "synthetic":
            raise UserError(f"--{asked[0].replace('_', '-')}: only synthetic takes it; the others have their own shape")
        if asked and not self.output:
            raise UserError("--output DIR: say where the documents go, and train on them with --data-dir DIR")
        if self.output:
            self._write()
        else:
            self._prepare()

    def shape(self) -> generated.Shape:
        """What a generated corpus looks like."""
        if self.name in generated.SHAPES:
            return generated.SHAPES[self.name]
        if self.name != "synthetic":
            raise UserError(f"--output: {self.name} is no generated corpus; its files are what they are")
        number, length = self.num_documents or 10_000, self.mean_length or 100.0
        return generated.Shape(
            num_train=number,
            num_test=number // 10 if self.num_test is None else self.num_test,
            num_labels=self.num_labels or 1_000,
            labels_per_document=self.labels_per_document or 5.0,
            train_length=length,
            test_length=length,
            vocabulary=self.vocabulary or 50_000,
        )

    def _write(self) -> None:
        files = generated.write(self.shape(), self.seed, Path(self.output).expanduser(), self.compression)
        for path in files:
            note(f"{path}: {path.stat().st_size / 1e6:,.1f} MB")
        note(f"Train on it: bin/train --data-dir {self.output}")

    def _prepare(self) -> None:
        config = self.settings()
        corpus = load.load_corpus(config)
        load.load_embedding(config, corpus.words)
        note(
            f"{self.name}: {len(corpus.train):,} training, {len(corpus.validation):,} validation and "
            f"{len(corpus.test):,} test documents, {corpus.num_labels:,} labels, {len(corpus.words):,} words"
        )
        if config.dataset != "synthetic":
            folder = load.prepared_folder(config)
            note(f"Prepared: {folder} ({cache.bytes_of(folder) / 1e6:,.0f} MB)")


_SHAPE_OPTIONS = ("num_documents", "num_test", "num_labels", "labels_per_document", "mean_length", "vocabulary")


class CheckArguments(Section):
    """Reads files as bin/train would and reports what is in them and what is wrong with them.

    Examples:
      bin/data check my_corpus
      bin/data check mine.csv --data.text-field abstract --data.label-separator ';'
    """

    path: Positional = Field(description="A folder with train, test and perhaps validation files, or one file.")
    data: Data = Data()

    def run(self) -> None:
        check.check(Path(self.path).expanduser(), ReadOptions.from_settings(self.data, bad_rows="skip"))


_COMMANDS: dict[str, type[Section]] = {
    "list": ListArguments,
    "describe": DescribeArguments,
    "prepare": PrepareArguments,
    "check": CheckArguments,
}


def main(argv: list[str] | None = None) -> int:
    """Does what the command line says.

    Returns:
        0 when done, 2 after an error that the user can mend, 130 after SIGINT.
    """
    try:
        parse(sys.argv[1:] if argv is None else argv).run()
    except UserError as error:
        console.error(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def parse(argv: list[str]) -> Any:
    """Resolves a command line; exits with code 2 on an unknown option, raises UserError on a bad value."""
    default = _default(argv)
    commands: list[Any] = []
    for name, command in _COMMANDS.items():
        more: dict[str, Any] = {"default": default} if isinstance(default, command) else {}
        # Without a description of its own, tyro takes the docstring but not its examples.
        described = tyro.conf.subcommand(name, description=inspect.getdoc(command), **more)
        commands.append(Annotated[command, described])
    try:
        chosen = tyro.cli(functools.reduce(operator.or_, commands), args=argv, prog="bin/data", description=__doc__)
    except ValidationError as error:
        raise UserError("; ".join(f"--{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from None
    if default is not None and (chosen.name, chosen.preset) != (default.name, default.preset):
        raise UserError(f"the name comes first, and each option once: bin/data {argv[0]} {chosen.name} ...")
    return chosen


def _default(argv: list[str]) -> CorpusArguments | None:
    """Returns what the name and the preset on the command line decide before the other options are read."""
    command = _COMMANDS.get(argv[0]) if argv else None
    if command is None or not issubclass(command, CorpusArguments):
        return None
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", nargs="?")
    preset = first.parse_known_args(argv[1:])[0].preset or "full"
    name = argv[1] if len(argv) > 1 and not argv[1].startswith("-") else "custom"
    names = settings.dataset_names()
    if name not in names:
        raise UserError(f"{name}: expected one of {', '.join(names)}{settings.nearest(name, names)}")
    if preset not in ("full", "quick"):
        return None
    config = settings.validated(settings.layered(name, preset, "paper"), name)
    return command(name=name, **{key: getattr(config, key) for key in ("preset", "seed", "vectors", "data")})


if __name__ == "__main__":
    raise SystemExit(main())
