import importlib.metadata

import pytest

import lsfa_jax
from lsfa_jax.training import checks


def test_versions_are_known_where_the_package_is_imported_from_a_folder_and_not_installed(monkeypatch):
    def find(name):
        if name == "lsfa_jax":
            raise importlib.metadata.PackageNotFoundError(name)
        return distribution(name)

    distribution = importlib.metadata.distribution
    monkeypatch.setattr(importlib.metadata, "distribution", find)
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("lsfa_jax")
    versions = checks.versions()
    assert versions["version of lsfa_jax"] == lsfa_jax.__version__
    assert versions["version of jax"] == importlib.metadata.version("jax")
