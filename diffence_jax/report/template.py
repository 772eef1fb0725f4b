"""HTML pages from templates, which lie beside the modules that fill them in."""

from pathlib import Path
from typing import Any


def render(file: Path, **values: Any) -> str:
  """Fills in a template; what it names and is not given is an error, markup is escaped.

  Args:
    file: the template's; it can include those of this folder, such as the style.
    **values: what it shows.

  Returns:
    The page.
  """
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader([file.parent, Path(__file__).parent]),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template(file.name).render(**values)
