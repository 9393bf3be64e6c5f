"""LibMultiLabel's label-wise attention networks in their own training loop; runs in an interpreter that has them."""

import logging
import warnings

import libmultilabel.nn.data_utils as data
import numpy as np
import torch
from libmultilabel.nn import nn_utils
from lightning.pytorch.callbacks import ModelCheckpoint

from benchmarks import documents as shapes
from benchmarks.harness.work import Part, Work

logging.getLogger("lightning").setLevel(logging.ERROR)
warnings.simplefilter("ignore")


def epoch(shape: str, seed: int, equal: bool, network: str) -> Work:
    """An epoch, from a batch or two; texts of one length, which packing costs nothing, or as they are."""
    own = shapes.SHAPES[shape]
    nn_utils.set_seed(seed)
    classes = [str(i) for i in range(own.num_labels)]
    made = shapes.documents(own, seed)
    # A text of few words packs badly on a CPU: one batch of true lengths takes most of a minute.
    number = (4 if equal else 1) * own.batch
    rows = np.random.default_rng(seed).choice(len(made), number, replace=False)
    words = {str(i): i for i in range(own.vocabulary)} | {data.UNK: 1}
    random = np.random.default_rng(0)

    def text(row: int) -> list[str]:
        if equal:
            return [str(i) for i in random.integers(2, own.vocabulary, own.step_words)]
        return [str(i) for i in made.words[made.word_offsets[row] : made.word_offsets[row + 1]]]

    def labels(row: int) -> list[str]:
        return [classes[i] for i in made.labels[made.label_offsets[row] : made.label_offsets[row + 1]]]

    rows_of_data = [{"index": i, "text": text(row), "label": labels(row)} for i, row in enumerate(rows)]
    loader = data.get_dataset_loader(
        rows_of_data, classes, torch.device("cpu"), own.max_words, own.batch, True, data_workers=0, word_dict=words
    )
    model = nn_utils.init_model(
        network,
        {"rnn_dim": 2 * own.hidden, "embed_dropout": 0.2, "post_encoder_dropout": 0.5},
        classes,
        embed_vecs=torch.randn(own.vocabulary, own.embedding),
        learning_rate=1e-3,
        silent=True,
        monitor_metrics=["P@1"],
        val_metric="P@1",
    )

    def run() -> None:
        trainer = nn_utils.init_trainer("", epochs=1, silent=True, use_cpu=True, save_checkpoints=False)
        # Lightning would write one all the same, after these few batches instead of after an epoch.
        trainer.callbacks = [own for own in trainer.callbacks if not isinstance(own, ModelCheckpoint)]
        trainer.fit(model, loader)

    return Work([Part(own.num_documents / number, run)], {"threads": torch.get_num_threads()})
