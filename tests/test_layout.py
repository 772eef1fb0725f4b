"""The layout: imports point one way, and no file or function outgrows its reader."""

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "diffence_jax"
FILES = sorted(ROOT.rglob("*.py"))

# A package imports only what stands above it; so do the modules of the first floor.
FLOORS = (
  "data",
  "models",
  "diffusion",
  "metrics",
  "defense",
  "training",
  "attacks",
  "audit",
  "interop",
  "report",
  "recorded",
  "tables",
  "experiment",
  "cli",
)
FIRST_FLOOR = (
  "batching",
  "checkpoint",
  "checks",
  "compiling",
  "disk",
  "named",
  "parallel",
  "predictor",
  "progress",
  "rng",
  "stopping",
)


def module_of(file):
  parts = ["diffence_jax", *file.relative_to(ROOT).with_suffix("").parts]
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def floor_of(module):
  part = module.removeprefix("diffence_jax").removeprefix(".").partition(".")[0]
  return FLOORS.index(part) + 1 if part in FLOORS else 0


def imports_of(file, nodes=None):
  """The package's modules that a file imports; by default when it is imported itself."""
  found = set()
  for node in (nodes or in_order)(ast.parse(file.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      names = {f"{node.module}.{alias.name}" for alias in node.names}
      found |= {name if name in MODULES else node.module for name in names}
  return {name for name in found if name in MODULES}


def in_order(tree):
  """Statements outside of functions and of what is only for type checkers."""
  for node in tree.body:
    yield node
    if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
      yield from in_order(node)


def test_the_first_floor_has_ten_modules():
  top = {file.stem for file in ROOT.glob("*.py")} - {"__init__"}
  assert top == set(FIRST_FLOOR)
  assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_to_what_stands_above(module):
  """Those within functions too, which wait until they are called."""
  if module == "diffence_jax":
    return  # the public names, each imported when it is asked for
  for imported in imports_of(MODULES[module], ast.walk):
    if imported != "diffence_jax":
      assert floor_of(imported) <= floor_of(module), imported


def test_no_imports_go_round():
  graph = {module: imports_of(file) for module, file in MODULES.items()}
  # Importing a module imports its packages first, which only gather names.
  done, going = set(), []

  def visit(module):
    assert module not in going, " -> ".join([*going, module])
    if module in done:
      return
    going.append(module)
    for imported in sorted(graph[module]):
      visit(imported)
    going.pop()
    done.add(module)

  for module in graph:
    visit(module)
  assert len(done) == len(MODULES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_and_no_function_is_too_long(file):
  text = file.read_text()
  assert text.count("\n") <= 350
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      first = node.body[0]
      is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
      docstring = first.end_lineno - first.lineno + 1 if is_docstring else 0
      length = node.end_lineno - node.lineno + 1 - docstring
      assert length <= 60, f"{node.name} has {length} lines"


def test_all_that_is_in_the_package_is_installed():
  config = configparser.ConfigParser()
  config.read(ROOT.parent / "setup.cfg")
  name_of = lambda folder: ".".join((ROOT.name, *folder.relative_to(ROOT).parts))
  folders = {name_of(ROOT): ROOT} | {name_of(file.parent): file.parent for file in FILES}
  folders["diffence_jax.configs"] = ROOT.parent / "configs"
  assert set(config["options"]["packages"].split()) == set(folders)
  others = {
    (name_of(file.parent), file.name)
    for file in ROOT.rglob("*")
    if file.is_file() and file.suffix not in (".py", ".pyc")
  }
  data = {name: what.split() for name, what in config["options.package_data"].items()}
  named = {
    (name, file.name)
    for name in data
    for what in data[name]
    for file in folders[name].glob(what)
  }
  assert others == named
  assert all(any(folders[name].glob(what)) for name in data for what in data[name])
