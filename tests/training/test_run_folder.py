import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from lsfa_jax.config import STAGES, Config
from lsfa_jax.data import build_corpus
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.load import load_corpus
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.training import content, run_folder
from lsfa_jax.training.checkpoints import Checkpoints
from lsfa_jax.training.initial_encoder import initial_encoder
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.state import init_state
from lsfa_jax.util.console import UserError
from tests import training_corpus
from tests.training import runs


@pytest.fixture
def data(tmp_path) -> Path:
    return training_corpus.write(tmp_path / "data")


@pytest.fixture
def config(data) -> Config:
    return training_corpus.run_config(data)


@pytest.fixture
def folder(tmp_path, config, tiny) -> Path:
    """A run folder in which all stages have checkpoints; nothing was trained."""
    run = RunFolder(tmp_path / "run")
    run.create(config, tiny)
    for number, stage in enumerate(STAGES):
        run.checkpoints(stage).mkdir(parents=True)
        (run.checkpoints(stage) / "1").write_text("a checkpoint")
        run.append_history({"stage": stage, "step": number})
    run.write_metrics(
        {
            "num_labels": 8,
            "pvae": {},
            "test": {},
            "kept": "fused",
            "stages": {"svm": {}} | {key: {"threshold": 0.5} for key in ("representation", "adjusted", "fused")},
            "seconds": dict.fromkeys(("linear", *STAGES), 1.0),
        }
    )
    return run.path


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"stages": ("adjustment",), "encoder": {"hidden_size": 5}}, "encoder.hidden_size"),
        ({"stages": ("adjustment",), "pvae": {"epochs": 5}}, "pvae.epochs"),
        ({"stages": ("transfer",), "seed": 5}, "seed"),
        ({"resume": True, "adjust": {"epochs": 5}}, "adjust.epochs"),
    ],
)
def test_settings_of_stages_that_do_not_run_again_cannot_change(folder, options, named):
    before = runs.files(folder)
    with pytest.raises(UserError, match=rf"run: the run in this folder has different settings \({named}\)"):
        runs.train(folder, **options)
    assert runs.files(folder) == before


@pytest.mark.parametrize(("complete", "named"), [((), "representation"), (("representation",), "transfer")])
def test_a_later_stage_needs_complete_earlier_ones(folder, complete, named):
    for stage in STAGES[:2]:
        shutil.rmtree(folder / "checkpoints" / stage)
        with Checkpoints(folder / "checkpoints" / stage) as checkpoints:
            state = init_state(jax.random.key(0), {"w": jnp.zeros(2)}, optax.sgd(1.0), ("bce",))
            checkpoints.save(state, complete=stage in complete)
    before = runs.files(folder)
    with pytest.raises(UserError, match=rf"--stages adjustment: the stage {named} of .* is not complete; .* --resume"):
        runs.train(folder, stages=("adjustment",))
    assert runs.files(folder) == before


@pytest.mark.parametrize(
    ("stages", "resume", "changed"),
    [
        (("transfer", "adjustment"), False, {"pvae": {"epochs": 5}, "adjust": {"epochs": 5}}),
        (("adjustment",), False, {"adjust": {"epochs": 5}}),
        (STAGES, True, {"report": {"bin_size": 7}}),
        (STAGES, True, {"devices": {"labels": 2}}),
    ],
)
def test_settings_of_stages_that_run_again_and_of_reports_can_change(folder, config, stages, resume, changed):
    new = Config.model_validate({**config.model_dump(), **changed})
    run_folder.check_can_start(RunFolder(folder), new, stages, resume)


def test_settings_of_a_stage_that_has_not_begun_can_change_when_a_run_resumes(folder, config):
    shutil.rmtree(folder / "checkpoints" / "adjustment")
    changed = Config.model_validate(config.model_dump() | {"adjust": {"epochs": 5}})
    run_folder.check_can_start(RunFolder(folder), changed, STAGES, resume=True)


def write_checksums(folder: Path, config: Config) -> Corpus:
    """Writes what the run knows of its data, which the runs of earlier versions lack; returns the corpus."""
    corpus = load_corpus(config)
    digests = content.digests(corpus, initial_encoder(config, corpus))
    RunFolder(folder).create(config, corpus, digests)
    return corpus


def swap_labels(rows: list[dict[str, Any]]) -> None:
    first, second = rows[0], next(row for row in rows if row["labels"] != rows[0]["labels"])
    first["labels"], second["labels"] = second["labels"], first["labels"]


