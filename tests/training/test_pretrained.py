import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from lsfa_jax.model.encoders.interface import Architecture
from lsfa_jax.training.pretrained import read
from lsfa_jax.util.console import UserError

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]
V, H, LAYERS, HEADS, INNER, POSITIONS = len(VOCABULARY), 8, 2, 2, 12, 16
BERT = {
    "model_type": "bert", "vocab_size": V, "hidden_size": H, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "intermediate_size": INNER, "max_position_embeddings": POSITIONS, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
}  # fmt: skip
DISTILBERT = {
    "model_type": "distilbert", "vocab_size": V, "dim": H, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": INNER,
    "max_position_embeddings": POSITIONS, "activation": "relu",
}  # fmt: skip
ROBERTA = BERT | {"model_type": "roberta", "hidden_act": "gelu_new", "max_position_embeddings": POSITIONS + 2}
WEIGHTS = "model.safetensors"


def dense(name, rows, columns):
    return {f"{name}.weight": (columns, rows), f"{name}.bias": (columns,)}


def norm(name):
    return {f"{name}.weight": (H,), f"{name}.bias": (H,)}


def bert_shapes(positions=POSITIONS):
    shapes = {"embeddings.word_embeddings.weight": (V, H), "embeddings.position_embeddings.weight": (positions, H)}
    shapes |= {"embeddings.token_type_embeddings.weight": (2, H)} | norm("embeddings.LayerNorm")
    for layer in (f"encoder.layer.{i}" for i in range(LAYERS)):
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= dense(f"{layer}.attention.{part}", H, H)
        shapes |= dense(f"{layer}.intermediate.dense", H, INNER) | dense(f"{layer}.output.dense", INNER, H)
        shapes |= norm(f"{layer}.attention.output.LayerNorm") | norm(f"{layer}.output.LayerNorm")
    return shapes


def distilbert_shapes():
    shapes = {"embeddings.word_embeddings.weight": (V, H), "embeddings.position_embeddings.weight": (POSITIONS, H)}
    shapes |= norm("embeddings.LayerNorm")
    for layer in (f"transformer.layer.{i}" for i in range(LAYERS)):
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= dense(f"{layer}.attention.{part}", H, H)
        shapes |= dense(f"{layer}.ffn.lin1", H, INNER) | dense(f"{layer}.ffn.lin2", INNER, H)
        shapes |= norm(f"{layer}.sa_layer_norm") | norm(f"{layer}.output_layer_norm")
    return shapes


def random(shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


TENSORS = random(bert_shapes())


def write(folder, config=BERT, tensors=TENSORS, vocabulary=VOCABULARY):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(tensors, folder / WEIGHTS)
    library = tokenizers.implementations.BertWordPieceTokenizer({word: i for i, word in enumerate(vocabulary)})
    (folder / "tokenizer.json").write_text(library.to_str())
    return folder


def error(folder):
    with pytest.raises(UserError) as caught:
        read(folder)
    return str(caught.value)


def leaves(pretrained):
    return {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(pretrained.params)}


def test_a_folder_of_bert(tmp_path):
    pretrained = read(write(tmp_path))
    assert pretrained.architecture == Architecture(V, H, LAYERS, HEADS, INNER, POSITIONS, "gelu", 1e-6, 2, 3)
    words = TENSORS["embeddings.word_embeddings.weight"]
    assert any(np.array_equal(x, words) for x in leaves(pretrained).values())
    assert all(type(x) is np.ndarray and x.dtype == np.float32 for x in leaves(pretrained).values())


@pytest.mark.parametrize(
    ("config", "shapes", "activation", "epsilon"),
    [
        (DISTILBERT, distilbert_shapes(), "relu", 1e-12),
        (ROBERTA, bert_shapes(POSITIONS + 2), "gelu_tanh", 1e-6),
        (ROBERTA | {"model_type": "xlm-roberta", "pad_token_id": 1}, bert_shapes(POSITIONS + 2), "gelu_tanh", 1e-6),
    ],
    ids=["distilbert", "roberta", "xlm-roberta"],
)
def test_folders_of_its_relatives(tmp_path, config, shapes, activation, epsilon):
    pretrained = read(write(tmp_path, config, random(shapes)))
    assert pretrained.architecture == Architecture(V, H, LAYERS, HEADS, INNER, POSITIONS, activation, epsilon, 2, 3)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_are_read_as_float32(tmp_path, dtype):
    tensors = random(bert_shapes(), dtype)
    expected = read(write(tmp_path / "a", tensors={name: x.astype(np.float32) for name, x in tensors.items()}))
    other = {"embeddings.position_ids": np.arange(POSITIONS)}
    jax.tree.map(np.testing.assert_array_equal, read(write(tmp_path / "b", tensors=tensors | other)), expected)


def shard(folder, names=("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")):
    """Replaces the weights by two files and an index."""
    (folder / WEIGHTS).unlink()
    mapping = {tensor: names[i % 2] for i, tensor in enumerate(TENSORS)}
    for name in names:
        part = {tensor: TENSORS[tensor] for tensor in TENSORS if mapping[tensor] == name}
        safetensors.numpy.save_file(part, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))
    return [folder / name for name in names]


def test_sharded_weights(tmp_path):
    expected = read(write(tmp_path))
    first, second = shard(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, read(tmp_path), expected)
    second.unlink()
    assert f"{second}: missing; model.safetensors.index.json names it" in error(tmp_path)
    second.write_bytes(first.read_bytes()[:-1])
    assert f"{second}: not a whole safetensors file" in error(tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "x.bin", "", 3])
