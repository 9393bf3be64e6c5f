"""LSFA: long-tailed multi-label text classification with label-specific feature augmentation (Xu et al., AAAI 2023).

`LSFA` trains and predicts in scikit-learn's manner, `load` reads a trained model, and `FeatureAugmenter` generates
features for rare labels from the features of any encoder.
"""

import sys

from lsfa_jax.util.safe_path import leave_current_folder

# `python -m lsfa_jax.cli.VERB` puts the current folder first. While Python locates the module, this is argv[0].
if sys.argv[:1] == ["-m"]:
    leave_current_folder()

from pathlib import Path
from typing import TYPE_CHECKING

from lsfa_jax.util import xla_flags

if TYPE_CHECKING:
    from lsfa_jax.sklearn.classifier import LSFA
    from lsfa_jax.sklearn.feature_augmenter import FeatureAugmenter

# Every command and every class of the package imports this file before JAX uses a device.
xla_flags.avoid_wrong_sums()

__all__ = ["LSFA", "FeatureAugmenter", "load"]
__version__ = "0.1.0"


def load(path: str | Path) -> "LSFA":
    """Reads a model from the run folder of `bin/train`, or from a folder that `LSFA.save` wrote.

    Raises:
        ValueError: the folder holds no model, or one that is damaged.
    """
    from lsfa_jax.sklearn.classifier import LSFA

    return LSFA.load(path)


def __getattr__(name: str) -> object:
    # The classes are imported on first use: with scikit-learn and JAX that takes seconds, which commands do not need.
    if name == "LSFA":
        from lsfa_jax.sklearn.classifier import LSFA

        return LSFA
    if name == "FeatureAugmenter":
        from lsfa_jax.sklearn.feature_augmenter import FeatureAugmenter

        return FeatureAugmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
