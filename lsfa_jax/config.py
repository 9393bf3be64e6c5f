"""Typed, frozen settings: defaults are the paper's, files in configs/ say what differs, the command line decides.

Later beats earlier: defaults, `configs/DATASET.toml`, the preset, the profile, `--config FILE`, options. An unknown key
is an error that names the nearest valid one.
"""

import difflib
import inspect
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
import tyro
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from lsfa_jax.util.console import UserError

Verify = Literal["sampled", "full"]
Metric = Literal["P@1", "P@3", "P@5", "N@1", "N@3", "N@5", "PSP@1", "PSP@3", "PSP@5", "macro_P@5"]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """From files to token ids."""

    max_words: int = Field(500, gt=0, description="Words kept of each text.")
    max_vocabulary: int = Field(500_000, gt=0, description="Words kept of the training texts, most frequent first.")
    validation_fraction: float = Field(
        0.05, ge=0, lt=1, description="Share of the training documents held out where no validation file is given."
    )
    test_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of the documents held out as test where no test file is given."
    )
    length_buckets: tuple[PositiveInt, ...] = Field(
        (64, 128, 192, 256, 384), description="Lengths that texts are padded to; max_words is always the last."
    )
    format: str = Field("auto", description="Of the files: auto (by their content), or jsonl, csv, tsv, parquet, ...")
    text_field: str = Field("", description="Field or column with the text, where its name does not say so.")
    labels_field: str = Field("", description="Field or column with the labels, likewise.")
    label_separator: str = Field("", description="What stands between labels that share a column.")
    bad_rows: Literal["stop", "skip"] = Field("stop", description="What to do at a row that cannot be read.")
    verify: Verify = Field(
        "sampled",
        description="How files are compared with what the cache prepared from them, and its arrays with what was "
        "written: by size and samples of the content, or by all of it. Changes no result.",
    )


class Encoder(Section):
    """BiLSTM and label attention, Eq. 1-4."""

    embedding_size: int = Field(300, gt=0, description="Word vector size where --vectors is none.")
    hidden_size: int = Field(256, gt=0, description="LSTM units a direction.")
    feature_head: bool = Field(True, description="A shared linear layer and ReLU after the attention.")
    feature_size: int = Field(300, gt=0, description="Size D of a label-specific feature, with the feature head.")
    embedding_trainable: Literal["yes", "no", "after_collection"] = Field(
        "yes", description="Train the word vectors; after_collection: frozen until prototypes are first collected."
    )
    embedding_dropout: float = Field(0.2, ge=0, lt=1, description="Dropout on the word vectors.")
    encoder_dropout: float = Field(0.5, ge=0, lt=1, description="Dropout on the token states.")
    label_block: int = Field(4096, gt=0, description="Labels attended at a time; bounds memory, changes no figure.")


class Classifier(Section):
    """One-versus-all classifiers, Eq. 5."""

    weights: Literal["per_label", "shared"] = Field("per_label", description="w_l per label, or one w for all labels.")
    bias: bool = Field(False, description="Add a bias to w_l . v_l.")
    bias_start: Literal["zero", "prior"] = Field(
        "zero", description="prior: the bias starts where every label has the labels' mean frequency."
    )


class Psc(Section):
    """Prototypical supervised contrastive loss, Eq. 9."""

    weight: float = Field(0.1, ge=0, description="alpha, the weight beside the binary cross-entropy; 0 leaves it out.")
    temperature: float = Field(0.07, gt=0, description="tau.")
    normalize: bool = Field(True, description="Cosine instead of the plain inner product.")
    denominator: Literal["all", "exclude_positive", "double_positive"] = Field(
        "all",
        description="Labels in the denominator: each once, all but the positive (Eq. 9 as printed), positive twice.",
    )
    reduction: Literal["sum", "released"] = Field(
        "sum", description="sum: as the cross-entropy, over documents x labels; released: mean over pairs / documents."
    )
    start_epoch: int = Field(2, ge=1, description="First epoch with this loss; prototypes are collected before it.")
    every: int = Field(
        1, ge=1, description="Use the loss, with fresh prototypes, in every so many epochs from then on."
    )


