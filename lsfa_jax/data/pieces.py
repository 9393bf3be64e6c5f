"""Texts to the word pieces of a pretrained encoder, by the library `tokenizers`.

A text is normalised and cut by words as for every encoder (`lsfa_jax.data.tokenizer`); what is left is split into the
pieces that the encoder was pretrained with.
"""

import functools
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from lsfa_jax.config import EncoderKind, nearest
from lsfa_jax.data.download import minilm_folder
from lsfa_jax.data.tokenizer import Tokenizer
from lsfa_jax.types import HostArray
from lsfa_jax.util.console import UserError

if TYPE_CHECKING:
    import tokenizers

PIECES_A_WORD = 4
"""Bound on the pieces of a text, for each word that it may have. English has 1.3 pieces a word, chemical names 6."""

# Characters that are read of a text, for each word that it may have: bounds the time of texts without words.
LETTERS_A_WORD = 256

# Chunks of text between spaces whose ids are remembered, and the longest that is.
_MAX_CHUNKS = 2**17
_MAX_CHUNK_LENGTH = 40

# A letter that vocabularies lack, an Egyptian hieroglyph.
_UNKNOWN = "\U00013000"

_SURROGATES = re.compile("[\ud800-\udfff]")
_SINGLE_SPACE = re.compile(r"(?<=\S)(?= \S)")

_FILES = "tokenizer.json, vocab.txt, or vocab.json with merges.txt"

# What --encoder takes beside a folder.
_NAMES = sorted({*get_args(EncoderKind), "minilm"} - {"transformer"})


def folder_of(name: str) -> Path:
    """Returns the folder of a pretrained encoder: of `minilm` after fetching it, else the folder of that path.

    Raises:
        UserError: there is no such folder, or it cannot be fetched.
    """
    if name == "minilm":
        return minilm_folder()
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"--encoder {name}: no such encoder or folder{nearest(folder.name, _NAMES)}. Expected {', '.join(_NAMES)}, "
            f"or a folder with config.json, model.safetensors and a tokenizer ({_FILES}). Models of a hub are not "
            "fetched: download the folder first."
        )
    return folder


def read_tokenizer(folder: Path) -> str:
    """Returns a pretrained encoder's tokenizer as JSON of the library `tokenizers`, without truncation and padding.

    Args:
        folder: with tokenizer.json; or vocab.txt (WordPiece of BERT; lower-cased unless tokenizer_config.json says
            otherwise); or vocab.json and merges.txt (byte pairs of RoBERTa).

    Raises:
        UserError: there is none of these, or it cannot be read.
    """
    for names, read in _READERS.items():
        if all((folder / name).is_file() for name in names):
            try:
                library = read(folder)
                # Fails where the token of unknown words is missing.
                library.encode(_UNKNOWN)
            # The library raises nothing more specific.
            except Exception as error:
                raise UserError(f"{folder / names[0]}: not a tokenizer that can be read ({error}).") from None
            break
    else:
        raise UserError(f"--encoder {folder}: no tokenizer there. Expected {_FILES}.")
    vocabulary = library.get_vocab(with_added_tokens=True)
    if (largest := max(vocabulary.values(), default=0)) > 10 * len(vocabulary):
        raise UserError(f"{folder / names[0]}: ids up to {largest:,} for {len(vocabulary):,} tokens; expected no gaps.")
    library.no_truncation()
    library.no_padding()
    if _special_ids(library) is None:
        raise UserError(
            f"{folder / names[0]}: no tokens for the start and the end of a text; expected [CLS] and [SEP], or <s> and "
            "</s>."
        )
    return library.to_str()


