import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from lsfa_jax.data import bags, build_corpus
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.data.tokenizer import Tokenizer
from lsfa_jax.data.vocabulary import WordCounter
from lsfa_jax.sparse import tf_idf

SETTINGS = {"max_words": 3, "max_vocabulary": 100, "seed": 0, "validation_fraction": 0.0}


def documents(pairs):
    return None if pairs is None else [Document(text, tuple(labels.split())) for text, labels in pairs]


def make(train, test=(), validation=None, **settings):
    """A corpus of (text, label names in one string) pairs, texts cut to three words."""
    return build_corpus.build("corpus", *map(documents, (train, test, validation)), **SETTINGS | settings)


def counts(corpus, split):
    """The bag of each document, by word."""
    return [
        {corpus.bag_terms[word]: int(count) for word, count in zip(row.indices, row.data, strict=True)}
        for row in getattr(corpus, split).bags
    ]


def test_whole_texts_are_counted_where_word_ids_are_of_cut_ones():
    corpus = make([("one two three four four", "a"), ("four three two one five", "b")])
    assert corpus.train.lengths.tolist() == [3, 3]
    assert counts(corpus, "train") == [
        {"one": 1, "two": 1, "three": 1, "four": 2},
        {"one": 1, "two": 1, "three": 1, "four": 1},
    ]


def test_words_are_those_of_two_published_training_documents():
    train = [("twice trainonly trainonly", "a"), ("twice half", "b")]
    corpus = make(train, [("half testonly testonly", "a"), ("testonly twice", "b")], [("half twice twice", "a")])
    assert corpus.bag_terms == ["twice"]
    assert counts(corpus, "test") == [{}, {"twice": 1}]
    assert counts(corpus, "validation") == [{"twice": 2}]


def test_a_word_that_one_training_and_one_held_out_document_have_is_counted():
    """Documents that validation was drawn from are published training documents."""
    texts = [(f"w{i // 2} only{i} common", f"l{i % 2}") for i in range(20)]
    corpus = make(texts, validation_fraction=0.3)
    assert len(corpus.validation) == 6
    assert sorted(corpus.bag_terms) == sorted(["common", *(f"w{i}" for i in range(10))])


@pytest.mark.parametrize("tokenizer", ["words", "spaces"])
def test_letters_and_digits_alone_are_no_words_of_bags_unless_spaces_separate_them(tokenizer):
    corpus = make([("a 1 bc 书", "x"), ("a 1 bc 书", "y z")], tokenizer=Tokenizer(tokenizer))
    every = ["a", "1", "bc", "书", "a 1", "1 bc", "bc 书"]
    assert corpus.bag_terms == (["bc", "书", "bc 书"] if tokenizer == "words" else every)


def test_pairs_are_of_adjacent_counted_words_at_the_beginning(monkeypatch):
    monkeypatch.setattr(bags, "_PAIRED_WORDS", 4)
    corpus = make([("in x in x out out far far", "a"), ("in x in y out out far far", "b")])
    assert corpus.bag_terms == ["in", "out", "far", "in in", "in out", "out out"]
    row = {"in": 2, "out": 2, "far": 2, "in in": 1, "in out": 1, "out out": 1}
    assert counts(corpus, "train") == [row, row]
    assert bags.terms("in x in y out out far", Tokenizer("words")) == [
        *("in", "in", "out", "out", "far"), *("in in", "in out", "out out")
    ]  # fmt: skip


def test_a_document_without_a_counted_word_has_an_empty_row():
    corpus = make([("b", "x"), ("common b", "x"), ("common c", "y")], [("", "x"), ("common", "y"), ("rare", "x")])
    assert counts(corpus, "train") == [{}, {"common": 1}, {"common": 1}]
    assert counts(corpus, "test") == [{}, {"common": 1}, {}]


def test_without_a_common_word_there_are_rows_and_no_words():
    corpus = make([("one", "x"), ("two", "y")], [("one", "x")])
    assert corpus.bag_terms == []
    assert [corpus.train.bags.shape, corpus.test.bags.shape] == [(2, 0), (1, 0)]


def numbered(number):
    """A text of four words by which its document is recognised; two documents share each of the first three."""
    return f"a{number // 2} b{number // 2} c{number // 2} d{number % 30}"


