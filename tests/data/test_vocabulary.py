import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.data.vocabulary import (
    NUM_SPECIAL,
    PADDING,
    UNKNOWN,
    WordCounter,
    count_words,
    encode,
    first_words,
    tokenize,
    word_index,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The QUICK fox", ["the", "quick", "fox"]),
        ("don't x_y state-of-the-art", ["don", "t", "x", "y", "state", "of", "the", "art"]),
        ("1996 3.5 B2B", ["1996", "3", "5", "b2b"]),
        ("a\0b\tc\r\nd\u00a0e\u2028f", ["a", "b", "c", "d", "e", "f"]),
        ("Straße ΜΆΘΗΣΗ Ёлка", ["straße", "μάθηση", "ёлка"]),
        ("東京 大学、研究", ["東京", "大学", "研究"]),
        ("हिन्दी भाषा।", ["हिन्दी", "भाषा"]),
        ("ที่นี่ தமிழ்", ["ที่นี่", "தமிழ்"]),
        ("שָׁלוֹם مُحَمَّد", ["שָׁלוֹם", "مُحَمَّد"]),
        ("cafe\u0301 İzmir", ["cafe\u0301", "i\u0307zmir"]),
        ("\u0301 _\u0301a _ __", ["a"]),
        ("😀 ok!", ["ok"]),
        ("... \n\t", []),
        ("", []),
    ],
)
def test_words_are_runs_of_letters_and_digits_of_any_script(text, words):
    assert tokenize(text) == words


@given(st.text())
def test_every_letter_and_digit_is_in_a_word_in_order(text):
    words = tokenize(text)
    kept = [x for x in text.lower() if x.isalnum()]
    assert [x for word in words for x in word if x.isalnum()] == kept
    for word in words:
        assert word[0].isalnum()
        assert all(x.isalnum() or unicodedata.category(x)[0] == "M" for x in word)
    # Words as text give the same words again (a few letters change when they are lower-cased twice).
    assert tokenize(" ".join(words)) == [x for word in words for x in tokenize(word)]


@given(st.text(st.characters(codec="ascii")))
def test_words_of_plain_texts(text):
    assert tokenize(text) == re.findall("[a-z0-9]+", text.lower())
    assert tokenize(text + " é") == [*tokenize(text), "é"]


def test_no_mark_is_below_the_lookahead():
    assert not [x for x in map(chr, range(0x300)) if unicodedata.category(x)[0] == "M"]


def test_most_frequent_first_ties_in_order_of_first_sight():
    counter = WordCounter()
    texts = [counter.encode(text, 10) for text in ("late zebra ant", "ant late bee", "bee cat", "unused")]
    counts = np.bincount(np.concatenate(texts[:3]), minlength=5)
    words, final = counter.most_frequent(np.append(counts, 0), 10)
    assert words == ["late", "ant", "bee", "zebra", "cat"]
    first, second, third, unused = (final[text].tolist() for text in texts)
    assert (first, second, third) == ([2, 5, 3], [3, 2, 4], [4, 6])
    assert unused == [UNKNOWN]  # not in what was counted


def test_limit_keeps_the_most_frequent_and_makes_the_rest_unknown():
    counter = WordCounter()
    ids = counter.encode("c a b a c a d", 10)
    words, final = counter.most_frequent(np.bincount(ids), 2)
    assert words == ["a", "c"]
    assert final[ids].tolist() == [3, 2, UNKNOWN, 2, 3, 2, UNKNOWN]
    assert final.dtype == np.int32


@given(st.lists(st.sampled_from("abcdefgh"), max_size=40), st.integers(1, 9))
def test_vocabulary_agrees_with_a_plain_count(letters, limit):
    counter = WordCounter()
    ids = counter.encode(" ".join(letters), 100)
    words, final = counter.most_frequent(np.bincount(ids, minlength=len(counter.ids)), limit)
    distinct = list(dict.fromkeys(letters))
    assert words == sorted(distinct, key=lambda word: (-letters.count(word), distinct.index(word)))[:limit]
    expected = [words.index(letter) + NUM_SPECIAL if letter in words else UNKNOWN for letter in letters]
    assert final[ids].tolist() == expected
    # A finished vocabulary encodes a new text as the counter encoded it.
    np.testing.assert_array_equal(encode(" ".join(letters), word_index(words), 100), expected)


@pytest.mark.parametrize("length", [0, 1, 4, 5, 6])
def test_texts_are_cut_at_max_words(length):
    counter = WordCounter()
    text = " ".join("abcdefgh"[:length])
    ids = counter.encode(text, 5)
    assert ids.dtype == np.int32
    assert ids.tolist() == list(range(min(length, 5)))
    assert list(counter.ids) == list("abcdefgh"[: min(length, 5)])  # words behind the cut are not words of the corpus
    index = word_index(list("abcdefgh"))
    assert encode(text, index, 5).tolist() == [2, 3, 4, 5, 6][:length]
    assert encode(text, index, 5).dtype == np.int32


def test_special_ids_precede_all_words():
    assert {PADDING, UNKNOWN} == set(range(NUM_SPECIAL))
    assert PADDING == 0
    assert word_index(["x", "y"]) == {"x": 2, "y": 3}
    assert encode("y z X", word_index(["x", "y"]), 9).tolist() == [3, UNKNOWN, 2]


# The first call looks at every code point.
@settings(deadline=None)
@given(st.one_of(st.text(), st.text("aB9_ \u0301\u0345\u093f\U000e0100İΣ.é東")))
def test_count_words_agrees_with_tokenize(text):
    assert count_words(text) == len(tokenize(text))


@given(st.text("aΣ' \u0301", max_size=60), st.integers(1, 4))
def test_first_words_agree_with_tokenize(text, limit):
    assert first_words(text, limit) == tokenize(text)[:limit]


@pytest.mark.parametrize("text", ["", "a " * 500, "longer" * 90 + " b c", " " * 300 + "a b c", "ab" * 10 + " cd e f"])
@pytest.mark.parametrize("limit", [1, 2, 3, 499, 500, 501])
def test_the_first_words_of_a_long_text(text, limit):
    assert first_words(text, limit) == tokenize(text)[:limit]


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_texts_are_split_like_others(text):
    # A letter beyond ASCII, as a separate word, has the text split by the regular expression.
    assert [*tokenize(text), "é"] == tokenize(text + " é")
