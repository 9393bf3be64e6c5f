"""A folder with the network as programs, and what a few lines of Python need to predict the labels of texts with it.

network.stablehlo or .onnx    token ids int32[b, t] and lengths int32[b] to probabilities float32[b, L]
weights.npz                   the first argument of StableHLO's programs; ONNX has them inside
vocabulary or tokenizer.json  the words in the order of their ids, or the word pieces
labels                        the names of the L labels, a JSON string a line
network.json                  how texts become token ids, the lengths that programs take, the threshold
predict.py                    prints the labels of texts; it imports nothing of this package
"""

import functools
import importlib
import json
import shutil
from pathlib import Path
from typing import Any, Literal

from lsfa_jax import __version__
from lsfa_jax.data import pieces
from lsfa_jax.data.tokenizer import Tokenizer
from lsfa_jax.data.vocabulary import NUM_SPECIAL, UNKNOWN
from lsfa_jax.serving.export.network import Network
from lsfa_jax.training import model_folder
from lsfa_jax.training.model_folder import TrainedModel
from lsfa_jax.util import xla_flags
from lsfa_jax.util.console import UserError

TOLERANCE = 1e-5
"""How far the probabilities of a program may be from ours."""


def write(folder: Path, model: TrainedModel, threshold: float, kind: Literal["stablehlo", "onnx"]) -> None:
    """Writes the programs of a model and what reads texts for them.

    Args:
        folder: an empty folder.
        model: its network is written.
        threshold: the probability from which the network predicts a label.
        kind: the format of the programs.

    Raises:
        UserError: the format cannot hold the network, or a program computes other probabilities.
    """
    of_kind = importlib.import_module(f"lsfa_jax.serving.export.{kind}")
    network = Network(model)
    programs = network.programs(of_kind.ANY_LENGTH)
    of_kind.write_weights(network, folder)
    for program in programs:
        path = folder / f"{program.name}.{kind}"
        path.write_bytes(of_kind.convert(network, program))
        error = network.largest_error(program, functools.partial(of_kind.run, path))
        if not error <= TOLERANCE:
            raise UserError(f"--to {kind}: the program's probabilities differ from the model's by up to {error:.1g}")
    for name, text in model_folder.text_files(model.words, model.labels, model.tokenizer).items():
        (folder / name).write_text(text, encoding="utf-8")
    about = _about(model, threshold, [(f"{one.name}.{kind}", one.lengths) for one in programs])
    (folder / "network.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("predict.py"), folder / "predict.py")


def _about(model: TrainedModel, threshold: float, programs: list[tuple[str, list[int]]]) -> dict[str, Any]:
    """Returns the content of network.json."""
    data = model.config.data
    return {
        "lsfa_jax": __version__,
        "corpus": model.config.corpus_name,
        "threshold": threshold,
        "programs": [{"file": name, "lengths": lengths} for name, lengths in programs],
        "max_words": data.max_words,
        "max_tokens": model.vocabulary().max_tokens,
        "max_characters": pieces.LETTERS_A_WORD * data.max_words,
        "unknown_id": UNKNOWN,
        "first_id": NUM_SPECIAL,
        "text": Tokenizer.from_settings(data).patterns(),
        "xla": {"versions": xla_flags.AFFECTED, "flag": xla_flags.FLAG},
    }
