import json
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from lsfa_jax.data import pieces
from lsfa_jax.data.pieces import Pieces, folder_of, read_tokenizer
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER, Tokenizer
from lsfa_jax.util.console import UserError

VOCABULARY = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "boil", "##er", "broke", ",", ".", "'", "don", "t", "3", "東",
    "京", "😀", "cafe", "café", "ภาษา", "##ไทย", "!", "Boil", "a", "##a", "i", "s", "\ufffd",
]  # fmt: skip
SAMPLE = "boiler broke, don't the Boiler 東京 😀 café ภาษาไทย aaaa !"
# Characters that tokenizers of either kind look at.
TRICKY = "abt 3,.'! \n\t\r\x0b\x1c\x1f\x85\u00a0\u2028\0ΣσİK\u0301\u200b\u00ad\ufe0f東カเที\ud800\ufffdﬁＡ👍🏽🇫🇷<s>[SEP]"
texts = st.one_of(
    st.text(),
    st.text(TRICKY),
    st.lists(st.sampled_from(["the", "boiler", ", don't", " ", "\n", "[SEP]", "<mask>", "東京", "x"])).map(" ".join),
)


def word_pieces(**options):
    """BERT's tokenizer over VOCABULARY, as the library makes it."""
    library = tokenizers.implementations.BertWordPieceTokenizer({w: i for i, w in enumerate(VOCABULARY)}, **options)
    return tokenizers.Tokenizer.from_str(library.to_str())


def byte_pairs():
    """RoBERTa's tokenizer, trained on a few words."""
    library = tokenizers.ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", tokenizers.AddedToken("<mask>", lstrip=True)]
    library.train_from_iterator([SAMPLE] * 3, vocab_size=320, special_tokens=special)
    library.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizers.Tokenizer.from_str(library.to_str())


def sentence_pieces():
    """A tokenizer of XLM-RoBERTa's kind."""
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -1.0) for piece in ["▁", "▁the", "▁boil", "er", ",", "a", "b", "t", "東", "京"]]
    library = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, unk_id=3))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    library.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    return library


LIBRARIES = {"word pieces": word_pieces(), "byte pairs": byte_pairs(), "sentence pieces": sentence_pieces()}


def of(library, max_words=50, tokenizer=DEFAULT_TOKENIZER):
    return Pieces(library.to_str(), tokenizer, max_words)


def words(encoder, text):
    """The words that the pieces of a text belong to."""
    normalised, (spans, places) = encoder.tokenizer.normalised(text), encoder.word_places(text)
    return [normalised[start:end] for start, end in (spans[i] for i in places)]


