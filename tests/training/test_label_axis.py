"""Stages and prediction on meshes of 8 devices with a label axis: equal to one device, and what travels is bounded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import cost_model
from tests.collectives import Collective
from tests.training import label_axis
from tests.training.label_axis import BATCH, CONFIG, LABEL_BLOCK, NUM_LABELS, RANKED, SLOTS, TOKENS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


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
def test_what_travels_is_what_the_cost_model_says(folder, mesh):
    programs = collectives(folder, mesh)
    for name, shortlist in PROGRAMS.items():
        if name not in programs:
            continue
        assert {collective.kind for collective in programs[name]} <= {"all-reduce", "all-gather"}
        total = sum(collective.size * collective.times for collective in programs[name])
        parts = cost_model.travels(name, sizes(shortlist), *mesh)
        # Sums of a few numbers, such as the losses, are not listed.
        most = 4 * (sum(sum(of_axis.values()) for of_axis in parts.values()) + 210)
        assert 0 < total <= most, (name, total, most)
        if name in FREQUENT:
            assert total >= 0.5 * most, (name, total, most)


# Programs, and whether they have a shortlist; of the first, which run most often, the model is no rough bound.
PROGRAMS = dict.fromkeys(("representation", "candidates", "prediction", "prediction from candidates", "adjustment"), 0)
PROGRAMS["shortlist"] = label_axis.LISTED
FREQUENT = ("representation", "candidates", "shortlist")


def sizes(shortlist: int) -> cost_model.Sizes:
    params = jax.tree.leaves(label_axis.initial_params(NUM_LABELS))
    return cost_model.Sizes(
        documents=BATCH,
        tokens=TOKENS,
        slots=SLOTS,
        state=2 * CONFIG.encoder.hidden_size,
        feature=CONFIG.encoder.feature_size,
        labels=NUM_LABELS,
        label_block=LABEL_BLOCK,
        shared=sum(x.size for x in params if len(x) != NUM_LABELS),
        candidates=label_axis.PROPOSED,
        sample=label_axis.SAMPLED,
        shortlist=shortlist,
        generated=-(-len(label_axis.TAIL) * CONFIG.adjust.num_augmented // 2) + 1,
        estimated=label_axis.ESTIMATED,
        ranked=RANKED,
        groups=label_axis.GROUPS,
    )
