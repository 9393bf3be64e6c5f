from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.data.batches import Batch, Batches, label_slots, length_buckets
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.util.random_streams import Stream, stream


def shuffle(seed, epoch):
    return stream(Stream.REPRESENTATION_ORDER, seed, epoch)


def ragged(rows):
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return np.array([value for row in rows for value in row], np.int32), offsets


def make_split(lengths, label_sets=None):
    """Documents whose words encode the document's number and their position, none of them 0."""
    words = [[1000 * (row + 1) + place for place in range(length)] for row, length in enumerate(lengths)]
    return Split(Ragged(*ragged(words)), Ragged(*ragged(label_sets or [[] for _ in lengths])))


@st.composite
def problems(draw):
    """Documents of 0 to 30 words with 0 to 40 of 50 labels, of which the last 10 are not in training."""
    lengths = draw(st.lists(st.integers(0, 30), min_size=1, max_size=40))
    most = draw(st.sampled_from([1, 5, 40]))
    label_sets = [draw(st.lists(st.integers(0, 49), unique=True, max_size=most)) for _ in lengths]
    buckets = [*sorted(draw(st.lists(st.integers(1, 40), max_size=4))), 40]
    batches = Batches(
        make_split(lengths, label_sets), 40, draw(st.integers(1, 9)), buckets, draw(st.sampled_from([1, 2, 3, 8]))
    )
    return batches, lengths, label_sets, buckets


def padded_lengths(lengths, buckets, batch_size):
    """Returns the bucket of each document; those of a bucket fill up the next longer one, where it has room for all."""
    groups = {}
    for row, length in enumerate(lengths):
        groups.setdefault(next(size for size in buckets if size >= max(1, length)), []).append(row)
    sizes = sorted(groups)
    for size, longer in pairwise(sizes):
        free_rows = -len(groups[longer]) % batch_size
        if len(groups[size]) <= free_rows:
            groups[longer] += groups.pop(size)
    return {row: size for size, rows in groups.items() for row in rows}


