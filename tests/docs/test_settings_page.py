"""docs/settings.md is up to date and complete."""

import runpy
from pathlib import Path

import pytest

from lsfa_jax.config import Config, keys

SCRIPT = Path(__file__).parents[2] / "docs" / "make_settings.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def test_the_page_is_up_to_date_with_the_code(script):
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"](), "run: python docs/make_settings.py"


def test_every_setting_is_on_the_page(script):
    page = script["page"]()
    assert all(f"| `--{key.replace('_', '-')}` |" in page for key in keys(Config))
