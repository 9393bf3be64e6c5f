from pathlib import Path

import pytest

from lsfa_jax.cli import experiments
from lsfa_jax.experiments import plan


def test_the_command_line():
    arguments = experiments.parse(["table3", "rivals", "--seeds", "2", "--corpora", "rcv1", "aapd"])
    assert (arguments.plans, arguments.seeds, arguments.corpora) == (("table3", "rivals"), 2, ("rcv1", "aapd"))
    assert (arguments.preset, arguments.encoder, arguments.output) == ("quick", "bilstm", "runs/experiments")


def test_list_prints_the_plans_with_their_titles(capsys):
    assert experiments.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == plan.names()
    assert "table3        Table 3: LSFA on RCV1" in lines


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "expected plans to run: all, or some of ablation, "),
        (["tabel2"], "tabel2: expected a plan, one of ablation, "),
        (["all", "--corpora", "rcv2"], "--corpora rcv2: expected some of aapd, "),
        (["table2", "table3", "--seed", "1"], "--seed: unknown option (did you mean --seeds?)"),
        (["all", "--config", "none.toml"], "none.toml: no such settings file"),
        (["table3", "--encoder", "bilsm"], "--encoder bilsm: no such encoder or folder (did you mean bilstm?)"),
        (["table4", "--data-dir", "nowhere"], "--data-dir nowhere: there is no such file or folder"),
        (["table4"], "--dataset eurlex4k needs --data-dir, a folder with "),
    ],
)
def test_what_is_wrong_is_named(line, message, capsys):
    assert experiments.main(line) == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_plans_whose_pages_would_replace_each_other_are_refused(tmp_path, capsys):
    text = (plan.FOLDER / "table3.toml").read_text()
    files = [tmp_path / folder / f"{name}.toml" for folder, name in (("a", "mine"), ("b", "mine"), ("a", "table3"))]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    for line in ([files[0], files[1]], [files[2]]):
        assert experiments.main([*map(str, line), "--report", "--output", str(tmp_path / "out")]) == 2
        assert "and its pages would replace those; rename the file" in capsys.readouterr().err
    same = ["table3", "table3", str(plan.FOLDER / "table3.toml"), str(files[0])]
    assert experiments.main([*same, "--report", "--output", str(tmp_path / "out")]) == 0


def test_a_settings_file_may_name_the_encoder_as_for_training(tmp_path):
    file = tmp_path / "cnn.toml"
    file.write_text('encoder = "cnn"\n')
    arguments = experiments.parse(["table4", "--config", str(file)])
    config, _ = experiments.base(arguments).config("eurlex4k", 0, {})
    assert config.encoder.kind == "cnn"
    assert config == experiments.base(experiments.parse(["table4", "--encoder", "cnn"])).config("eurlex4k", 0, {})[0]


def test_the_settings_file_for_a_gpu_can_be_used():
    file = Path(__file__).parents[2] / "deploy" / "experiments.toml"
    arguments = experiments.parse(["table4", "--preset", "full", "--config", str(file)])
    config, chosen = experiments.base(arguments).config("eurlex4k", 0, {})
    assert (config.optimizer.batch_size, config.data.max_words, config.encoder.kind) == (160, 500, "bilstm")
    assert "optimizer.batch_size" in chosen