@pytest.fixture
def folder(tmp_path):
    """Writes files into a folder: JSON or text by their name."""

    def write(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("_json", ".json").replace("_txt", ".txt")
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
@given(texts)
@example("a [SEP] b <mask> c  <s>")
@example("the  boiler\nbroke ")
def test_ids_are_those_of_the_library(library, text):
    plain = DEFAULT_TOKENIZER.normalised(text).replace("\ud800", "\ufffd")
    plain = "".join("\ufffd" if "\ud800" <= x <= "\udfff" else x for x in plain)
    ids = of(library).encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == library.encode(plain, add_special_tokens=False).ids[:200]


@pytest.mark.parametrize("kind", ["words", "spaces", "characters"])
@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
@given(texts, st.integers(1, 3))
def test_each_piece_has_a_word(library, kind, text, max_words):
    encoder = of(library, max_words, Tokenizer(kind))
    spans, places = encoder.word_places(text)
    assert len(places) == len(encoder.encode(text)) <= encoder.max_tokens == 4 * max_words
    assert sorted(set(places.tolist())) == list(range(len(spans)))
    assert places.tolist() == sorted(places.tolist())
    ends = [0, *(end for _, end in spans)]
    length = len(encoder.tokenizer.normalised(text))
    assert all(before <= start < end <= length for before, (start, end) in zip(ends, spans, strict=False))


def test_pieces_of_words_and_punctuation():
    assert words(of(LIBRARIES["word pieces"]), "The boiler broke, don't") == [
        "The", "boiler", "boiler", "broke", ",", "don", "'", "t",
    ]  # fmt: skip
    assert words(of(LIBRARIES["byte pairs"]), "the 😀 broke")[0] == "the"


@pytest.mark.parametrize("text", ["the 東京😀", "cafe\u0301 the", "ﬁ the ภาษาไทย", "\0the\0 \ud800 the"])
@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
def test_words_stand_where_they_are_in_the_text(library, text):
    encoder = of(library)
    places = words(encoder, text)
    assert "the" in places
    assert all(word in encoder.tokenizer.normalised(text) for word in places)


def test_bytes_of_one_character_are_one_word():
    encoder = of(LIBRARIES["byte pairs"])
    assert len(encoder.encode("🦊🦊")) > 2
    assert set(words(encoder, "🦊🦊")) == {"🦊"}


def test_a_piece_over_several_words_joins_them():
    assert DEFAULT_TOKENIZER.words("ภาษาไทย") == ["ภา", "ษา", "ไท", "ย"]
    assert words(of(LIBRARIES["word pieces"]), "the ภาษาไทย") == ["the", "ภาษา", "ไทย"]


def test_a_text_is_cut_behind_its_last_word():
    encoder = of(LIBRARIES["word pieces"], max_words=2)
    both = LIBRARIES["word pieces"].encode("the boiler", add_special_tokens=False).ids
    assert encoder.encode("the, boiler, broke.").tolist() == [both[0], VOCABULARY.index(","), *both[1:]]
    assert words(encoder, "the, boiler, broke.") == ["the", ",", "boiler", "boiler"]
    assert encoder.encode("the boiler").tolist() == both


def test_the_pieces_of_a_text_are_bounded():
    encoder = of(LIBRARIES["word pieces"], max_words=2)
    assert encoder.max_tokens == 8
    assert encoder.encode("! " * 100).tolist() == [VOCABULARY.index("!")] * 8
    assert words(encoder, "!" * 100) == ["!"] * 8


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("text", ["", " \n\t", "\u200b"])
def test_a_text_without_words(library, text):
    encoder = of(library)
    assert len(encoder.encode(text)) == len(encoder.word_places(text)[1])


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("text", ["x", "!", "😀", "東", "\0", " ", "e\u0301", "a,", " a", "é "])
def test_megabytes_are_quick(library, text):
    text *= 10**6 // len(text)
    encoder = of(library)
    start = time.perf_counter()
    ids = encoder.encode(text)
    assert len(encoder.word_places(text)[1]) == len(ids) <= encoder.max_tokens
    assert time.perf_counter() - start < 5


def test_many_chunks_are_forgotten(monkeypatch):
    monkeypatch.setattr(pieces, "_MAX_CHUNKS", 2)
    encoder = of(LIBRARIES["word pieces"])
    text = "the boiler broke , the boiler . don't"
    assert encoder.encode(text).tolist() == LIBRARIES["word pieces"].encode(text, add_special_tokens=False).ids
    assert len(encoder._memo) <= 2


@pytest.mark.parametrize("token", ["the boiler", tokenizers.AddedToken("broke", rstrip=True)])
@pytest.mark.parametrize("make", [word_pieces, byte_pairs])
def test_added_tokens_with_spaces(make, token):
    library = make()
    library.add_tokens([token])
    text = "a the boiler broke the boiler"
    assert of(library).encode(text).tolist() == library.encode(text, add_special_tokens=False).ids


def test_unknown_words():
    assert of(LIBRARIES["word pieces"]).is_known(np.array([[0, 1, 5]])).tolist() == [[True, False, True]]
    assert of(LIBRARIES["sentence pieces"]).is_known(np.array([2, 3, 4])).tolist() == [True, False, True]
    assert of(LIBRARIES["byte pairs"]).is_known(np.arange(5)).all()


def test_special_tokens_and_size():
    encoder = of(LIBRARIES["word pieces"])
    assert (encoder.first_id, encoder.last_id, encoder.size) == (2, 3, len(VOCABULARY))
    # Without a post-processor they are known by their names.
    encoder = of(LIBRARIES["sentence pieces"])
    assert (encoder.first_id, encoder.last_id, encoder.size) == (0, 2, 14)
    assert of(LIBRARIES["byte pairs"]).size == LIBRARIES["byte pairs"].get_vocab_size()


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
def test_pieces_can_be_pickled(library):
    encoder = of(library)
    ids = encoder.encode(SAMPLE)
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy == encoder
    assert copy.encode(SAMPLE).tolist() == ids.tolist()


def test_truncation_and_padding_of_the_file_are_removed(folder):
    library = word_pieces()
    library.enable_truncation(3)
    library.enable_padding(length=100)
    content = read_tokenizer(folder(tokenizer_json=library.to_str()))
    assert content == LIBRARIES["word pieces"].to_str()


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (None, {}),
        ({"do_lower_case": False}, {"lowercase": False}),
        ({"strip_accents": False}, {"strip_accents": False}),
        ({"tokenize_chinese_chars": False}, {"handle_chinese_chars": False}),
    ],
)
def test_vocab_txt_gives_the_ids_of_tokenizer_json(folder, settings, options):
    files = {"tokenizer_config_json": settings} if settings else {}
    content = read_tokenizer(folder(vocab_txt="\n".join(VOCABULARY), **files))
    ids = [Pieces(x, DEFAULT_TOKENIZER, 50).encode(SAMPLE).tolist() for x in (content, word_pieces(**options).to_str())]
    assert ids[0] == ids[1]
    encoder = Pieces(content, DEFAULT_TOKENIZER, 50)
    assert (encoder.first_id, encoder.last_id) == (2, 3)


