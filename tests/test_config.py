import functools
import importlib
import math
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Literal, Union, get_args, get_origin

import annotated_types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from lsfa_jax import config
from lsfa_jax.cli.train import chosen_settings, main, parse
from lsfa_jax.config import Config, EncoderKind, differences, keys, layered, to_toml, validated
from lsfa_jax.util.console import UserError

ROOT = Path(__file__).parents[1]
DATASETS = ("aapd", "custom", "eurlex4k", "eurlex57k", "rcv1", "synthetic")
DATASETS += ("synthetic-aapd", "synthetic-eurlex", "synthetic-rcv1")


def get(settings, key):
    for part in key.split("."):
        settings = getattr(settings, part)
    return settings


def field_of(key):
    *sections, name = key.split(".")
    model = Config
    for section in sections:
        model = model.model_fields[section].annotation
    return model.model_fields[name]


def write(tmp_path, text, name="mine.toml"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def run(*command):
    environment = {name: value for name, value in os.environ.items() if name != "PYDANTIC_ERRORS_INCLUDE_URL"}
    environment |= {"LSFA_PYTHON": sys.executable, "COLUMNS": "100"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def train(*arguments):
    return run(sys.executable, "-m", "lsfa_jax.cli.train", *arguments)


# Random settings, drawn from the types and bounds that the fields declare.


def of_type(annotation, metadata=()):
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if hasattr(annotation, "__metadata__"):  # Annotated
        bounds = [getattr(bound, "metadata", [bound]) for bound in annotation.__metadata__]  # pydantic's Field has them
        return of_type(get_args(annotation)[0], [bound for some in bounds for bound in some])
    if get_origin(annotation) is tuple:
        return st.lists(of_type(get_args(annotation)[0]), max_size=5).map(tuple)
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return st.one_of(*map(of_type, get_args(annotation)))
    if annotation is bool:
        return st.booleans()
    if annotation is str:
        return st.text()
    low, high, open_low, open_high = 0, None, False, False
    for bound in metadata:
        if isinstance(bound, annotated_types.Gt):
            low, open_low = bound.gt, True
        elif isinstance(bound, annotated_types.Lt):
            high, open_high = bound.lt, True
        elif isinstance(bound, annotated_types.Le):
            high = bound.le
        elif not isinstance(bound, annotated_types.Ge):
            raise AssertionError(bound)
        else:
            low = bound.ge
    if annotation is int:
        return st.integers(low + open_low, (high or 2**63) - 1)
    assert annotation is float
    return st.floats(low, high, exclude_min=open_low, exclude_max=open_high, allow_nan=False, allow_infinity=False)


def models(model):
    drawn = {}
    for name, field in model.model_fields.items():
        if name == "dataset":
            drawn[name] = st.sampled_from(DATASETS)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            drawn[name] = models(field.annotation)
        else:
            drawn[name] = of_type(field.annotation, field.metadata)
    return st.builds(model, **drawn)


# --- layers


def test_each_file_overrides_the_ones_before(tmp_path):
    settings = ["optimizer.batch_size", "data.max_words", "representation.epochs", "pvae.epochs", "adjust.epochs"]

    def layer(number, prefix=""):
        """Sets every setting but the first `number` ones to `number`."""
        return "\n".join(f"{prefix}{key} = {number}" for key in settings[number:])

    (tmp_path / "presets").mkdir()
    (tmp_path / "profiles").mkdir()
    write(tmp_path, f"{layer(1)}\n{layer(3, 'quick.')}", "rcv1.toml")
    write(tmp_path, layer(2), "presets/quick.toml")
    write(tmp_path, layer(4), "profiles/released.toml")

    def values(preset, profile):
        config = validated(layered("rcv1", preset, profile, tmp_path), "settings")
        assert (config.dataset, config.preset, config.profile) == ("rcv1", preset, profile)
        return [get(config, key) for key in settings]

    default = Config().optimizer.batch_size
    assert values("quick", "released") == [default, 1, 2, 3, 4]
    assert values("quick", "paper") == [default, 1, 2, 3, 3]
    # The full preset and the paper's profile have no file.
    assert values("full", "paper") == [default, 1, 1, 1, 1]


def test_a_settings_file_overrides_the_layers_and_an_option_overrides_the_file(tmp_path):
    layers = ["--dataset", "rcv1", "--preset", "quick", "--profile", "released"]
    usual = parse(layers)
    file = write(tmp_path, "[pvae]\nhead_threshold = 3\nepochs = 4\nlearning_rate = 0.5\n[data]\nmax_words = 300")
    changed = parse([*layers, "--config", file, "--data.max-words", "301"])
    keys = ["pvae.head_threshold", "pvae.epochs", "pvae.learning_rate", "data.max_words"]
    assert sorted(differences(usual.settings(), changed.settings())) == sorted(keys)
    assert [get(changed, key) for key in keys] == [3, 4, 0.5, 301]


def test_config_file_chooses_corpus_preset_and_profile_unless_options_do(tmp_path):
    file = write(tmp_path, 'dataset = "aapd"\npreset = "quick"\nprofile = "released"')
    parsed = parse(["--config", file])
    assert (parsed.dataset, parsed.preset, parsed.profile) == ("aapd", "quick", "released")
    assert parsed.pvae.head_threshold == 1000
    assert parsed.encoder.hidden_size == 128
    assert parsed.classifier.bias
    parsed = parse(["--config", file, "--dataset", "rcv1", "--preset=full", "--profile", "paper"])
    assert (parsed.dataset, parsed.preset, parsed.profile) == ("rcv1", "full", "paper")
    assert parsed.pvae.head_threshold == 500
    assert parsed.encoder.hidden_size == 256
    assert not parsed.classifier.bias


@pytest.mark.parametrize("option", [["--data-dir", "mine"], ["--data_dir", "mine"], ["--data-dir=mine"], None])
def test_data_dir_alone_selects_the_custom_corpus(tmp_path, option):
    option = option or ["--config", write(tmp_path, 'data_dir = "mine"')]
    parsed = parse(option)
    assert (parsed.dataset, parsed.data_dir) == ("custom", "mine")
    assert (parsed.corpus_name, parsed.corpus_stem) == ("mine", "mine")
    for name, stem in (("my.csv.gz", "my"), (".hidden", "hidden"), ("a/b.d/", "b")):
        assert Config(dataset="custom", data_dir=name).corpus_stem == stem
    assert parse([*option, "--dataset", "aapd"]).corpus_name == "aapd"
    assert parse([]).dataset == "synthetic"


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_only_encoders_with_a_state_of_each_word_append_its_vector(preset):
    appends = {
        kind: validated(layered("custom", preset, "paper", encoder=kind), "files").encoder.append_embedding
        for kind in get_args(EncoderKind)
    }
    quick = preset == "quick"
    assert appends == {"bilstm": quick, "cnn": quick, "transformer": False, "xml_cnn": False}


def test_an_option_that_switches_a_setting_off_chooses_it():
    options = ["--psc.no-normalize", "--encoder.no-feature-head", "--adjust.epochs=2", "--encoder.append-embedding"]
    chosen = chosen_settings(options)
    names = {"psc.normalize", "encoder.feature_head", "adjust.epochs", "encoder.append_embedding"}
    assert chosen - chosen_settings([]) >= names - chosen_settings([])
    assert {"psc.normalize", "encoder.feature_head"} <= chosen


@pytest.mark.parametrize("going_on", [["--resume"], ["--stages", "transfer", "adjustment"], ["--stages=adjustment"]])
def test_a_run_that_goes_on_starts_from_the_settings_in_its_folder(tmp_path, going_on):
    ran = parse(["--dataset", "aapd", "--preset", "quick", "--psc.weight", "0.25"]).settings()
    write(tmp_path, to_toml(ran), "config.toml")
    output = ["--output", str(tmp_path)]
    parsed = parse([*output, *going_on])
    assert differences(parsed.settings(), ran) == []
    changed = parse([*output, *going_on, "--adjust.epochs", "1"]).settings()
    assert differences(changed, ran) == ["adjust.epochs"]
    assert parse([*output, "--stages", "representation"]).dataset == "synthetic"
    seed_nine = write(tmp_path, "seed = 9")
    assert parse([*output, *going_on, "--config", seed_nine]).seed == 9


# --- values


def test_defaults_are_the_papers():
    paper = {
        "data.max_words": 500,
        "data.max_vocabulary": 500_000,
        "encoder.embedding_size": 300,
        "encoder.hidden_size": 256,
        "encoder.feature_size": 300,
        "encoder.embedding_dropout": 0.2,
        "encoder.encoder_dropout": 0.5,
        "encoder.feature_head": True,
        "classifier.weights": "per_label",
        "psc.weight": 0.1,
        "psc.temperature": 0.07,
        "psc.normalize": True,
        "psc.denominator": "all",
        "optimizer.batch_size": 40,
        "optimizer.learning_rate": 1e-3,
        "optimizer.clip_factor": 5.0,
        "optimizer.swa_start_epoch": 10,
        "optimizer.swa_every": 100,
        "pvae.kl_weight": "auto",
        "pvae.integer_cast": False,
        "pvae.relu_posterior": False,
        "pvae.decoder_norm": False,
        "adjust.augmented_weight": 1.0,
        "adjust.schedule": "joint",
        "adjust.init": "pretrained",
        "adjust.encoder_dropout": False,
        "report.bin_size": 400,
    }
    assert {key: get(Config(), key) for key in paper} == paper


@pytest.mark.parametrize(
    ("dataset", "head_threshold", "num_augmented"),
    [("aapd", 1000, 500), ("rcv1", 500, 200), ("eurlex4k", 50, 10), ("eurlex57k", 50, 10)],
)
def test_corpora_differ_in_the_papers_thresholds_and_their_word_vectors_alone(dataset, head_threshold, num_augmented):
    parsed = parse(["--dataset", dataset, "--preset", "full"]).settings()
    assert (parsed.pvae.head_threshold, parsed.adjust.num_augmented) == (head_threshold, num_augmented)
    allowed = {"dataset", "vectors", "pvae.head_threshold", "adjust.num_augmented"}
    # Thousands of labels that all start at a probability of one half learn slowly.
    allowed |= {"classifier.bias", "classifier.bias_start"} if dataset.startswith("eurlex") else set()
    assert set(differences(parsed, Config())) <= allowed


def test_released_profile_is_what_the_released_code_does():
    # The differences between the paper and its released code; the two profiles differ in nothing else.
    released = {
        "profile": "released",
        "classifier.weights": "shared",
        "classifier.bias": True,
        "encoder.embedding_trainable": "after_collection",
        "psc.denominator": "double_positive",
        "psc.reduction": "released",
        "psc.start_epoch": 25,
        "psc.every": 2,
        "representation.validate_every": 100,
        "representation.patience": 15,
        "representation.wait_for_stages": False,
        "pvae.learning_rate": 1e-4,
        "pvae.kl_weight": 0.005,
        "pvae.integer_cast": True,
        "pvae.relu_posterior": True,
        "pvae.decoder_norm": True,
        "pvae.residual": False,
        "adjust.average": False,
        "adjust.schedule": "alternate",
        "adjust.init": "scratch",
        "adjust.encoder_dropout": True,
        "report.propensity_a": 0.6,
        "report.propensity_b": 2.6,
    }
    usual = ["--dataset", "rcv1", "--preset", "full"]
    paper, parsed = (parse([*usual, "--profile", name]).settings() for name in ("paper", "released"))
    assert {key: get(parsed, key) for key in differences(paper, parsed)} == released


def test_datasets_are_those_with_a_file():
    assert config.dataset_names() == list(DATASETS)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("preset", ["full", "quick"])
@pytest.mark.parametrize("profile", ["paper", "released"])
def test_every_file_is_valid_with_every_preset_and_profile(dataset, preset, profile):
    parsed = validated(layered(dataset, preset, profile), "settings")
    assert (parsed.dataset, parsed.preset, parsed.profile) == (dataset, preset, profile)
    # The contrastive loss and SWA start within the epochs of the run.
    if profile == "paper":
        assert parsed.psc.start_epoch <= parsed.representation.epochs
    assert parsed.optimizer.swa_start_epoch <= parsed.representation.epochs


@pytest.mark.parametrize("dataset", DATASETS)
def test_quick_is_smaller_in_every_size_and_keeps_the_method(dataset):
    full, quick = (parse(["--dataset", dataset, "--preset", name]) for name in ("full", "quick"))
    sizes = ["data.max_words", "encoder.hidden_size", "encoder.feature_size", "representation.epochs"]
    sizes += ["pvae.hidden_size", "pvae.latent_size", "pvae.epochs"]
    assert all(get(quick, key) < get(full, key) for key in sizes)
    may_differ = {"preset", "data.length_buckets", "optimizer.learning_rate", "optimizer.swa_start_epoch"}
    may_differ |= {"data.validation_fraction", "vectors", "encoder.append_embedding", "report.batch_size"}
    may_differ |= {"optimizer.swa_every", "psc.start_epoch", "adjust.epochs", "adjust.augmented_weight"}
    # Corpora with thousands of labels.
    may_differ |= {"optimizer.batch_size", "encoder.label_block"}
    assert set(sizes) <= set(differences(full.settings(), quick.settings())) <= may_differ | set(sizes)
    assert max(quick.data.length_buckets) < quick.data.max_words


# --- round trip


@settings(max_examples=50)
@given(models(Config))
def test_settings_survive_a_round_trip_through_toml(config):
    assert validated(tomllib.loads(to_toml(config)), "settings") == config


@settings(max_examples=15)
@given(models(Config))
def test_config_file_repeats_a_run(tmp_path_factory, config):
    file = write(tmp_path_factory.mktemp("run"), to_toml(config))
    assert parse(["--config", file]).settings() == config


def as_option(key, value):
    section, dot, name = key.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return [f"--{section}{dot}{'' if value else 'no-'}{name}"]
    return [f"--{section}{dot}{name}", *map(str, value if isinstance(value, tuple) else [value])]


def changed_value(key):
    field = field_of(key)
    if key in ("dataset", "preset", "profile"):
        return {"dataset": "rcv1", "preset": "quick", "profile": "released"}[key]
    if get_origin(field.annotation) is Literal:
        return next(value for value in get_args(field.annotation) if value != field.default)
    if isinstance(field.default, bool):
        return not field.default
    if isinstance(field.default, int):
        return field.default + 1
    if isinstance(field.default, float):
        return field.default / 2 or 0.5
    values = {
        "data.length_buckets": (10, 20),
        "data.validation_fraction": 0.25,
        "devices.labels": 2,
        "encoder.train": 2,
        "optimizer.encoder_learning_rate": 1e-4,
        "optimizer.label_learning_rate": 1e-2,
        "pvae.kl_weight": 0.5,
        "representation.shortlist": 512,
    }
    return values.get(key, "somewhere")


# The folder of a model that a run starts from is read with the command line: tests/training/test_starting_model.py.
@pytest.mark.parametrize("key", [key for key in keys(Config) if key != "start"])
def test_every_setting_can_be_set_on_the_command_line(key):
    value = changed_value(key)
    assert value != field_of(key).default
    usual = ("--dataset", "rcv1", *(() if key == "preset" else ("--preset", "full")))
    parsed = parse([*usual, *as_option(key, value)]).settings()
    assert get(parsed, key) == value
    if key not in ("dataset", "preset", "profile"):  # these bring further differences
        # A run knows its data by content, wherever they are.
        placement = ("devices.labels", "devices.best_weights")
        decides_results = key not in ("data.verify", "data_dir", "data.label_names", *placement)
        assert differences(parsed, settings_of(usual)) == ([key] if decides_results else [])


@functools.cache
def settings_of(line):
    return parse([*line]).settings()


@pytest.mark.parametrize("profile", ["paper", "released"])
@pytest.mark.parametrize("value", [True, False])
def test_a_switch_can_be_set_either_way_over_any_layer(profile, value):
    switches = [key for key in keys(Config) if field_of(key).annotation is bool]
    assert len(switches) == 12
    options = [option for key in switches for option in as_option(key, value)]
    parsed = parse(["--profile", profile, *options])
    assert [get(parsed, key) for key in switches] == [value] * len(switches)
    assert parse(["--resume"]).resume is True
    assert parse([]).resume is False


def test_seeds_are_all_different_to_jax():
    # jax.random.key uses the low 32 bits, so a larger seed would equal a smaller one.
    assert parse(["--seed", str(2**32 - 1)]).seed == 2**32 - 1
    with pytest.raises(UserError, match=r"seed = 4294967296: expected an integer from 0 to 4,294,967,295"):
        validated({"seed": 2**32}, "x")


# --- errors

FILE_ERRORS = [
    ("[psc]\nwieght = 1", "unknown setting psc.wieght (did you mean psc.weight?)"),
    ("[encoder]\nbatch_size = 1", "unknown setting encoder.batch_size (did you mean "),
    ("[optimiser]\nclip = 'none'", "unknown setting optimiser (did you mean optimizer?)"),
    ("weight = 1", "unknown setting weight (did you mean psc.weight?)"),
    ("[quick]\nseed = 1", "unknown setting quick"),
    ("resume = true", "unknown setting resume"),
    ("[psc]\nweight = 'a'", "psc.weight = 'a': expected a number of at least 0"),
    ("[psc]\nweight = -0.1", "psc.weight = -0.1: expected a number of at least 0"),
    ("[psc]\nweight = inf", "psc.weight = inf: expected a number of at least 0"),
    ("[psc]\nweight = nan", "psc.weight = nan: expected a number of at least 0"),
    ("[psc]\ndenominator = 'some'", "psc.denominator = 'some': expected all, exclude_positive or double_positive"),
    ("[pvae]\nkl_weight = 'x'", "pvae.kl_weight = 'x': expected auto or a number of at least 0"),
    ("[pvae]\nkl_weight = -1", "pvae.kl_weight = -1: expected auto or a number of at least 0"),
    (
        "[data]\nvalidation_fraction = 1",
        "data.validation_fraction = 1: expected auto or a number of at least 0 and below 1",
    ),
    ("[data]\nlength_buckets = [8, 0]", "data.length_buckets = 0: expected an integer of at least 1"),
    ("[data]\nlength_buckets = 8", "data.length_buckets = 8: expected a list, each an integer of at least 1"),
    ("[optimizer]\nbatch_size = 2.5", "optimizer.batch_size = 2.5: expected an integer of at least 1"),
    ("data = 3", "data = 3: expected a table of settings, [data]"),
    ("seed = -1", "seed = -1: expected an integer from 0 to 4,294,967,295"),
    ("dataset = 3", "dataset = 3: expected one of aapd, custom, eurlex4k, eurlex57k, rcv1, synthetic,"),
    ("dataset = ''", "dataset = '': expected one of aapd"),
    ("dataset = 'rcv1x'", "(did you mean rcv1?)"),
    ("preset = 'quik'", "preset = 'quik': expected one of full, quick (did you mean quick?)"),
    ("profile = []", "profile = []: expected one of paper, released"),
    ("[psc\nweight = 1", "not a TOML settings file: Expected ']' at the end of a table declaration (at line 1,"),
    ("seed = 1\nseed = 2", "not a TOML settings file: Cannot overwrite a value"),
]


@pytest.mark.parametrize(("text", "message"), FILE_ERRORS, ids=[text.replace("\n", " ") for text, _ in FILE_ERRORS])
def test_an_error_in_a_file_names_file_key_and_what_was_expected(tmp_path, text, message):
    file = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        parse(["--config", file])
    assert str(error.value).startswith(f"{file}: ")
    assert message in str(error.value)


def test_all_errors_of_a_file_are_reported_together(tmp_path):
    with pytest.raises(UserError) as error:
        parse(["--config", write(tmp_path, "[psc]\nwieght = 1\ntemperature = 0\n[pvae]\nepochs = 'x'")])
    assert [line.split(": ")[1] for line in str(error.value).splitlines()] == [
        "psc.temperature = 0",
        "unknown setting psc.wieght (did you mean psc.weight?)",
        "pvae.epochs = 'x'",
    ]


@pytest.mark.parametrize(
    ("name", "content"), [("missing.toml", None), ("latin.toml", b"vectors = '\xe9'"), (".", None)]
)
def test_file_that_cannot_be_read(tmp_path, name, content):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"no such settings file|not a TOML settings file") as error:
        parse(["--config", str(tmp_path / name)])
    assert str(error.value).startswith(str(tmp_path / name))


NUMBER, INTEGER = "expected a number", "expected an integer"
OPTION_ERRORS = [
    ("--psc.wieght 1", "--psc.wieght: unknown option (did you mean --psc.weight?)"),
    ("--datasets rcv1", "--datasets: unknown option (did you mean --dataset?)"),
    ("--epochs 3", "--epochs: unknown option (did you mean --representation.epochs?)"),
    ("--max-words 3", "--max-words: unknown option (did you mean --data.max-words?)"),
    ("-s 3", "-s: unknown option"),
    ("--psc.weight abc", f"--psc.weight abc: {NUMBER} of at least 0"),
    ("--psc.weight -1", f"--psc.weight -1: {NUMBER} of at least 0"),
    ("--psc.weight nan", f"--psc.weight nan: {NUMBER} of at least 0"),
    ("--psc.weight", f"--psc.weight: {NUMBER} of at least 0 after it"),
    ("--psc.weight --seed 3", f"--psc.weight: {NUMBER} of at least 0 after it"),
    ("--psc.temperature 0", f"--psc.temperature 0: {NUMBER} above 0"),
    (
        "--data.validation-fraction 1",
        "--data.validation-fraction 1: expected auto or a number of at least 0 and below 1",
    ),
    ("--data.length-buckets 8 0", f"--data.length-buckets 0: {INTEGER} of at least 1"),
    ("--data.max_words=ten", f"--data.max-words ten: {INTEGER} of at least 1"),
    ("--optimizer.batch-size 2.5", f"--optimizer.batch-size 2.5: {INTEGER} of at least 1"),
    ("--pvae.kl-weight x", "--pvae.kl-weight x: expected auto or a number of at least 0"),
    ("--adjust.schedule never", "--adjust.schedule never: expected joint or alternate"),
    ("--save-every -1", f"--save-every -1: {NUMBER} of at least 0"),
    ("--stages transfer bogus", "--stages bogus: expected representation, transfer or adjustment"),
    ("--dataset", "--dataset: expected a value after it"),
    ("--seed -1", f"--seed -1: {INTEGER} from 0 to 4,294,967,295"),
    ("--resume yes", "yes: unexpected argument"),
    ("--resume=maybe", "--resume maybe: expected true or false"),
    ("README.md", "README.md: unexpected argument (did you mean --data-dir README.md?)"),
]


@pytest.mark.parametrize(("options", "message"), OPTION_ERRORS, ids=[options for options, _ in OPTION_ERRORS])
def test_an_error_on_the_command_line_is_one_line_that_names_the_option_and_what_was_expected(
    options, message, monkeypatch, capsys
):
    monkeypatch.chdir(ROOT)
    assert main(options.split()) == 2
    assert capsys.readouterr() == ("", f"error: {message}; see bin/train --help\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--dataset rcv1x", r"--dataset rcv1x: expected one of aapd, .* \(did you mean rcv1\?\)"),
        ("--preset=quik", r"--preset quik: expected one of full, quick \(did you mean quick\?\)"),
        ("--profile x", r"--profile x: expected one of paper, released$"),
        ("--dataset ../configs/rcv1", r"--dataset ../configs/rcv1: expected one of aapd, "),
    ],
)
def test_unknown_corpus_preset_or_profile_lists_the_known(options, message):
    with pytest.raises(UserError, match=message):
        parse(options.split())