class Optimizer(Section):
    """Adam and what surrounds it."""

    batch_size: int = Field(40, gt=0, description="Documents a step.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's, constant.")
    clip: Literal["running", "global", "none"] = Field(
        "running", description="Clip gradients at a multiple of the largest of the last norms, at a fixed norm, or not."
    )
    clip_factor: float = Field(5.0, gt=0, description="The multiple (running) or the norm (global).")
    swa_start_epoch: int = Field(10, ge=1, description="Average the weights from this epoch on.")
    swa_every: int = Field(100, ge=1, description="Steps between two weights that enter the average.")


class Representation(Section):
    """Stage 1: representation learning on L_BCE + L_PSC."""

    epochs: int = Field(30, ge=1, description="Passes over the training documents at most.")
    patience: int = Field(5, ge=1, description="Stop after so many validations without improvement.")
    validate_every: int = Field(0, ge=0, description="Steps between validations; 0: once an epoch.")
    wait_for_stages: bool = Field(
        True, description="Never stop early before SWA and the contrastive loss had their turn."
    )
    select: Metric = Field("N@5", description="Validation metric that chooses the weights that are kept.")
    shortlist: Literal["auto"] | NonNegativeInt = Field(
        "auto",
        description="Labels a step looks at, sampled, at a cost that does not grow with their number (doubled until a "
        "batch's own labels fill half at most); 0: all of them; auto: all up to 30,000, then 4,096.",
    )


class Pvae(Section):
    """Stage 2: prototypes and the variational autoencoder, Eq. 10-17."""

    head_threshold: int = Field(50, ge=0, description="N_t: a label with fewer training features is a tail label.")
    hidden_size: int = Field(512, gt=0, description="Units of each hidden layer.")
    latent_size: int = Field(64, gt=0, description="Size Z of the latent variation.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's.")
    epochs: int = Field(20, ge=1, description="Passes over the head labels' features.")
    batch_size: int = Field(256, gt=0, description="Features a step.")
    kl_weight: Literal["auto"] | NonNegativeFloat = Field(
        "auto", description="auto: the ELBO at the best noise variance; a number: mean squared error + number x KL."
    )
    residual: bool = Field(True, description="The decoder adds to the prototype, instead of making features anew.")
    integer_cast: bool = Field(
        False, description="Round features and prototypes towards zero (parity with the released code)."
    )
    relu_posterior: bool = Field(False, description="ReLU on mu and log variance (parity).")
    decoder_norm: bool = Field(False, description="Batch norm before the decoder's last ReLU (parity).")


class Adjust(Section):
    """Stage 3: classifiers adjusted on L_BCE + L_Augmented, Eq. 18-19."""

    num_augmented: int = Field(10, ge=0, description="N_a: features generated for each tail label.")
    augmented_weight: float = Field(1.0, ge=0, description="gamma.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's.")
    epochs: int = Field(10, ge=1, description="Passes over the training documents at most.")
    patience: int = Field(3, ge=1, description="Stop after so many epochs without improvement on validation.")
    select: Metric = Field("N@5", description="Validation metric that chooses the weights that are kept.")
    average: bool = Field(
        True, description="Average the weights over the whole stage, every optimizer.swa_every steps."
    )
    schedule: Literal["joint", "alternate"] = Field("joint", description="Both losses in each step, or epochs in turn.")
    alternate_from: int = Field(
        5,
        ge=1,
        description="With the alternate schedule: an epoch of documents, then one of generated features, and so on.",
    )
    init: Literal["pretrained", "scratch"] = Field(
        "pretrained", description="Start from stage 1's classifiers or anew."
    )
    encoder_dropout: bool = Field(False, description="Keep the frozen encoder's dropout on (parity).")
    cache_states: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="Keep the encoder's token states in the run folder for all epochs, in half precision, and not "
        "compute them anew; auto: where they fit in half of the disk's free room. Not with encoder_dropout.",
    )