@pytest.mark.parametrize("mapped", [False, True])
def test_rows_belong_to_the_documents_of_drawn_splits_with_merged_rows(tmp_path, mapped):
    """Words in the same order as labels; every third document stands in two rows, with a label each."""
    rows = [("...", "l0")]
    for i in range(60):
        rows.append((numbered(i), f"l{i % 30}"))
        if i % 3 == 0:
            rows.append((numbered(i), "extra"))
    build_corpus.write(
        tmp_path, documents(rows), None, None, name="c", test_fraction=0.2, **SETTINGS | {"validation_fraction": 0.2}
    )
    corpus = build_corpus.read(tmp_path, "c", mapped=mapped)
    seen, num_recognised = [], 0
    for name in ("train", "validation", "test"):
        split = getattr(corpus, name)
        assert len(split)
        assert split.bags.shape == (len(split), len(corpus.bag_terms))
        assert split.bags.dtype == np.int32
        for document, bag in enumerate(counts(corpus, name)):
            names = {corpus.labels[label] for label in split.labels.row(document)}
            (number,) = {label[1:] for label in names} - {"xtra"}
            assert {word for word in bag if word[0] == "d"} <= {f"d{number}"}
            assert set(bag.values()) <= {1}
            seen.append(names)
            num_recognised += f"d{number}" in bag
    assert len(seen) == 60
    assert num_recognised >= 40  # words of at least two of the published training documents
    assert sum("extra" in names for names in seen) == 20


def test_bags_are_gathered_with_the_documents():
    corpus = make([("aa bb", "x"), ("bb bb", "y"), ("aa", "z")])
    taken = corpus.train.take(np.array([2, 0, 1, 1]))
    np.testing.assert_array_equal(taken.bags.toarray(), corpus.train.bags.toarray()[[2, 0, 1, 1]])


def test_tf_idf_of_bags_is_scikit_learns_of_the_texts():
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in random.zipf(1.5, random.integers(0, 60)) % 50) for _ in range(40)]
    texts[0] = "w1 w2"
    corpus = make([(text, "x") for text in dict.fromkeys(texts[:30]) if text], [(text, "x") for text in texts[30:]])
    train = list(dict.fromkeys(text for text in texts[:30] if text))
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2))
    expected = vectorizer.fit_transform(train), vectorizer.transform(texts[30:])
    features, kept = tf_idf.fit([corpus.train.bags], corpus.bag_terms)
    order = [vectorizer.vocabulary_[word] for word in features.terms]
    assert len(order) == len(vectorizer.vocabulary_)
    assert max(corpus.train.lengths) == 3
    for split, reference in zip((corpus.train, corpus.test), expected, strict=True):
        actual = features(split.bags[:, kept])
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual.toarray(), reference.toarray()[:, order], rtol=1e-6)
    np.testing.assert_allclose(
        features.of_texts(texts[30:], Tokenizer("words")).toarray(), expected[1].toarray()[:, order], rtol=1e-6
    )


def spool_of(folder, *rows):
    spool, counter = bags.BagSpool(folder), WordCounter()
    for words in rows:
        spool.add(words, counter)
    return spool, list(counter.ids)


@pytest.mark.parametrize("block", [1, 3, 1 << 22])
def test_a_spool_writes_rows_of_chosen_terms(tmp_path, monkeypatch, block):
    monkeypatch.setattr(bags, "_BLOCK", block)
    spool, words = spool_of(tmp_path, ["b", "a", "b"], [], ["c", "a"], ["b", "a"])
    keep = np.array([True, True, False, True])

    def written(rows, terms):
        bags.write(tmp_path, spool, rows, terms)
        return bags.read(tmp_path, len(terms), mapped=False)

    chosen = bags.choose_terms(spool, keep)
    assert bags.names(chosen, words) == ["b", "a", "b a"]
    np.testing.assert_array_equal(written(keep, chosen).toarray(), [[2, 1, 1], [0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(written(~keep, chosen).toarray(), [[0, 1, 0]])
    assert written(keep & False, chosen).shape == (0, 3)
    assert written(keep, chosen[:0]).shape == (3, 0)
    spool.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag_counts.npy", "bag_offsets.npy", "bag_terms.npy"]


@pytest.mark.parametrize("slots", [2, 1 << 24])
def test_terms_of_two_documents_are_chosen_however_often_they_occur(tmp_path, monkeypatch, slots):
    """Also where they share slots of the table that leaves out rare ones."""
    monkeypatch.setattr(bags, "_SLOTS", slots)
    spool, words = spool_of(tmp_path, ["a", *["b"] * 9, "d"], ["a", "d"], ["d"])
    assert bags.names(bags.choose_terms(spool, np.array([True, True, True])), words) == ["a", "d"]
    assert bags.names(bags.choose_terms(spool, np.array([False, True, True])), words) == ["d"]
