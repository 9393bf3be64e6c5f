"""Typed, frozen settings. The defaults are the paper's; files and options change them.

Each layer overrides the ones before it: the defaults, `configs/DATASET.toml`, the preset (with quick also the part
[quick] of the corpus's file), `configs/encoders/ENCODER.toml`, the profile, `--config FILE`, options. An unknown key is
an error that names the nearest valid one.
"""

import difflib
import functools
import reprlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from pydantic.fields import FieldInfo

from lsfa_jax.util.console import UserError

Verify = Literal["sampled", "full"]
EncoderKind = Literal["bilstm", "cnn", "transformer", "xml_cnn"]
"""The modules of `lsfa_jax.model.encoders`."""
TokenizerKind = Literal["words", "spaces", "characters"]
Denominator = Literal["all", "exclude_positive", "double_positive"]
LabelRows = Literal["adam", "row_adam", "sgd"]
TransferMethod = Literal["pvae", "gaussian", "resample", "none"]
Metric = Literal["P@1", "P@3", "P@5", "N@1", "N@3", "N@5", "PSP@1", "PSP@3", "PSP@5", "macro_P@5"]


class Section(BaseModel):
    """A frozen group of settings; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """From files to token ids."""

    max_words: int = Field(500, gt=0, description="Words kept of each text.")
    max_vocabulary: int = Field(500_000, gt=0, description="Words kept of the training texts, most frequent first.")
    validation_fraction: Literal["auto"] | Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05,
        description="Share of the training documents held out where there is no validation file; auto: a tenth, 15 % "
        "of fewer than 3,000 documents, 450 of up to 4,500, and never more than 2,000.",
    )
    test_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of the documents held out as test where there is no test file."
    )
    length_buckets: tuple[PositiveInt, ...] = Field(
        (64, 128, 192, 256, 384), description="Lengths that texts are padded to; max_words is always the last."
    )
    format: str = Field("auto", description="Of the files. auto: by their content; or jsonl, csv, tsv, parquet, ...")
    encoding: str = Field(
        "auto", description="auto: UTF-8, or UTF-16 with a byte order mark; or a name such as cp1252."
    )
    columns: str = Field(
        "",
        description="Names of the columns of a file without a header, in order: text,labels or id,text,labels; - is "
        "not read.",
    )
    header: Literal["auto", "yes", "no"] = Field(
        "auto", description="Whether the first row of a table has the names of the columns. auto: by its content."
    )
    text_field: str = Field(
        "", description="Field or column with the text; several, as title,abstract, are joined. By default detected."
    )
    labels_field: str = Field(
        "", description="Field or column with the labels; several, or a pattern such as label*. By default detected."
    )
    label_columns: str = Field(
        "",
        description="Columns of 0 and 1 that are a label each: first..last, a pattern, or names with commas between. "
        "By default detected.",
    )
    label_separator: str = Field(
        "", description="What stands between labels that share a column; none: nothing does. By default detected."
    )
    label_names: str = Field(
        "", description="File with the names of labels: id<TAB>name a line, or line i the name of number i, from 0."
    )
    tokenizer: TokenizerKind = Field(
        "words",
        description="words: of any script; spaces: whatever stands between spaces (C++, .NET); characters.",
    )
    html: Literal["keep", "strip"] = Field("keep", description="Whether tags are text, or removed.")
    bad_rows: Literal["stop", "skip"] = Field("stop", description="What to do at a row that cannot be read.")
    verify: Verify = Field(
        "sampled",
        description="How files are compared with what the cache prepared from them, and its arrays with what was "
        "written: by size and samples of the content, or by all of it. Changes no result.",
    )


class Encoder(Section):
    """Encoder and label attention, Eq. 1-4."""

    kind: EncoderKind = Field(
        "bilstm",
        description="Which encoder computes the token states: bilstm, cnn or transformer; or the baseline xml_cnn "
        "(--encoder for short).",
    )
    pretrained: str = Field(
        "",
        description="Of kind transformer: minilm (all-MiniLM-L6-v2, fetched once), or a folder with config.json, "
        "model.safetensors and tokenizer.json or vocab.txt.",
    )
    train: Literal["all", "frozen"] | PositiveInt = Field(
        "all",
        description="What is trained of the encoder: all; nothing (frozen; its token states are then computed once); "
        "or a number of a transformer's layers, the last ones.",
    )
    window: int = Field(
        256, ge=16, description="Tokens that a transformer reads at once; longer texts are read in overlapping windows."
    )
    kernel_width: int = Field(9, gt=0, description="Words under a filter of the convolution (cnn).")
    residual_blocks: int = Field(0, ge=0, description="Residual blocks of two convolutions behind the first one (cnn).")
    embedding_size: int = Field(300, gt=0, description="Word vector size where --vectors is none.")
    hidden_size: int = Field(
        256,
        gt=0,
        description="Half the size of a token state: LSTM units in each direction, or half the filters (cnn); filters "
        "of each width (xml_cnn).",
    )
    label_attention: bool = Field(
        True,
        description="Each label attends to its words, Eq. 3-4; without, the mean token state is the feature of all "
        "labels (row D of the paper's Figure 4).",
    )
    attention: Literal["label", "lsan"] = Field(
        "label",
        description="label: Eq. 3-4; lsan: the baseline LSAN, self-attention and label attention of each label, fused, "
        "over the states of a BiLSTM alone (without append_embedding).",
    )
    attention_size: int = Field(200, gt=0, description="Units of the self-attention (lsan).")
    feature_head: bool = Field(True, description="A shared linear layer and ReLU after the attention.")
    feature_size: int = Field(300, gt=0, description="Size D of a label-specific feature, with the feature head.")
    embedding_trainable: Literal["yes", "no", "after_collection"] = Field(
        "yes", description="Train the word vectors; after_collection: frozen until prototypes are first collected."
    )
    embedding_dropout: float = Field(0.2, ge=0, lt=1, description="Dropout on the word vectors.")
    append_embedding: bool = Field(
        False,
        description="The state of a word ends with its vector, so that labels also attend to words as such (bilstm, "
        "cnn).",
    )
    encoder_dropout: float = Field(0.5, ge=0, lt=1, description="Dropout on the token states.")
    label_block: int = Field(4096, gt=0, description="Labels attended at a time; bounds memory, changes no result.")


class Classifier(Section):
    """One-versus-all classifiers, Eq. 5."""

    weights: Literal["per_label", "shared"] = Field("per_label", description="w_l per label, or one w for all labels.")
    bias: bool = Field(False, description="Add a bias to w_l . v_l.")
    weights_start: Literal["random", "discriminant"] = Field(
        "random",
        description="Initial w_l, and with a bias what belongs to it; discriminant: those of a linear discriminant "
        "analysis of the mean token states, for pretrained encoders.",
    )
    bias_start: Literal["zero", "prior", "frequency"] = Field(
        "zero",
        description="Initial bias, as a probability; prior: the labels' mean frequency; frequency: each label's, "
        "smoothed.",
    )


class Psc(Section):
    """Prototypical supervised contrastive loss, Eq. 9."""

    weight: float = Field(0.1, ge=0, description="alpha, its weight beside the binary cross-entropy; 0 turns it off.")
    temperature: float = Field(0.07, gt=0, description="tau, the temperature.")
    normalize: bool = Field(True, description="Cosine similarity instead of the inner product.")
    denominator: Denominator = Field(
        "all",
        description="Labels in the denominator: each once, all but the positive (Eq. 9 as printed), positive twice.",
    )
    reduction: Literal["sum", "released"] = Field(
        "sum", description="sum: over documents x labels, as the cross-entropy; released: mean over pairs / documents."
    )
    start_epoch: int = Field(2, ge=1, description="First epoch with this loss; prototypes are collected before it.")
    every: int = Field(
        1, ge=1, description="Use the loss, with fresh prototypes, in one epoch of this many from then on."
    )


class Optimizer(Section):
    """Adam, gradient clipping and weight averaging (SWA)."""

    batch_size: int = Field(40, gt=0, description="Documents in a step.")
    learning_rate: float = Field(1e-3, gt=0, description="Of Adam, constant.")
    label_rows: LabelRows = Field(
        "adam",
        description="State of queries and classifiers, which have a row a label: adam: two moments of each number; "
        "row_adam: a second moment of each row; sgd: momentum alone, with a label_learning_rate.",
    )
    label_learning_rate: Literal["same"] | PositiveFloat = Field(
        "same",
        description="Of queries and classifiers in the first stage; with sgd in the last stage too. The step of sgd "
        "depends on the loss's scale, which is a mean over labels: its rate grows with their number.",
    )
    label_precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="In which queries, classifiers and their moments are stored between steps; bfloat16 is rounded "
        "stochastically. Their mean and best values are float32.",
    )
    encoder_learning_rate: Literal["same"] | PositiveFloat = Field(
        "same",
        description="Of the encoder: learning_rate; or, to fine-tune a pretrained one, the peak after warm-up, from "
        "which it falls to 0 as a cosine over the first stage's epochs.",
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which encoder_learning_rate is reached.")
    weight_decay: float = Field(
        0.0, ge=0, description="AdamW's, of the encoder's matrices, where it has an encoder_learning_rate."
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Factor of encoder_learning_rate from each layer of a transformer to the one below.",
    )
    clip: Literal["running", "global", "none"] = Field(
        "running", description="Clip gradients at a multiple of the largest recent norm, at a fixed norm, or not."
    )
    clip_factor: float = Field(5.0, gt=0, description="The multiple (running) or the norm (global).")
    swa_start_epoch: int = Field(10, ge=1, description="Average the weights from this epoch on.")
    swa_every: int = Field(100, ge=1, description="Steps between two sets of weights that enter the average.")
    swa_recency: float = Field(
        0.0,
        ge=0,
        description="In the first stage the newest of n averaged sets of weights counts (p + 1) / (n + p) with this p; "
        "0: all alike.",
    )


class Representation(Section):
    """Stage 1: representation learning on L_BCE + L_PSC."""

    epochs: int = Field(30, ge=1, description="Largest number of passes over the training documents.")
    patience: int = Field(5, ge=1, description="Stop after this many validations without improvement.")
    validate_every: int = Field(0, ge=0, description="Steps between validations; 0: once an epoch.")
    wait_for_stages: bool = Field(
        True, description="Never stop early before SWA and the contrastive loss have started."
    )
    select: Metric = Field("N@5", description="Validation metric that selects the weights to keep.")
    shortlist: Literal["auto"] | NonNegativeInt = Field(
        "auto",
        description="Sampled labels in a step of the first and the last stage, whose cost then does not grow with the "
        "number of labels (doubled until the labels of a batch's documents fill half at most); 0: all labels; auto: "
        "all up to 30,000, then 4,096.",
    )
    num_candidates: int = Field(100, ge=1, description="Labels that the linear model proposes for a document.")
    num_sampled: int = Field(
        256, ge=1, description="Random labels in a step that represent those outside the candidates."
    )
    num_estimated: int = Field(
        20,
        ge=0,
        description="Labels that a cheap estimate adds to the linear model's in prediction, so that others can win.",
    )


class Pvae(Section):
    """Stage 2: prototypes and the variational autoencoder, Eq. 10-17."""

    head_threshold: int = Field(50, ge=0, description="N_t: a label with fewer training features is a tail label.")
    hidden_size: int = Field(512, gt=0, description="Units of each hidden layer.")
    latent_size: int = Field(64, gt=0, description="Size Z of the latent variation.")
    learning_rate: float = Field(1e-3, gt=0, description="Of Adam.")
    epochs: int = Field(20, ge=1, description="Passes over the head labels' features.")
    batch_size: int = Field(256, gt=0, description="Features in a step.")
    kl_weight: Literal["auto"] | NonNegativeFloat = Field(
        "auto", description="auto: the ELBO at the best noise variance; a number: mean squared error + number x KL."
    )
    residual: bool = Field(
        True, description="The PVAE sees and generates scaled deviations from the prototype; else the features."
    )
    integer_cast: bool = Field(
        False, description="Round features and prototypes towards zero (parity with the released code)."
    )
    relu_posterior: bool = Field(False, description="ReLU on mu and log variance (parity).")
    decoder_norm: bool = Field(False, description="Batch norm before the decoder's last ReLU (parity).")


class Transfer(Section):
    """Stage 2: from what features of tail labels are generated, the PVAE or one of its rivals."""

    method: TransferMethod = Field(
        "pvae",
        description="pvae: Eq. 10-18; gaussian: a normal distribution around the prototype with the covariance of head "
        "labels; resample: the label's real features drawn again; none: no features.",
    )
    nearest_heads: int = Field(
        0,
        ge=0,
        description="gaussian: the mean covariance of this many head labels with the nearest prototypes (Yang et al. "
        "2021); 0: one covariance pooled over all.",
    )


class Adjust(Section):
    """Stage 3: classifiers adjusted on L_BCE + L_Augmented, Eq. 18-19, or by a rival."""

    method: Literal["augment", "tau_norm", "httn", "logit_adjustment", "crt"] = Field(
        "augment",
        description="augment: with generated features; tau_norm: weights divided by a power of their norm, chosen on "
        "validation (Kang et al. 2020); httn: tail weights by a linear map from prototypes, learned from head labels "
        "(Xiao et al. 2021); logit_adjustment: a loss shifted by the labels' frequency (Menon et al. 2021); "
        "crt: trained on documents drawn so that labels are balanced (Kang et al. 2020).",
    )
    tau: float = Field(1.0, ge=0, description="logit_adjustment: weight of the labels' log odds in the loss.")
    num_augmented: int = Field(10, ge=0, description="N_a: features generated for each tail label.")
    augmented_weight: float = Field(1.0, ge=0, description="gamma, the weight of L_Augmented.")
    negative_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of generated features as negatives of the other tail labels in a step, beside their 1 as "
        "positives; 0 as in the paper.",
    )
    learning_rate: float = Field(1e-3, gt=0, description="Of Adam.")
    epochs: int = Field(10, ge=1, description="Largest number of passes over the training documents.")
    patience: int = Field(3, ge=1, description="Stop after this many epochs without improvement on validation.")
    select: Metric = Field("N@5", description="Validation metric that selects the weights to keep.")
    average: bool = Field(True, description="Average the weights of the stage, every optimizer.swa_every steps.")
    schedule: Literal["joint", "alternate"] = Field("joint", description="Both losses in each step, or one an epoch.")
    alternate_from: int = Field(
        5,
        ge=1,
        description="With the alternate schedule: documents alone up to this epoch, then generated features and "
        "documents in alternate epochs.",
    )
    init: Literal["pretrained", "scratch"] = Field(
        "pretrained", description="Start from the classifiers of stage 1, or from new ones."
    )
    encoder_dropout: bool = Field(False, description="Keep the frozen encoder's dropout on (parity).")
    cache_states: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="Store the encoder's token states in the run folder, in half precision, instead of computing them "
        "in every epoch; auto: where they fit in half of the disk's free space. Not with encoder_dropout.",
    )


class Report(Section):
    """Metrics and how they are computed."""

    bin_size: int = Field(400, gt=0, description="Labels in a bin of macro-averaged P@5 over label frequency.")
    batch_size: int = Field(128, gt=0, description="Documents in a batch of validation, test and prediction.")
    propensity_a: float = Field(0.55, ge=0, description="A of propensity-scored precision.")
    propensity_b: float = Field(1.5, ge=0, description="B of propensity-scored precision.")


class Devices(Section):
    """How the work is split over the devices."""

    labels: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="Devices over which the labels are split, a divisor of their number; the documents are split over "
        "the rest. auto: 1.",
    )
    best_weights: Literal["device", "host"] = Field(
        "device",
        description="Where the mean and the best weights are between steps: on the devices, or in the host's memory.",
    )


class Config(Section):
    """Everything that decides a run's results."""

    dataset: str = Field(
        "synthetic",
        description="synthetic, rcv1, synthetic-aapd, -rcv1 or -eurlex; aapd, eurlex4k, eurlex57k or custom with "
        "--data-dir.",
    )
    preset: Literal["full", "quick"] = Field(
        "full", description="full: the paper's sizes; quick: for a laptop, the default of commands."
    )
    profile: Literal["paper", "released"] = Field(
        "paper", description="The paper's equations, or those of the released code."
    )
    # jax.random.key uses the low 32 bits.
    seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of everything random but a label tree, whose library has none."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "float32",
        description="Precision of matrix products; parameters stay float32, except as optimizer.label_precision "
        "sets. auto: bfloat16 on accelerators, and on processors on which a quick measurement at the start finds it "
        "faster.",
    )
    linear: Literal["auto", "tree", "svm", "none"] = Field(
        "auto",
        description="Linear model on TF-IDF that is trained first; tree: a label tree; svm: a support vector machine "
        "for each label; auto: the better one on validation, as far as they take seconds.",
    )
    fusion: Literal["auto", "none"] = Field(
        "auto",
        description="auto: labels are ranked by the fused score of the network and the linear model, calibrated on "
        "validation; none: by the network alone.",
    )
    candidates: Literal["auto", "linear", "all"] = Field(
        "auto",
        description="Labels that a document is compared with. linear: those that the linear model proposes; all: every "
        "label; auto: linear with the quick preset, the paper profile and 1,000 to 30,000 labels, else all.",
    )
    data_dir: str = Field(
        "", description="Folder with train, test and perhaps validation files of any format, or one file for all."
    )
    start: str = Field(
        "",
        description="Folder of a run or model whose encoder, words and known labels training starts from (--from for "
        "short).",
    )
    vectors: str = Field(
        "none",
        description="Word vectors: minilm (each word read alone), glove-50d, none, or a GloVe or word2vec text "
        "file; auto: minilm for English, else none.",
    )
    data: Data = Data()
    encoder: Encoder = Encoder()
    classifier: Classifier = Classifier()
    psc: Psc = Psc()
    optimizer: Optimizer = Optimizer()
    representation: Representation = Representation()
    transfer: Transfer = Transfer()
    pvae: Pvae = Pvae()
    adjust: Adjust = Adjust()
    report: Report = Report()
    devices: Devices = Devices()

    @property
    def corpus_name(self) -> str:
        """The corpus in messages and titles: its name, or that of the file or folder of `data_dir`."""
        return corpus_name(self.dataset, self.data_dir)

    @property
    def corpus_stem(self) -> str:
        """The corpus in names of folders: `corpus_name` without the suffixes of a file."""
        return self.corpus_name.lstrip(".").partition(".")[0] or self.dataset

    @property
    def follows_corpus(self) -> bool:
        """Whether settings that are not chosen are fitted to the corpus (`training/policy.py`)."""
        return self.preset == "quick" and self.profile == "paper"