def test_an_error_in_a_file_is_one_line_on_stderr(tmp_path):
    file = write(tmp_path, "[psc]\nwieght = 1")
    ended = train("--config", file)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: {file}: unknown setting psc.wieght (did you mean psc.weight?)\n"


def test_command_with_a_misspelt_corpus():
    ended = run("bin/train", "--dataset", "rcv1x")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: --dataset rcv1x: ")
    assert "(did you mean rcv1?)" in ended.stderr


def test_help_lists_every_setting_with_its_meaning_and_examples():
    ended = run("bin/train", "--help-all")
    assert (ended.returncode, ended.stderr) == (0, "")
    text = " ".join(ended.stdout.replace("│", " ").split())
    for key in keys(Config):
        assert f"--{key.replace('_', '-')}" in text
    for name, field in Config.model_fields.items():
        if isinstance(field.default, BaseModel):
            assert f" {name} options " in ended.stdout
            assert " ".join(type(field.default).__doc__.split()) in text
    assert "bin/train --dataset rcv1 --preset full" in text
    assert "--resume" in text
    assert "(default: 0.1)" in text


def test_every_setting_is_described():
    described = [field_of(key).description for key in keys(Config)]
    assert all(text and text.endswith(".") for text in described)
    assert len(described) > 50


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().psc.weight = 0.2
    assert math.isclose(Config().psc.weight, 0.1)


