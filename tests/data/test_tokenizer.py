import re
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lsfa_jax.config import Data
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER, Tokenizer, has_markup, without_markup

WORDS, SPACES, CHARACTERS = map(Tokenizer, ("words", "spaces", "characters"))
ALL = [Tokenizer(kind, html) for kind in ("words", "spaces", "characters") for html in ("keep", "strip")]
# Characters that each rule looks at.
TRICKY = (
    "aB9_ ΣσİK\u0301\u0345\u093f\U000e0100\u200b\u200d\u00ad\ufe0f.é東カーทเีะမန်\u1039ក\u17d2\ud800ﬁＡ™👍🏽❤🇫🇷"
    "<>&;\"'=/!-"
)
texts = st.one_of(st.text(), st.text(TRICKY), st.text(st.characters(codec="ascii")))

SPACED_SCRIPTS = [
    ("The QUICK fox", ["the", "quick", "fox"]),
    ("don't x_y state-of-the-art", ["don", "t", "x", "y", "state", "of", "the", "art"]),
    ("1996 3.5 B2B", ["1996", "3", "5", "b2b"]),
    ("a\0b\tc\r\nd\u00a0e\u2028f", ["a", "b", "c", "d", "e", "f"]),
    ("Straße ΜΆΘΗΣΗ Ёлка", ["straße", "μάθηση", "ёлка"]),
    ("हिन्दी भाषा।", ["हिन्दी", "भाषा"]),
    ("தமிழ்", ["தமிழ்"]),
    (
        "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
        [unicodedata.normalize("NFKC", "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd")],
    ),
    ("한국어 문장입니다", ["한국어", "문장입니다"]),
    ("\u0301 _\u0301a _ __", ["a"]),
    ("it’s “quoted” – 5 € © ™ ✓ ★ • →", ["it", "s", "quoted", "5"]),
    ("... \n\t", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "words"), SPACED_SCRIPTS)
def test_words_are_runs_of_letters_and_digits(text, words):
    assert WORDS.words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("图书目录更新", ["图", "书", "目", "录", "更", "新"]),
        ("暖气Boiler漏水3次", ["暖", "气", "boiler", "漏", "水", "3", "次"]),
        ("本を読む", ["本", "を", "読", "む"]),
        ("ｶﾀｶﾅ・ガ", ["カ", "タ", "カ", "ナ", "ガ"]),
        ("ㄅㄆ ꀀꀁ \U00020000𛅰", ["ㄅ", "ㄆ", "ꀀ", "ꀁ", "\U00020000", "𛅰"]),
        ("ภาษาไทย๑๒ๆ", ["ภา", "ษา", "ไท", "ย", "๑๒", "ๆ"]),
        ("น้ำและเก๋", ["น้\u0e4dา", "และ", "เก๋"]),
        ("ພາສາລາວ", ["ພາ", "ສາ", "ລາ", "ວ"]),
        ("ខ្ញុំស្រឡាញ់", ["ខ្ញុំ", "ស្រ", "ឡា", "ញ់"]),
        ("မြန်မာစကား ကုန်တင်ကား ၁၂", ["မြန်", "မာ", "စ", "ကား", "ကုန်", "တင်", "ကား", "၁၂"]),
        ("ꦧꦱꦗꦮ", ["ꦧ", "ꦱ", "ꦗ", "ꦮ"]),
        ("བོད་སྐད་", ["བོད", "སྐད"]),
    ],
)
def test_scripts_without_spaces_are_split_into_characters(text, words):
    assert WORDS.words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("😀😀 ok!", ["😀", "😀", "ok"]),
        ("❤️ ❤ ☀️", ["❤", "❤", "☀"]),
        ("👍🏽 👩‍💻", ["👍", "👩", "💻"]),
        ("🇫🇷🇩🇪", ["🇫🇷", "🇩🇪"]),
    ],
)
def test_each_emoji_is_a_word(text, words):
    assert WORDS.words(text) == words


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("thérmôstát Ångström Việt", unicodedata.normalize("NFD", "thérmôstát Ångström Việt")),
        ("한국어", unicodedata.normalize("NFD", "한국어")),
        ("がぎ", unicodedata.normalize("NFD", "がぎ")),
        ("thermostat", "ther\u00admo\u200bstat\ufeff"),
        ("thermostat", "ther\u2060mo\u200estat\u200c"),
        ("éa", "e\u00ad\u0301a"),
        ("office flat", "oﬃce ﬂat"),
        ("Boiler 42", "Ｂｏｉｌｅｒ　４２"),
        ("m2 10km", "m² 10㎞"),
        ("میخواهم", "می\u200cخواهم"),
        ("مسلم", "\ufee3\ufeb4\ufee0\ufee2"),
        ("क्ष", "क्\u200dष"),
        ("葛", "葛\U000e0100"),
        ("Windows", "Windows™"),
    ],
)
def test_spellings_of_one_text_give_the_same_words(text, same):
    assert WORDS.words(same) == WORDS.words(text)
    assert WORDS.normalised(WORDS.normalised(same)) == WORDS.normalised(same)


def test_pieces_between_spaces():
    assert SPACES.words("C++ and\tC#,  .NET\u00a0😀 Ｃ\u2028x\ud800y") == [
        "c++",
        "and",
        "c#,",
        ".net",
        "😀",
        "c",
        "x",
        "y",
    ]


