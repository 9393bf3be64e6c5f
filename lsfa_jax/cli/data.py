"""Lists, describes, prepares and checks corpora: the command behind bin/data."""

import argparse
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from lsfa_jax import config as settings
from lsfa_jax.cli import common
from lsfa_jax.config import Config, Data, Section
from lsfa_jax.util import console
from lsfa_jax.util.console import UserError, note, plural, table

# The readers and their libraries are imported where they are used, so that --help is answered at once.
if TYPE_CHECKING:
    from lsfa_jax.data import synthetic
    from lsfa_jax.data.corpus import Corpus

Preset = Literal["full", "quick"]
Positional = Annotated[str, tyro.conf.Positional]


class ListArguments(Section):
    """Lists the corpora that have a name: their sizes, where they come from, how much of them is prepared.

    Examples:
      bin/data list
    """

    def run(self) -> None:
        from lsfa_jax.data import cache, named
        from lsfa_jax.util.cache_dir import cache_dir

        folder = cache_dir() / "prepared"
        rows = []
        for name, entry in named.CATALOGUE.items():
            kept = sorted(folder.glob(cache.pattern(name)))
            size = sum(map(cache.bytes_of, kept)) / 1e6
            missing = "not needed" if entry.in_memory else "-"
            prepared = f"{len(kept)} x, {size:,.0f} MB" if kept else missing
            rows.append((name, entry.documents, entry.labels, entry.origin, entry.licence, prepared))
        table("Corpora", ("--dataset", "documents", "labels", "from", "licence", "prepared"), rows)
        note("Documents: training + test. A corpus that is neither generated nor downloaded needs --data-dir;")
        note("bin/data prepare NAME lists its files. Prepared corpora may be deleted; they are in")
        note(str(folder))


class CorpusArguments(Section):
    """Which corpus is meant."""

    name: Positional = Field("custom", description="A name of bin/data list; custom for your files.")
    data_dir: str = Field("", description="Folder with train, test and perhaps validation files, or one file for all.")
    preset: Preset = Field("quick", description="Whose settings: texts are longer with full.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the documents that are held out.")
    vectors: str = Field("none", description="Word vectors: as for bin/train.")
    encoder: str = Field(
        "bilstm", description="For which encoder, as for bin/train: minilm and folders read word pieces."
    )
    data: Data = Data()

    def run(self) -> None:
        raise NotImplementedError

    def settings(self) -> Config:
        """Returns the settings with which bin/train would load the corpus."""
        chosen = {name: getattr(self, name) for name in ("data_dir", "preset", "seed", "vectors", "data")}
        config = settings.for_encoder(self.name, self.preset, self.encoder, {}, self.name)
        if config.encoder.pretrained:
            chosen["vectors"] = config.vectors  # not those of the corpus's words
        return config.model_copy(update=chosen)


class DescribeArguments(CorpusArguments):
    """Prints a corpus's row of the paper's Table 1 beside the paper's, and draws its label-frequency curve.

    Examples:
      bin/data describe rcv1
      bin/data describe eurlex57k --data-dir DIR --png curve.png
      bin/data describe --data-dir mine.csv --data.text-field abstract
    """

    png: str = Field("", description="Also draw the curve as a picture, into this PNG file.")

    def run(self) -> None:
        from lsfa_jax.data import load, statistics
        from lsfa_jax.evaluation import plots
        from lsfa_jax.model.prototypes import is_head
        from lsfa_jax.training import policy

        config = self.settings()
        png = Path(self.png).expanduser()
        if self.png:
            common.check_outputs({"--png": str(png)}, "", [self.data_dir, self.data.label_names])
        corpus = load.load_corpus(config)
        with console.quiet():
            config = policy.resolved(config, corpus, settings.chosen_for(self.name, self.preset))
        rows = [("this", *statistics.table_row(corpus).shown())]
        if self.name in statistics.PAPER:
            rows.append(("paper", *statistics.PAPER[self.name].shown()))
        table(f"{self.name}, as in Table 1 of the paper", ("", *statistics.HEADER), rows)
        note(
            f"N_avg is over the {corpus.num_labels:,} labels that training has. W is over full texts. "
            + _about_vocabulary(corpus, config)
        )
        counts, threshold = corpus.label_counts, config.pvae.head_threshold
        head = is_head(counts, threshold)
        note(
            f"Without the {len(corpus.validation):,} validation documents, {head.sum():,} labels have at least N_t = "
            f"{threshold:,} training documents (head) and {(~head).sum():,} have fewer (tail); the tail carries "
            f"{100 * counts[~head].sum() / counts.sum():.1f} % of all document-label pairs."
        )
        note("")
        note(plots.in_characters(counts, threshold, self.name))
        if self.png:
            plots.as_picture(counts, threshold, self.name, png)
            note(f"The curve as a picture: {png}")


