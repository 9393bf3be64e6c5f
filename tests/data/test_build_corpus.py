from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lsfa_jax.data import build_corpus
from lsfa_jax.data.build_corpus import build
from lsfa_jax.data.held_out import draw_test_split, hold_out, validation_size
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.data.tokenizer import Tokenizer
from lsfa_jax.data.vocabulary import NUM_SPECIAL, UNKNOWN
from lsfa_jax.util.console import UserError


def ragged(rows):
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return np.array([value for row in rows for value in row], np.int32), offsets


def unragged(values, offsets):
    return [values[start:end].tolist() for start, end in pairwise(offsets)]


def make(train, test=(), validation=None, fraction=0.0, **settings):
    """A corpus of (text, label names in one string) pairs."""
    settings = {"max_words": 10, "max_vocabulary": 1000, "seed": 0} | settings
    sources = map(documents, (train, test, validation))
    return build("corpus", *sources, validation_fraction=fraction, **settings)


def documents(pairs):
    return None if pairs is None else (Document(text, tuple(labels.split())) for text, labels in pairs)


def texts(corpus, split):
    """The words of each document, None for unknown ones."""
    return [[None if i == UNKNOWN else corpus.words[i - NUM_SPECIAL] for i in row] for row in unragged(*split.words)]


def labels(corpus, split):
    return [{corpus.labels[i] for i in row} for row in unragged(*split.labels)]


# --- held-out documents

label_rows = st.lists(st.lists(st.integers(0, 7), unique=True), min_size=1, max_size=60)


@example(rows=[[], []], fraction=0.9, seed=0)
@given(rows=label_rows, fraction=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 2**32 - 1))
def test_each_label_keeps_half_of_its_documents_and_one(rows, fraction, seed):
    held_out = hold_out(Ragged(*ragged(rows)), 8, fraction, seed)
    assert held_out.dtype == bool
    assert held_out.shape == (len(rows),)
    assert held_out.sum() <= round(fraction * len(rows))
    assert not held_out.all()
    for label in range(8):
        has_label = np.array([label in row for row in rows])
        if has_label.any():
            assert (has_label & ~held_out).sum() >= max(1, has_label.sum() / 2)
    # No document could be held out beyond those, unless as many were as asked.
    if held_out.sum() < min(round(fraction * len(rows)), len(rows) - 1):
        for row in np.flatnonzero(~held_out):
            kept = [sum(label in kept_row for kept_row in np.array(rows, object)[~held_out]) for label in rows[row]]
            total = [sum(label in any_row for any_row in rows) for label in rows[row]]
            assert any(k - 1 < max(1, n / 2) for k, n in zip(kept, total, strict=True))
    np.testing.assert_array_equal(held_out, hold_out(Ragged(*ragged(rows)), 8, fraction, seed))


def test_another_seed_holds_out_other_documents_and_as_many(capsys):
    sets = Ragged(*ragged([[i % 3] for i in range(400)]))
    first, reseeded = (hold_out(sets, 3, 0.1, seed) for seed in (0, 1))
    assert first.sum() == reseeded.sum() == 40
    assert (first & reseeded).sum() < 20
    assert np.flatnonzero(first).max() > 300  # from the entire corpus
    assert np.flatnonzero(first).min() < 100
    assert capsys.readouterr().out == ""


def test_fewer_are_held_out_where_labels_are_rare_with_a_warning(capsys):
    make([(f"w{i}", f"l{i // 2}") for i in range(20)], fraction=0.8)
    assert "6 fewer validation documents than asked for" in capsys.readouterr().out
    make([(f"w{i}", f"l{i}") for i in range(20)], fraction=0.5)
    assert "10 fewer" in capsys.readouterr().out


# --- test documents drawn