class Report(Section):
    """What is measured."""

    bin_size: int = Field(400, gt=0, description="Labels a bin in macro-averaged P@5 over label frequency.")
    batch_size: int = Field(128, gt=0, description="Documents at a time where nothing is trained.")
    propensity_a: float = Field(0.55, ge=0, description="A of propensity-scored precision.")
    propensity_b: float = Field(1.5, ge=0, description="B of propensity-scored precision.")


class Config(Section):
    """Everything that decides a run's figures."""

    dataset: str = Field(
        "synthetic",
        description="synthetic, rcv1, synthetic-aapd, -rcv1 or -eurlex; aapd, eurlex4k, eurlex57k or custom with "
        "--data-dir.",
    )
    preset: Literal["full", "quick"] = Field("full", description="full: the paper's sizes; quick: for a laptop.")
    profile: Literal["paper", "released"] = Field(
        "paper", description="The paper's equations, or the released code's ways."
    )
    # JAX keeps the low 32 bits of a seed.
    seed: int = Field(0, ge=0, lt=2**32, description="All randomness comes from it.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of matrix products; parameters stay float32."
    )
    data_dir: str = Field(
        "", description="Folder with train, test and perhaps validation files of any format, or one file for all."
    )
    vectors: str = Field("none", description="Word vectors: glove-50d, none, or a GloVe or word2vec text file.")
    data: Data = Data()
    encoder: Encoder = Encoder()
    classifier: Classifier = Classifier()
    psc: Psc = Psc()
    optimizer: Optimizer = Optimizer()
    representation: Representation = Representation()
    pvae: Pvae = Pvae()
    adjust: Adjust = Adjust()
    report: Report = Report()


def _configs_dir() -> Path:
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def dataset_names() -> list[str]:
    """Lists the corpora that have a file in configs/."""
    return sorted(path.stem for path in _configs_dir().glob("*.toml"))


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a settings file; raises UserError with the line of an error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such settings file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not a TOML settings file: {error}") from None