@dataclass(frozen=True)
class Pieces:
    """How texts become word pieces.

    Attributes:
        content: the tokenizer as JSON, from `read_tokenizer`.
        tokenizer: normalises texts and counts their words.
        max_words: words that are read of each text.
    """

    content: str
    tokenizer: Tokenizer
    max_words: int

    @property
    def max_tokens(self) -> int:
        """Bound on the pieces of a text."""
        return PIECES_A_WORD * self.max_words

    @functools.cached_property
    def size(self) -> int:
        """The largest id + 1."""
        return max(self._library.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def first_id(self) -> int:
        """Id of the special token before a text."""
        return self._special_ids[0]

    @property
    def last_id(self) -> int:
        """Id of the special token behind a text."""
        return self._special_ids[1]

    def encode(self, text: str) -> HostArray:
        """Returns int32[at most max_tokens], ids of the pieces of a text's first words, without special tokens."""
        text = self._beginning(text)
        split = self._split_at_spaces
        if split is None:
            return np.array(self._ids(text)[: self.max_tokens], np.int32)
        ids = itertools.chain.from_iterable(map(self._memo.__getitem__, split(text)))
        return np.fromiter(itertools.islice(ids, self.max_tokens), np.int32)

    def is_known(self, ids: HostArray) -> HostArray:
        """Tells for each id whether it is not that of unknown words; bool of the shape of `ids`."""
        return np.asarray(ids) != self._unknown_id

    def word_places(self, text: str) -> tuple[list[tuple[int, int]], HostArray]:
        """Returns the words that the pieces of `encode(text)` are parts of, in order and without overlap.

        A piece that reaches over several words makes them one; what is between words, such as punctuation, is one too.

        Returns:
            The start and end of each word in `Tokenizer.normalised(text)`, and int64[T], the number of the word that
            each piece belongs to.
        """
        beginning = self._beginning(text)
        offsets = self._library.encode(beginning, add_special_tokens=False).offsets[: self.max_tokens]
        pieces = np.array([_trimmed(beginning, *span) for span in offsets], np.int64).reshape(-1, 2)
        words = np.array(self.tokenizer.spans(text, self.max_words), np.int64).reshape(-1, 2)
        spans, places = _joined(np.concatenate([pieces, words]))
        used, places = np.unique(places[: len(pieces)], return_inverse=True)
        return [(start, end) for start, end in spans[used].tolist()], places.astype(np.int64)

    def __reduce__(self) -> tuple[type, tuple[str, Tokenizer, int]]:
        return Pieces, (self.content, self.tokenizer, self.max_words)

    def _beginning(self, text: str) -> str:
        """Returns the part of the normalised text that is read."""
        text = self.tokenizer.beginning(text, self.max_words)[: LETTERS_A_WORD * self.max_words]
        # The library takes no surrogates.
        return text if text.isascii() else _SURROGATES.sub("\ufffd", text)

    def _ids(self, text: str) -> list[int]:
        return self._library.encode(text, add_special_tokens=False).ids

    @functools.cached_property
    def _library(self) -> "tokenizers.Tokenizer":
        import tokenizers

        try:
            return tokenizers.Tokenizer.from_str(self.content)
        # The library raises nothing more specific.
        except Exception as error:
            raise UserError(f"not a tokenizer of the library tokenizers ({error})") from None

    @functools.cached_property
    def _special_ids(self) -> tuple[int, int]:
        ids = _special_ids(self._library)
        if ids is None:
            raise UserError("the tokenizer has no tokens for the start and the end of a text")
        return ids

    @functools.cached_property
    def _unknown_id(self) -> int:
        model = json.loads(self.content)["model"]
        if "unk_id" in model:
            return -1 if model["unk_id"] is None else model["unk_id"]
        unknown = model.get("unk_token")
        unknown_id = None if unknown is None else self._library.token_to_id(unknown)
        return -1 if unknown_id is None else unknown_id

    @functools.cached_property
    def _split_at_spaces(self) -> Callable[[str], list[str]] | None:
        return _splitter(json.loads(self.content))

    @functools.cached_property
    def _memo(self) -> "_Memo":
        return _Memo(self._ids)


class _Memo(dict[str, list[int]]):
    """Ids of chunks of text, which are computed when they are first asked for."""

    def __init__(self, compute: Callable[[str], list[int]]) -> None:
        self._compute = compute

    def __missing__(self, chunk: str) -> list[int]:
        ids = self._compute(chunk)
        if len(chunk) <= _MAX_CHUNK_LENGTH:
            if len(self) >= _MAX_CHUNKS:
                self.clear()
            self[chunk] = ids
        return ids


def _splitter(content: dict[str, Any]) -> Callable[[str], list[str]] | None:
    """Returns a function that splits a text at spaces into chunks whose ids, one after the other, are the text's.

    Remembering the ids of chunks takes a tenth of the time of the library on long documents. None for a tokenizer whose
    rules may join what a space separates.
    """
    model, normalizer, rule = content["model"], content["normalizer"], content["pre_tokenizer"] or {}
    added = content["added_tokens"]
    if any(re.search(r"\s", token["content"]) for token in added):
        return None
    if model["type"] == "WordPiece" and rule.get("type") == "BertPreTokenizer":
        usual = normalizer is None or normalizer["type"] == "BertNormalizer"
        # Spaces between words are dropped.
        return _split_and_drop if usual and not any(token["normalized"] for token in added) else None
    if model["type"] == "BPE" and rule.get("type") == "ByteLevel" and rule.get("use_regex", True):
        # A space belongs to the word behind it.
        usual = normalizer is None and model.get("dropout") is None
        return _SINGLE_SPACE.split if usual and not any(token["rstrip"] for token in added) else None
    return None


def _split_and_drop(text: str) -> list[str]:
    return text.replace("\n", " ").split(" ")


def _special_ids(library: "tokenizers.Tokenizer") -> tuple[int, int] | None:
    """Returns the ids of the special tokens before and behind a text, or None if there are none."""
    encoding = library.encode("a")
    if len(encoding) > 1 and encoding.special_tokens_mask[0] and encoding.special_tokens_mask[-1]:
        return encoding.ids[0], encoding.ids[-1]
    for names in (("[CLS]", "[SEP]"), ("<s>", "</s>")):
        first, last = map(library.token_to_id, names)
        if first is not None and last is not None:
            return first, last
    return None


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Returns a piece's span without the spaces at its start, and at least one character long."""
    while start < end - 1 and text[start].isspace():
        start += 1
    # Pieces of white space, and of characters that normalisation inserts, may have none.
    start = min(start, len(text) - 1)
    return start, max(end, start + 1)


def _joined(spans: HostArray) -> tuple[HostArray, HostArray]:
    """Joins overlapping spans int64[N, 2]: returns the joined ones in order, and the place int64[N] of each there."""
    if not len(spans):
        return spans, np.zeros(0, np.int64)
    order = np.lexsort((spans[:, 1], spans[:, 0]))
    starts, ends = spans[order].T
    begins = np.append(True, starts[1:] >= np.maximum.accumulate(ends)[:-1])
    joined = np.stack([starts[begins], np.maximum.reduceat(ends, np.flatnonzero(begins))], axis=1)
    places = np.empty(len(spans), np.int64)
    places[order] = np.cumsum(begins) - 1
    return joined, places


def _from_json(folder: Path) -> "tokenizers.Tokenizer":
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def _from_vocabulary(folder: Path) -> "tokenizers.Tokenizer":
    """Returns the tokenizer of BERT over vocab.txt."""
    import tokenizers

    settings = _tokenizer_config(folder)
    wrapper = tokenizers.implementations.BertWordPieceTokenizer(
        tokenizers.models.WordPiece.read_file(str(folder / "vocab.txt")),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    return tokenizers.Tokenizer.from_str(wrapper.to_str())


def _from_byte_pairs(folder: Path) -> "tokenizers.Tokenizer":
    """Returns the tokenizer of RoBERTa over vocab.json and merges.txt."""
    import tokenizers

    spaced = _tokenizer_config(folder).get("add_prefix_space", False)
    library = tokenizers.Tokenizer(
        tokenizers.models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    )
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    specials = [name for name in ("<s>", "<pad>", "</s>", "<unk>") if library.token_to_id(name) is not None]
    library.add_special_tokens(specials)
    if library.token_to_id("<mask>") is not None:
        library.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
    return library


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


_READERS: dict[tuple[str, ...], Callable[[Path], "tokenizers.Tokenizer"]] = {
    ("tokenizer.json",): _from_json,
    ("vocab.txt",): _from_vocabulary,
    ("vocab.json", "merges.txt"): _from_byte_pairs,
}
