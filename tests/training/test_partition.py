import numpy as np
import pytest

from lsfa_jax.config import Encoder
from lsfa_jax.training import partition
from lsfa_jax.util.console import UserError

ENCODER = {name: {"kernel": np.full(2, i)} for i, name in enumerate(["embedding", "layer_00", "layer_01", "layer_02"])}
PARAMS = {"encoder": ENCODER, "labels": {"queries": np.zeros(3)}, "classifier": {"weights": np.ones(1)}}


@pytest.mark.parametrize(
    ("train", "trained"),
    [
        ("all", ["embedding", "layer_00", "layer_01", "layer_02"]),
        ("frozen", []),
        (1, ["layer_02"]),
        (2, ["layer_01", "layer_02"]),
        (3, ["layer_00", "layer_01", "layer_02"]),
    ],
)
def test_the_trained_parts_of_the_encoder_are_all_none_or_its_last_layers(train, trained):
    learned, frozen = partition.split(PARAMS, Encoder(train=train))
    assert list(learned["encoder"]) == trained
    assert [name for name in ENCODER if name not in trained] == list(frozen.get("encoder", {}))
    assert learned["labels"] is PARAMS["labels"]
    assert learned["classifier"] is PARAMS["classifier"]
    assert partition.join(frozen, learned) == PARAMS


def test_more_layers_than_there_are_is_an_error():
    with pytest.raises(UserError, match=r"--encoder\.train 4: expected all, frozen, or 1 to 3 last layers"):
        partition.split(PARAMS, Encoder(train=4))
