"""Stages and prediction on meshes of 8 devices with a label axis: equal to one device, and what travels is bounded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.collectives import Collective
from tests.training import label_axis
from tests.training.label_axis import BATCH, CONFIG, LABEL_BLOCK, NUM_LABELS, RANKED, SLOTS, TOKENS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STATE, FEATURE = 2 * CONFIG.encoder.hidden_size, CONFIG.encoder.feature_size


def name_of(mesh: tuple[int, int]) -> str:
    return f"{mesh[0]}x{mesh[1]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What label_axis.py writes. In a process of its devices, with programs that compile fast."""
    folder = tmp_path_factory.mktemp("label_axis")
    options = {"JAX_NUM_CPU_DEVICES": "8", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.training.label_axis", str(folder)]
    run = subprocess.run(command, env=os.environ | options, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder


def collectives(folder: Path, mesh: tuple[int, int]) -> dict[str, list[Collective]]:
    programs = json.loads((folder / f"{name_of(mesh)}.json").read_text())
    return {name: [Collective(*fields) for fields in of_program] for name, of_program in programs.items()}


@pytest.mark.parametrize("mesh", label_axis.MESHES[1:], ids=name_of)
def test_stages_and_prediction_equal_those_of_one_device(folder, mesh):
    expected, actual = (np.load(folder / f"{name_of(each)}.npz") for each in (label_axis.MESHES[0], mesh))
    if mesh in label_axis.SOME_LABELS_ON:
        assert sorted(actual) == sorted(expected)
    for name in actual:
        assert actual[name].shape == expected[name].shape
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("mesh", label_axis.MESHES, ids=name_of)
def test_no_array_with_a_row_per_label_is_gathered(folder, mesh):
    share = -(-NUM_LABELS // mesh[1])
    programs = collectives(folder, mesh)
    assert {"representation", "prediction", "transfer", "adjustment"} <= set(programs)
    for name, of_program in programs.items():
        for kind, shapes, *_ in of_program:
            # From candidates, each device counts how often each label is predicted: two numbers a label.
            sizes = {size for shape in shapes if shape != [2, NUM_LABELS] for size in shape}
            if kind == "all-reduce":  # of the gradients of a device's rows, over the axis `data`
                assert mesh[1] == 1 or not sizes & {NUM_LABELS, share * mesh[1]}, (name, shapes)
            else:
                assert share not in sizes, (name, kind, shapes)
                assert max(sizes) < NUM_LABELS, (name, kind, shapes)


@pytest.mark.parametrize("mesh", label_axis.COUNTED, ids=name_of)
def test_what_travels_follows_from_documents_and_a_devices_share_of_the_labels(folder, mesh):
    programs = collectives(folder, mesh)
    most = most_numbers(*mesh)
    for name in programs.keys() & most.keys():
        assert {collective.kind for collective in programs[name]} <= {"all-reduce", "all-gather"}
        total = sum(collective.size * collective.times for collective in programs[name])
        assert 0 < total <= 4 * most[name], (name, total, 4 * most[name])


def most_numbers(data: int, label: int) -> dict[str, int]:
    """Returns bounds of the numbers that a device receives in a run of each program.

    Over the axis `label`, the sums over labels of what belongs to a device's documents, and rows that they ask for;
    over `data`, the gradients of the device's rows and of the parameters that all labels share, and the batch's labels.
    """
    documents, rows = BATCH // data, -(-NUM_LABELS // label)
    blocks = -(-rows // LABEL_BLOCK)
    pairs = 128 * -(-BATCH * SLOTS // 128)
    contrast = pairs * (FEATURE + 10)  # gradients of features; positive, maximum and sum of each pair, twice
    proposed = max(label_axis.PROPOSED, SLOTS)
    sampled, listed = label_axis.SAMPLED, label_axis.LISTED
    pool = min(8 * listed, NUM_LABELS)
    generated = -(-len(label_axis.TAIL) * CONFIG.adjust.num_augmented // 2 // data) + 1

    def best(k: int) -> int:
        return documents * k * (label + 2)  # of each shard, then the labels of the best

    over_label = {
        "representation": blocks * (documents * TOKENS * (STATE + FEATURE) + FEATURE + 1)
        + documents * SLOTS * STATE
        + contrast,
        "candidates": (documents * proposed + sampled) * (STATE + 2 * FEATURE + 1),
        "shortlist": pool * FEATURE + listed * (3 * (STATE + FEATURE) + FEATURE + 1),
        "prediction": label_axis.GROUPS * best(RANKED),
        "prediction from candidates": best(label_axis.ESTIMATED)
        + documents * (proposed + label_axis.ESTIMATED) * (STATE + FEATURE + 1),
        "adjustment": generated * 2 * FEATURE + blocks + 3,
    }
    histogram, of_batch = 2 * 100, BATCH * SLOTS * (FEATURE + 5)
    gradients = blocks * (LABEL_BLOCK * (STATE + FEATURE) + FEATURE + 1) + rows * STATE + shared_parameters()
    over_data = {
        "representation": gradients + of_batch,
        "candidates": gradients + rows * FEATURE + sampled * (STATE + FEATURE),
        "shortlist": 2 * listed * (STATE + FEATURE) + pool + shared_parameters() + of_batch + contrast,
        "prediction": histogram + 2 * rows + 3 * BATCH * SLOTS,
        "prediction from candidates": histogram + 2 * rows + 3 * BATCH * SLOTS,
        "adjustment": blocks * (LABEL_BLOCK * FEATURE + 2) + rows * FEATURE + 5,
    }
    return {
        name: (label > 1) * over_label[name] + (data > 1) * over_data[name] + (histogram + 10) for name in over_label
    }


def shared_parameters() -> int:
    """Returns the number of parameters that no label has alone."""
    params = jax.tree.leaves(label_axis.initial_params(NUM_LABELS))
    return sum(x.size for x in params if len(x) != NUM_LABELS)
