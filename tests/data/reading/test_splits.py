import pytest

from lsfa_jax.data.reading.splits import find_splits
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