def corpus_name(dataset: str, data_dir: str) -> str:
    """Returns `Config.corpus_name` of two settings."""
    is_named = dataset != "custom" or not data_dir
    return dataset if is_named else Path(data_dir).expanduser().resolve().name


def _configs_folder() -> Path:
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


CONFIGS = _configs_folder()
"""The folder with a settings file for each corpus; inside the package where that is installed."""


def dataset_names() -> list[str]:
    """Lists the corpora that have a file in configs/."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


# Settings that do not decide results.
_NO_RESULTS = ("data_dir", "data.label_names", "data.verify", "devices.labels", "devices.best_weights")

NAMED_VECTORS = ("auto", "minilm", "glove-50d", "none")
"""The values of `vectors` that are not the path of a file."""

NAMED_ENCODERS = ("", "minilm")
"""The values of `encoder.pretrained` that are not the path of a folder."""


def encoder_settings(name: str) -> dict[str, Any]:
    """Returns the settings of an encoder by its short name: a kind, or a pretrained transformer's name or folder."""
    if name in get_args(EncoderKind):
        return {"kind": name, "pretrained": ""}
    return {"kind": "transformer", "pretrained": name}


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a settings file; raises UserError with the line of an error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such settings file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not a TOML settings file: {error}") from None


def layered(
    dataset: str, preset: str, profile: str, configs: Path = CONFIGS, encoder: str = "bilstm"
) -> dict[str, Any]:
    """Merges the files of a corpus, a preset, an encoder and a profile, in this order; later ones win.

    Args:
        dataset: a corpus of `dataset_names`. Its file may hold, under [quick], what its quick preset needs beyond the
            general one.
        preset: "full", which has no file, or "quick".
        profile: "paper", which has no file, or "released".
        configs: the folder with the files.
        encoder: a kind of encoder. Its file may have a part [quick] likewise.

    Returns:
        The settings that differ from the defaults, as nested dicts.
    """
    values, quick_of_dataset = _of_dataset(dataset, configs)
    if preset == "quick":
        values = merged(merged(values, read_toml(configs / "presets" / "quick.toml")), quick_of_dataset)
    if (file := configs / "encoders" / f"{encoder}.toml").is_file():
        of_encoder = read_toml(file)
        quick_of_encoder = of_encoder.pop("quick", {})
        values = merged(merged(values, of_encoder), quick_of_encoder if preset == "quick" else {})
    if profile != "paper":
        values = merged(values, read_toml(configs / "profiles" / f"{profile}.toml"))
    return merged(values, {"dataset": dataset, "preset": preset, "profile": profile})


