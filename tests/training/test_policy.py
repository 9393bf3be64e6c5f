import numpy as np
import pytest

from lsfa_jax.config import Config, get, with_values
from lsfa_jax.data.corpus import Corpus, Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.training import policy

QUICK = Config.model_validate({"preset": "quick", "encoder": {"hidden_size": 128}})


def corpus(documents, words=100, labels=20, per_document=2):
    lengths = np.full(documents, words) if np.isscalar(words) else np.array(words)
    ids = np.arange(documents * per_document, dtype=np.int32) % labels
    split = Split(
        Ragged.from_sizes(np.zeros(lengths.sum(), np.int32), lengths),
        Ragged.from_sizes(ids, np.full(documents, per_document)),
    )
    none = split.take(np.arange(0))
    return Corpus("example", split, none, none, [], [f"l{i}" for i in range(labels)], labels, np.ones(labels))


def fitted(documents, chosen=(), config=QUICK, **shape):
    return policy.resolved(config, corpus(documents, **shape), chosen)


def test_the_full_preset_and_the_released_profile_keep_their_numbers():
    for config in (Config(), Config(preset="quick", profile="released")):
        assert fitted(300, config=config) == config


def test_only_the_named_settings_change():
    changed = fitted(300)
    assert with_values(changed, {name: get(QUICK, name) for name in policy.SETTINGS}) == QUICK
    assert changed != QUICK


SCHEDULES = {
    300: ((100,), 16, 4e-3, 40),
    9_999: (QUICK.data.length_buckets, 16, QUICK.optimizer.learning_rate, 15),
    100_000: (QUICK.data.length_buckets, 40, QUICK.optimizer.learning_rate, 4),
}
"""Of so many documents: lengths, documents in a batch, learning rate, epochs."""


@pytest.mark.parametrize("documents", SCHEDULES)
def test_the_schedule_of_an_encoder_that_starts_from_random_weights(documents):
    lengths, batch_size, rate, epochs = SCHEDULES[documents]
    changed = {
        "data.length_buckets": lengths,
        "optimizer.batch_size": batch_size,
        "optimizer.learning_rate": rate,
        "optimizer.swa_start_epoch": 1,
        "optimizer.swa_recency": 3.0,
        "psc.start_epoch": 2,
        "representation.epochs": epochs,
        "representation.patience": 3,
    }
    schedule = fitted(documents, config=with_values(QUICK, {"psc.start_epoch": 5}))
    assert {name: get(schedule, name) for name in changed} == changed


def test_epochs_follow_from_what_a_word_costs():
    # Each label costs the attention something.
    assert fitted(9_999, labels=900).representation.epochs == 8
    narrow = with_values(QUICK, {"encoder.hidden_size": 64})
    assert fitted(9_999, labels=900, config=narrow).representation.epochs == 16
    # Of many labels, only candidates do.
    assert fitted(9_999, labels=3_000).representation.epochs == 11
    everything = with_values(QUICK, {"candidates": "all"})
    assert fitted(9_999, labels=3_000, config=everything).representation.epochs == 4
    # A time limit bounds them in another way.
    large = fitted(100_000)
    assert policy.most_epochs_in_time(large, ()) == 40
    assert policy.most_epochs_in_time(large, ["representation.epochs"]) == large.representation.epochs


def test_weights_are_averaged_four_times_an_epoch_from_the_first_one():
    small = fitted(300)
    assert (small.optimizer.swa_start_epoch, small.optimizer.swa_every) == (1, 5)  # 19 steps
    # Who chooses the start chooses which weights count.
    assert fitted(300, ["optimizer.swa_start_epoch"]).optimizer.swa_recency == 0


def test_a_rare_label_has_fewer_documents_than_the_mean_and_gets_a_share_as_generated_features():
    small = fitted(1_000, labels=10)
    assert (small.pvae.head_threshold, small.adjust.num_augmented) == (200, 60)
    assert (fitted(20, labels=40).pvae.head_threshold, fitted(20, labels=40).adjust.num_augmented) == (2, 10)
    assert fitted(100_000, labels=10).adjust.num_augmented == 500


def test_the_pvae_takes_a_number_of_steps_and_not_of_passes():
    few, many = fitted(10), fitted(100_000)
    assert few.pvae.epochs == 500
    assert many.pvae.epochs == QUICK.pvae.epochs


