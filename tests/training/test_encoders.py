"""Every encoder goes through the three stages, resumes, and predicts from its model folder."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax import LSFA
from lsfa_jax.cli import predict
from lsfa_jax.cli import train as train_command
from lsfa_jax.config import Config, merged
from lsfa_jax.data.batches import Batch, Batches
from lsfa_jax.data.load import load_corpus
from lsfa_jax.data.negative_sampling import sample_pool
from lsfa_jax.model.encoders import EncoderShape
from lsfa_jax.model.lsfa import Lsfa, init_params, make_model
from lsfa_jax.serving.predictor import Predictor
from lsfa_jax.training import encoder_choice, model_folder, partition, pretrained
from lsfa_jax.training.collection import store_hidden
from lsfa_jax.training.initial_encoder import initial_encoder
from lsfa_jax.training.stages.representation import full_step, shortlist_step
from lsfa_jax.training.state import init_state
from lsfa_jax.training.token_states import TokenStates
from lsfa_jax.util import sharding
from lsfa_jax.util.console import UserError
from lsfa_jax.util.random_streams import Stream
from lsfa_jax.util.random_streams import key as random_key
from tests import training_corpus
from tests.training import pretrained_folder, runs

pytestmark = pytest.mark.usefixtures("module_on_one_device")

FINE_TUNED = {"encoder_learning_rate": 0.01, "weight_decay": 0.1, "layer_decay": 0.8}
TRANSFORMER = {"kind": "transformer", "window": 16, "feature_head": False}
# The pieces of 16 words: two windows.
LONG = {"length_buckets": (24,)}

ENCODERS = {
    "cnn": {"encoder": {"kind": "cnn", "kernel_width": 3, "residual_blocks": 1}},
    "lsan": {
        "encoder": {"kind": "bilstm", "attention": "lsan", "attention_size": 3},
        "classifier": {"weights": "shared"},
    },
    "transformer": {"encoder": TRANSFORMER, "optimizer": FINE_TUNED, "data": LONG},
    "frozen transformer": {"encoder": TRANSFORMER | {"train": "frozen"}, "data": LONG},
    "last layer": {
        "encoder": TRANSFORMER | {"train": 1},
        "optimizer": FINE_TUNED,
        "data": LONG,
        "representation": {"shortlist": 4},
        "classifier": {"weights_start": "discriminant", "bias": True, "bias_start": "frequency"},
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training_corpus.write(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return pretrained_folder.write(tmp_path_factory.mktemp("bert"))


def config_of(name, data, bert):
    sections = {key: dict(value) for key, value in ENCODERS[name].items()}
    if sections["encoder"]["kind"] == "transformer":
        sections["encoder"]["pretrained"] = str(bert)
    return Config.model_validate(merged(training_corpus.run_config(data).model_dump(), sections))


@pytest.fixture(scope="module", params=ENCODERS)
def finished(request, data, bert, tmp_path_factory):
    """The settings and the folder of a run of all stages."""
    config, folder = config_of(request.param, data, bert), tmp_path_factory.mktemp("finished") / "run"
    runs.train(folder, config)
    return config, folder


@pytest.mark.slow
def test_a_run_that_was_interrupted_in_each_stage_is_the_uninterrupted_one(finished, tmp_path):
    config, folder = finished
    resumed = tmp_path / "run"
    runs.interrupt(resumed, 7, config)
    runs.interrupt(resumed, 25, resume=True)
    runs.resume(resumed)
    runs.assert_same_run(resumed, folder)
    assert (resumed / "weights.safetensors").read_bytes() == (folder / "weights.safetensors").read_bytes()


@pytest.mark.slow
def test_a_moved_folder_predicts_and_explains_whole_words(finished, tmp_path, capfd):
    _, folder = finished
    moved = shutil.copytree(folder, tmp_path / "moved")
    model = model_folder.read(moved)
    text = "about1w0 common23, about1w1 unheard about0w1"
    (prediction,) = Predictor(model).predict([text], top=3)
    (explanation,) = Predictor(model).explain([text], top=3)
    np.testing.assert_array_equal(explanation.label_ids, prediction.label_ids)
    shown = [explanation.text[start:end] for start, end in explanation.spans]
    assert [word for word in shown if word != ","] == text.replace(",", "").split()
    np.testing.assert_allclose(explanation.attention.sum(axis=1), 1, rtol=1e-4)
    (tmp_path / "text.txt").write_text(text)
    assert predict.main(["--run", str(moved), str(tmp_path / "text.txt"), "--top", "1"]) == 0
    assert model.labels[prediction.label_ids[0]] in capfd.readouterr().out


@pytest.mark.slow
def test_only_the_parameters_that_the_setting_names_are_trained(finished, bert):
    config, folder = finished
    if config.encoder.kind != "transformer":
        pytest.skip("has no pretrained weights to compare with")
    start = pretrained.read(bert).params
    trained = model_folder.read(folder).params["encoder"]
    expected = {"all": {"embedding", "layer_00", "layer_01"}, "frozen": set(), 1: {"layer_01"}}[config.encoder.train]
    for name, part in trained.items():
        changed = jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.any(a != b)), part, start[name]))
        assert any(changed) == (name in expected), name
    assert set(start) == set(trained)


@pytest.mark.slow
def test_the_last_stage_reads_hidden_states_where_there_is_no_room_for_token_states(data, bert, tmp_path, monkeypatch):
    def classifiers(name):
        runs.train(tmp_path / name, config_of("last layer", data, bert))
        return model_folder.read(tmp_path / name).params["classifier"]["weights"]

    expected, keep = classifiers("with room"), TokenStates.keep_on_disk
    monkeypatch.setattr(TokenStates, "keep_on_disk", lambda self, choice: self._hidden_rows and keep(self, choice))
    np.testing.assert_allclose(classifiers("without"), expected, atol=0.02)


def test_classifiers_that_labels_share_start_at_random(data, bert, tmp_path):
    sections = {"classifier": {"weights": "shared"}, "representation": {"epochs": 1}}
    config = Config.model_validate(merged(config_of("last layer", data, bert).model_dump(), sections))
    corpus = load_corpus(config)
    # Before the first step: the frozen layers have read five batches of training and two of validation documents.
    runs.interrupt(tmp_path / "run", 8, config, ("representation",))
    state = runs.last_state(tmp_path / "run", "representation")
    assert state["step"] == 0
    model = make_model(config, initial_encoder(config, corpus).shape, corpus.num_labels)
    drawn = init_params(model, random_key(Stream.MODEL, config.seed))["classifier"]["weights"]
    np.testing.assert_array_equal(state["params"]["classifier"]["weights"], drawn)
    assert drawn.shape == (1, 8)


def test_a_pretrained_encoder_needs_its_kind_and_the_kind_a_pretrained_encoder(data, bert, tmp_path):
    for encoder in ({"kind": "transformer"}, {"kind": "cnn", "pretrained": str(bert)}):
        with pytest.raises(UserError, match=r"--encoder"):
            runs.train(tmp_path / "run", training_corpus.run_config(data, encoder=encoder))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("encoder", [{"kind": "cnn"}, {"append_embedding": True}])
def test_lsan_needs_the_states_of_a_bilstm_alone(data, tmp_path, encoder):
    sections = {"encoder": {"attention": "lsan"} | encoder}
    with pytest.raises(UserError, match=r"--encoder\.attention lsan: .*--encoder bilstm --encoder\.no-append-embed"):
        runs.train(tmp_path / "run", training_corpus.run_config(data, **sections))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("train", "step"),
    [("frozen", full_step), ("frozen", shortlist_step), (1, full_step)],
    ids=["all frozen", "all frozen, shortlist", "last layer trained"],
)
def test_a_step_from_stored_states_of_frozen_layers_is_one_from_words(train, step, data, bert):
    """With dropout, which what is stored must not depend on."""
    sections = {"encoder": {"embedding_dropout": 0.5, "encoder_dropout": 0.5, "train": train}}
    config = Config.model_validate(merged(config_of("frozen transformer", data, bert).model_dump(), sections))
    architecture, _ = pretrained.read(bert)
    model = make_model(config, EncoderShape(architecture.vocabulary_size, architecture.hidden_size, architecture), 8)
    params = training_corpus.init_params(model)
    trained, frozen = partition.split(params, config.encoder)
    extra = {"prototypes": jnp.zeros((8, 8)), "present": jnp.zeros(8, bool)}
    state = init_state(jax.random.key(0), trained, optax.sgd(1.0), ("bce", "psc"), extra)
    ids = np.random.default_rng(0).integers(4, 17, (3, 5)).astype(np.int32)
    labels = np.array([[0, 1], [2, 0], [7, 0]], np.int32)
    mask = np.array([[True, True], [True, False], [True, False]])
    batch = Batch(ids, np.array([5, 2, 3], np.int32), labels, mask, np.ones(3, bool), np.arange(3, dtype=np.int32))
    batch = batch._replace(shortlist_pool=sample_pool(labels[mask], 8, 4, 0, 1, 0))
    field, method = ("states", Lsfa.states) if train == "frozen" else ("hidden", Lsfa.hidden)
    stored = jax.jit(functools.partial(model.apply, method=method))({"params": params}, batch.words, batch.lengths)
    compiled = jax.jit(functools.partial(step, model, config, optax.sgd(1.0)), static_argnums=2)
    after = [
        compiled(state, inputs, False, frozen).params
        for inputs in (batch, batch._replace(words=None, **{field: stored}))
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *after)
    assert np.any(after[0]["classifier"]["weights"] != trained["classifier"]["weights"])


@pytest.mark.slow
def test_the_stored_hidden_states_of_frozen_layers_give_the_states_of_the_words(data, bert, tmp_path):
    config = config_of("last layer", data, bert)
    corpus = load_corpus(config)
    model = make_model(config, initial_encoder(config, corpus).shape, corpus.num_labels)
    params, mesh = training_corpus.init_params(model), sharding.make_mesh(jax.local_devices()[:1])
    of_words = Batches(corpus.train, corpus.num_labels, 8, [9, 20])
    stored = TokenStates(tmp_path / "states.npy", corpus.train, model.encoder, hidden_rows=model.encoder.hidden_rows)
    with stored.filling() as sink:
        store_hidden(model, sharding.replicate(mesh, params), of_words, mesh, sink)

    @jax.jit
    def states(batch):
        lsfa = model.bind({"params": params})
        return lsfa.states(batch.words, batch.lengths, hidden=batch.hidden)

    plan = of_words.epoch(np.random.default_rng(0))
    of_hidden = Batches(stored.split(), corpus.num_labels, 8, [9, 20])
    for words, hidden in zip(of_words.load(plan), of_hidden.load(plan), strict=True):
        assert hidden.words is None
        np.testing.assert_array_equal(hidden.lengths, words.lengths)
        expected, got = states(words), states(hidden)
        np.testing.assert_allclose(got[:, : expected.shape[1]], expected, rtol=0, atol=0.02)
    assert corpus.train.lengths.max() > 14  # more than a window of 16 holds


@pytest.mark.slow
def test_the_estimator_and_the_command_choose_the_same_encoder_and_train_the_same_model(bert, tmp_path, monkeypatch):
    for name, value in {"PRETRAINED": str(bert), "_FEWEST_DOCUMENTS": 20, "_LEAST_KNOWN": 0.0}.items():
        monkeypatch.setattr(encoder_choice, name, value)
    documents = training_corpus.documents()["train"]
    texts, labels = [row.text for row in documents], [row.labels for row in documents]
    data = training_corpus.write(tmp_path / "data", {"train": documents, "test": documents[:4]})
    settings = {"linear": "none", "representation.epochs": 1, "adjust.epochs": 1, "pvae.epochs": 1}
    settings |= {"data.max_words": 16, "data.validation_fraction": 0.2, "optimizer.batch_size": 8}
    line = ["--data-dir", str(data), "--output", str(tmp_path / "run"), *train_command.as_options(settings)]
    assert train_command.main(line) == 0
    command, classifier = model_folder.read(tmp_path / "run"), LSFA(settings=settings).fit(texts, labels)
    model = classifier.model_
    assert model.architecture == pretrained.read(bert).architecture
    assert model.config.model_copy(update={"data_dir": str(data)}) == command.config
    assert model.threshold == command.threshold
    jax.tree.map(np.testing.assert_array_equal, model.params, command.params)
    predicted = classifier.predict(texts, top=2)
    classifier.save(tmp_path / "model")
    assert LSFA.load(tmp_path / "model").predict(texts, top=2) == predicted
