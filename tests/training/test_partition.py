import numpy as np
import pytest

from lsfa_jax.config import Encoder
from lsfa_jax.training import partition

ENCODER = {name: {"kernel": np.full(2, i)} for i, name in enumerate(["embedding", "layer_00", "layer_01", "layer_02"])}
PARAMS = {"encoder": ENCODER, "labels": {"queries": np.zeros(3)}, "classifier": {"weights": np.ones(1)}}


@pytest.mark.parametrize(
    ("train", "trained"),
    [
        ("all", ["embedding", "layer_00", "layer_01", "layer_02"]),
        ("frozen", []),
        (1, ["layer_02"]),
        (2, ["layer_01", "layer_02"]),
        (9, ["layer_00", "layer_01", "layer_02"]),
    ],
)
def test_the_trained_parts_of_the_encoder_are_all_none_or_its_last_layers(train, trained):
    learned, frozen = partition.split(PARAMS, Encoder(train=train))
    assert list(learned["encoder"]) == trained
    assert [name for name in ENCODER if name not in trained] == list(frozen.get("encoder", {}))
    assert learned["labels"] is PARAMS["labels"]
    assert learned["classifier"] is PARAMS["classifier"]
    assert partition.join(frozen, learned) == PARAMS
