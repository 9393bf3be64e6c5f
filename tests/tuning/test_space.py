import re
from pathlib import Path

import pytest

from lsfa_jax.config import Config, get, layered, validated
from lsfa_jax.tuning import space
from lsfa_jax.tuning.space import Dimension
from lsfa_jax.util.console import UserError


@pytest.mark.parametrize(("name", "encoder"), [("scratch", "bilstm"), ("pretrained", "transformer")])
def test_each_space_has_the_settings_that_runs_of_the_quick_preset_have(name, encoder):
    config = validated(layered("custom", "quick", "paper", encoder=encoder), "settings")
    read = space.read(name, config)
    assert len(read) >= 8
    assert {key for key, dimension in read.items() if get(config, key) not in dimension} <= {"optimizer.batch_size"}
    assert set(space.names()) == {"scratch", "pretrained"}


def test_dimensions_have_the_types_of_their_settings(tmp_path):
    (tmp_path / "space.toml").write_text("""
[optimizer]
batch_size = [8, 16, 8]
learning_rate = { low = 1, high = 2 }
[encoder]
hidden_size = { low = 16, high = 256, log = true }
[adjust]
num_augmented = { times = [0.5, 1, 1.01] }
""")
    assert space.read(str(tmp_path / "space.toml"), Config()) == {
        "optimizer.batch_size": Dimension((8, 16)),
        "optimizer.learning_rate": Dimension((), 1.0, 2.0),
        "encoder.hidden_size": Dimension((), 16, 256, True),
        "adjust.num_augmented": Dimension((5, 10)),
    }
    assert 17 in Dimension((), 16, 256)
    assert 300 not in Dimension((), 16, 256)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizer]\nbatch_size = 16 17", "not a TOML settings file: .*line 2"),
        ("[optimizer]\nbatch_sise = [16]", r"unknown setting optimizer.batch_sise \(did you mean optimizer.batch_size"),
        ("[optimiser.batch_size]\nlow = 1", "unknown setting optimiser"),
        ("[optimizer]\nbatch_size = 16", r"optimizer.batch_size = 16: expected a list of values, \{ low"),
        ("[optimizer]\nbatch_size = [16, 0]", "optimizer.batch_size = 0: expected an integer of at least 1"),
        ("[optimizer]\nbatch_size = { low = 1, hi = 2 }", r"optimizer.batch_size = .*: expected a list of values"),
        (
            "[psc]\nweight = { low = 0, high = 1, log = true }",
            "psc.weight: expected low below high, and log = true",
        ),
        ("[psc]\nweight = { low = 2, high = 1 }", "psc.weight: expected low below high"),
        ('[psc]\nweight = { low = "a", high = 1 }', "psc.weight: 'a' is not a number"),
        ("[data]\nmax_words = [100]", "data.max_words is the same in all trials; choose it with --data.max-words"),
        ('[encoder]\nkind = ["cnn"]', "encoder.kind is the same in all trials"),
        ("", "no setting is varied"),
    ],
)
def test_a_mistake_in_a_space_is_named_with_its_file(tmp_path, text, message):
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}: .*{message}"):
        space.read(str(path), Config())


def test_a_space_that_is_not_there_is_an_error():
    with pytest.raises(UserError, match=r"--space scrach: expected pretrained, scratch, .*did you mean scratch"):
        space.read("scrach", Config())
    with pytest.raises(UserError, match=r"--space none\.toml: expected"):
        space.read(str(Path("none.toml")), Config())