def test_shards_are_files_of_the_folder(tmp_path, name):
    write(tmp_path / "model")
    (tmp_path / "model" / WEIGHTS).rename(tmp_path / "x.safetensors")
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert f"{name!r} is not the name of a safetensors file beside it" in error(tmp_path / "model")


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": ["a"]}', "{"])
def test_an_index_without_files(tmp_path, content):
    write(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    (tmp_path / "model.safetensors.index.json").write_text(content)
    assert str(tmp_path / "model.safetensors.index.json") in error(tmp_path)


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path):
    folder = write(tmp_path / "my model's")
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    message = error(folder)
    assert "only pytorch_model.bin, a pickle" in message
    assert "weights_only=True" in message
    (folder / "pytorch_model.bin").unlink()
    assert "no weights there. Expected model.safetensors" in error(folder)


def test_the_command_converts_a_pickle(tmp_path):
    torch = pytest.importorskip("torch", reason="converts with PyTorch")
    import subprocess
    import sys

    folder = write(tmp_path / "my model's")
    expected = read(folder)
    (folder / WEIGHTS).unlink()
    tensors = {name: torch.tensor(x) for name, x in TENSORS.items()}
    torch.save(tensors | {"tied": tensors["embeddings.word_embeddings.weight"]}, folder / "pytorch_model.bin")
    command = error(folder).partition("is installed: ")[2].replace("python -c", f"{sys.executable} -c")
    subprocess.run(command, shell=True, check=True)
    jax.tree.map(np.testing.assert_array_equal, read(folder), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "t5"}, "model_type = 't5' is not supported; supported: bert, distilbert, roberta, xlm-roberta"),
        ({"model_type": None}, "model_type = None is not supported"),
        ({"model_type": ["bert"]}, "model_type = ['bert'] is not supported"),
        ({"hidden_act": "silu"}, "hidden_act = 'silu' is not supported; supported: gelu, gelu_new, gelu_pytorch_tanh"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key' is not supported"),
        ({"is_decoder": True}, "is_decoder = True is not supported"),
        ({"hidden_size": 9}, "hidden_size = 9 is not a multiple of num_attention_heads = 2"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers = 1,000,000, expected 100 at most"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, expected a whole number from 1 to 10,000,000"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"hidden_size": 10**400}, "hidden_size is 1"),
        ({"hidden_size": -8}, "hidden_size is -8"),
        ({"hidden_size": "8"}, "hidden_size is '8'"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 8.0}, "hidden_size is 8.0"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"vocab_size": float("nan")}, "vocab_size is nan"),
        ({"max_position_embeddings": 2}, "max_position_embeddings leaves 2 tokens, expected 3 or more"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps is 0.0, expected a number between 0 and 1"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps is '1e-5'"),
        (ROBERTA | {"pad_token_id": 7}, "pad_token_id = 7 is not supported; supported: 1"),
    ],
)
def test_an_architecture_that_cannot_be(tmp_path, change, message):
    config = {name: value for name, value in (BERT | change).items() if value is not None}
    assert error(write(tmp_path, config)).startswith(f"{tmp_path / 'config.json'}: {message}")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 10**5, b"[]", b"3"])
def test_a_config_that_is_no_json_object(tmp_path, content):
    (write(tmp_path) / "config.json").write_bytes(content)
    assert f"{tmp_path / 'config.json'}: not " in error(tmp_path)


def test_missing_files(tmp_path):
    for name in ("tokenizer.json", "config.json"):
        folder = write(tmp_path / name)
        (folder / name).unlink()
        message = error(folder)
        assert str(folder) in message
        assert name in message


def test_a_missing_tensor(tmp_path):
    name = "encoder.layer.1.output.dense.bias"
    message = error(write(tmp_path, tensors={key: x for key, x in TENSORS.items() if key != name}))
    assert str(tmp_path) in message
    assert name in message


def test_more_layers_than_there_are(tmp_path):
    assert "encoder.layer.2." in error(write(tmp_path, BERT | {"num_hidden_layers": 90}))


def test_fewer_layers_than_there_are(tmp_path):
    assert "the weights have 2 layers, and config.json 1" in error(write(tmp_path, BERT | {"num_hidden_layers": 1}))


def test_a_tokenizer_of_few_pieces_is_a_warning(tmp_path, capfd):
    read(write(tmp_path, vocabulary=VOCABULARY[:9]))
    assert f"the tokenizer has 9 pieces, and the embedding table {V} rows" in "".join(capfd.readouterr())


def test_a_tensor_of_another_shape(tmp_path):
    name = "encoder.layer.1.intermediate.dense.weight"
    message = error(write(tmp_path, tensors=TENSORS | {name: np.zeros((INNER + 1, H), np.float32)}))
    assert name in message
    assert f"[{INNER + 1}, {H}]" in message
    assert f"[{INNER}, {H}]" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path, value):
    name = "embeddings.LayerNorm.bias"
    message = error(write(tmp_path, tensors=TENSORS | {name: np.full(H, value, np.float32)}))
    assert f"{tmp_path / WEIGHTS}: the tensor '{name}' has values that are not finite numbers" in message


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(tmp_path, keep):
    path = write(tmp_path) / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path}: not a whole safetensors file" in error(tmp_path)


def test_a_tokenizer_of_another_model(tmp_path):
    message = error(write(tmp_path, vocabulary=[*VOCABULARY, "h", "i"]))
    assert f"ids up to {V + 1}" in message
    assert f"{V} rows" in message


def test_fewer_pieces_than_embeddings(tmp_path):
    assert read(write(tmp_path, vocabulary=VOCABULARY[:-2])).architecture.vocabulary_size == V


def test_a_vocabulary_beside_other_weights(tmp_path):
    folder = write(tmp_path)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    architecture = read(folder).architecture
    assert (architecture.first_id, architecture.last_id) == (2, 3)
    shutil.rmtree(folder)
    assert "config.json: no such file" in error(folder)