def layered(dataset: str, preset: str, profile: str) -> dict[str, Any]:
    """Returns what differs from the defaults for a corpus, a preset and a profile, as nested dicts."""
    own = read_toml(_configs_dir() / f"{dataset}.toml")
    # A corpus may say, under [quick], what its quick preset needs beyond the general one.
    own_quick, values = own.pop("quick", {}), own
    if preset == "quick":
        values = merged(merged(values, read_toml(_configs_dir() / "presets" / "quick.toml")), own_quick)
    if profile != "paper":
        values = merged(values, read_toml(_configs_dir() / "profiles" / f"{profile}.toml"))
    return merged(values, {"dataset": dataset, "preset": preset, "profile": profile})


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with the entries of `over` put over it, table by table."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def validated(values: Mapping[str, Any], where: str) -> Config:
    """Makes a Config of nested dicts; raises UserError that names the key, what was expected, and the nearest key."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        known = list(keys(Config))
        lines = []
        for item in error.errors():
            # A union's branches add their own names to the path ('auto', 'float'): keep the part that is a key.
            path = ".".join(str(part) for part in item["loc"])
            key = next((name for name in sorted(known, key=len, reverse=True) if path.startswith(name)), path)
            if item["type"] == "extra_forbidden":
                sections = sorted({name.split(".")[0] for name in known})
                lines.append(f"{where}: unknown setting {path}{nearest(path, [*sections, *known])}")
            else:
                lines.append(f"{where}: {key} = {item['input']!r}: {item['msg']}")
        raise UserError("\n".join(dict.fromkeys(lines))) from None


def nearest(word: str, words: list[str]) -> str:
    """Returns ' (did you mean ...?)', or nothing where no word is near."""
    # A key in the wrong section is as common a slip as a misspelt one, so the last part is tried by itself too.
    found = difflib.get_close_matches(word, words, n=1) or [
        name for name in words if name.split(".")[-1] == word.split(".")[-1]
    ]
    return f" (did you mean {found[0]}?)" if found else ""


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Lists every setting as a dotted key."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def differences(one: Config, other: Config) -> list[str]:
    """Lists the dotted keys in which two settings differ, of those that decide results."""

    def value(config: Config, key: str) -> Any:
        for part in key.split("."):
            config = getattr(config, part)
        return config

    return [key for key in keys(Config) if key != "data.verify" and value(one, key) != value(other, key)]


def to_toml(config: Config) -> str:
    """Writes every setting, resolved, so that `--config` repeats the run."""
    return tomli_w.dumps(config.model_dump(mode="json"))


Stage = Literal["representation", "transfer", "adjustment"]
STAGES: tuple[Stage, ...] = ("representation", "transfer", "adjustment")


class TrainArguments(Config):
    """Trains LSFA: representation learning, feature transfer from frequent to rare labels, classifier adjustment.

    Examples:
      bin/train                                         the embedded synthetic corpus, a minute or two
      bin/train --dataset rcv1 --preset quick           RCV1, fetched once, for a laptop
      bin/train --data-dir my_corpus --output runs/mine your own train.jsonl and test.jsonl
      bin/train --output runs/mine --resume             go on where it was interrupted
      bin/train --baseline tree                         in the end, beside a linear label tree
    """

    output: str = Field("", description="Run folder; runs/DATASET-PRESET where none is given.")
    config: str = Field("", description="Settings file to start from, such as another run's config.toml.")
    save_every: float = Field(60.0, ge=0, description="Seconds between checkpoints within a stage.")
    resume: bool = Field(False, description="Go on from the run folder's last complete checkpoint.")
    stages: tuple[Stage, ...] = Field(
        STAGES, description="Consecutive stages to run; earlier ones must be complete in the run folder."
    )
    baseline: Literal["none", "tree", "svm"] = Field(
        "none", description="In the end, train a linear model on TF-IDF too and show it beside: label tree, or SVM."
    )

    def settings(self) -> Config:
        """The settings alone, without what concerns this one command."""
        return Config.model_validate({name: getattr(self, name) for name in Config.model_fields})


def parse_train_arguments(argv: list[str]) -> TrainArguments:
    """Resolves a command line; exits with code 2 on an unknown option, raises UserError on a bad file or value."""
    import argparse

    # What decides the defaults has to be known before the options can be shown with them.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # Either spelling, and a value or none: tyro takes both spellings, and says what is wrong with a missing value.
    for name in ("dataset", "preset", "profile", "config", "output", "data-dir"):
        first.add_argument(f"--{name}", *([f"--{name.replace('-', '_')}"] if "-" in name else []), nargs="?")
    first.add_argument("--resume", action="store_true")
    first.add_argument("--stages", nargs="*")
    chosen, _ = first.parse_known_args(argv)
    file: dict[str, Any] = {}
    where = "settings"
    earlier = Path(chosen.output or "") / "config.toml"
    starts_later = bool(chosen.stages) and STAGES[0] not in chosen.stages
    if chosen.config:
        file, where = read_toml(Path(chosen.config)), chosen.config
    elif chosen.output and (chosen.resume or starts_later) and earlier.is_file():
        file, where = read_toml(earlier), str(earlier)
    named = {}
    for name, valid, usual in (
        ("dataset", dataset_names(), "custom" if chosen.data_dir or file.get("data_dir") else "synthetic"),
        ("preset", ["full", "quick"], "full"),
        ("profile", ["paper", "released"], "paper"),
    ):
        option = getattr(chosen, name)
        value = file.get(name, usual) if option is None else option
        if value not in valid:
            given = f"{where}: {name} = {value!r}" if option is None else f"--{name} {value}"
            raise UserError(f"{given}: expected one of {', '.join(valid)}{nearest(str(value), valid)}")
        named[name] = value
    base = validated(merged(layered(**named), file), where)
    default = TrainArguments.model_validate({**base.model_dump(), **named})
    try:
        # Without a description of its own, tyro takes the docstring but not its examples.
        description = inspect.getdoc(TrainArguments)
        return tyro.cli(TrainArguments, default=default, args=argv, prog="bin/train", description=description)
    except ValidationError as error:
        raise UserError("; ".join(f"--{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from None