def test_stage_3_takes_a_number_of_steps_within_the_epochs_of_the_preset():
    assert QUICK.adjust.epochs == 10
    # Steps an epoch: 19, 505, 1,000, 2,500.
    assert [fitted(number).adjust.epochs for number in (300, 8_080, 40_000, 100_000)] == [10, 10, 5, 3]


def test_chosen_settings_stay_and_others_follow_from_them():
    config = Config.model_validate(
        {"preset": "quick", "optimizer": {"batch_size": 36}, "representation": {"epochs": 1}, "pvae": {"epochs": 3}}
    )
    chosen = fitted(300, ("optimizer.batch_size", "representation.epochs", "pvae.epochs"), config)
    assert (chosen.optimizer.batch_size, chosen.representation.epochs, chosen.pvae.epochs) == (36, 1, 3)
    assert chosen.optimizer.swa_every == 3  # a quarter of nine steps
    assert chosen.psc.start_epoch == 1
    assert fitted(300, ("pvae.head_threshold",)).adjust.num_augmented == 15


def test_what_is_resolved_repeats_the_run():
    first = fitted(300)
    assert policy.resolved(first, corpus(300), policy.SETTINGS) == first


def test_a_run_that_continues_keeps_what_it_began_with():
    started = fitted(300)
    config = with_values(QUICK, {"pvae.epochs": 7, "psc.weight": 0.5})
    kept = policy.kept(config, started, ["pvae.epochs"])
    assert kept == with_values(started, {"pvae.epochs": 7, "psc.weight": 0.5})
    full = Config(seed=3)
    assert policy.kept(full, started, ()) == full


def test_fine_tuning_keeps_the_schedule_of_its_file_within_its_epochs():
    schedule = {"optimizer.swa_start_epoch": 4, "psc.start_epoch": 3, "representation.epochs": 5}
    config = with_values(QUICK, {"encoder.kind": "transformer", "encoder.pretrained": "minilm"} | schedule)
    tuned = fitted(10_000, config=config)
    decided = {
        "optimizer.swa_every",
        "pvae.head_threshold",
        "pvae.epochs",
        "adjust.epochs",
        "adjust.num_augmented",
    }
    for name in set(policy.SETTINGS) - decided:
        assert get(tuned, name) == get(config, name)
    assert tuned.pvae.head_threshold == 1_000
    short = fitted(10_000, ["representation.epochs"], with_values(config, {"representation.epochs": 2}))
    assert (short.optimizer.swa_start_epoch, short.psc.start_epoch) == (2, 2)


def test_what_reads_a_frozen_encoder_is_trained_for_more_epochs_until_validation_ends_it():
    encoder = {"encoder.kind": "transformer", "encoder.pretrained": "minilm", "encoder.train": "frozen"}
    config = with_values(QUICK, encoder | {"representation.epochs": 4, "optimizer.swa_start_epoch": 4})
    frozen = fitted(20_000, config=config)
    assert (frozen.representation.epochs, frozen.representation.patience) == (20, 3)
    assert frozen.optimizer.swa_start_epoch == 4
    assert fitted(20_000, ["representation.epochs"], config).representation.epochs == 4


def test_fine_tuning_on_few_documents_takes_smaller_batches_and_on_very_few_fewer_lengths():
    config = with_values(QUICK, {"encoder.kind": "transformer", "encoder.pretrained": "minilm"})
    config = with_values(config, {"optimizer.batch_size": 32, "representation.epochs": 6})
    few, many, most = (fitted(number, config=config) for number in (999, 1_000, 10_000))
    assert [each.optimizer.batch_size for each in (few, many, most)] == [16, 16, 32]
    assert few.optimizer.swa_start_epoch == 5
    assert few.data.length_buckets == (100,)
    assert many.data.length_buckets == config.data.length_buckets
    assert fitted(999, ["optimizer.batch_size"], config).optimizer.batch_size == 32


def test_fewer_epochs_move_the_starts_unless_they_are_chosen():
    config = with_values(QUICK, {"psc.start_epoch": 4, "optimizer.swa_start_epoch": 3, "representation.epochs": 9})
    two = policy.with_epochs(config, 2, ["psc.start_epoch"])
    assert (two.representation.epochs, two.optimizer.swa_start_epoch, two.psc.start_epoch) == (2, 2, 4)


