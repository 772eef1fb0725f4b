"""The programs in experiments/ ask the package for nothing that it does not have."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted((ROOT / "experiments").glob("*.py"))


def imported_names(tree):
  """(module, name) of all that a program takes from the package, attributes of modules too."""
  aliases = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffence_jax"):
      for name in node.names:
        yield node.module, name.name
        aliases[name.asname or name.name] = f"{node.module}.{name.name}"
    elif isinstance(node, ast.Import):
      aliases |= {own.asname or own.name: own.name for own in node.names}
  ours = {alias: name for alias, name in aliases.items() if name.startswith("diffence_jax")}
  for node in ast.walk(tree):
    of_a_name = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    if of_a_name and node.value.id in ours:
      yield ours[node.value.id], node.attr


def has(module, name):
  """Whether `module`, which may be a class or a function, has it as a name or a submodule."""
  try:
    found = importlib.import_module(module)
  except ModuleNotFoundError:
    parent, _, own = module.rpartition(".")
    found = getattr(importlib.import_module(parent), own)
  try:
    return hasattr(found, name) or importlib.import_module(f"{module}.{name}") is not None
  except ModuleNotFoundError:
    return False


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_what_a_program_takes_from_the_package_is_there(program):
  names = set(imported_names(ast.parse(program.read_text())))
  assert {f"{module}.{name}" for module, name in names if not has(module, name)} == set()


def test_a_name_that_went_is_noticed():
  tree = ast.parse("from diffence_jax import metrics\nmetrics.no_such_metric")
  assert ("diffence_jax.metrics", "no_such_metric") in set(imported_names(tree))
  assert has("diffence_jax.metrics", "roc") and not has(
    "diffence_jax.metrics", "no_such_metric"
  )
