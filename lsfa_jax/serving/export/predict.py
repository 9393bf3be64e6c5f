"""Predicts the labels of texts with the network in this folder: a text a line in, a JSON line for each out.

    python predict.py texts.txt
    echo "Wheat exports rise" | python predict.py

It needs numpy; jax and flatbuffers, or onnxruntime for network.onnx; tokenizers where there is tokenizer.json.
In Python, `from predict import predict` and `predict(["a text"])` do the same.
"""

import argparse
import contextlib
import functools
import html
import itertools
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
ABOUT = json.loads((FOLDER / "network.json").read_text(encoding="utf-8"))
TEXT = ABOUT["text"]
BATCH_SIZE = 16


def lines(name: str) -> list[str]:
    """Returns the lines of a file. Only a newline ends one."""
    return (FOLDER / name).read_text(encoding="utf-8").split("\n")[:-1]


LABELS = [json.loads(line) for line in lines("labels")]


def normalised(text: str) -> str:
    """Returns a text without HTML where the network was trained without, and in Unicode's form NFKC."""
    if TEXT["markup"] and ("<" in text or "&" in text):
        end = text.rfind(">") + 1
        text = html.unescape(re.sub(TEXT["markup"], " ", text[:end]) + text[end:])
    text = re.sub(TEXT["ignorable"], "", text)
    return unicodedata.normalize("NFKC", text.replace("™", " ").replace("℠", " "))


@functools.cache
def encoder() -> Callable[[str], list[int]]:
    """Returns the function from texts to token ids."""
    word, max_words, max_tokens = re.compile(TEXT["word"]), ABOUT["max_words"], ABOUT["max_tokens"]
    if (FOLDER / "tokenizer.json").exists():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))

        def pieces(text: str) -> list[int]:
            text = normalised(text)
            last = next(itertools.islice(word.finditer(text), max_words - 1, None), None)
            text = text[: last.end() if last else None][: ABOUT["max_characters"]]
            text = re.sub("[\ud800-\udfff]", "\ufffd", text)
            return tokenizer.encode(text, add_special_tokens=False).ids[:max_tokens]

        return pieces

    ids = {word: number for number, word in enumerate(lines("vocabulary"), ABOUT["first_id"])}

    def words(text: str) -> list[int]:
        return [ids.get(one, ABOUT["unknown_id"]) for one in word.findall(normalised(text).lower())[:max_words]]

    return words


@functools.cache
def program(name: str) -> Callable[[np.ndarray, np.ndarray], Any]:
    """Returns the function from token ids int32[B, T] and lengths int32[B] to probabilities float32[B, L]."""
    path = FOLDER / name
    if path.suffix == ".onnx":
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)  # errors: it warns of constants that it removes
        session = onnxruntime.InferenceSession(path)
        return lambda token_ids, lengths: session.run(None, {"token_ids": token_ids, "lengths": lengths})[0]

    import jaxlib.version

    # Without the flag, these versions compute some sums wrong on CPUs. XLA reads it when JAX first uses a device.
    if jaxlib.version.__version__ in ABOUT["xla"]["versions"]:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ABOUT['xla']['flag']}".strip()
    import jax
    import jax.export

    return functools.partial(jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call), weights())


@functools.cache
def weights() -> Any:
    """Returns the parameters of the network, which its programs share, on the device."""
    import jax

    return jax.device_put(dict(np.load(FOLDER / "weights.npz")))


def probabilities(texts: Sequence[str]) -> np.ndarray:
    """Computes float32[N, L], the probabilities of all labels of N texts."""
    ids = [encoder()(text) for text in texts]
    result = np.zeros((len(texts), len(LABELS)), np.float32)
    order = sorted(range(len(texts)), key=lambda number: len(ids[number]))
    rows = min(BATCH_SIZE, len(texts))
    for start in range(0, len(texts), BATCH_SIZE):
        batch = order[start : start + BATCH_SIZE]
        longest = len(ids[batch[-1]])
        name, width = next((p["file"], n) for p in ABOUT["programs"] for n in p["lengths"] if n >= longest)
        token_ids, lengths = np.zeros((rows, width), np.int32), np.zeros(rows, np.int32)
        for row, number in enumerate(batch):
            lengths[row] = len(ids[number])
            token_ids[row, : lengths[row]] = ids[number]
        result[batch] = np.asarray(program(name)(token_ids, lengths))[: len(batch)]
    return result


def predict(texts: Sequence[str], top: int = 5, threshold: float = 0.0) -> list[dict[str, list[Any]]]:
    """Returns the best labels of each text with their probabilities, which are independent of each other.

    Args:
        texts: N texts.
        top: labels of a text at most.
        threshold: labels with a lower probability are left out; network.json has the best one.
    """
    results = []
    for row in probabilities(texts):
        best = [number for number in np.argsort(-row, kind="stable")[:top] if row[number] >= threshold]
        values = [float(str(row[number])) for number in best]
        results.append({"labels": [LABELS[number] for number in best], "probabilities": values})
    return results


def main() -> None:
    """Reads texts and prints their labels."""
    parser = argparse.ArgumentParser(description="Predicts the labels of texts, one a line.")
    parser.add_argument("file", nargs="?", default="-", help="texts, one a line; -: standard input")
    parser.add_argument("--top", type=int, default=5, help="labels of a text at most (default: 5)")
    parser.add_argument("--threshold", type=float, default=0.0, help="leave out labels with a lower probability")
    arguments = parser.parse_args()
    from_input = contextlib.nullcontext(sys.stdin.buffer)
    with from_input if arguments.file == "-" else Path(arguments.file).open("rb") as source:
        while chunk := [line.decode(errors="replace").rstrip("\r\n") for line in itertools.islice(source, 1024)]:
            for result in predict(chunk, arguments.top, arguments.threshold):
                print(json.dumps(result, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # the reader has ended, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ImportError, OSError) as error:
        sys.exit(f"error: {error}")