@given(st.integers(0, 300), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32 - 1))
def test_the_share_of_test_documents(num_documents, fraction, seed):
    chosen = draw_test_split(num_documents, fraction, seed)
    assert chosen.shape == (num_documents,)
    wished = max(round(fraction * num_documents), 1 if fraction else 0)
    assert chosen.sum() == max(0, min(wished, num_documents - 1))
    np.testing.assert_array_equal(chosen, draw_test_split(num_documents, fraction, seed))


def test_test_documents_come_from_everywhere_and_follow_from_the_seed():
    first, reseeded = (np.flatnonzero(draw_test_split(1000, 0.1, seed)) for seed in (0, 1))
    assert first.min() < 100
    assert first.max() > 900
    assert len(set(first) & set(reseeded)) < 30
    assert len(set(first) & set(np.flatnonzero(hold_out(Ragged(*ragged([[0]] * 1000)), 1, 0.1, 0)))) < 30


def test_without_a_test_split_documents_are_held_out(capsys):
    train = [(f"rare{i} shared", f"l{i % 4}" if i else "rare") for i in range(50)] + [("", "x"), ("?", "")]
    corpus, again = (make(train, test=None, fraction=0.1, test_fraction=0.25, seed=2) for _ in range(2))
    assert "No test split: 13 of 52 documents are held out as test, at random" in capsys.readouterr().out
    assert len(corpus.test) == 13
    left_out = 2 - int((corpus.test.lengths == 0).sum())
    assert len(corpus.train) + len(corpus.validation) + len(corpus.test) == 52 - left_out
    assert corpus.published_documents == len(corpus.train) + len(corpus.validation)
    assert corpus.published_words == 2 * corpus.published_documents
    # What only test documents have is no word of the vocabulary, and no label that the model knows.
    assert all(text in ([], [None, "shared"]) for text in texts(corpus, corpus.test))
    assert {text[0] for text in texts(corpus, corpus.train)} | {"shared"} == set(corpus.words)
    np.testing.assert_array_equal(corpus.test.words.values, again.test.words.values)
    np.testing.assert_array_equal(corpus.train.words.values, again.train.words.values)


# --- documents with the same text


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32 - 1)
)
def test_documents_with_the_same_text_are_drawn_together(texts, fraction, seed):
    same_text = np.array([texts.index(text) for text in texts])
    drawn = draw_test_split(len(texts), fraction, seed, same_text)
    held_out = hold_out(Ragged(*ragged([[0]] * len(texts))), 1, fraction, seed, same_text)
    for chosen in (drawn, held_out):
        assert not {texts[i] for i in np.flatnonzero(chosen)} & {texts[i] for i in np.flatnonzero(~chosen)}
        assert not chosen.all()
    assert held_out.sum() <= round(fraction * len(texts))
    assert drawn.any() == (fraction > 0 and len(set(texts)) > 1)
    if len(set(texts)) == len(texts):
        np.testing.assert_array_equal(drawn, draw_test_split(len(texts), fraction, seed))


def sides(corpus):
    """The texts of the splits, as word ids."""
    return [{tuple(row) for row in unragged(*split.words)} for split in (corpus.train, corpus.validation, corpus.test)]


@pytest.mark.parametrize("seed", range(3))
def test_no_text_is_on_two_sides_of_the_drawn_splits(seed, capsys):
    numbers = np.random.default_rng(seed).permutation(80)
    # Each number is a word of training, for its document is one of several.
    rows = [(f"W{i % 40} shared" if i < 40 else f"w{i % 40}, SHARED!", f"a b{i % 3}") for i in numbers]
    corpus = make(rows, test=None, fraction=0.2, test_fraction=0.2, seed=seed)
    assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (52, 12, 16)
    train, validation, test = sides(corpus)
    assert (len(train), len(validation)) == (26, 1)  # words of held-out documents are unknown
    assert not train & (validation | test)
    assert "train: documents with the text of an earlier one: 40 of 80" in capsys.readouterr().out


