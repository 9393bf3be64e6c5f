"""Stages and prediction on meshes of 8 devices with a label axis: equal to one device, and no table is gathered."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training import label_axis

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What label_axis.py writes. In a process of its devices, with programs that compile fast."""
    folder = tmp_path_factory.mktemp("label_axis")
    options = {"JAX_NUM_CPU_DEVICES": "8", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.training.label_axis", str(folder)]
    run = subprocess.run(command, env=os.environ | options, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.parametrize("mesh", label_axis.MESHES[1:], ids=lambda mesh: f"{mesh[0]}x{mesh[1]}")
def test_stages_and_prediction_equal_those_of_one_device(folder, mesh):
    expected, actual = (np.load(folder / f"{n}x{m}.npz") for n, m in (label_axis.MESHES[0], mesh))
    assert sorted(actual) == sorted(expected)
    for name in expected:
        assert actual[name].shape == expected[name].shape
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("mesh", label_axis.MESHES, ids=lambda mesh: f"{mesh[0]}x{mesh[1]}")
def test_no_program_gathers_an_array_with_a_row_per_label(folder, mesh):
    num_rows = -(-label_axis.NUM_LABELS // mesh[1]) * mesh[1]
    gathered = json.loads((folder / f"{mesh[0]}x{mesh[1]}.json").read_text())
    assert set(gathered) == {"representation", "prediction", "transfer", "adjustment"}
    for shapes in gathered.values():
        for shape in shapes:
            sizes = set(map(int, filter(None, shape.partition("[")[2].rstrip("]").split(","))))
            assert not sizes & {num_rows, num_rows // mesh[1]}, shape