def for_encoder(dataset: str, preset: str, encoder: str, over: Mapping[str, Any], where: str) -> Config:
    """Returns the settings of a corpus and a preset with an encoder by its short name, below those that are given.

    Args:
        dataset: a corpus of `dataset_names`.
        preset: "full" or "quick".
        encoder: as `encoder_settings` takes it.
        over: settings by section, which win.
        where: what they are from, for messages.

    Raises:
        UserError: a setting is unknown, or has a value that is not allowed.
    """
    of_encoder = encoder_settings(encoder)
    layers = layered(dataset, preset, "paper", encoder=of_encoder["kind"])
    return validated(merged(merged(layers, {"encoder": of_encoder}), over), where)


def _of_dataset(dataset: str, configs: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a corpus's file; returns its settings, and those of its part [quick]."""
    values = read_toml(configs / f"{dataset}.toml")
    return values, values.pop("quick", {})


def usual_data() -> Data:
    """Returns the settings with which bin/train reads texts when no option changes them."""
    return validated(layered("custom", "quick", "paper"), "custom").data


def chosen_for(dataset: str, preset: str, configs: Path = CONFIGS) -> frozenset[str]:
    """Returns the dotted keys of the settings that a corpus's file has for a preset."""
    values, quick = _of_dataset(dataset, configs)
    return frozenset(dotted(merged(values, quick) if preset == "quick" else values))


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with the entries of `over` in place of its entries of the same name, table by table."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def validated(values: Mapping[str, Any], where: str) -> Config:
    """Builds a Config from nested dicts.

    Args:
        values: settings that differ from the defaults, by section.
        where: the file that they are from, for messages.

    Raises:
        UserError: a line for each error, with the key, what was expected, and for an unknown key the nearest one.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(dict.fromkeys(_lines(error, where)))) from None


def _lines(error: ValidationError, where: str) -> Iterator[str]:
    settings = dict(fields(Config))
    known = [*sorted({name.split(".")[0] for name in settings}), *settings]
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = 80
    for item in error.errors():
        # The branches of a union add their names to the path ('auto', 'float'): the longest key in it is the setting.
        path = ".".join(str(part) for part in item["loc"])
        key = next((name for name in sorted(known, key=len, reverse=True) if f"{path}.".startswith(f"{name}.")), path)
        if item["type"] == "extra_forbidden":
            yield f"{where}: unknown setting {path}{nearest(path, known)}"
            continue
        expected = f"a table of settings, [{key}]"
        if key in settings:
            field = settings[key]
            of_item = isinstance(item["loc"][-1], int)
            expected = expected_values(item_type(field) if of_item else field.annotation, field.metadata)
        yield f"{where}: {key} = {shown.repr(item['input'])}: expected {expected}"


def expected_values(annotation: object, metadata: Sequence[object] = ()) -> str:
    """Describes the values of a type for an error message: `auto or an integer of at least 1`.

    Args:
        annotation: the type of a setting or an option, or of an item of a list.
        metadata: its limits, as pydantic's FieldInfo has them beside the type.
    """
    if get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        metadata = [part for item in inner for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        return _alternatives([name for member in members for name in _names(member, metadata)])
    if get_origin(annotation) is tuple:
        return f"a list, each {expected_values(get_args(annotation)[0])}"
    if get_origin(annotation) is Literal:
        return _alternatives(_names(annotation, ()))
    if annotation is bool:
        return "true or false"
    if annotation is int or annotation is float:
        return f"{'an integer' if annotation is int else 'a number'}{_range(annotation is int, metadata)}"
    return "a string"


def item_type(field: FieldInfo) -> object:
    """Returns the type of the items of a list, and of another field its type."""
    return get_args(field.annotation)[0] if get_origin(field.annotation) is tuple else field.annotation


def _names(member: object, metadata: Sequence[object]) -> list[str]:
    return list(map(str, get_args(member))) if get_origin(member) is Literal else [expected_values(member, metadata)]


def _alternatives(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _range(integer: bool, metadata: Sequence[object]) -> str:
    """Returns the limits in words: " from 0 to 1", " of at least 1"; those of integers are all inclusive."""
    limits: dict[str, Any] = {
        name: getattr(item, name) for item in metadata for name in ("gt", "ge", "lt", "le") if hasattr(item, name)
    }
    gt, ge, lt, le = (limits.get(name) for name in ("gt", "ge", "lt", "le"))
    if integer and gt is not None:
        ge, gt = int(gt) + 1, None
    if integer and lt is not None:
        le, lt = int(lt) - 1, None
    if ge is not None and le is not None:
        return f" from {ge:,} to {le:,}"
    words = ((" of at least", ge), (" above", gt), (" of at most", le), (" below", lt))
    return " and".join(f"{limit} {value:,}" for limit, value in words if value is not None)


def nearest(word: str, words: list[str]) -> str:
    """Returns ' (did you mean ...?)', or nothing where no word is near."""
    # A key in the wrong section is as common an error as a misspelt one: then the last part is the same. Of several
    # sections the first is the nearest.
    close = [name for name in words if name.split(".")[-1] == word.split(".")[-1]]
    close += difflib.get_close_matches(word, words, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Lists every setting with its dotted key."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def keys(model: type[BaseModel]) -> Iterator[str]:
    """Lists every setting as a dotted key."""
    return (name for name, _ in fields(model))


def get(config: Config, key: str) -> Any:
    """Returns the value of a setting by its dotted key."""
    return functools.reduce(getattr, key.split("."), config)


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns the settings with other values, by dotted key."""
    return Config.model_validate(merged(config.model_dump(), nested(values)))


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts values by dotted key to nested dicts."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        branch: dict[str, Any] = {last: value}
        for section in reversed(sections):
            branch = {section: branch}
        out = merged(out, branch)
    return out


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Converts nested dicts to values by dotted key."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def differences(first: Config, second: Config) -> list[str]:
    """Lists the dotted keys in which two settings differ, of those that decide results.

    The place of a file or folder does not: a run knows its data by content.
    """

    def value(config: Config, key: str) -> object:
        setting = get(config, key)
        named = {"vectors": NAMED_VECTORS, "encoder.pretrained": NAMED_ENCODERS, "start": ("",)}
        return "a file" if setting not in named.get(key, (setting,)) else setting

    return [key for key in keys(Config) if key not in _NO_RESULTS and value(first, key) != value(second, key)]


def to_toml(config: Config) -> str:
    """Returns every setting as TOML, so that `--config` repeats the run."""
    return tomli_w.dumps(config.model_dump(mode="json"))


StageName = Literal["representation", "transfer", "adjustment"]
STAGES: tuple[StageName, ...] = ("representation", "transfer", "adjustment")