def swap_texts(rows: list[dict[str, Any]]) -> None:
    rows[0]["text"], rows[1]["text"] = rows[1]["text"], rows[0]["text"]


def rename_label(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["labels"] = ["another" if label == "label3" else label for label in row["labels"]]


@pytest.mark.parametrize("options", [{"resume": True}, {"stages": ("adjustment",)}], ids=["resume", "adjustment"])
@pytest.mark.parametrize(
    ("split", "change", "named"),
    [
        ("train", swap_labels, "labels of the training documents"),
        ("train", swap_texts, "texts of the training documents"),
        ("validation", swap_labels, "labels of the validation documents"),
        ("validation", swap_texts, "texts of the validation documents"),
        ("test", swap_labels, "labels of the test documents"),
        ("test", swap_texts, "texts of the test documents"),
        ("train", rename_label, "label names"),
    ],
)
def test_a_run_does_not_continue_on_other_data(folder, config, data, split, change, named, options):
    write_checksums(folder, config)
    before = runs.files(folder)
    path = data / f"{split}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Texts of training documents also decide the order of the vocabulary, by which all texts are numbered.
    listed = rf".*{named}.*" if split == "train" else named
    with pytest.raises(UserError, match=rf"run: the data has changed since this run began: {listed} \(.*--output"):
        runs.train(folder, **options)
    assert runs.files(folder) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text.replace("later", "other"), ["vocabulary"]),
        (lambda text: text.replace("often often often", "often often"), ["texts of the training documents"]),
    ],
    ids=["another word", "fewer of a word"],
)
def test_words_beyond_those_that_the_network_reads_are_part_of_the_data(config, change, named):
    text = " ".join(f"w{number}" for number in range(16)) + " later often often often"
    digests = []
    for shown in (text, change(text)):
        rows = [Document(f"first {shown}", ("a",)), Document(f"second {shown}", ("b",))]
        settings = {"max_words": 16, "max_vocabulary": 40, "validation_fraction": 0.0, "seed": 0}
        corpus = build_corpus.build("c", rows, [], None, **settings)
        digests.append(content.digests(corpus, initial_encoder(config, corpus)))
    assert content.changed(*digests) == named


def test_a_run_does_not_continue_on_other_word_vectors(folder, config, tmp_path):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("common1 1 2 3\n")
    config = Config.model_validate(config.model_dump() | {"vectors": str(vectors)})
    write_checksums(folder, config)
    vectors.write_text("common1 1 2 4\n")
    with pytest.raises(UserError, match="the data has changed since this run began: word vectors"):
        runs.resume(folder)


def test_a_run_knows_its_data_and_vectors_at_another_place(folder, config, data, tmp_path):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("common1 1 2 3\n")
    config = Config.model_validate(config.model_dump() | {"vectors": str(vectors)})
    write_checksums(folder, config)
    places = {"data_dir": str(data.rename(tmp_path / "moved")), "vectors": str(vectors.rename(tmp_path / "moved.txt"))}
    moved = config.model_copy(update=places)
    corpus = load_corpus(moved)
    run_folder.check_can_start(RunFolder(folder), moved, STAGES, resume=True)
    digests = content.digests(corpus, initial_encoder(moved, corpus))
    RunFolder(folder).check_content(corpus.words, corpus.labels, digests, moved)


def test_computed_word_vectors_may_differ_in_rounding(config):
    corpus = load_corpus(config)
    read = initial_encoder(config, corpus)
    table = read.params["embedding"]
    computed = [
        read._replace(params={"embedding": table * scale}, computed_from=source)
        for scale, source in ((1, "first"), (1 + 1e-6, "first"), (1, "second"))
    ]
    first, rounded, other = (content.digests(corpus, encoder) for encoder in computed)
    assert first == rounded
    assert content.changed(first, other) == ["word vectors"]


def test_data_that_is_no_longer_there_is_an_error_that_names_the_option(folder, data, tmp_path):
    data.rename(tmp_path / "moved")
    before = runs.files(folder)
    with pytest.raises(UserError, match=r"data: there is no such file or folder; .*--data-dir"):
        runs.resume(folder)
    assert runs.files(folder) == before


