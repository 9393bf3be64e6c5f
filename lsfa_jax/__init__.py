"""LSFA: long-tailed multi-label text classification with label-specific feature augmentation (Xu et al., AAAI 2023)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsfa_jax.sklearn.classifier import LSFA
    from lsfa_jax.sklearn.feature_augmenter import FeatureAugmenter

__all__ = ["LSFA", "FeatureAugmenter"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: with scikit-learn and JAX they take seconds, which `bin/train --help` should not.
    if name == "LSFA":
        from lsfa_jax.sklearn.classifier import LSFA

        return LSFA
    if name == "FeatureAugmenter":
        from lsfa_jax.sklearn.feature_augmenter import FeatureAugmenter

        return FeatureAugmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