def _about_vocabulary(corpus: "Corpus", config: Config) -> str:
    """Says what D_vocab is."""
    if corpus.pieces:
        return "D_vocab is of words, and the encoder reads word pieces."
    return (
        f"D_vocab: words of the vocabulary, at most data.max_vocabulary = {config.data.max_vocabulary:,}, from the "
        f"first {config.data.max_words:,} words of each document that is trained on."
    )


class PrepareArguments(CorpusArguments):
    """Prepares a corpus, so that bin/train starts at once; or generates one of any size, as files.

    Examples:
      bin/data prepare rcv1
      bin/data prepare eurlex57k --data-dir DIR --preset full
      bin/data prepare synthetic --num-labels 670000 --num-documents 500000 --output DIR
    """

    output: str = Field(
        "", description="Write the documents of a generated corpus to this folder as JSON Lines; prepare nothing."
    )
    compression: Literal["zst", "gz", "none"] = Field("zst", description="Of these files.")
    num_documents: int | None = Field(None, gt=0, description="Training documents of synthetic (10,000).")
    num_test: int | None = Field(None, ge=0, description="Its test documents (a tenth as many).")
    num_labels: int | None = Field(None, gt=0, description="Its labels (1,000).")
    labels_per_document: float | None = Field(None, ge=1, description="Its labels a document on average (5).")
    mean_length: float | None = Field(None, ge=4, description="Its words a document on average (100).")
    vocabulary: int | None = Field(None, ge=100, description="Its words; a small corpus uses a part (50,000).")

    def run(self) -> None:
        shape = [name for name in _SHAPE_OPTIONS if getattr(self, name) is not None]
        if shape and self.name != "synthetic":
            raise UserError(f"{common.option_name(shape[0])}: for synthetic only; other corpora have a fixed shape")
        if shape and not self.output:
            raise UserError("--output DIR: name a folder for the documents, and train on them with --data-dir DIR")
        if self.output:
            self._write()
        else:
            self._prepare()

    def shape(self) -> "synthetic.Shape":
        """Returns the sizes of a generated corpus."""
        from lsfa_jax.data import synthetic

        if self.name != "synthetic":
            if self.name not in synthetic.SHAPES:
                raise UserError(f"--output: {self.name} is not a generated corpus; use --output with a synthetic one")
            return synthetic.SHAPES[self.name]
        number, length = self.num_documents or 10_000, self.mean_length or 100.0
        return synthetic.Shape(
            num_train=number,
            num_test=number // 10 if self.num_test is None else self.num_test,
            num_labels=self.num_labels or 1_000,
            labels_per_document=self.labels_per_document or 5.0,
            train_length=length,
            test_length=length,
            vocabulary=self.vocabulary or 50_000,
        )

    def _write(self) -> None:
        from lsfa_jax.data import synthetic

        files = synthetic.write(self.shape(), self.seed, Path(self.output).expanduser(), self.compression)
        for path in files:
            note(f"{path}: {path.stat().st_size / 1e6:,.1f} MB")
        note(f"Train on it: bin/train --data-dir {self.output}")

    def _prepare(self) -> None:
        from lsfa_jax.data import cache, load
        from lsfa_jax.training import encoder_choice
        from lsfa_jax.training.initial_encoder import load_embedding

        config = self.settings()
        corpus = load.load_corpus(config)
        if not corpus.pieces:
            load_embedding(encoder_choice.with_vectors(config, corpus), corpus.words)
        note(
            f"{self.name}: {len(corpus.train):,} training, {len(corpus.validation):,} validation and "
            f"{plural(len(corpus.test), 'test document')}, {plural(corpus.num_labels, 'label')}, "
            f"{plural(corpus.vocabulary_size, 'word piece') if corpus.pieces else plural(len(corpus.words), 'word')}"
        )
        folder = load.prepared_folder(config)
        if folder.exists():
            note(f"Prepared: {folder} ({cache.bytes_of(folder) / 1e6:,.0f} MB)")