def test_characters_with_their_marks():
    assert CHARACTERS.words("Aé e\u0301\nपि图!") == ["a", "é", "é", "पि", "图", "!"]


@given(texts)
def test_every_letter_and_digit_is_in_a_word_in_order(text):
    words = WORDS.words(text)
    kept = [x for x in WORDS.normalised(text).lower() if x.isalnum()]
    assert [x for word in words for x in word if x.isalnum()] == kept
    for word in words:
        assert word[0].isalnum() or unicodedata.category(word[0])[0] in "SP"
        assert all(x.isalnum() or unicodedata.category(x)[0] == "M" for x in word[1:]) or len(word) == 2


@given(st.text(st.characters(codec="ascii")))
def test_words_of_ascii_texts(text):
    expected = re.findall("[a-z0-9]+", text.lower())
    # A letter beyond ASCII, as a separate word, has the text split by a regular expression.
    assert WORDS.words(text) == expected
    assert WORDS.words(text + " é") == [*expected, "é"]
    assert SPACES.words(text) == text.lower().split()
    assert SPACES.words(text + " é") == [*text.lower().split(), "é"]


def test_no_mark_is_below_the_lookahead():
    assert not [x for x in map(chr, range(0x300)) if unicodedata.category(x)[0] == "M"]


# The first call looks at every code point.
@settings(deadline=None, max_examples=300)
@given(st.sampled_from(ALL), texts)
def test_count_words_agrees_with_words(tokenizer, text):
    assert tokenizer.count_words(text) == len(tokenizer.words(text))


@settings(deadline=None, max_examples=500)
@example(WORDS, " " * 8 + "မန်", 1)
@given(st.sampled_from(ALL), texts, st.integers(1, 4))
def test_first_words_agree_with_words(tokenizer, text, limit):
    for long in (text, text * 9, "ab " * 3 + text + "မန်" * 9):
        assert tokenizer.first_words(long, limit) == tokenizer.words(long)[:limit]


@pytest.mark.parametrize("text", ["", "a " * 500, "longer" * 90 + " b c", " " * 300 + "a b c", "ab" * 10 + " cd e f"])
@pytest.mark.parametrize("limit", [1, 2, 3, 499, 500, 501])
def test_the_first_words_of_a_long_text(text, limit):
    assert WORDS.first_words(text, limit) == WORDS.words(text)[:limit]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(ALL), texts)
def test_spans_are_those_of_the_words_in_the_normalised_text(tokenizer, text):
    # A capital may become two characters, so the words are compared and not their places. A sigma at the end of a word
    # depends on what is behind the word.
    shown = tokenizer.normalised(text)
    words = [shown[start:end].lower().replace("ς", "σ") for start, end in tokenizer.spans(text)]
    assert words == [word.replace("ς", "σ") for word in tokenizer.words(text)]


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("<p class='x'>Hello <b>world</b></p>", ["hello", "world"]),
        ('one<br/>two <a title="a > b" href=x>three</A>', ["one", "two", "three"]),
        ("a<!-- b > c -->d <script>var e = 1 < 2</script>f<STYLE>g{}</style>", ["a", "d", "f"]),
        ("<!DOCTYPE html><?xml version='1'?><![CDATA[kept]]>", ["kept"]),
        ("caf&eacute; &amp; tea &#8364; a&nbsp;b ther&shy;mo", ["café", "tea", "a", "b", "thermo"]),
        ("x < y and z > w, 5<6, <3, a <b", ["x", "y", "and", "z", "w", "5", "6", "3", "a", "b"]),
    ],
)
def test_markup_is_removed_on_request(text, stripped):
    assert Tokenizer("words", "strip").words(text) == stripped
    assert WORDS.normalised(text) == text


@given(st.text(st.characters(exclude_characters="<&")))
def test_texts_without_markup_stay_as_they_are(text):
    assert without_markup(text) == text
    assert not has_markup(text)


@pytest.mark.parametrize("tokenizer", ALL)
@given(texts, st.integers(1, 4))
@example("word " * 100, 50)
def test_the_beginning_ends_with_the_last_word_of_the_limit(tokenizer, text, limit):
    ends = [end for _, end in tokenizer.spans(text)][:limit]
    normalised = tokenizer.normalised(text)
    assert tokenizer.beginning(text, limit) == (normalised[: ends[-1]] if len(ends) == limit else normalised)


@pytest.mark.parametrize("text", ["word " * 10**6, "\u0301 wörd" * 10**6, "x" * 5 * 10**6, "東" * 10**6])
def test_the_beginning_of_megabytes_is_quick(text):
    start = time.perf_counter()
    assert len(WORDS.words(WORDS.beginning(text, 10))) == min(10, WORDS.count_words(text))
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("piece", ["<a ", "<", "<!--", "<script>", '<a ="', "<a =", "<![CDATA[", "&"])
def test_broken_markup_takes_linear_time(piece):
    text = piece * (200_000 // len(piece)) + ">"
    start = time.perf_counter()
    without_markup(text)
    has_markup(text)
    assert time.perf_counter() - start < 5


def test_the_settings_choose_the_tokenizer():
    assert Tokenizer.from_settings(Data()) == DEFAULT_TOKENIZER == WORDS
    assert Tokenizer.from_settings(Data(tokenizer="spaces", html="strip")) == Tokenizer("spaces", "strip")
