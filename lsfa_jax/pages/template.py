"""Templates of pages, which escape what is filled in."""

from functools import cache
from pathlib import Path

import jinja2


@cache
def template(path: Path) -> jinja2.Template:
    """Returns the template in a file, which may extend and include the files beside it and those of this package."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(path.name)