_SHAPE_OPTIONS = ("num_documents", "num_test", "num_labels", "labels_per_document", "mean_length", "vocabulary")


class CheckArguments(Section):
    """Reads files as bin/train would and reports their content and their errors.

    Examples:
      bin/data check my_corpus
      bin/data check mine.csv --data.text-field abstract --data.label-separator ';'
    """

    path: Positional = Field(description="A folder with train, test and perhaps validation files, or one file.")
    data: Data = Field(default_factory=settings.usual_data)

    def run(self) -> None:
        from lsfa_jax.data import check
        from lsfa_jax.data.reading.options import ReadOptions

        check.check(Path(self.path).expanduser(), ReadOptions.from_settings(self.data, bad_rows="skip"), self.data)


Arguments = ListArguments | CorpusArguments | CheckArguments

COMMANDS: dict[str, type[Arguments]] = {
    "list": ListArguments,
    "describe": DescribeArguments,
    "prepare": PrepareArguments,
    "check": CheckArguments,
}


IN_HELP = (
    *("name", "path", "data_dir", "preset", "png", "encoder", "vectors", "output", "num_documents", "num_labels"),
    *("data.format", "data.columns", "data.text_field", "data.labels_field", "data.label_columns"),
    *("data.label_separator", "data.label_names"),
)


def main(argv: list[str] | None = None, prog: str = "bin/data") -> int:
    """Runs the command line; messages name the command `prog`.

    Returns:
        0 when done, 2 after a UserError, 130 after SIGINT.
    """
    return common.run(lambda line: _command(line, prog), argv)


def _command(argv: list[str], prog: str) -> None:
    if argv[:1] and argv[0] in common.HELP:
        verbs = {name: (inspect.getdoc(command) or "").splitlines()[0] for name, command in COMMANDS.items()}
        print(common.usage(prog, verbs))
    else:
        parse(argv, prog).run()


def parse(argv: list[str], prog: str = "bin/data") -> Arguments:
    """Reads a command line; raises UserError at an unknown verb or option, or a wrong value."""
    verb, *line = argv or [""]
    if verb not in COMMANDS:
        raise UserError(common.unknown_verb(verb, COMMANDS, prog))
    command, default = COMMANDS[verb], _default(verb, line)
    chosen = common.parse(command, line, f"{prog} {verb}", default, IN_HELP)
    if default is None or not isinstance(chosen, CorpusArguments):
        return chosen
    if (chosen.name, chosen.preset) != (default.name, default.preset):
        raise UserError(f"the name comes first, and each option once: {prog} {verb} {chosen.name} ...")
    return chosen


def _default(verb: str, argv: list[str]) -> CorpusArguments | None:
    """Returns the defaults that the corpus and the preset on the command line decide, before the rest is read."""
    command = COMMANDS[verb]
    if not issubclass(command, CorpusArguments):
        return None
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", nargs="?")
    preset = first.parse_known_args(argv)[0].preset or "quick"
    name = argv[0] if argv and not argv[0].startswith("-") else "custom"
    names = settings.dataset_names()
    if name not in names:
        raise UserError(f"{name}: expected one of {', '.join(names)}{settings.nearest(name, names)}")
    if preset not in ("full", "quick"):
        return None  # reported when the command line is read
    config = settings.validated(settings.layered(name, preset, "paper"), name)
    return command(name=name, **{key: getattr(config, key) for key in ("preset", "seed", "vectors", "data")})


if __name__ == "__main__":
    raise SystemExit(main())
