from typing import Annotated, Literal

import tyro
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field, PositiveInt

from lsfa_jax.cli import common
from lsfa_jax.config import Section
from lsfa_jax.util.console import UserError


class Inner(Section):
    share: float = Field(0.5, ge=0, lt=1)
    on: bool = True


class Arguments(Section):
    """One field of each kind that commands have."""

    file: Annotated[str, tyro.conf.Positional] = Field("-", description="Texts.")
    run: str = Field(description="Folder.")
    top: Literal["auto"] | PositiveInt = "auto"
    number: int | None = Field(None, gt=0)
    k: tuple[PositiveInt, ...] = (1,)
    flag: bool = False
    inner: Inner = Inner()
    reading: common.Reading = common.ReadingOptions()


OPTIONS = [
    "--run",
    "--top",
    "--number",
    "--k",
    "--flag",
    "--no-flag",
    "--inner.share",
    "--inner.no-on",
    "--text_field",
    "--bad-rows",
    "--rnu",
    "-x",
    "--",
]
VALUES = ["r", "0", "1", "2.5", "-1", "x", "auto", "None", "nan", "1e3", "skip", "True", "-", "=", "a=b"]
WORDS = st.sampled_from([*OPTIONS, *VALUES, ""])
WORDS |= st.tuples(st.sampled_from(OPTIONS), st.sampled_from([*VALUES, ""])).map("=".join)


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=6))
@example(["--run", "r", "--k=1", "x"])
@example(["--run", "--", "r"])
@example(["--run", "r", "--", "--top", "x"])
def test_a_line_is_read_or_its_first_wrong_word_is_named(line):
    try:
        common.parse(Arguments, line, "count")
    except UserError as error:
        message = str(error)
        assert message.endswith("; see count --help")
        assert "cannot be read as options" not in message  # the parser refuses what the diagnosis finds right
        assert "\n" not in message