def test_long_texts_that_begin_alike_are_different_documents(capsys):
    rows = [(f"same start {i}", "x") for i in range(4)]
    corpus = make([*rows, *rows], test=rows[:1], max_words=2)
    assert len(corpus.train) == 8
    out = capsys.readouterr().out
    assert "documents with the text of an earlier one: 4 of 8" in out
    assert "test documents with the text of a training document: 1 of 1" in out


def test_rows_of_one_document_are_merged_where_no_row_has_two_labels(capsys):
    rows = [
        ("a b", "x"),
        ("c", "y"),
        ("A, b", "y"),
        ("c", "y"),
        ("d", ""),
        ("D", "z"),
        ("", "x"),
        ("", "y"),
        ("a b", "x"),
    ]
    corpus = make(rows, test=[("e", "x"), ("e", "y")])
    assert texts(corpus, corpus.train) == [["a", "b"], ["c"], ["c"], ["d"]]
    assert labels(corpus, corpus.train) == [{"x", "y"}, {"y"}, {"y"}, {"z"}]
    assert labels(corpus, corpus.test) == [{"x", "y"}]
    out = capsys.readouterr().out
    assert "train: rows with the same text are merged: 9 rows, 6 documents" in out
    assert "test: rows with the same text are merged: 2 rows, 1 documents" in out
    assert "2 training documents have no word" in out
    # A row with two labels shows that each row is a document.
    assert len(make([*rows, ("f", "x y")]).train) == 8


def test_rows_with_the_same_text_and_id_are_one_document():
    rows = [Document("a", ("x",), number) for number in ("1", "1", "2", "", "")]
    corpus = build("ids", rows, (), None, max_words=9, max_vocabulary=9, validation_fraction=0, seed=0)
    assert len(corpus.train) == 4


def test_an_exploded_corpus_equals_the_merged_one():
    random = np.random.default_rng(0)
    merged = [(f"w{i} w{i // 2}", " ".join(f"l{j}" for j in random.permutation(4)[: 1 + i % 3])) for i in range(60)]
    exploded = [(text, label) for text, names in merged for label in names.split()]
    settings = {"test": None, "fraction": 0.2, "test_fraction": 0.2}
    first, second = make(merged, **settings), make(exploded, **settings)
    for split in ("train", "validation", "test"):
        assert texts(first, getattr(first, split)) == texts(second, getattr(second, split))
        assert labels(first, getattr(first, split)) == labels(second, getattr(second, split))


def test_what_the_settings_do_to_the_texts_is_printed(capsys):
    long, markup = [("a b c d", "X"), ("e", "x")], [("<p>f</p>", "y")]
    make([*long, *markup], max_words=3)
    out = capsys.readouterr().out
    assert "Texts longer than 3 words: 1 of 3 (33.3 %); 12.5 % of all words are not read" in out
    assert "warning: texts with HTML tags, which are read as words: 1 of 3 (33.3 %)" in out
    assert "'X' 1 and 'x' 1" in out
    corpus = make(markup, tokenizer=Tokenizer("words", "strip"))
    assert corpus.words == ["f"]
    assert capsys.readouterr().out == ""


# --- blocks and files

pairs = st.lists(st.tuples(st.text("ab cd", max_size=9), st.sampled_from(["", "x", "y x", "z", "é\n"])), max_size=12)


@pytest.mark.slow
@given(pairs, st.none() | pairs, st.none() | pairs, st.integers(1, 6))
def test_a_corpus_on_disk_read_in_small_blocks_equals_that_in_memory(train, test, validation, block):
    train = [("a b", "x")] * 6 + train
    settings = {"max_words": 3, "max_vocabulary": 3, "validation_fraction": 0.3, "test_fraction": 0.3, "seed": 1}
    in_memory = build("corpus", *map(documents, (train, test, validation)), **settings)
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(build_corpus, "_BLOCK", block)
        build_corpus.write(Path(folder), *map(documents, (train, test, validation)), **settings, name="corpus")
        mapped = build_corpus.read(Path(folder), "corpus")
        assert not mapped.train.words.values.flags.writeable
        for name in ("train", "validation", "test"):
            first, second = getattr(in_memory, name), getattr(mapped, name)
            for a, b in (
                (first.words.values, second.words.values),
                (first.words.offsets, second.words.offsets),
                *zip(*(first.labels, second.labels), strict=True),
            ):
                np.testing.assert_array_equal(a, b, strict=True)
        np.testing.assert_array_equal(in_memory.published_counts, mapped.published_counts, strict=True)
        for name in ("words", "labels", "num_labels", "published_documents", "published_words", "test_words"):
            assert getattr(in_memory, name) == getattr(mapped, name)


