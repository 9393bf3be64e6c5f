"""A tiny pretrained encoder as a folder in Hugging Face's format: BERT with random weights and a few word pieces."""

import json
from pathlib import Path

import numpy as np
import safetensors.numpy
import tokenizers

# The words of the tiny corpus are several pieces each.
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "about", "common", "##w", *(f"##{digit}" for digit in range(10)), "!"]
HIDDEN, INNER, LAYERS, POSITIONS = 8, 12, 2, 20
CONFIG = {
    "model_type": "bert",
    "vocab_size": len(PIECES),
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
    "hidden_act": "gelu",
}


def write(folder: Path) -> Path:
    """Writes the encoder, the same in every call."""
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return random.normal(0, 0.4, shape).astype(np.float32)

    def dense(name: str, rows: int, columns: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": drawn(columns, rows), f"{name}.bias": drawn(columns)}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": 1 + drawn(HIDDEN), f"{name}.bias": drawn(HIDDEN)}

    tensors = {
        "embeddings.word_embeddings.weight": drawn(len(PIECES), HIDDEN),
        "embeddings.position_embeddings.weight": drawn(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": drawn(2, HIDDEN),
    } | norm("embeddings.LayerNorm")
    for layer in (f"encoder.layer.{i}" for i in range(LAYERS)):
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            tensors |= dense(f"{layer}.attention.{part}", HIDDEN, HIDDEN)
        tensors |= dense(f"{layer}.intermediate.dense", HIDDEN, INNER) | dense(f"{layer}.output.dense", INNER, HIDDEN)
        tensors |= norm(f"{layer}.attention.output.LayerNorm") | norm(f"{layer}.output.LayerNorm")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    library = tokenizers.implementations.BertWordPieceTokenizer({piece: i for i, piece in enumerate(PIECES)})
    (folder / "tokenizer.json").write_text(library.to_str())
    return folder
