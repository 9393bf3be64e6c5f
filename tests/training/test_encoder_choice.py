from types import SimpleNamespace

import numpy as np
import pytest

from lsfa_jax.config import Config
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.training import encoder_choice
from lsfa_jax.util.console import UserError

VOCABULARY = '{"model": {"vocab": {"the": 0, "law": 1, "of": 2}}}'


def corpus(documents, words_each=100, known=0.9):
    """Documents of the words "the", which the vocabulary has, and "gesetz", which it has not."""
    ids = np.where(np.arange(documents * words_each) % 100 < 100 * known, 2, 3).astype(np.int32)
    words = Ragged.from_sizes(ids, np.full(documents, words_each))
    return SimpleNamespace(train=Documents(words), words=["the", "gesetz"])


class Documents:
    def __init__(self, words):
        self.words, self.lengths = words, words.sizes

    def __len__(self):
        return len(self.lengths)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Two cores, and a pretrained encoder that is there."""
    monkeypatch.setattr(encoder_choice.cores, "available", lambda: 2)
    monkeypatch.setattr(encoder_choice, "folder_of", lambda name: name)
    monkeypatch.setattr(encoder_choice, "read_tokenizer", lambda folder: VOCABULARY)


def chosen(*arguments, **options):
    return encoder_choice.settings(corpus(*arguments), **options)


def test_few_words_are_learned_with_all_layers_and_more_with_the_last_ones():
    plans = [chosen(documents) for documents in (1_000, 2_500, 3_500, 5_000, 6_500, 9_000, 12_000)]
    layers_and_epochs = [(plan["encoder.train"], plan["representation.epochs"]) for plan in plans]
    assert layers_and_epochs == [("all", 4), ("all", 4), ("all", 3), (3, 4), (3, 3), (2, 3), (1, 4)]
    assert all(plan["encoder.pretrained"] == "minilm" for plan in plans)


def test_a_few_hundred_documents_are_learned_with_the_last_layers_in_more_epochs(monkeypatch):
    plans = [chosen(documents, words) for documents, words in ((200, 100), (999, 100), (999, 600))]
    assert [(plan["encoder.train"], plan["representation.epochs"]) for plan in plans] == [(2, 6), (2, 6), (2, 4)]
    monkeypatch.setattr(encoder_choice.jax, "default_backend", lambda: "gpu")
    assert chosen(999)["encoder.train"] == 2
    assert chosen(1_000)["encoder.train"] == "all"


@pytest.mark.parametrize(
    ("documents", "words", "known", "reason"),
    [
        (199, 100, 0.9, "199 training documents, fewer than 200"),
        (40_000, 100, 0.9, "would take too long; --encoder minilm does it"),
        (2_000, 100, 0.5, "reads English, and knows 50 % of these words"),
        (40_000, 100, 0.5, "reads English, and knows 50 % of these words"),
    ],
)
def test_the_bilstm_is_chosen_with_a_reason(documents, words, known, reason, capsys):
    assert chosen(documents, words, known) == {}
    assert reason in capsys.readouterr().out


def test_weights_that_cannot_be_fetched_are_done_without(monkeypatch, capsys):
    def fails(name):
        raise UserError("cannot fetch it: no network")

    monkeypatch.setattr(encoder_choice, "folder_of", fails)
    assert chosen(2_000) == {}
    assert capsys.readouterr().out.splitlines() == [
        "warning: minilm is not used: cannot fetch it: no network",
        "--encoder auto: bilstm (minilm cannot be fetched)",
    ]


def test_a_time_limit_decides_about_layers_and_bounds_the_epochs(capsys):
    plan = chosen(10_000, time_limit=3_600)
    assert plan["encoder.train"] == "all"
    assert plan["representation.epochs"] == 4
    assert chosen(10_000, time_limit=60) == {}
    assert capsys.readouterr().out.splitlines() == [
        "--encoder auto: minilm (all of it within 1 h 0 min)",
        "--encoder auto: bilstm (fine-tuning on 10,000 documents does not fit in 1 min; --encoder minilm does it)",
    ]


def test_a_limit_that_is_too_short_to_fine_tune_a_layer_freezes_it_on_few_documents():
    few = chosen(500, time_limit=180)
    assert (few["encoder.train"], few["representation.epochs"]) == (2, 6)
    frozen = chosen(500, time_limit=60)
    assert (frozen["encoder.train"], frozen["representation.epochs"]) == ("frozen", 20)
    assert chosen(500, time_limit=45) == {}
    assert chosen(9_000, time_limit=300)["encoder.train"] == "frozen"
    assert chosen(10_000, time_limit=300) == {}
    assert "encoder.train" not in chosen(9_000, 300)


@pytest.mark.parametrize(
    ("settings", "chosen", "is_open"),
    [
        ({}, ["representation.epochs", "data.max_words"], True),
        ({}, ["encoder.hidden_size"], False),
        ({"vectors": "none"}, ["vectors"], False),
        ({"preset": "full"}, [], False),
        ({"profile": "released"}, [], False),
        ({"dataset": "synthetic"}, [], False),
    ],
    ids=str,
)
def test_who_chooses_word_vectors_or_a_part_of_the_encoder_has_chosen_it(settings, chosen, is_open):
    config = Config(**{"dataset": "custom", "preset": "quick", "vectors": "auto"} | settings)
    assert encoder_choice.is_open(config, chosen) is is_open


@pytest.mark.parametrize(
    ("documents", "known", "dataset", "vectors"),
    [
        (40_000, 0.9, "custom", "minilm"),
        (40_000, 0.5, "custom", "none"),
        (199, 0.9, "custom", "none"),
        (2_000, 0.9, "synthetic", "none"),
    ],
)
def test_word_vectors_are_those_of_the_transformer_where_it_knows_the_words(documents, known, dataset, vectors, capsys):
    config = Config(dataset=dataset, vectors="auto")
    assert encoder_choice.with_vectors(config, corpus(documents, 10, known)).vectors == vectors
    assert capsys.readouterr().out.startswith(f"--vectors auto: {vectors}")


def test_chosen_word_vectors_stay(capsys):
    config = Config(vectors="glove-50d")
    assert encoder_choice.with_vectors(config, corpus(2_000)) is config
    assert not capsys.readouterr().out


def test_more_cores_do_more(monkeypatch):
    monkeypatch.setattr(encoder_choice.cores, "available", lambda: 16)
    assert chosen(20_000)["encoder.train"] == "all"


def test_the_passes_of_fine_tuning_are_those_of_each_layer():
    # Forward is a third of a pass: below the trained layers once; there before, between and after three epochs.
    assert encoder_choice.share_of_passes(2, 3) == pytest.approx((4 + 2 * 3) / 18 + 2 / 6 * 3)
    # All layers, four epochs, of which the last two use the contrastive loss.
    assert encoder_choice.share_of_passes(6, 4) == pytest.approx(4 + 4 / 3)