def test_words_are_counted_before_texts_are_cut():
    corpus = make([("a b c d e f", "x"), ("a", "x"), ("!", "x")], test=[("a b c d", "x"), ("", "x")], max_words=2)
    assert (corpus.published_words, corpus.test_words) == (7, 4)
    assert corpus.train.lengths.tolist() == [2, 1]


# --- a corpus


def test_words_and_labels_get_numbers_by_frequency_in_training():
    corpus = make(
        [("b a A", "x y"), ("a c", "y"), ("b", "z y")],
        test=[("c B new", "y x")],
        validation=[("a other", "z")],
    )
    assert corpus.words == ["a", "b", "c"]
    assert corpus.labels == ["y", "x", "z"]
    assert corpus.vocabulary_size == 5
    assert corpus.num_labels == 3
    assert texts(corpus, corpus.train) == [["b", "a", "a"], ["a", "c"], ["b"]]
    assert texts(corpus, corpus.test) == [["c", "b", None]]
    assert texts(corpus, corpus.validation) == [["a", None]]
    assert labels(corpus, corpus.train) == [{"x", "y"}, {"y"}, {"z", "y"}]
    assert corpus.label_counts.tolist() == [3, 1, 1]
    assert corpus.train.words.values.dtype == corpus.train.labels.values.dtype == np.int32
    assert corpus.train.words.offsets.dtype == corpus.train.labels.offsets.dtype == np.int64


def test_labels_that_training_lacks_come_last_and_stay_in_the_truth(capsys):
    corpus = make(
        [("a", "x"), ("b", "y")],
        validation=[("a", "only_validation x"), ("a", "only_validation")],
        test=[("a", "only_test"), ("b", "y only_validation"), ("c", "another")],
    )
    assert corpus.num_labels == 2
    assert corpus.labels == ["x", "y", "only_validation", "only_test", "another"]
    assert labels(corpus, corpus.test) == [{"only_test"}, {"y", "only_validation"}, {"another"}]
    assert labels(corpus, corpus.validation) == [{"only_validation", "x"}, {"only_validation"}]
    assert corpus.published_counts.tolist() == [1, 1, 0, 0, 0]
    assert corpus.label_counts.tolist() == [1, 1]
    lines = capsys.readouterr().out.splitlines()
    of_validation, of_test = (line for line in lines if line.startswith("Labels of"))
    assert of_validation.startswith("Labels of validation that training lacks")
    assert of_validation.endswith(": 1 (e.g. 'only_validation')")
    assert of_test.startswith("Labels of test that training lacks")
    assert of_test.endswith(": 2 (e.g. 'only_test')")


def test_words_of_held_out_documents_are_unknown_and_their_labels_counted():
    train = [(f"shared rare{i}", "x") for i in range(20)]
    corpus = make(train, fraction=0.25, seed=3)
    assert (len(corpus.train), len(corpus.validation)) == (15, 5)
    assert corpus.words[0] == "shared"
    assert texts(corpus, corpus.validation) == [["shared", None]] * 5
    assert all(None not in text for text in texts(corpus, corpus.train))
    assert set(corpus.words) == {"shared"} | {text[1] for text in texts(corpus, corpus.train)}
    assert corpus.published_documents == 20
    assert corpus.published_counts.tolist() == [20]
    assert corpus.label_counts.tolist() == [15]