def test_of_a_run_without_checksums_words_and_labels_are_compared(folder, config, data, capsys):
    corpus = load_corpus(config)
    RunFolder(folder).check_content(corpus.words, corpus.labels, {"": "unknown"}, config)
    assert "has no checksums of its data" in capsys.readouterr().out
    (data / "train.jsonl").write_text((data / "train.jsonl").read_text().replace('"label3"', '"another"'))
    before = runs.files(folder)
    with pytest.raises(UserError, match="the data has changed since this run began: labels"):
        runs.resume(folder)
    assert runs.files(folder) == before


def test_only_a_free_folder_or_a_run_can_be_started(folder, config, tmp_path):
    for path in (tmp_path / "missing", tmp_path / "file", tmp_path / "full"):
        with pytest.raises(UserError, match="no run to continue"):
            run_folder.check_can_start(RunFolder(path), config, STAGES, resume=True)
        with pytest.raises(UserError, match="no run to continue"):
            run_folder.check_can_start(RunFolder(path), config, STAGES[1:], resume=False)
    run_folder.check_can_start(RunFolder(tmp_path / "missing"), config, STAGES, resume=False)
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    run_folder.check_can_start(RunFolder(tmp_path / "full"), config, STAGES, resume=False)
    (tmp_path / "full" / "thesis.tex").write_text("")
    for name in ("file", "full"):
        with pytest.raises(UserError, match=f"{name}: exists and is not a run folder"):
            run_folder.check_can_start(RunFolder(tmp_path / name), config, STAGES, resume=False)
    with pytest.raises(UserError, match="holds another run; continue it with --resume"):
        run_folder.check_can_start(RunFolder(folder), config, STAGES, resume=False)


@pytest.mark.parametrize(
    ("stages", "kept"), [(STAGES[1:], STAGES[:1]), (STAGES[2:], STAGES[:2])], ids=["transfer", "adjustment"]
)
def test_stages_that_run_again_lose_their_results_and_those_of_later_stages(folder, config, stages, kept):
    run = RunFolder(folder)
    for split in ("train", "validation"):
        run.token_states(split).write_text("states")
    run_folder.drop_stages(run, config, stages[:1], resume=False)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == set(kept)
    assert [line["stage"] for line in runs.history(folder)] == list(kept)
    content = run.read_metrics()
    assert set(content["stages"]) == {"svm", "representation"}
    assert set(content["seconds"]) == {"linear", *kept}
    assert ("pvae" in content) == ("transfer" in kept)
    assert not {"test", "kept"} & set(content)


def test_a_run_that_resumes_loses_nothing(folder, config):
    before = runs.files(folder)
    run_folder.drop_stages(RunFolder(folder), config, STAGES, resume=True)
    assert runs.files(folder) == before


@pytest.mark.parametrize(
    "changed", [{"pvae": {"head_threshold": 7}}, {"report": {"propensity_a": 0.5}}, {"report": {"propensity_b": 2.0}}]
)
def test_settings_that_change_groups_or_propensities_remove_all_metrics(folder, config, changed):
    new = Config.model_validate({**config.model_dump(), **changed})
    run_folder.drop_stages(RunFolder(folder), new, STAGES, resume=True)
    content = RunFolder(folder).read_metrics()
    assert content["stages"] == {}
    assert "test" not in content
    assert content["num_labels"] == 8


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (("adjustment", "representation", "transfer"), STAGES),
        (("adjustment", "transfer"), STAGES[1:]),
        (("transfer",), ("transfer",)),
        ((), None),
        (("representation", "adjustment"), None),
    ],
)
def test_stages_must_be_neighbours(stages, expected):
    if expected:
        assert run_folder.consecutive(stages) == expected
    else:
        with pytest.raises(UserError, match="expected one stage, or consecutive ones, of representation"):
            run_folder.consecutive(stages)


def test_a_taken_name_of_a_folder_is_numbered(tmp_path):
    base = tmp_path / "run"
    assert run_folder.free_folder(str(base)) == base
    for name in ("run", "run-2"):
        (tmp_path / name).mkdir()
    assert run_folder.free_folder(str(base)) == tmp_path / "run-3"


def test_paths_in_the_settings_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = run_folder.with_absolute_paths(Config(data_dir="data", vectors="~/vectors.txt"))
    assert (config.data_dir, config.vectors) == (str(tmp_path / "data"), str(tmp_path / "home" / "vectors.txt"))
    config = run_folder.with_absolute_paths(Config(vectors="glove-50d"))
    assert (config.data_dir, config.vectors) == ("", "glove-50d")
