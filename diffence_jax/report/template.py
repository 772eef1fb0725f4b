"""The HTML pages' templates, which lie beside this file."""

from pathlib import Path
from typing import Any


def render(name: str, **values: Any) -> str:
  """Fills in a template; what it names and is not given is an error, markup is escaped.

  Args:
    name: the file's.
    **values: what it shows.

  Returns:
    The page.
  """
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template(name).render(**values)