def test_no_document_is_lost_or_doubled_between_training_and_validation():
    train = [(f"w{i} " * (i % 4 + 1), f"l{i % 5}" if i % 7 else "") for i in range(60)]
    corpus, again, reseeded = (make(train, fraction=0.2, seed=seed) for seed in (1, 1, 2))
    sizes = sorted([*corpus.train.lengths, *corpus.validation.lengths])
    assert sizes == sorted(i % 4 + 1 for i in range(60))
    seen = [text[0] for text in texts(corpus, corpus.train)]
    assert len(set(seen)) == len(seen) == 48
    assert seen == sorted(seen, key=lambda word: int(word[1:]))  # in the order of the file
    assert texts(again, again.train) == texts(corpus, corpus.train) != texts(reseeded, reseeded.train)


def test_a_validation_split_leaves_training_complete():
    corpus = make([("a", "x"), ("b", "x"), ("c", "x")], validation=[("a", "x")], fraction=0.5)
    assert (len(corpus.train), len(corpus.validation)) == (3, 1)
    assert corpus.published_documents == 3


def test_empty_texts_are_left_out_of_training_only_and_counted(capsys):
    empty = [("", "x"), ("... !", "only_empty"), ("_", "")]
    corpus = make([("a", "x"), *empty, ("b", "y")], test=[*empty, ("a", "x")], validation=empty)
    assert "3 training documents have no word and are left out" in capsys.readouterr().out
    assert texts(corpus, corpus.train) == [["a"], ["b"]]
    assert labels(corpus, corpus.train) == [{"x"}, {"y"}]
    assert corpus.published_documents == 2
    assert corpus.published_counts[:2].tolist() == [1, 1]
    assert corpus.num_labels == 2
    for split in (corpus.test, corpus.validation):
        assert split.lengths[:3].tolist() == [0, 0, 0]
        assert labels(corpus, split)[:3] == [{"x"}, {"only_empty"}, set()]


def test_documents_without_labels_are_kept(capsys):
    corpus = make([("a", "x"), ("b", ""), ("c", "")], test=[("a a", ""), ("b b", "x")])
    assert labels(corpus, corpus.train) == [{"x"}, set(), set()]
    assert labels(corpus, corpus.test) == [set(), {"x"}]
    assert corpus.published_documents == 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("train", [[], [("a", ""), ("b", "")], [("", "x")]])
def test_nothing_to_learn_is_an_error(train):
    with pytest.raises(UserError, match="corpus: no training document has both a word and a label"):
        make(train, test=[("a", "x")])


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.99])
def test_one_document_with_one_label(fraction):
    corpus = make([("a", "x")], test=[("a", "x")], fraction=fraction)
    assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (1, 0, 1)
    assert (corpus.num_labels, corpus.words) == (1, ["a"])


def test_all_labels_in_every_document():
    corpus = make([(f"w{i}", "x y z") for i in range(10)], fraction=0.4)
    assert (len(corpus.train), len(corpus.validation)) == (6, 4)
    assert corpus.labels == ["x", "y", "z"]
    assert corpus.label_counts.tolist() == [6, 6, 6]
    assert corpus.published_counts.tolist() == [10, 10, 10]


def test_max_words_and_max_vocabulary():
    corpus = make([("a a a b b c d", "x")], test=[("d c b a", "x")], max_words=6, max_vocabulary=2)
    assert corpus.words == ["a", "b"]
    assert texts(corpus, corpus.train) == [["a", "a", "a", "b", "b", None]]
    assert texts(corpus, corpus.test) == [[None, None, "b", "a"]]


@pytest.mark.parametrize(
    ("documents", "size"),
    [(1, 0), (10, 2), (300, 45), (3_000, 450), (4_000, 450), (8_000, 800), (20_000, 2_000), (10**6, 2_000)],
)
def test_auto_holds_out_enough_validation_documents_to_choose_by(documents, size):
    assert validation_size("auto", documents) == size