# --- the short name of an encoder


@pytest.mark.parametrize("line", [["--encoder", "{}"], ["--encoder={}"]])
@pytest.mark.parametrize(
    ("name", "kind", "pretrained"),
    [("bilstm", "bilstm", ""), ("cnn", "cnn", ""), ("minilm", "transformer", "minilm"), ("a/b", "transformer", "a/b")],
)
def test_an_encoder_by_its_short_name_brings_its_settings(line, name, kind, pretrained):
    parsed = parse(["--dataset", "rcv1", *(word.format(name) for word in line), "--preset", "quick"]).settings()
    assert (parsed.encoder.kind, parsed.encoder.pretrained) == (kind, pretrained)
    fine_tuned = parsed.optimizer.encoder_learning_rate != "same"
    assert fine_tuned == (kind == "transformer")


def test_options_and_files_change_the_settings_of_an_encoder(tmp_path):
    line = ["--encoder", "minilm", "--optimizer.batch-size", "7"]
    assert parse(line).optimizer.batch_size == 7
    file = write(tmp_path, "[encoder]\nkind = 'transformer'\npretrained = 'x'\n[representation]\nepochs = 9")
    parsed = parse(["--config", file])
    assert parsed.representation.epochs == 9
    assert parsed.optimizer.encoder_learning_rate == parse(["--encoder", "x"]).optimizer.encoder_learning_rate


@pytest.mark.parametrize("line", [["--encoder"], ["--encoder", "--resume"], ["--encoder="]])
def test_an_encoder_without_a_name_is_an_error(line):
    with pytest.raises(UserError, match="--encoder: expected auto, bilstm, cnn, minilm, or the folder"):
        parse(line)


def test_each_kind_of_encoder_is_a_module():
    for kind in get_args(EncoderKind):
        assert callable(importlib.import_module(f"lsfa_jax.model.encoders.{kind}").from_settings)
