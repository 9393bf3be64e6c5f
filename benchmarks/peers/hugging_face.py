"""The library transformers, which sentence-transformers calls, with the proportions of MiniLM-L6, random weights."""

import torch
from transformers import BertConfig, BertModel

from benchmarks.cases import Shape
from benchmarks.harness.work import Work, per_call, per_item


def _model(shape: Shape, attention: str) -> BertModel:
    sizes = shape.transformer
    settings = BertConfig(
        vocab_size=sizes["vocabulary_size"],
        hidden_size=sizes["hidden_size"],
        num_hidden_layers=sizes["num_layers"],
        num_attention_heads=sizes["num_heads"],
        intermediate_size=sizes["intermediate_size"],
        max_position_embeddings=sizes["num_positions"],
        attn_implementation=attention,
    )
    return BertModel(settings, add_pooling_layer=False)


def _inputs(shape: Shape) -> dict[str, torch.Tensor]:
    size = shape.batch_size, shape.step_words
    ids = torch.randint(4, shape.vocabulary_size, size)
    return {"input_ids": ids, "attention_mask": torch.ones(size, dtype=torch.int64)}


def step(shape: Shape, seed: int, precision: str, attention: str) -> Work:
    """Forward, backward and AdamW on one batch, with dropout off, as ours; bfloat16 is PyTorch's autocast."""
    torch.manual_seed(seed)
    model, inputs = _model(shape, attention).eval(), _inputs(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    d_states = torch.randn(*inputs["input_ids"].shape, 2 * shape.hidden_size)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            states = model(**inputs).last_hidden_state
        optimizer.zero_grad()
        (states.float() * d_states).mean().backward()
        optimizer.step()

    return per_call(run, threads=torch.get_num_threads())


def states(shape: Shape, seed: int, precision: str, attention: str) -> Work:
    """The states of a batch of documents: the call in which sentence-transformers spends its time; per document."""
    torch.manual_seed(seed)
    model, inputs = _model(shape, attention).eval(), _inputs(shape)

    def run() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            model(**inputs)

    return per_item(shape.batch_size, run, threads=torch.get_num_threads())
