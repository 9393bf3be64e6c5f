import runpy
from pathlib import Path

from lsfa_jax.config import Config, keys

GENERATOR = Path(__file__).parents[2] / "docs" / "make_settings.py"


def test_the_page_is_up_to_date():
    generator = runpy.run_path(str(GENERATOR))
    page = generator["PAGE"].read_text(encoding="utf-8")
    assert page == generator["page"](), "run: python docs/make_settings.py"


def test_every_setting_is_on_the_page():
    page = runpy.run_path(str(GENERATOR))["page"]()
    assert all(f"| `--{key.replace('_', '-')}` |" in page for key in keys(Config))
