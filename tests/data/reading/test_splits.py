import pytest

from lsfa_jax.data.reading.splits import find_splits, source_files
from lsfa_jax.util.console import UserError


@pytest.mark.parametrize("validation", ["validation.jsonl", "valid.jsonl.gz", "dev.jsonl.xz", None])
def test_finds_splits(tmp_path, validation):
    names = {"train": "train.jsonl.xz", "test": "test.jsonl"} | ({"validation": validation} if validation else {})
    for name in [*names.values(), "readme.txt", "training.jsonl", "train.log"]:
        (tmp_path / name).touch()
    assert find_splits(tmp_path) == {split: tmp_path / name for split, name in names.items()}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["test.jsonl", "train.log"],
            "no file for the train split; expected train.jsonl, .*; the folder holds test.jsonl, train.log",
        ),
        ([], "the folder holds nothing"),
        (
            ["train.jsonl", "train.jsonl.gz", "test.jsonl"],
            "train.jsonl and train.jsonl.gz both could be the train split",
        ),
        (
            ["train.jsonl", "test.jsonl", "dev.jsonl", "valid.jsonl"],
            "valid.jsonl and dev.jsonl both could be the valid",
        ),
    ],
)
def test_split_errors_name_what_is_there(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        find_splits(tmp_path)


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="there is neither a file nor a folder"):
        find_splits(tmp_path / "nowhere")


def test_all_files_that_are_read_of_a_path_are_listed(tmp_path):
    names = (
        *("pair/train_texts.txt.gz", "pair/train_labels.txt", "laws/train/1.json", "laws/train/2.json.gz"),
        *("annif/1.txt", "annif/1.tsv", "documents/1.json", "documents/2.json", "corpus/train.csv", "corpus/notes.md"),
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def listed(path):
        return sorted(str(file.relative_to(tmp_path)) for file in source_files(tmp_path / path))

    assert listed("pair") == listed("pair/train_texts.txt.gz") == ["pair/train_labels.txt", "pair/train_texts.txt.gz"]
    assert listed("laws") == ["laws/train/1.json", "laws/train/2.json.gz"]
    assert listed("annif") == ["annif/1.tsv", "annif/1.txt"]
    assert listed("documents") == ["documents/1.json", "documents/2.json"]
    assert listed("corpus") == ["corpus/train.csv"]
    assert listed("nowhere") == []
