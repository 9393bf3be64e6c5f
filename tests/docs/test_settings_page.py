import runpy
from pathlib import Path

from lsfa_jax.config import Config, keys

MAKER = Path(__file__).parents[2] / "docs" / "make_settings.py"


def test_the_page_is_what_the_code_makes_now():
    made = runpy.run_path(str(MAKER))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), "run: python docs/make_settings.py"


def test_every_setting_is_on_the_page():
    page = runpy.run_path(str(MAKER))["page"]()
    assert all(f"| `--{key.replace('_', '-')}` |" in page for key in keys(Config))
