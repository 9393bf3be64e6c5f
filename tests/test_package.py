import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import lsfa_jax
from lsfa_jax.training import model_folder
from tests import training_corpus

ROOT = Path(__file__).parents[1]


def test_public_names():
    assert sorted(lsfa_jax.__all__) == ["FeatureAugmenter", "LSFA", "load"]
    assert all(hasattr(lsfa_jax, name) and name in dir(lsfa_jax) for name in lsfa_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Lsfa'"):
        lsfa_jax.Lsfa  # noqa: B018


def test_the_package_itself_imports_neither_jax_nor_scikit_learn():
    program = "import sys, lsfa_jax; print({'jax', 'sklearn', 'numpy'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


def test_load_reads_the_model_of_a_folder(tmp_path, tiny):
    settings = training_corpus.config()
    model = training_corpus.make_model(settings, tiny.vocabulary_size)
    trained = model_folder.TrainedModel(
        config=settings,
        words=tiny.words,
        labels=tiny.labels,
        label_counts=tiny.label_counts,
        num_documents=len(tiny.train),
        threshold=0.25,
        params=training_corpus.init_params(model),
    )
    model_folder.write(tmp_path / "model", trained)
    classifier = lsfa_jax.load(tmp_path / "model")
    assert isinstance(classifier, lsfa_jax.LSFA)
    assert (list(classifier.classes_), classifier.threshold_) == (sorted(tiny.labels), 0.25)
    probabilities = classifier.predict_proba(["about0w1 common3", "common1"])
    assert np.shape(probabilities) == (2, len(tiny.labels))
    with pytest.raises(ValueError, match="no model"):
        lsfa_jax.load(str(tmp_path))


def python(*line, **options):
    return subprocess.run([sys.executable, *map(str, line)], capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, unpacked outside the clone; built without network."""
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    built = python("-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    zipfile.ZipFile(path).extractall(folder / "unpacked")
    return folder / "unpacked"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_the_wheel_has_all_files_of_the_package_the_settings_of_the_corpora_and_the_licence(wheel):
    assert files(wheel / "lsfa_jax") == files(ROOT / "lsfa_jax") | {
        f"configs/{name}" for name in files(ROOT / "configs")
    }
    assert "py.typed" in files(wheel / "lsfa_jax")
    (info,) = wheel.glob("*.dist-info")
    assert {"licenses/LICENSE", "licenses/THIRD_PARTY_NOTICES.md", "entry_points.txt"} <= files(info)
    metadata = (info / "METADATA").read_text()
    assert f"Version: {lsfa_jax.__version__}\n" in metadata
    assert "License-Expression: Apache-2.0\n" in metadata


def test_the_commands_run_from_the_wheel_outside_the_clone(wheel, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(wheel)}
    verbs = python("-m", "lsfa_jax", "--help", cwd=tmp_path, env=environment)
    assert (verbs.returncode, verbs.stderr) == (0, "")
    assert verbs.stdout.startswith("usage: lsfa VERB ...\n")
    # The defaults are those of the corpus's file.
    ended = python("-m", "lsfa_jax", "train", "--dataset", "rcv1", "--help", cwd=tmp_path, env=environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "(default: rcv1)" in " ".join(ended.stdout.replace("│", " ").split())


def test_the_citation_names_this_version():
    lines = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {lsfa_jax.__version__}" in lines
