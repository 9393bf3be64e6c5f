"""LibMultiLabel's label-wise attention networks in their training loop; runs in an interpreter that has them."""

import logging
import warnings

import libmultilabel.nn.data_utils as data
import numpy as np
import torch
from libmultilabel.nn import nn_utils
from lightning.pytorch.callbacks import ModelCheckpoint

from benchmarks.cases import Shape
from benchmarks.documents import Documents, documents, random_rows
from benchmarks.harness.work import Part, Work

logging.getLogger("lightning").setLevel(logging.ERROR)
warnings.simplefilter("ignore")


def epoch(shape: Shape, seed: int, equal: bool, network: str) -> Work:
    """An epoch, from one batch of texts as they are, or from four of texts of equal length, which pack without cost."""
    nn_utils.set_seed(seed)
    drawn = documents(shape, seed)
    # Packing texts of few words is slow on a CPU: one batch of true lengths takes most of a minute.
    rows = random_rows(drawn, (4 if equal else 1) * shape.batch_size, seed)
    texts = _equal_texts(shape, len(rows)) if equal else [[str(i) for i in drawn.words.row(row)] for row in rows]
    classes = [str(i) for i in range(shape.num_labels)]
    loader = _loader(shape, drawn, rows, texts, classes)
    model = nn_utils.init_model(
        network,
        {"rnn_dim": 2 * shape.hidden_size, "embed_dropout": 0.2, "post_encoder_dropout": 0.5},
        classes,
        embed_vecs=torch.randn(shape.vocabulary_size, shape.embedding_size),
        learning_rate=1e-3,
        silent=True,
        monitor_metrics=["P@1"],
        val_metric="P@1",
    )

    def run() -> None:
        trainer = nn_utils.init_trainer("", epochs=1, silent=True, use_cpu=True, save_checkpoints=False)
        # Lightning would still write a checkpoint, after these few batches instead of after an epoch.
        trainer.callbacks = [each for each in trainer.callbacks if not isinstance(each, ModelCheckpoint)]
        trainer.fit(model, loader)

    return Work([Part(shape.num_documents / len(rows), run)], {"threads": torch.get_num_threads()})


def _equal_texts(shape: Shape, number: int) -> list[list[str]]:
    random = np.random.default_rng(0)
    return [[str(i) for i in random.integers(2, shape.vocabulary_size, shape.step_words)] for _ in range(number)]


def _loader(
    shape: Shape, drawn: Documents, rows: np.ndarray, texts: list[list[str]], classes: list[str]
) -> torch.utils.data.DataLoader:
    instances = [
        {"index": i, "text": text, "label": [classes[label] for label in drawn.labels.row(row)]}
        for i, (row, text) in enumerate(zip(rows, texts, strict=True))
    ]
    word_ids = {str(i): i for i in range(shape.vocabulary_size)} | {data.UNK: 1}
    device = torch.device("cpu")
    return data.get_dataset_loader(
        instances, classes, device, shape.max_words, shape.batch_size, True, data_workers=0, word_dict=word_ids
    )
