"""A page as blocks, written as Markdown and as HTML without scripts and without anything from outside its folder."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lsfa_jax.pages.template import template
from lsfa_jax.util import atomic

_TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Heading:
    """A heading below the page's title."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Link:
    """A line with a link to another page, without the ending of its file's name."""

    text: str
    page: str


@dataclass(frozen=True)
class Grid:
    """A table; the first column is text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A picture, shown from the SVG of two files, NAME.svg and NAME.png."""

    name: str
    caption: str


Block = Heading | Text | Link | Grid | Picture


def write(folder: Path, title: str, blocks: Sequence[Block]) -> None:
    """Writes index.md and index.html.

    Raises:
        UserError: the folder cannot be written.
    """
    atomic.write_text(folder / "index.md", _markdown(title, blocks))
    kinds = [(type(block).__name__, block) for block in blocks]
    atomic.write_text(folder / "index.html", template(_TEMPLATE).render(title=title, blocks=kinds))


def write_csv(path: Path, grid: Grid) -> None:
    """Writes a table as CSV.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([grid.header, *grid.rows])
    atomic.write_text(path, text.getvalue())


def _markdown(title: str, blocks: Sequence[Block]) -> str:
    return "\n\n".join([f"# {title}", *map(_as_markdown, blocks)]) + "\n"


def _as_markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {text}"
        case Link(text, page):
            return f"[{text}]({page}.md)"
        case Picture(name, caption):
            return f"![{caption}]({name}.svg)\n\n{caption}"
        case Grid(header, rows):
            lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
            return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
    return block.text