@given(problems())
def test_filling_up_buckets_computes_no_more_words(problem):
    batches, lengths, _, buckets = problem
    plain = np.bincount([next(size for size in buckets if size >= max(1, length)) for length in lengths])
    computed = sum(-(-count // batches.batch_size) * size for size, count in enumerate(plain.tolist()))
    assert batches.padding * max(1, sum(lengths)) <= batches.rows * computed * (1 + 1e-9)


def rows_of(plan):
    return [rows.tolist() for rows in plan]


@given(problems(), st.integers(0, 2**32 - 1), st.integers(0, 100))
def test_each_document_is_in_one_batch_of_an_epoch(problem, seed, epoch):
    batches, lengths, _, buckets = problem
    for plan in (batches.epoch(shuffle(seed, epoch)), batches.in_order()):
        assert sorted(row for rows in plan for row in rows) == list(range(len(lengths)))
        assert all(0 < len(rows) <= batches.batch_size for rows in plan)
        assert len(plan) == batches.steps_per_epoch
        expected = padded_lengths(lengths, buckets, batches.batch_size)
        for rows in plan:  # one bucket a batch: no document is padded further
            assert len({expected[row] for row in rows}) == 1
    assert rows_of(batches.epoch(shuffle(seed, epoch))) == rows_of(batches.epoch(shuffle(seed, epoch)))


@given(problems(), st.integers(0, 5))
def test_batches_hold_the_documents_padded_right(problem, epoch):
    batches, lengths, label_sets, _ = problem
    plan = batches.epoch(shuffle(7, epoch))
    for rows, batch in zip(plan, batches.load(plan), strict=True):
        check(batch, rows, batches, lengths, label_sets)


def check(batch, rows, batches, lengths, label_sets):
    num_rows, num_words = batch.words.shape
    assert num_rows == batches.rows
    assert num_words in batches.buckets
    assert batch.label_ids.shape == batch.label_mask.shape
    assert batch.label_ids.shape[1] in batches.slots
    dtypes = Batch(*[np.dtype(np.int32)] * 3, np.dtype(bool), np.dtype(bool), np.dtype(np.int32))
    assert Batch(*(array.dtype for array in batch if array is not None)) == dtypes
    assert batch.document_mask.tolist() == [i < len(rows) for i in range(num_rows)]
    for i in range(num_rows):
        length = lengths[rows[i]] if i < len(rows) else 0
        known = [label for label in label_sets[rows[i]] if label < 40] if i < len(rows) else []
        assert batch.rows[i] == (rows[i] if i < len(rows) else 0)
        assert batch.lengths[i] == length
        assert batch.words[i].tolist() == [1000 * (batch.rows[i] + 1) + j for j in range(length)] + [0] * (
            num_words - length
        )
        assert batch.label_ids[i][batch.label_mask[i]].tolist() == known
        assert not batch.label_ids[i][~batch.label_mask[i]].any()


@given(problems(), st.integers(0, 5))
def test_token_states_are_batched_as_the_words_are(problem, epoch):
    batches = problem[0]
    split = batches.split
    # For each word the pair of its number and a half; 0 is padding.
    states = np.stack([split.words.values, np.full(len(split.words.values), 0.5)], axis=-1)
    with_states = Batches(
        Split(Ragged(states, split.words.offsets), split.labels), 40, batches.batch_size, batches.buckets, batches.rows
    )
    plan = batches.epoch(shuffle(7, epoch))
    for batch, expected in zip(with_states.load(plan), batches.load(plan), strict=True):
        count = len(expected.rows)
        np.testing.assert_array_equal(batch.words[:count, :, 0], expected.words)
        np.testing.assert_array_equal(batch.words[:count, :, 1], np.where(expected.words, 0.5, 0.0))
        np.testing.assert_array_equal(batch.lengths[:count], expected.lengths)
        assert not batch.words[count:].any()


@pytest.mark.parametrize(("batch_size", "multiple", "rows"), [(40, 1, 40), (40, 8, 40), (40, 3, 42), (1, 8, 8)])
def test_rows_are_a_multiple_of_the_devices(batch_size, multiple, rows):
    batches = Batches(make_split([3] * 100), 1, batch_size, [4], multiple)
    assert batches.rows == rows
    assert {batch.words.shape for batch in batches.load(batches.in_order())} == {(rows, 3)}
    # Padding rows come on top: the devices change neither which documents share a batch nor how many steps there are.
    assert rows_of(batches.epoch(shuffle(0, 1))) == rows_of(
        Batches(make_split([3] * 100), 1, batch_size, [4]).epoch(shuffle(0, 1))
    )


def test_tokens_of_other_rows_are_not_read_and_all_else_is_as_without_them():
    split = make_split([3, 0, 5, 2, 4], [[1], [2], [3], [0, 1], [4]])
    whole, part = (
        Batches(split, 5, 4, [8], rows_read=rows_read)
        for rows_read in (None, lambda rows: np.arange(rows) >= rows // 2)
    )
    rows = np.array([0, 2, 4])
    expected, actual = whole.gather(rows), part.gather(rows)
    np.testing.assert_array_equal(actual.words, np.where(np.arange(4)[:, None] < 2, 0, expected.words))
    for name, values in expected._asdict().items():
        if name != "words":
            np.testing.assert_array_equal(getattr(actual, name), values)


def test_order_depends_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(0, 60, 300)
    first, second = (Batches(make_split(lengths), 1, 20, [16, 32, 64]) for _ in range(2))
    second.epoch(shuffle(5, 1))  # earlier calls do not matter
    assert rows_of(first.epoch(shuffle(5, 2))) == rows_of(second.epoch(shuffle(5, 2)))
    orders = [str(rows_of(first.epoch(shuffle(seed, epoch)))) for seed in (0, 1, 5) for epoch in range(5)]
    assert len(set(orders)) == len(orders)
    # Not only the batches change places: which documents share one changes too.
    one, two = ({frozenset(rows.tolist()) for rows in first.epoch(shuffle(0, epoch))} for epoch in (1, 2))
    assert not one & two
    # And buckets are mixed over the epoch.
    widths = [batch.words.shape[1] for batch in first.load(first.epoch(shuffle(0, 1)))]
    assert widths not in (sorted(widths), sorted(widths, reverse=True))


def test_every_epoch_has_the_same_number_of_steps():
    batches = Batches(make_split([1] * 41 + [9] * 39 + [20]), 1, 20, [4, 10, 30])
    assert batches.steps_per_epoch == 3 + 2 + 1
    assert {len(batches.epoch(shuffle(seed, epoch))) for seed in range(3) for epoch in range(5)} == {6}


@given(problems(), st.data())
def test_loading_starts_at_any_batch(problem, data):
    batches = problem[0]
    plan = batches.epoch(shuffle(3, 1))
    start = data.draw(st.integers(0, len(plan)))
    every, rest = list(batches.load(plan)), list(batches.load(plan, start))
    assert len(rest) == len(plan) - start
    for expected, batch in zip(every[start:], rest, strict=True):
        for name in Batch._fields:
            np.testing.assert_array_equal(getattr(expected, name), getattr(batch, name))


def test_in_order_goes_from_short_to_long_in_a_stable_order():
    batches = Batches(make_split([3, 1, 3, 0, 9, 1]), 1, 2, [4, 10])
    assert rows_of(batches.in_order()) == [[3, 1], [5, 0], [2], [4]]


def test_consecutive_batches_are_full_and_may_hold_several_buckets():
    batches = Batches(make_split([3, 1, 3, 0, 9, 1]), 1, 4, [4, 10])
    assert rows_of(batches.consecutive()) == [[3, 1, 5, 0], [2, 4]]
    assert [batch.words.shape for batch in batches.load(batches.consecutive())] == [(4, 4), (4, 9)]


@given(problems())
def test_consecutive_batches_hold_the_documents_padded_right(problem):
    batches, lengths, label_sets, _ = problem
    plan = batches.consecutive()
    assert sorted(row for rows in plan for row in rows) == list(range(len(lengths)))
    assert len(plan) == -(-len(lengths) // batches.batch_size)
    for rows, batch in zip(plan, batches.load(plan), strict=True):
        check(batch, rows, batches, lengths, label_sets)


@pytest.mark.parametrize(("count", "rows"), [(1, 2), (2, 2), (3, 32), (32, 32), (33, 40), (40, 40)])
def test_few_documents_are_padded_to_few_rows(count, rows):
    batches = Batches(make_split([3] * count), 1, 40, [4], 2, few_rows=(1, 16))
    (batch,) = batches.load(batches.consecutive())
    assert batch.words.shape == (rows, 3)
    assert batch.document_mask.sum() == count


def test_chunks_of_a_stream_share_their_lengths():
    for lengths in ([3, 1], [30, 2], [0]):
        batches = Batches(make_split(lengths), 1, 2, [8, 16, 64], longest=40)
        assert batches.buckets.tolist() == [8, 16, 40]


def test_length_buckets_end_at_the_longest_document():
    assert length_buckets((64, 128, 192), 500) == [64, 128, 192, 500]
    assert length_buckets((64, 128, 192), 128) == [64, 128]
    assert length_buckets((192, 64, 64), 100) == [64, 100]
    assert length_buckets((), 0) == [1]


def test_short_corpora_have_no_buckets_that_they_do_not_need():
    assert Batches(make_split([3, 17]), 1, 2, [8, 16, 32, 64, 500]).buckets.tolist() == [8, 16, 17]
    assert Batches(make_split([0, 0]), 1, 2, [8, 500]).buckets.tolist() == [1]


def test_documents_without_words():
    batches = Batches(make_split([0, 5, 0], [[1], [], [0, 2]]), 3, 3, [8])
    for rows in (np.array([0, 2]), np.array([2, 1, 0])):
        check(batches.gather(rows), rows, batches, [0, 5, 0], [[1], [], [0, 2]])
    empty = Batches(make_split([0, 0]), 1, 2, [8]).gather(np.array([0, 1]))
    assert empty.words.tolist() == [[0], [0]]
    assert not empty.label_mask.any()


def test_an_empty_split_has_no_batches():
    batches = Batches(make_split([]), 1, 2, [8])
    assert batches.steps_per_epoch == 0
    assert batches.in_order() == batches.epoch(shuffle(0, 1)) == []


def test_only_the_batch_of_a_document_with_a_thousand_labels_is_wide():
    label_sets = [[0, 1], list(range(1000)), list(range(32))]
    batches = Batches(make_split([2, 2, 2], label_sets), 1000, 2, [8])
    few, many = batches.gather(np.array([0, 2])), batches.gather(np.array([1, 0]))
    assert few.label_ids.shape == (2, 32)
    assert few.label_mask.sum(axis=1).tolist() == [2, 32]
    assert many.label_ids.shape == (2, 1000)
    assert many.label_mask.sum(axis=1).tolist() == [1000, 2]
    assert many.label_ids[0].tolist() == list(range(1000))


@given(st.lists(st.integers(0, 3000), max_size=10))
def test_slots_fit_every_document_and_are_few(sizes):
    slots = label_slots(make_split([1] * len(sizes), [[0] * size for size in sizes]))
    most = max([1, *sizes])
    assert slots == sorted(set(slots))
    assert most <= slots[-1] < most + 8
    assert len(slots) <= 2 + np.log(max(1, most / 32)) / np.log(4)
    assert len(slots) == 1 or slots[0] == 32
