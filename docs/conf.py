"""The documentation site: `python -m sphinx -W docs site`."""

import os
from pathlib import Path

import diffence_jax

project = "diffence_jax"
author = "The diffence_jax developers"
version = release = diffence_jax.__version__
copyright = author

extensions = [
  "myst_nb",
  "sphinx.ext.autodoc",
  "sphinx.ext.napoleon",
  "sphinx.ext.mathjax",
  "sphinx.ext.viewcode",
]
html_theme = "sphinx_book_theme"
html_title = "diffence_jax"
html_theme_options = {
  "show_toc_level": 1,
  "navbar_persistent": [],
  "use_fullscreen_button": False,
}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False

# Pages are Markdown that reads well without this site; a link to a page or a heading that is
# not there is a warning, and so fails the build.
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "python"

# Tutorials run when the site is built, each in its own process; what fails, fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# Threads of NumPy wait in loops, which costs a tutorial more than they gain it.
os.environ["OMP_NUM_THREADS"] = "1"

# Docstrings name arguments in single backticks, as code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

_DOCS = Path(__file__).parent


def _list_guides(app, name, source):
  """Puts every page that the index does not name into its list of guides."""
  if name == "index":
    pages = sorted(file.stem for file in _DOCS.glob("*.md"))
    guides = [page for page in pages if f"\n{page}\n" not in source[0] and page != "index"]
    source[0] = source[0].replace("GUIDES", "\n".join(guides))


def _skip_fields(app, what, name, member, skip, options):
  """Leaves out fields of named tuples, which the docstring of their class tells."""
  return skip or str(member.__doc__).startswith("Alias for field number")


def setup(app):
  """Connects what the pages need beside the extensions."""
  app.connect("source-read", _list_guides)
  app.connect("autodoc-skip-member", _skip_fields)
