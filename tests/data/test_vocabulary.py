import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER, Tokenizer
from lsfa_jax.data.vocabulary import NUM_SPECIAL, PADDING, UNKNOWN, WordCounter, Words


def encode(text, words, max_words):
    return Words(words, DEFAULT_TOKENIZER, max_words).encode(text)


def number(counter, text):
    return counter.number(text.split())


def test_most_frequent_first_ties_in_order_of_first_sight():
    counter = WordCounter()
    texts = [number(counter, text) for text in ("late zebra ant", "ant late bee", "bee cat", "unused")]
    counts = np.bincount(np.concatenate(texts[:3]), minlength=5)
    words, final = counter.most_frequent(np.append(counts, 0), 10)
    assert words == ["late", "ant", "bee", "zebra", "cat"]
    first, second, third, unused = (final[text].tolist() for text in texts)
    assert (first, second, third) == ([2, 5, 3], [3, 2, 4], [4, 6])
    assert unused == [UNKNOWN]  # not in what was counted


def test_limit_keeps_the_most_frequent_and_makes_the_rest_unknown():
    counter = WordCounter()
    ids = number(counter, "c a b a c a d")
    words, final = counter.most_frequent(np.bincount(ids), 2)
    assert words == ["a", "c"]
    assert final[ids].tolist() == [3, 2, UNKNOWN, 2, 3, 2, UNKNOWN]
    assert final.dtype == np.int32


@given(st.lists(st.sampled_from("abcdefgh"), max_size=40), st.integers(1, 9))
def test_vocabulary_agrees_with_a_plain_count(letters, limit):
    counter = WordCounter()
    ids = counter.number(letters)
    words, final = counter.most_frequent(np.bincount(ids, minlength=len(counter.ids)), limit)
    distinct = list(dict.fromkeys(letters))
    assert words == sorted(distinct, key=lambda word: (-letters.count(word), distinct.index(word)))[:limit]
    expected = [words.index(letter) + NUM_SPECIAL if letter in words else UNKNOWN for letter in letters]
    assert final[ids].tolist() == expected
    # A finished vocabulary encodes a new text as the counter encoded it.
    np.testing.assert_array_equal(encode(" ".join(letters), words, 100), expected)


@pytest.mark.parametrize("length", [0, 1, 4, 5, 6])
def test_texts_are_cut_at_max_words(length):
    ids = encode(" ".join("abcdefgh"[:length]), list("abcdefgh"), 5)
    assert ids.tolist() == [2, 3, 4, 5, 6][:length]
    assert ids.dtype == np.int32


def test_special_ids_precede_all_words():
    assert {PADDING, UNKNOWN} == set(range(NUM_SPECIAL))
    assert PADDING == 0
    vocabulary = Words(["x", "y"], DEFAULT_TOKENIZER, 9)
    ids = vocabulary.encode("y z X")
    assert ids.tolist() == [3, UNKNOWN, 2]
    assert vocabulary.is_known(ids).tolist() == [True, False, True]


def test_words_beyond_max_words_are_not_searched_for(monkeypatch):
    limits, spans = [], Tokenizer.spans

    def recorded(tokenizer, text, limit=None):
        limits.append(limit)
        return spans(tokenizer, text, limit)

    monkeypatch.setattr(Tokenizer, "spans", recorded)
    assert Words(["x"], DEFAULT_TOKENIZER, 2).word_places("a b c d")[0] == [(0, 1), (2, 3)]
    assert limits == [2]


def test_each_token_of_a_vocabulary_of_words_is_a_word():
    spans, words = Words(["x"], DEFAULT_TOKENIZER, 2).word_places("(x)  Some words")
    assert spans == [(1, 2), (5, 9)]
    assert words.tolist() == [0, 1]