def padded(lengths, buckets, rows=lambda length: length):
    """Rows that an encoder computes of documents that are padded to the next of some lengths."""
    return sum(rows(min(bucket for bucket in buckets if bucket >= length)) for length in lengths)


@pytest.mark.parametrize("longest", [40, 200])
def test_the_shorter_length_pads_least(longest):
    lengths = np.random.default_rng(longest).integers(1, longest // 3, 50)
    lengths[:5] = longest
    choices = range(16, longest, 16)
    shorter, last = policy.few_lengths(lengths, choices, 1, 0.3 * 50 * longest)
    assert last == longest
    assert padded(lengths, (shorter, last)) == min(padded(lengths, (choice, longest)) for choice in choices)


@pytest.mark.parametrize("lengths", [[], [0, 0], [1], [100] * 9, range(120, 200)], ids=str)
def test_documents_of_similar_length_are_padded_to_one(lengths):
    longest = max(1, *lengths, 1)
    saved = 0.3 * len(lengths) * longest
    assert policy.few_lengths(np.array(lengths, int), range(16, longest, 16), 1, saved) == (longest,)


def test_a_length_is_added_where_it_saves_what_its_programs_cost():
    lengths = np.array([10, 20, 30, 40])
    # To 20 and 40, 40 rows are saved; with 10 or 30 beside them, 10 more each.
    found = [policy.few_lengths(lengths, (10, 20, 30), 3, saved) for saved in (41, 39, 9)]
    assert found == [(40,), (20, 40), (10, 20, 30, 40)]
    assert policy.few_lengths(lengths, (10, 20, 30), 1, 9) == (20, 40)


def test_few_texts_beyond_a_window_do_not_double_what_is_computed_of_all():
    config = with_values(QUICK, {"encoder.kind": "transformer", "encoder.pretrained": "minilm"})
    config = with_values(config, {"data.length_buckets": (30, 62, 126, 254, 382)})
    documents = corpus(300, words=[*[240] * 280, *[300] * 20])
    # Beyond 254 pieces a text is read in two windows, as if it had 508.
    assert policy.resolved(config, documents, ()).data.length_buckets == (254, 300)
    wide = with_values(config, {"encoder.window": 512})
    assert policy.resolved(wide, documents, ()).data.length_buckets == (254, 300)
    few = corpus(30, words=[*[240] * 28, *[300] * 2])
    assert policy.resolved(config, few, ()).data.length_buckets == (254, 300)
    assert policy.resolved(wide, few, ()).data.length_buckets == (300,)


def test_a_corpus_of_a_few_hundred_documents_compiles_few_programs_and_learns_faster():
    assert len(fitted(300).data.length_buckets) == 1
    assert fitted(300).optimizer.learning_rate > QUICK.optimizer.learning_rate == fitted(1_000).optimizer.learning_rate
    assert fitted(1_000).data.length_buckets == QUICK.data.length_buckets


def test_no_line_for_what_fine_tuning_keeps(capsys):
    fitted(10_000, config=with_values(QUICK, {"encoder.kind": "transformer", "encoder.pretrained": "minilm"}))
    out = capsys.readouterr().out
    assert out.startswith("From the corpus: weights averaged every 63 steps, N_t = 1,000, N_a = 300, ")


def test_a_line_says_what_was_decided(capsys):
    fitted(300, ["optimizer.batch_size"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "From the corpus: at most 40 epochs, weights averaged every 2 steps, N_t = 30, N_a = 10, 167 epochs"
    )
    assert "batches" not in line


def test_fine_tuned_encoders_start_from_discriminants_where_labels_are_many():
    fine_tuned = with_values(QUICK, {"encoder.pretrained": "minilm"})
    starts = [fitted(9_000, labels=labels, config=fine_tuned).classifier.weights_start for labels in (999, 1_000)]
    assert starts == ["random", "discriminant"]
    # More labels than documents are many, too.
    starts = [fitted(500, labels=labels, config=fine_tuned).classifier.weights_start for labels in (499, 500)]
    assert starts == ["random", "discriminant"]
    assert fitted(9_000, labels=1_000).classifier.weights_start == "random"
