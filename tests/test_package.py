import subprocess
import sys

import numpy as np
import pytest

import lsfa_jax
from lsfa_jax.training import model_folder
from tests import training_corpus


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