def test_vocab_json_and_merges_give_the_ids_of_tokenizer_json(folder, tmp_path):
    library = LIBRARIES["byte pairs"]
    model = json.loads(library.to_str())["model"]
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    path = folder(**{"vocab_json": model["vocab"], "merges_txt": f"#version: 0.2\n{merges}\n"})
    encoder = Pieces(read_tokenizer(path), DEFAULT_TOKENIZER, 50)
    assert encoder.encode(SAMPLE + " <mask> 🦊").tolist() == of(library).encode(SAMPLE + " <mask> 🦊").tolist()
    assert (encoder.first_id, encoder.last_id) == (0, 2)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"no tokenizer there\. Expected tokenizer\.json, vocab\.txt, or vocab\.json"):
        read_tokenizer(path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_json": "{"}, r"tokenizer\.json: not a tokenizer"),
        ({"tokenizer_json": {"model": 3}}, r"tokenizer\.json: not a tokenizer"),
        ({"vocab_txt": "[CLS]\n[SEP]\n[PAD]\nthe\n"}, r"vocab\.txt: not a tokenizer .*Missing \[UNK\]"),
        ({"vocab_txt": "[UNK]\nthe\n"}, r"vocab\.txt: not a tokenizer"),
        ({"vocab_txt": "[UNK]\n", "tokenizer_config_json": "{"}, r"vocab\.txt: not a tokenizer"),
        (
            {"vocab_json": {"<s>": 0, "</s>": 10**9}, "merges_txt": ""},
            r"ids up to 1,000,000,000 for 2 tokens",
        ),
        ({"vocab_json": "{", "merges_txt": ""}, r"vocab\.json: not a tokenizer"),
        ({"vocab_json": {"a": 0}, "merges_txt": "a b\n"}, r"vocab\.json: not a tokenizer"),
        ({"vocab_json": {"a": 0}, "merges_txt": ""}, r"vocab\.json: no tokens for the start and the end of a text"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_named(folder, files, message):
    with pytest.raises(UserError, match=message):
        read_tokenizer(folder(**files))


def test_content_that_is_no_tokenizer():
    with pytest.raises(UserError, match="not a tokenizer"):
        _ = Pieces("{}", DEFAULT_TOKENIZER, 5).size


def test_a_folder_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "minilm_folder", lambda: tmp_path / "fetched")
    assert folder_of("minilm") == tmp_path / "fetched"
    assert folder_of(str(tmp_path)) == tmp_path
    with pytest.raises(
        UserError, match=r"minilm6: no such encoder or folder \(did you mean minilm\?\)\. Expected .*json"
    ):
        folder_of("minilm6")
    with pytest.raises(UserError, match=r"did you mean bilstm\?"):
        folder_of(str(tmp_path / "bilsm"))


def test_the_library_is_imported_when_a_tokenizer_is_read():
    program = "import lsfa_jax.data.pieces, sys; sys.exit('tokenizers' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
